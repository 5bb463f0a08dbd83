// One stream of server-sent events, kept open.
//
// `fetch` reads it: an `EventSource` does not tell of heartbeats. Without them, a server that hangs would have to be
// told by requests beside the stream, and those wait, too, if the browser's connections are all in use.

const SILENT_MS = 8000; // The server writes something every 5 s.
const ANSWERED_WITHIN_MS = 5000;
/** A first stream may have to wait for a connection; one that breaks leaves its own. */
const OPENED_WITHIN_MS = 60_000;
const AGAIN_AFTER_MS = 2000;

/** How often a worker that several tabs share says that it lives. */
export const PULSE_MS = 5000;

/** What kind of news it is that nobody is signed in. */
export const SIGNED_OUT = "signed-out";

export type Told = {
  /** Whether the stream is open. */
  connected: boolean;
  /** Id of the last event. */
  id: string;
  /** What happened; empty: no event. */
  kind: string;
  /** Of the event, as JSON. */
  data: string;
};

export class Stream {
  private readonly closed = new AbortController();

  /** Goes on after the event `last`; if it is empty, with whatever happens from now on. */
  constructor(
    private last: string,
    private readonly hear: (told: Told) => void,
  ) {
    void this.keep();
  }

  /** Nothing is told any more. */
  close(): void {
    this.closed.abort();
  }

  private async keep(): Promise<void> {
    while (!this.closed.signal.aborted) {
      // One that was open may go on at once: only if it cannot be opened again, something is wrong.
      if (!(await this.read())) this.tell(false);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_AFTER_MS));
    }
  }

  /** Tells what comes, until the stream breaks. Returns whether it was open. */
  private async read(): Promise<boolean> {
    const late = new AbortController();
    const limited = (ms: number) => setTimeout(() => late.abort(), ms);
    let limit = limited(this.last ? ANSWERED_WITHIN_MS : OPENED_WITHIN_MS);
    let opened = false;
    try {
      const response = await fetch("/api/v1/events", {
        headers: this.last ? { "last-event-id": this.last } : {},
        cache: "no-store",
        signal: AbortSignal.any([this.closed.signal, late.signal]),
      });
      if (response.status === 401) this.tell(false, SIGNED_OUT);
      if (!response.ok || !response.body) return false;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return opened;
        clearTimeout(limit);
        limit = limited(SILENT_MS);
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop()!;
        for (const block of blocks) {
          const { id, event, data } = fields(block);
          this.last = id ?? this.last;
          opened = true;
          this.tell(true, event, data);
        }
      }
    } catch {
      return opened;
    } finally {
      clearTimeout(limit);
      late.abort(); // What was refused is not read to its end.
    }
  }

  private tell(connected: boolean, kind = "", data = ""): void {
    if (!this.closed.signal.aborted) this.hear({ connected, id: this.last, kind, data });
  }
}

function fields(block: string): Partial<Record<string, string>> {
  const lines = block.split("\n").map((line) => {
    const colon = line.indexOf(": ");
    return [line.slice(0, colon), line.slice(colon + 2)];
  });
  return Object.fromEntries(lines) as Record<string, string>;
}
