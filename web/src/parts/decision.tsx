// A decision of a policy with its reasons, be it on a route, on a query or on a placement.
import type { Schema } from "../api/client";
import { inSeconds, scoring, sharing } from "./columns";
import { Panel } from "./show";
import { Table } from "./Table";

/** `at`: which decision it is of, where a page shows several. */
export function Rejections({ rows, empty, at = "" }: { rows: Schema["Rejection"][]; empty: string; at?: string }) {
  return (
    <Table
      caption={`Left out, and why${at}`}
      rows={rows}
      empty={empty}
      columns={[
        { name: "what", show: (row) => row.candidate },
        { name: "filter", show: (row) => row.filter },
        { name: "reason", show: (row) => row.reason },
        { name: "would need", show: (row) => (row.relax_to ? `${row.field}: ${row.relax_to}` : "–") },
      ]}
    />
  );
}

export function Ranking({ decision, at = "" }: { decision: Schema["Decision"]; at?: string }) {
  return (
    <Table
      caption={`Ranking${at}`}
      rows={decision.ranking}
      empty="Nothing passed every filter."
      columns={[
        { name: "candidate", show: (row) => (row.candidate === decision.chosen ? `▸ ${row.candidate}` : row.candidate) },
        { name: "score", as: scoring, of: (row) => row.score },
        { name: "expected", as: inSeconds, of: (row) => row.expected_s },
        {
          name: "terms",
          show: (row) => Object.entries(row.terms).map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", "),
        },
      ]}
    />
  );
}

/** What is believed of sites, and the obvious plans beside the chosen one. */
export function Reasons({ decision }: { decision: Schema["Decision"] }) {
  const compared = decision.compared ?? [];
  const beliefs = decision.beliefs ?? [];
  return (
    <>
      {compared.length > 0 && (
        <Panel title="Compared with the obvious plans">
          <Table
            caption="Obvious plans"
            rows={compared}
            empty=""
            columns={[
              { name: "plan", show: (row) => row.plan },
              { name: "expected to take", as: inSeconds, of: (row) => row.expected_s },
              { name: "chance to reach", as: sharing, of: (row) => row.chance },
            ]}
          />
        </Panel>
      )}
      {beliefs.length > 0 && (
        <Panel title="What one epoch at each site is believed to teach">
          <Table
            caption="Beliefs"
            rows={beliefs}
            empty=""
            columns={[
              { name: "data set", show: (row) => row.candidate },
              { name: "visits", show: (row) => row.visits, number: true },
              { name: "takes", as: inSeconds, of: (row) => row.expected_s },
              { name: "gain, give or take", show: (row) => <Gains belief={row} />, value: (row) => JSON.stringify(row.gain) },
            ]}
          />
        </Panel>
      )}
    </>
  );
}

const WIDEST = 0.5;

function Gains({ belief }: { belief: Schema["SiteBelief"] }) {
  return (
    <ul class="gains">
      {Object.entries(belief.gain).map(([objective, gain]) => {
        const width = belief.gain_sd[objective] ?? 0;
        const x = (value: number) => 50 + (50 * Math.max(-WIDEST, Math.min(WIDEST, value))) / WIDEST;
        const said = `${objective} ${gain < 0 ? "−" : "+"}${Math.abs(gain).toFixed(3)} ± ${width.toFixed(3)}`;
        return (
          <li key={objective}>
            <svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label={said}>
              <line class="zero" x1="50" x2="50" y1="0" y2="10" />
              <line class="spread" x1={x(gain - width)} x2={x(gain + width)} y1="5" y2="5" />
              <rect class="mean" x={x(gain) - 1} y="1" width="2" height="8" />
            </svg>
            <span>{said}</span>
          </li>
        );
      })}
    </ul>
  );
}
