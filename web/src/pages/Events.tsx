import type { Schema } from "../api/client";
import { type Kind, type LiveEvent, PAST_KINDS } from "../api/live";
import { type Loaded, type More, useList } from "../api/loading";
import { at } from "../parts/columns";
import { Badge, Heading, Panel, Shown } from "../parts/show";
import { Table } from "../parts/Table";
import { Link, parameter } from "../router";
import { Choice } from "./Sites";

type Past = Schema["PastEvent"];

/** Events since the control centre started, newest first; `limit`: at once; `kind`: only those. */
export function usePast(limit?: number, kind = ""): Loaded<LiveEvent[]> & { more?: More<LiveEvent> } {
  const past = useList<Past>("/history", { limit, kind }, [...PAST_KINDS]);
  const { more } = past;
  const every = more && { show: more.show, all: async () => (await more.all()).map(heard) };
  return { ...past, data: past.data?.map(heard), more: every };
}

function heard({ id, kind, at_s, data }: Past): LiveEvent {
  return { id, kind: kind as Kind, at: 1000 * at_s, data: (data ?? {}) as LiveEvent["data"] };
}

export function Events() {
  const kind = parameter("kind");
  const past = usePast(undefined, kind);
  const none = kind ? "Nothing of this kind has happened yet." : undefined;
  return (
    <>
      <Heading aside={<Choice name="kind" value={kind} options={PAST_KINDS} />}>Events</Heading>
      <Panel title="Events since the control centre started, newest first">
        <Shown of={past}>{(rows) => <EventTable rows={rows} more={past.more} empty={none} />}</Shown>
      </Panel>
    </>
  );
}

type EventTableProps = { rows: LiveEvent[]; more?: More<LiveEvent>; empty?: string };

export function EventTable({ rows, more, empty = "Nothing has happened yet." }: EventTableProps) {
  return (
    <Table
      caption="Events"
      rows={rows}
      more={more}
      empty={empty}
      columns={[
        { name: "when", as: at, of: (one) => one.at / 1000 },
        { name: "kind", show: (one) => one.kind },
        { name: "what", show: (one) => <About event={one} />, value: ({ data }) => text(data, "site") || text(data, "job") || text(data, "name") },
        { name: "state", show: ({ data }) => (text(data, "state") ? <Badge state={text(data, "state")} /> : "–"), value: ({ data }) => text(data, "state") },
        { name: "more", show: ({ data }) => text(data, "detail") || text(data, "sentence") || places(data) || text(data, "why") },
      ]}
    />
  );
}

function About({ event: { kind, data } }: { event: LiveEvent }) {
  const [site, job] = [text(data, "site"), text(data, "job")];
  if (kind === "site") return <Link to={`/sites/${encodeURIComponent(site)}`}>{site}</Link>;
  if (kind === "job") return <Link to={`/jobs/${encodeURIComponent(job)}`}>{job}</Link>;
  return <Link to="/models">{text(data, "name") || kind}</Link>;
}

/** Where a deployment is, and why it does not answer there. */
function places(data: LiveEvent["data"]): string {
  const found = (data.places ?? []) as Schema["PlaceView"][];
  return found.map(({ site, standing, detail }) => `${site} ${standing}${detail ? ` (${detail})` : ""}`).join(", ");
}

/** What an event says, in words, of something; empty if it says nothing. */
function text(data: LiveEvent["data"], name: string): string {
  const value = data[name];
  return typeof value === "string" ? value : "";
}
