// Loading what a page shows, and loading it again when something happened to it.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { failed, get, type Failure, type Page } from "./client";
import { connected, follows, listen, type Kind } from "./live";

const AGAIN_AFTER_MS = 300;
const POLLED_MS = 5000;
const MOST_AT_ONCE = 1000;

type Parameters = Record<string, string | number | boolean | undefined>;

export type Loaded<T> = {
  data?: T;
  failure?: Failure;
  /** Loads again, unless that is being done. */
  reload: () => void;
  /** Loads again from now on, and waits until that is shown. */
  reloaded: () => Promise<void>;
};

/**
 * Loads one after the other: however much happens, what is on its way arrives, and is shown. What it may be too old
 * for is loaded after it.
 */
class Turns {
  /** The stream broke during this load: it may never come. */
  broken = false;
  private loading: AbortController | null = null;
  private again = false;
  private awaited: (() => void)[] = [];
  private waiting: (() => void)[] = [];

  constructor(private readonly load: (signal: AbortSignal) => Promise<void>) {}

  get idle(): boolean {
    return !this.loading;
  }

  /** Loads what is there from now on; calls `shown` then. */
  next(shown?: () => void): void {
    if (shown) this.waiting.push(shown);
    if (this.loading && !this.broken) this.again = true;
    else this.start();
  }

  /** Loads at once, in place of what is on its way. */
  start(): void {
    this.stop();
    void this.run();
  }

  stop(): void {
    this.loading?.abort();
    this.loading = null;
    this.waiting.push(...this.awaited.splice(0)); // For the load that takes its place.
  }

  private async run(): Promise<void> {
    const { signal } = (this.loading = new AbortController());
    this.again = false;
    this.broken = connected.value === false;
    this.awaited = this.waiting.splice(0);
    await this.load(signal);
    if (signal.aborted) return;
    this.loading = null;
    this.awaited.splice(0).forEach((shown) => shown());
    if (this.again) this.start();
  }
}

/** Loads by `load`, again when `key` changes, and after events of `kinds`. */
export function useLoaded<T>(
  key: string,
  load: (signal: AbortSignal) => Promise<T>,
  kinds: readonly Kind[] = [],
): Loaded<T> {
  const [state, set] = useState<{ key: string; data?: T; failure?: Failure }>({ key });
  const latest = useRef<(signal: AbortSignal) => Promise<void>>();
  latest.current = async (signal) => {
    if (kinds.length) follows();
    try {
      const data = await load(signal);
      if (!signal.aborted) set({ key, data });
    } catch (error) {
      if (signal.aborted) return;
      const failure = failed(error);
      set((before) => ({ key, data: before.key === key ? before.data : undefined, failure }));
    }
  };
  const [turns] = useState(() => new Turns((signal) => latest.current!(signal)));
  const reload = useCallback(() => turns.idle && turns.next(), [turns]);
  const reloaded = useCallback(() => new Promise<void>((resolve) => turns.next(resolve)), [turns]);

  useEffect(() => {
    turns.start();
    return () => turns.stop();
  }, [key, turns]);
  useEffect(() => connected.subscribe((now) => (turns.broken ||= now === false)), [turns]);

  const all = [...kinds, "reset"].join(" ");
  useEffect(() => {
    let due: ReturnType<typeof setTimeout> | undefined;
    const soon = () => {
      due ??= setTimeout(() => {
        due = undefined;
        turns.next();
      }, AGAIN_AFTER_MS);
    };
    const stop = listen(all.split(" ") as Kind[], soon);
    return () => {
      stop();
      clearTimeout(due);
    };
  }, [all, turns]);

  return state.key === key ? { ...state, reload, reloaded } : { reload, reloaded };
}

/** What a list has beyond what is shown: the next part, or all of it. */
export type More<T> = { show: () => void; all: () => Promise<T[]> };

/** The first part of a list, and how to get the rest. */
export function useList<T>(
  path: string,
  parameters: Parameters,
  kinds: readonly Kind[] = [],
): Loaded<T[]> & { more?: More<T> } {
  const key = JSON.stringify([path, parameters]);
  const [parts, setParts] = useState({ key, count: 1 });
  const count = parts.key === key ? parts.count : 1;
  const loaded = useLoaded<Page<T>>(`${key} ${count}`, (signal) => pages<T>(path, parameters, count, signal), kinds);
  const shown = useRef<{ key: string; page?: Page<T> }>({ key });
  if (loaded.data || shown.current.key !== key) shown.current = { key, page: loaded.data };
  const page = shown.current.page; // What is shown stays while more is loaded.
  const more = page?.next
    ? {
        show: () => setParts({ key, count: count + 1 }),
        all: () => every<T>(path, parameters),
      }
    : undefined;
  return { ...loaded, data: page?.items, more };
}

async function pages<T>(path: string, parameters: Parameters, count: number, signal?: AbortSignal): Promise<Page<T>> {
  const items: T[] = [];
  let next: string | null = null;
  for (let part = 0; part < count; part++) {
    const page: Page<T> = await get(path, { ...parameters, cursor: next ?? undefined }, signal);
    items.push(...page.items);
    next = page.next;
    if (!next) break;
  }
  return { items, next };
}

/** A whole list. */
export async function every<T>(path: string, parameters: Parameters, signal?: AbortSignal): Promise<T[]> {
  return (await pages<T>(path, { ...parameters, limit: MOST_AT_ONCE }, Infinity, signal)).items;
}

/** Reloads every few seconds, for what no event tells of. */
export function usePolled(reload: () => void): void {
  useEffect(() => {
    const timer = setInterval(() => document.hidden || reload(), POLLED_MS);
    return () => clearInterval(timer);
  }, [reload]);
}
