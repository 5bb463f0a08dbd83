// What happens in the network, as it happens: one stream of server-sent events for the whole page.
import { signal } from "@preact/signals";

export type Kind = "map" | "site" | "job" | "deployment" | "retired" | "reset";
export type News = { kind: Kind; id: string; at: number; data: Record<string, unknown> };

const KINDS: Kind[] = ["map", "site", "job", "deployment", "retired", "reset"];

/** Whether the stream is open: what is shown is as old as its last event otherwise. */
export const connected = signal<boolean | null>(null);

type Heard = (news: News) => void;
const listeners = new Map<Kind, Set<Heard>>(KINDS.map((kind) => [kind, new Set()]));
let source: EventSource | null = null;
let ready = () => {};
let attempt = anew();

function anew(): Promise<void> {
  return new Promise((resolve) => {
    ready = resolve;
  });
}

/** Calls `heard` with each event of these kinds; returns how to stop that. */
export function listen(kinds: readonly Kind[], heard: Heard): () => void {
  for (const kind of kinds) listeners.get(kind)?.add(heard);
  return () => {
    for (const kind of kinds) listeners.get(kind)?.delete(heard);
  };
}

/**
 * Waits until the stream is open, or cannot be opened for now. What is asked for afterwards is never
 * older than what the stream then tells.
 */
export function listening(): Promise<void> {
  return attempt;
}

/** Opens the stream. The browser resumes a broken one by itself, from the last event. */
export function open(): void {
  if (source && source.readyState !== EventSource.CLOSED) return;
  source = new EventSource("/api/v1/events");
  let begun = false;
  source.onopen = () => {
    // Only a stream that was open before goes on where it was.
    if (!begun && connected.value === false) tell("reset", "", {});
    begun = true;
    connected.value = true;
    ready();
  };
  source.onerror = () => {
    connected.value = false;
    ready();
    if (source?.readyState === EventSource.CLOSED) setTimeout(open, 5000);
  };
  for (const kind of KINDS) {
    source.addEventListener(kind, (event: MessageEvent<string>) => {
      tell(kind, event.lastEventId, JSON.parse(event.data) as News["data"]);
    });
  }
}

export function close(): void {
  if (!source) return;
  source.close();
  source = null;
  attempt = anew();
}

function tell(kind: Kind, id: string, data: News["data"]): void {
  const one: News = { kind, id, at: Date.now(), data };
  for (const heard of listeners.get(kind) ?? []) heard(one);
}
