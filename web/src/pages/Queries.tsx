import { get, type Schema, segment } from "../api/client";
import { useList, useLoaded, usePolled } from "../api/loading";
import { at, counting, inDollars, inSeconds } from "../parts/columns";
import { Cut } from "../parts/Cut";
import { Ranking, Rejections } from "../parts/decision";
import { dollars, moment, score, seconds } from "../parts/format";
import { Badge, Empty, Figure, Figures, Heading, Panel, Shown } from "../parts/show";
import { type Column, Table } from "../parts/Table";
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
                empty="No queries yet."
                columns={[
                  { name: "when", as: at, of: (one) => one.asked_at_s },
                  { name: "query", show: (one) => <Link to={pageOf(one)}>{one.id}</Link>, value: (one) => one.id },
                  { name: "status", show: (one) => <Badge state={one.status} />, value: (one) => one.status },
                  { name: "owner", show: (one) => one.owner },
                  { name: "topic", show: (one) => one.topic },
                  { name: "model", show: (one) => one.deployment || one.model_wanted || "–" },
                  { name: "way", show: (one) => one.path.join(" › ") || one.site },
                  { name: "first token", as: inSeconds, of: (one) => one.first_token_s },
                  { name: "whole", as: inSeconds, of: (one) => one.seconds },
                  { name: "tokens in", as: counting, of: (one) => one.tokens_in },
                  { name: "tokens out", as: counting, of: (one) => one.tokens_out },
                  { name: "cost", as: inDollars, of: (one) => one.cost_usd },
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
      <Tally
        title="What failed, and why"
        rows={rows.filter((one) => one.status !== "answered")}
        by={(one) => `${one.status} (${one.http_status})`}
        examples
      />
    </div>
  );
}

const MOST_KINDS = 8;

type Kind = { kind: string; number: number; latest?: Query };
type TallyProps = { title: string; rows: Query[]; by: (query: Query) => string; examples?: boolean };

/** How many queries there are of each kind; `examples`: with a way to the latest of each. */
function Tally({ title, rows, by, examples = false }: TallyProps) {
  const kinds = new Map<string, Kind>();
  for (const row of rows) {
    const known = kinds.get(by(row)) ?? { kind: by(row), number: 0, latest: row };
    kinds.set(known.kind, { ...known, number: known.number + 1 });
  }
  const sorted = [...kinds.values()].sort((one, other) => other.number - one.number);
  const rest = sorted.slice(MOST_KINDS);
  const others: Kind = { kind: `${rest.length} others`, number: rest.reduce((sum, one) => sum + one.number, 0) };
  const why = (one: Kind) => one.latest?.reason ?? "";
  const example: Column<Kind> = {
    name: "the latest",
    show: (one) => one.latest && <Link to={pageOf(one.latest)}>{why(one) || one.latest.id}</Link>,
    value: why,
  };
  return (
    <Panel title={title}>
      <Table
        caption={title}
        rows={rest.length ? [...sorted.slice(0, MOST_KINDS), others] : sorted}
        empty="Nothing."
        columns={[
          { name: "what", show: (one) => one.kind },
          ...(examples ? [example] : []),
          { name: "queries", as: counting, of: (one) => one.number },
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
        {({ query: record, decision, undecided }) => (
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
            {undecided ? (
              <Panel title="Why there: the decision"><Empty>None to show: {undecided}.</Empty></Panel>
            ) : (
              <>
                <Panel title="Who could answer it (QS-QRRT), and who could not">
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
          </>
        )}
      </Shown>
    </>
  );
}
