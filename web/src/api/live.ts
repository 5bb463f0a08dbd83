// What happens in the network, as it happens: one stream of events for all pages that a browser shows.
import { signal } from "@preact/signals";

import { noteSignedOut, whenUnanswered } from "./client";
import address from "./shared?sharedworker&url";
import { PULSE_MS, SIGNED_OUT, Stream, type Told } from "./stream";

/** Kinds of events that the control centre remembers. */
export const PAST_KINDS = ["site", "job", "deployment", "retired"] as const;

export type Kind = "map" | (typeof PAST_KINDS)[number] | "reset";
export type LiveEvent = { kind: Kind; id: string; at: number; data: Record<string, unknown> };

/** Whether the stream is open: what is shown is as old as its last event otherwise. */
export const connected = signal<boolean | null>(null);

/** Without it, each page has its own stream, while it can be seen. */
const SHARED = "SharedWorker" in globalThis;

/** A worker that says nothing for longer has ended, or soon answers who joins it anew. */
const SILENT_MS = 3 * PULSE_MS;

/** Before what nobody answered is asked for the third time; doubled each time. */
const PAUSE_MS = 10_000;
const MOST_PAUSE_MS = 300_000;
/** If nothing stayed unanswered for so long after a pause, all is well. */
const ANSWERED_AFTER_MS = 60_000;

type Heard = (event: LiveEvent) => void;
const listeners = new Map<string, Set<Heard>>(["map", ...PAST_KINDS, "reset"].map((kind) => [kind, new Set()]));
let session: string | null = null;
let source: { close: () => void } | null = null;
let last = "";
let missed = false;
let unanswered = false;
let pauseMs = 0;
let pausedUntil = 0;
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

/** Something is loaded that events change. Without an open stream, it is loaded again as soon as there is one. */
export function follows(): void {
  missed ||= !connected.value;
}

// What nobody answered is asked again at the next sign of life, also if the stream never broke. What fails all the
// same, while the control centre is there, is asked ever less often.
whenUnanswered(() => {
  unanswered = true;
});

/** Opens the stream of a session. Pages of another session, by its name, never hear of it. */
export function open(name: string): void {
  session = name;
  attach();
}

export function close(): void {
  session = null;
  detach();
  last = "";
  missed = unanswered = false;
  pauseMs = pausedUntil = 0;
  connected.value = null;
  attempt = anew();
}

// Browsers may stop a page that nobody sees; what it is told meanwhile would pile up.
document.addEventListener("freeze", detach);
document.addEventListener("resume", attach);
addEventListener("pagehide", detach);
addEventListener("pageshow", attach);
if (!SHARED) document.addEventListener("visibilitychange", () => (document.hidden ? detach() : attach()));

function attach(): void {
  if (session === null || source || (!SHARED && document.hidden)) return;
  source = SHARED ? share(session) : new Stream(last, hear);
}

function detach(): void {
  if (!source) return;
  source.close();
  source = null;
  // Only a stream of one's own goes on where it was, if that is known.
  missed ||= SHARED || !last;
}

function share(name: string) {
  const worker = new SharedWorker(address, { name, type: "module" });
  const { port } = worker;
  let heardAt = performance.now();
  const watch = setInterval(() => {
    if (performance.now() - heardAt < SILENT_MS) return;
    detach();
    attach(); // This starts it again if it has ended.
  }, PULSE_MS);
  const close = () => {
    clearInterval(watch);
    port.onmessage = worker.onerror = null;
    port.postMessage("leave");
    port.close();
  };
  port.onmessage = ({ data }: MessageEvent<Told | null>) => {
    heardAt = performance.now();
    if (data) hear(data);
  };
  worker.onerror = () => {
    close();
    source = new Stream(last, hear); // The control centre has another build by now, without this worker.
  };
  return { close };
}

function hear({ connected: now, id, kind, data }: Told): void {
  last = id;
  connected.value = now;
  ready();
  if (!now) {
    missed = true;
    pauseMs = pausedUntil = 0;
  } else if (missed || isDue()) {
    missed = unanswered = false;
    tell("reset", id, "{}");
  }
  if (kind === SIGNED_OUT) noteSignedOut();
  else tell(kind, id, data);
}

/** Whether what nobody answered is to be asked again; the next time is then later. */
function isDue(): boolean {
  const now = performance.now();
  if (unanswered && now >= pausedUntil) {
    pausedUntil = now + pauseMs;
    pauseMs = Math.min(Math.max(PAUSE_MS, 2 * pauseMs), MOST_PAUSE_MS);
    return true;
  }
  if (now > pausedUntil + ANSWERED_AFTER_MS) pauseMs = 0;
  return false;
}

function tell(kind: string, id: string, data: string): void {
  const those = listeners.get(kind);
  if (!those?.size) return;
  const one = { kind: kind as Kind, id, at: Date.now(), data: JSON.parse(data) as LiveEvent["data"] };
  for (const heard of those) heard(one);
}
