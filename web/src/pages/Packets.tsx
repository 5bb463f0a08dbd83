// Forwarders, and the way of an object that names no destination: what each of them knew.
import { get, type Schema, segment } from "../api/client";
import { useList, useLoaded, usePolled } from "../api/loading";
import { counting, inSeconds } from "../parts/columns";
import { Ranking, Rejections } from "../parts/decision";
import { entered } from "../parts/form";
import { count, moment, seconds } from "../parts/format";
import { Badge, Empty, Figure, Figures, Heading, Panel, Shown } from "../parts/show";
import { Table } from "../parts/Table";
import { go, Link, parameter } from "../router";

export function Packets() {
  const forwarders = useList<Schema["SiteState"]>("/sites", { role: "forwarder" }, ["site"]);
  return (
    <>
      <Heading>Packets</Heading>
      <Shown of={forwarders}>
        {(sites) =>
          sites.length === 0 ? (
            <Empty>No forwarder has joined: queries and models go directly to their destinations.</Empty>
          ) : (
            <Chosen sites={sites.map(({ descriptor }) => descriptor.site)} />
          )
        }
      </Shown>
    </>
  );
}

function Chosen({ sites }: { sites: string[] }) {
  const site = parameter("site") || sites[0]!;
  const object = parameter("object");
  const follow = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    go(address(entered(form, "site"), entered(form, "object")));
  };
  return (
    <>
      <form onSubmit={follow}>
        <div class="fields">
          <label>
            forwarder
            <select name="site" key={site} defaultValue={site} onChange={(event) => go(address(event.currentTarget.value, ""))}>
              {sites.map((one) => <option key={one} selected={one === site}>{one}</option>)}
            </select>
          </label>
          <label>
            id of an object that set out there
            <input name="object" key={object} defaultValue={object} required maxLength={200} />
          </label>
          <button type="submit">Follow its path</button>
        </div>
      </form>
      {object ? <Way site={site} object={object} /> : <Forwarder site={site} />}
    </>
  );
}

function address(site: string, object: string): string {
  return `/packets?${new URLSearchParams(object ? { site, object } : { site })}`;
}

function Forwarder({ site }: { site: string }) {
  const path = `/forwarders/${segment(site)}`;
  const loaded = useLoaded<Schema["ForwarderReport"]>(path, (signal) => get(path, {}, signal));
  usePolled(loaded.reload);
  return (
    <Shown of={loaded}>
      {(report) => (
        <>
          <Panel title={report.site} aside={<Link to={`/sites/${segment(site)}`}>Everything about it</Link>}>
            <Figures>
              <Figure name="mode">{report.mode}</Figure>
              <Figure name="domain">{report.domain || "–"}</Figure>
              <Figure name="advice in force">{report.advised ? "yes" : "no"}</Figure>
              <Figure name="objects remembered">{count(report.objects)}</Figure>
              {Object.entries(report.counts).map(([name, number]) => <Figure key={name} name={name}>{count(number)}</Figure>)}
            </Figures>
          </Panel>
          <Panel title="Its links">
            <Table
              caption="Links"
              rows={report.links}
              empty="It has no neighbours."
              columns={[
                { name: "neighbour", show: (row) => row.neighbour },
                { name: "state", show: (row) => <Badge state={row.up ? "alive" : "lost"} />, value: (row) => row.up },
                { name: "one way", as: inSeconds, of: (row) => row.cost_s },
                { name: "broke", as: counting, of: (row) => row.downs },
                { name: "messages in", as: counting, of: (row) => row.messages_in },
                { name: "out", as: counting, of: (row) => row.messages_out },
                { name: "dropped", as: counting, of: (row) => row.dropped },
              ]}
            />
          </Panel>
          <Panel title="What it can reach">
            <Table
              caption="Origins"
              rows={report.origins}
              empty="Nothing: it knows no origins."
              columns={[
                { name: "origin", show: (row) => row.origin },
                { name: "via", show: (row) => row.via || "here" },
                { name: "distance", as: inSeconds, of: (row) => row.distance_s },
                { name: "offers", show: (row) => row.offers.join(", ") },
              ]}
            />
          </Panel>
        </>
      )}
    </Shown>
  );
}

function Way({ site, object }: { site: string; object: string }) {
  const path = `/traces/${segment(site)}/${segment(object)}`;
  const loaded = useLoaded<Schema["TraceReport"]>(path, (signal) => get(path, {}, signal));
  return (
    <Shown of={loaded}>
      {({ pending, silent = [] }) => (
        <>
          {silent.length > 0 && <p>On its way, but without an answer now: {silent.join(", ")}.</p>}
          {pending.length === 0 && <Empty>No forwarder remembers it: they forget packets after half a minute.</Empty>}
          {pending.map((hop, at) => <Hop key={at} hop={hop} number={at + 1} />)}
        </>
      )}
    </Shown>
  );
}

function Hop({ hop, number }: { hop: Schema["PendingReport"]; number: number }) {
  return (
    <Panel title={`${number}. ${hop.site}`} aside={<Badge state={hop.phase} />}>
      <p class="quiet">
        came from {hop.came_from.map((one) => one || "here").join(", ") || "nobody"} at {moment(hop.since_s)}, attempt {hop.attempt}
      </p>
      {hop.steps.map((step, at) => (
        <details key={at} open={hop.steps.length === 1}>
          <summary>{moment(step.at_s)}: {outcome(step)}</summary>
          <Ranking decision={step.decision} at={` at ${number}. ${hop.site}, step ${at + 1}`} />
          <Rejections rows={step.decision.rejections} empty="Nothing was left out." at={` at ${number}. ${hop.site}, step ${at + 1}`} />
        </details>
      ))}
    </Panel>
  );
}

function outcome(step: Schema["StepReport"]): string {
  if (!step.found) return "no way was found";
  const towards = step.via ? `on to ${step.via}, for ${step.origin}` : `delivered here, to ${step.origin}`;
  return `${towards}; ${seconds(step.expected_s)} expected`;
}
