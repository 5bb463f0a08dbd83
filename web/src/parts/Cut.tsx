// The part of a topology that matters to one job or query, as a picture: what fits, and what was
// left out with its reason. What it shows is told by words and strokes; colour only repeats it.
import { useRef } from "preact/hooks";

import type { Schema } from "../api/client";
import { save } from "./Table";
import { Empty } from "./show";

export type Fitting = { name: string; what: string; chosen?: boolean };

type CutProps = { of: string; caption: string; fitting: Fitting[]; rejections: Schema["Rejection"][] };
type Branch = { name: string; what: string; mark: "chosen" | "fits" | "left out" };

const MOST_SHOWN = 40;
const MOST_LETTERS = { of: 16, name: 60, what: 95 };
const ROW = 44;
const TOP = 24;
const WIDTH = 720;
const [TRUNK, FORK, LEAF] = [24, 60, 110];

export function Cut({ of, caption, fitting, rejections }: CutProps) {
  const picture = useRef<SVGSVGElement>(null);
  const all = branches(fitting, rejections);
  if (all.length === 0) return <Empty>Nothing in the network matches.</Empty>;
  const shown = all.slice(0, MOST_SHOWN);
  const height = 2 * TOP + ROW * shown.length;
  const middle = height / 2;
  const out = all.filter((one) => one.mark === "left out").length;
  return (
    <figure class="cut">
      <div class="scroll" tabIndex={0} role="region" aria-label={`${caption}, a picture`}>
        <svg ref={picture} xmlns="http://www.w3.org/2000/svg" viewBox={`0 0 ${WIDTH} ${height}`} width={WIDTH} height={height} role="img" aria-label={`${caption}: ${all.length - out} fit, ${out} are left out`} font-size="13" font-family="system-ui, sans-serif">
          <circle cx={TRUNK - 14} cy={middle} r="8" fill="var(--ink)" />
          <text x="0" y="14" fill="var(--ink)" font-weight="650">{clipped(of, MOST_LETTERS.of)}</text>
          {shown.map((one, at) => <Drawn key={`${one.mark} ${one.name}`} branch={one} y={TOP + ROW * (at + 0.5)} middle={middle} />)}
        </svg>
      </div>
      <figcaption class="under">
        <span class="quiet">
          ● chosen, ○ fits, ✕ left out (broken line). {all.length - out} fit, {out} are left out
          {all.length > shown.length && `; the first ${shown.length} are drawn, the tables tell all`}.
        </span>
        <button type="button" class="plain" onClick={() => picture.current && save(`${caption}.svg`, drawing(picture.current), "image/svg+xml")}>
          Picture<span class="unseen"> of {caption}</span>
        </button>
      </figcaption>
    </figure>
  );
}

function Drawn({ branch, y, middle }: { branch: Branch; y: number; middle: number }) {
  const { name, what, mark } = branch;
  const out = mark === "left out";
  const colour = out ? "var(--bad)" : mark === "chosen" ? "var(--accent)" : "var(--good)";
  return (
    <g>
      <title>{`${name}, ${mark}: ${what}`}</title>
      <path d={`M${TRUNK} ${middle} C${FORK} ${middle} ${FORK} ${y} ${LEAF - 14} ${y}`} fill="none" stroke={colour} stroke-width={mark === "chosen" ? 2.5 : 1.2} stroke-dasharray={out ? "4 4" : undefined} />
      {out ? (
        <path d={`M${LEAF - 10} ${y - 5}l10 10m0 -10l-10 10`} stroke={colour} stroke-width="2" />
      ) : (
        <circle cx={LEAF - 5} cy={y} r="5" stroke={colour} stroke-width="2" fill={mark === "chosen" ? colour : "var(--paper)"} />
      )}
      <text x={LEAF + 10} y={y - 3} fill="var(--ink)" font-weight={mark === "chosen" ? 650 : 400}>{clipped(name, MOST_LETTERS.name)}</text>
      <text x={LEAF + 10} y={y + 13} fill="var(--ink-quiet)" font-size="12">{clipped(what, MOST_LETTERS.what)}</text>
    </g>
  );
}

/** What fits comes first, the chosen one before all; one branch for each that was left out. */
function branches(fitting: Fitting[], rejections: Schema["Rejection"][]): Branch[] {
  const kept = fitting.map(({ name, what, chosen }): Branch => ({ name, what, mark: chosen ? "chosen" : "fits" }));
  kept.sort((one, other) => Number(other.mark === "chosen") - Number(one.mark === "chosen"));
  const reasons = new Map<string, string[]>();
  for (const { candidate, filter, reason } of rejections) {
    reasons.set(candidate, [...(reasons.get(candidate) ?? []), `${filter}: ${reason}`]);
  }
  const out = [...reasons].map(([name, why]): Branch => ({ name, what: why.join("; "), mark: "left out" }));
  return [...kept, ...out];
}

function clipped(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** The picture with its colours in it: elsewhere there is no style sheet. */
function drawing(picture: SVGSVGElement): string {
  const style = getComputedStyle(picture);
  const named = (_: string, name: string) => style.getPropertyValue(name).trim();
  const ground = `<rect width="100%" height="100%" fill="${named("", "--paper")}"/>`;
  return picture.outerHTML.replace(/var\((--[\w-]+)\)/g, named).replace(">", `>${ground}`);
}
