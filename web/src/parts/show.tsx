// What every page is made of: panels, states of loading, badges, figures.
import type { ComponentChildren } from "preact";

import type { Failure } from "../api/client";
import type { Loaded } from "../api/loading";

export function Heading({ children, aside }: { children: ComponentChildren; aside?: ComponentChildren }) {
  return (
    <header class="heading">
      <h1>{children}</h1>
      {aside && <div class="aside">{aside}</div>}
    </header>
  );
}

type PanelProps = { title: string; aside?: ComponentChildren; children: ComponentChildren };

export function Panel({ title, aside, children }: PanelProps) {
  return (
    <section class="panel" aria-label={title}>
      <header>
        <h2>{title}</h2>
        {aside && <div class="aside">{aside}</div>}
      </header>
      {children}
    </section>
  );
}

/** What was loaded, or why not. What was shown before stays while it is loaded again. */
export function Shown<T>({ of, children }: { of: Loaded<T>; children: (data: T) => ComponentChildren }) {
  return (
    <>
      {of.failure && <Problem failure={of.failure} again={of.reload} />}
      {of.data !== undefined && children(of.data)}
      {of.data === undefined && !of.failure && <p class="quiet" role="status">Loading…</p>}
    </>
  );
}

export function Problem({ failure, again }: { failure: Failure; again?: () => void }) {
  return (
    <div class="problem" role="alert">
      <p>
        {failure.field && <code>{failure.field}</code>} {failure.message}
      </p>
      {failure.fix && <p class="quiet">What helps: {failure.fix}</p>}
      {again && <button type="button" onClick={again}>Try again</button>}
    </div>
  );
}

const GOOD = new Set(["alive", "reached", "ready", "answered", "ok", "done"]);
const BAD = new Set(["lost", "gone", "failed", "infeasible", "exhausted", "refused", "unavailable", "error"]);
const QUIET = new Set(["cancelled", "retired", "retiring"]);

/** A state in a word; its colour is never all that tells it. */
export function Badge({ state }: { state: string }) {
  const tone = GOOD.has(state) ? "good" : BAD.has(state) ? "bad" : QUIET.has(state) ? "quiet" : "busy";
  return <span class={`badge ${tone}`}>{state}</span>;
}

export function Figures({ children }: { children: ComponentChildren }) {
  return <dl class="figures">{children}</dl>;
}

export function Figure({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** A share in [0, 1] as a bar, beside its number. */
export function Bar({ value, mark, label }: { value: number; mark?: number; label: string }) {
  const clipped = Math.max(0, Math.min(1, value));
  return (
    <svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label={label}>
      <rect class="bar-ground" width="100" height="8" rx="2" />
      <rect class="bar-value" width={100 * clipped} height="8" rx="2" />
      {mark !== undefined && <rect class="bar-mark" x={100 * mark - 0.5} width="1.5" height="8" />}
    </svg>
  );
}
