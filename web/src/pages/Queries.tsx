import { get, type Schema, segment } from "../api/client";
import { useList, useLoaded, usePolled } from "../api/loading";
import { Cut } from "../parts/Cut";
import { Ranking, Rejections } from "../parts/decision";
import { count, dollars, moment, score, seconds } from "../parts/format";
import { Badge, Figure, Figures, Heading, Panel, Shown } from "../parts/show";
import { Table } from "../parts/Table";
import { Link, parameter, setParameter } from "../router";

type Query = Schema["QueryRecord"];

export function Queries() {
  const gateway = parameter("gateway");
  const gateways = useList<Schema["SiteState"]>("/sites", { role: "gateway" }, ["site"]);
  const queries = useList<Query>("/queries", { gateway }, []);
  usePolled(queries.reload);
  return (
    <>
      <Heading
        aside={
          <label>
            gateway
            <select value={gateway} onChange={(event) => setParameter("gateway", event.currentTarget.value)}>
              <option value="">any</option>
              {(gateways.data ?? []).map(({ descriptor }) => <option key={descriptor.site}>{descriptor.site}</option>)}
            </select>
          </label>
        }
      >
        Queries
      </Heading>
      <Shown of={queries}>
        {(rows) => (
          <>
            <Summary rows={rows} />
            <Panel title="The latest queries">
              <Table
                caption="Queries"
                rows={rows}
                more={queries.more}
                empty="Nobody has asked anything yet."
                columns={[
                  { name: "when", show: (one) => moment(one.asked_at_s) },
                  { name: "query", show: (one) => <Link to={pageOf(one)}>{one.id}</Link>, value: (one) => one.id },
                  { name: "status", show: (one) => <Badge state={one.status} />, value: (one) => one.status },
                  { name: "owner", show: (one) => one.owner },
                  { name: "topic", show: (one) => one.topic },
                  { name: "model", show: (one) => one.deployment || one.model_wanted || "–" },
                  { name: "way", show: (one) => one.path.join(" › ") || one.site },
                  { name: "first token", show: (one) => seconds(one.first_token_s), number: true },
                  { name: "whole", show: (one) => seconds(one.seconds), number: true },
                  { name: "tokens", show: (one) => `${count(one.tokens_in)} → ${count(one.tokens_out)}`, number: true },
                  { name: "cost", show: (one) => dollars(one.cost_usd), number: true },
                  { name: "reason", show: (one) => one.reason },
                ]}
              />
            </Panel>
          </>
        )}
      </Shown>
    </>
  );
}

/** The id of a query is that of the gateway that took it, a colon, and its number there. */
function pageOf({ id }: Query): string {
  const colon = id.lastIndexOf(":");
  return `/queries/${segment(id.slice(0, colon))}/${segment(id.slice(colon + 1))}`;
}

function Summary({ rows }: { rows: Query[] }) {
  if (rows.length === 0) return null;
  const answered = rows.filter((one) => one.status === "answered");
  const times = answered.map((one) => one.seconds).sort((one, other) => one - other);
  const at = (q: number) => times[Math.min(times.length - 1, Math.floor(q * times.length))];
  const span = Math.max(...rows.map((one) => one.asked_at_s)) - Math.min(...rows.map((one) => one.asked_at_s));
  return (
    <div class="columns">
      <Panel title={`Of the ${rows.length} shown`}>
        <Figures>
          <Figure name="answered">{answered.length}</Figure>
          <Figure name="per second">{span > 0 ? (rows.length / span).toFixed(2) : "–"}</Figure>
          <Figure name="median">{seconds(at(0.5))}</Figure>
          <Figure name="99th percentile">{seconds(at(0.99))}</Figure>
          <Figure name="cost">{dollars(rows.reduce((sum, one) => sum + one.cost_usd, 0))}</Figure>
        </Figures>
      </Panel>
      <Tally title="Where they go" rows={answered} by={(one) => `${one.deployment} @ ${one.site}`} />
      <Tally title="What failed, and why" rows={rows.filter((one) => one.status !== "answered")} by={(one) => one.reason || one.status} />
    </div>
  );
}

function Tally({ title, rows, by }: { title: string; rows: Query[]; by: (query: Query) => string }) {
  const counts = new Map<string, number>();
  for (const row of rows) counts.set(by(row), (counts.get(by(row)) ?? 0) + 1);
  const sorted = [...counts].sort((one, other) => other[1] - one[1]).slice(0, 8);
  return (
    <Panel title={title}>
      <Table
        caption={title}
        rows={sorted}
        empty="Nothing."
        columns={[
          { name: "what", show: ([name]) => name },
          { name: "queries", show: ([, number]) => number, number: true },
        ]}
      />
    </Panel>
  );
}

export function QueryPage({ gateway, id }: { gateway: string; id: string }) {
  const path = `/queries/${segment(gateway)}/${segment(id)}`;
  const query = useLoaded(path, (signal) => get<Schema["QueryExplained"]>(path, {}, signal));
  return (
    <>
      <Heading>Query {gateway}:{id}</Heading>
      <Shown of={query}>
        {({ query: record, decision }) => (
          <>
            <Panel title="What happened">
              <p><Badge state={record.status} /> {record.reason}</p>
              <Figures>
                <Figure name="asked">{moment(record.asked_at_s)}</Figure>
                <Figure name="owner">{record.owner}</Figure>
                <Figure name="topic">{record.topic || "–"}</Figure>
                <Figure name="way">{record.path.join(" › ") || "–"}</Figure>
                <Figure name="attempts">{record.attempts}</Figure>
                <Figure name="first token">{seconds(record.first_token_s)}</Figure>
                <Figure name="whole">{seconds(record.seconds)}</Figure>
                <Figure name="gateway's own time">{seconds(record.overhead_s)}</Figure>
                <Figure name="cost">{dollars(record.cost_usd)}</Figure>
              </Figures>
            </Panel>
            <Panel title="Who could answer it (QS-QRRT), and who not">
              <Cut
                of="this query"
                caption={`QS-QRRT of ${gateway}-${id}`}
                fitting={decision.ranking.map((one) => ({
                  name: one.candidate,
                  what: `score ${score(one.score)}, ${seconds(one.expected_s)} expected`,
                  chosen: one.candidate === decision.chosen,
                }))}
                rejections={decision.rejections}
              />
            </Panel>
            <Panel title="Why there: the decision, replayed"><Ranking decision={decision} /></Panel>
            <Panel title="What was left out"><Rejections rows={decision.rejections} empty="Nothing was left out." /></Panel>
          </>
        )}
      </Shown>
    </>
  );
}
