import type { Schema } from "../api/client";
import type { Kind, News } from "../api/live";
import { type Loaded, useList } from "../api/loading";
import { moment } from "../parts/format";
import { Badge, Heading, Panel, Shown } from "../parts/show";
import { Table } from "../parts/Table";
import { Link, parameter } from "../router";
import { Choice } from "./Sites";

const KINDS = ["site", "job", "deployment", "retired"];

/** What happened since the control centre started, the latest first; `limit`: at once. */
export function usePast(limit?: number): Loaded<News[]> & { more?: () => void } {
  const past = useList<Schema["PastEvent"]>("/history", { limit }, ["site", "job", "deployment", "retired"]);
  const data = past.data?.map((one) => ({ id: one.id, kind: one.kind as Kind, at: 1000 * one.at_s, data: (one.data ?? {}) as News["data"] }));
  return { ...past, data };
}

export function Events() {
  const kind = parameter("kind");
  const past = usePast();
  return (
    <>
      <Heading aside={<Choice name="kind" value={kind} options={KINDS} />}>Events</Heading>
      <Panel title="What happened since the control centre started, the latest first">
        <Shown of={past}>
          {(rows) => <NewsTable rows={rows.filter((one) => !kind || one.kind === kind)} more={past.more} />}
        </Shown>
      </Panel>
    </>
  );
}

export function NewsTable({ rows, more }: { rows: News[]; more?: () => void }) {
  return (
    <Table
      caption="Events"
      rows={rows}
      more={more}
      empty="Nothing has happened yet."
      columns={[
        { name: "when", show: (one) => moment(one.at / 1000) },
        { name: "kind", show: (one) => one.kind },
        { name: "what", show: (one) => <About news={one} />, value: ({ data }) => told(data, "site") || told(data, "job") || told(data, "name") },
        { name: "state", show: ({ data }) => (told(data, "state") ? <Badge state={told(data, "state")} /> : "–"), value: ({ data }) => told(data, "state") },
        { name: "more", show: ({ data }) => told(data, "detail") || told(data, "sentence") || told(data, "why") },
      ]}
    />
  );
}

function About({ news: { kind, data } }: { news: News }) {
  const [site, job] = [told(data, "site"), told(data, "job")];
  if (kind === "site") return <Link to={`/sites/${encodeURIComponent(site)}`}>{site}</Link>;
  if (kind === "job") return <Link to={`/jobs/${encodeURIComponent(job)}`}>{job}</Link>;
  return <Link to="/models">{told(data, "name") || kind}</Link>;
}

/** What an event says, in words, of something; empty if it says nothing. */
function told(data: News["data"], name: string): string {
  const value = data[name];
  return typeof value === "string" ? value : "";
}

export function Audit() {
  const heads = useList<Schema["CountersignedHead"]>("/audit", {}, []);
  return (
    <>
      <Heading>Audit</Heading>
      <Panel title="Audit logs of sites, as this control centre countersigned them">
        <p class="quiet">
          A site cannot take back what stands before its countersigned head. <code>daitn audit verify</code> checks a
          site's log against it.
        </p>
        <Shown of={heads}>
          {(rows) => (
            <Table
              caption="Countersigned heads"
              rows={rows}
              more={heads.more}
              empty="No site has reported its audit log yet."
              columns={[
                { name: "site", show: (one) => one.site },
                { name: "entries", show: (one) => one.number, number: true },
                { name: "head", show: (one) => <code>{one.digest.slice(0, 16)}…</code>, value: (one) => one.digest },
                { name: "at", show: (one) => moment(one.at_s) },
              ]}
            />
          )}
        </Shown>
      </Panel>
    </>
  );
}
