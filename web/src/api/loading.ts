// Loading what a page shows, and loading it again when something happened to it.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { failed, get, type Failure, type Page } from "./client";
import { listen, type Kind } from "./live";

const AGAIN_AFTER_MS = 300;
const POLLED_MS = 5000;

export type Loaded<T> = { data?: T; failure?: Failure; reload: () => void };

/** Loads by `load`, again when `key` changes, and after events of `kinds`. */
export function useLoaded<T>(
  key: string,
  load: (signal: AbortSignal) => Promise<T>,
  kinds: readonly Kind[] = [],
): Loaded<T> {
  const [state, set] = useState<{ key: string; data?: T; failure?: Failure }>({ key });
  const [turn, again] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  const reload = useCallback(() => again((n) => n + 1), []);

  useEffect(() => {
    const control = new AbortController();
    latest
      .current(control.signal)
      .then((data) => set({ key, data }))
      .catch((error: unknown) => {
        if (control.signal.aborted) return;
        const failure = failed(error);
        set((before) => ({ key, data: before.key === key ? before.data : undefined, failure }));
      });
    return () => control.abort();
  }, [key, turn]);

  const all = [...kinds, "reset"].join(" ");
  useEffect(() => {
    let due: ReturnType<typeof setTimeout> | undefined;
    const soon = () => {
      due ??= setTimeout(() => {
        due = undefined;
        reload();
      }, AGAIN_AFTER_MS);
    };
    const stop = listen(all.split(" ") as Kind[], soon);
    return () => {
      stop();
      clearTimeout(due);
    };
  }, [all, reload]);

  return state.key === key ? { ...state, reload } : { reload };
}

/** The first part of a list, and how to get the next. */
export function useList<T>(
  path: string,
  parameters: Record<string, string | number | boolean | undefined>,
  kinds: readonly Kind[] = [],
): Loaded<T[]> & { more?: () => void } {
  const key = JSON.stringify([path, parameters]);
  const [parts, setParts] = useState({ key, count: 1 });
  const count = parts.key === key ? parts.count : 1;
  const loaded = useLoaded<Page<T>>(
    `${key} ${count}`,
    async (signal) => {
      const items: T[] = [];
      let next: string | null = null;
      for (let part = 0; part < count; part++) {
        const page: Page<T> = await get(path, { ...parameters, cursor: next ?? undefined }, signal);
        items.push(...page.items);
        next = page.next;
        if (!next) break;
      }
      return { items, next };
    },
    kinds,
  );
  const more = loaded.data?.next ? () => setParts({ key, count: count + 1 }) : undefined;
  return { ...loaded, data: loaded.data?.items, more };
}

/** Reloads every few seconds, for what no event tells of. */
export function usePolled(reload: () => void): void {
  useEffect(() => {
    const timer = setInterval(() => document.hidden || reload(), POLLED_MS);
    return () => clearInterval(timer);
  }, [reload]);
}
