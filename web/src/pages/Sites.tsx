import { get, segment, type Schema } from "../api/client";
import { useList, useLoaded, usePolled } from "../api/loading";
import { counting, inDollars } from "../parts/columns";
import { bytes, dollars, moment, share } from "../parts/format";
import { Badge, Bar, Figure, Figures, Heading, Panel, Shown } from "../parts/show";
import { Service } from "../parts/Service";
import { out } from "../parts/standing";
import { Table } from "../parts/Table";
import { Link, parameter, setParameter } from "../router";

type SiteState = Schema["SiteState"];

const ROLES = ["data", "compute", "verifier", "facility", "gateway", "forwarder"];

export function Sites() {
  const role = parameter("role");
  const alive = parameter("alive");
  const sites = useList<SiteState>("/sites", { role, alive }, ["site"]);
  usePolled(sites.reload);
  return (
    <>
      <Heading
        aside={
          <>
            <Choice name="role" value={role} options={ROLES} />
            <Choice name="alive" value={alive} options={["true", "false"]} words={{ true: "alive", false: "lost" }} label="state" />
          </>
        }
      >
        Sites
      </Heading>
      <Panel title="Sites">
        <Shown of={sites}>
          {(rows) => (
            <Table
              caption="Sites"
              rows={rows}
              more={sites.more}
              empty="No site matches."
              columns={[
                { name: "site", show: ({ descriptor }) => <Link to={`/sites/${segment(descriptor.site)}`}>{descriptor.site}</Link>, value: ({ descriptor }) => descriptor.site },
                { name: "state", show: (site) => <Badge state={site.alive ? "alive" : "lost"} />, value: (site) => (site.alive ? "alive" : "lost") },
                { name: "takes work", show: (site) => <TakesWork site={site} />, value: (site) => !out(site) },
                { name: "roles", show: ({ descriptor }) => descriptor.roles.join(", ") },
                { name: "owner", show: ({ descriptor }) => descriptor.owner },
                { name: "law", show: ({ descriptor }) => descriptor.jurisdiction },
                { name: "load", show: (site) => <Load site={site} />, value: (site) => site.load?.cpu_share.value ?? null },
                { name: "queue", show: (site) => site.load?.queue.value ?? "–", number: true },
                { name: "topics", show: ({ descriptor }) => [...new Set((descriptor.datasets ?? []).flatMap((one) => one.topics))].join(", ") },
              ]}
            />
          )}
        </Shown>
      </Panel>
    </>
  );
}

function TakesWork({ site }: { site: SiteState }) {
  const why = out(site);
  if (why === "lost") return <>no</>; // Which stands beside it.
  return why ? <Badge state={why} /> : <>yes</>;
}

function Load({ site }: { site: SiteState }) {
  const load = site.load?.cpu_share.value;
  if (load == null) return <>–</>;
  return <span class="aside"><Bar value={load} label={`load ${share(load)}`} /> {share(load)}</span>;
}

type ChoiceProps = { name: string; value: string; options: readonly string[]; words?: Record<string, string>; label?: string };

export function Choice({ name, value, options, words = {}, label = name }: ChoiceProps) {
  return (
    <label>
      {label}
      <select value={value} onChange={(event) => setParameter(name, event.currentTarget.value)}>
        <option value="">any</option>
        {options.map((option) => <option key={option} value={option}>{words[option] ?? option}</option>)}
      </select>
    </label>
  );
}

export function SitePage({ site: name }: { site: string }) {
  const site = useLoaded(`site ${name}`, (signal) => get<SiteState>(`/sites/${segment(name)}`, {}, signal), ["site"]);
  usePolled(site.reload);
  return (
    <>
      <Heading aside={<Link to={`/map?site=${segment(name)}`}>On the map</Link>}>{name}</Heading>
      <Shown of={site}>{(found) => (
          <>
            <Facts site={found} />
            <Service site={name} owner={found.descriptor.owner} cordon={found.descriptor.cordon ?? null} reloaded={site.reloaded} />
          </>
        )}</Shown>
    </>
  );
}

function Facts({ site }: { site: SiteState }) {
  const { descriptor, load } = site;
  const { compute, verifier, facility, gateway } = descriptor;
  return (
    <>
      <Panel title="Now">
        <Figures>
          <Figure name="state"><Badge state={site.alive ? "alive" : "lost"} /></Figure>
          <Figure name="since">{site.since_s == null ? "before the control centre started" : moment(site.since_s)}</Figure>
          {descriptor.cordon && (
            <Figure name={descriptor.cordon.draining ? "drained by" : "cordoned by"}>
              {descriptor.cordon.by}, {moment(descriptor.cordon.since_s)}: {descriptor.cordon.reason || "no reason given"}
            </Figure>
          )}
          <Figure name="owner">{descriptor.owner}</Figure>
          <Figure name="jurisdiction">{descriptor.jurisdiction}</Figure>
          <Figure name="roles">{descriptor.roles.join(", ")}</Figure>
          <Figure name="load">{share(load?.cpu_share.value)}</Figure>
          <Figure name="queue">{load?.queue.value ?? "–"}</Figure>
          <Figure name="disk free">{bytes(load?.disk_free_bytes.value)}</Figure>
          <Figure name="software">{descriptor.software}</Figure>
          {compute && <Figure name="trains on">{compute.device}, {(compute.speed_flops / 1e9).toFixed(1)} Gflop/s</Figure>}
          {compute && <Figure name="an hour of training">{dollars(compute.price_usd_per_hour ?? 0)}</Figure>}
          {gateway && <Figure name="gateway">{gateway.endpoint}</Figure>}
          {facility && <Figure name="facility">{facility.endpoint}</Figure>}
        </Figures>
      </Panel>
      {(descriptor.datasets ?? []).length > 0 && <Datasets rows={descriptor.datasets ?? []} />}
      {verifier && (
        <Panel title="Measures">
          <Table
            caption="Test sets"
            rows={verifier.tests}
            empty="Nothing."
            columns={[
              { name: "topic", show: (test) => test.topic },
              { name: "metrics", show: (test) => test.metrics.join(", ") },
              { name: "items", as: counting, of: (test) => test.items },
            ]}
          />
        </Panel>
      )}
      {facility && (
        <Panel title="Serves">
          <Table
            caption="Deployments here"
            rows={facility.deployments ?? []}
            empty="No model."
            columns={[
              { name: "model", show: (one) => one.name },
              { name: "state", show: (one) => <Badge state={out(site) || one.state} />, value: (one) => out(site) || one.state },
              { name: "engine", show: (one) => one.engine || one.runtime },
              { name: "slots", show: (one) => one.slots ?? "–", number: true },
              { name: "USD / 1k out", as: inDollars, of: (one) => one.price_usd_per_1k_out },
            ]}
          />
        </Panel>
      )}
    </>
  );
}

function Datasets({ rows }: { rows: Schema["DatasetDescriptor"][] }) {
  const anybody = (names: string[] | undefined) => (names?.length && !names.includes("*") ? names.join(", ") : "anybody");
  return (
    <Panel title="Data, and who may learn from it">
      <Table
        caption="Data sets"
        rows={rows}
        empty="None."
        columns={[
          { name: "data set", show: (one) => one.name },
          { name: "topics", show: (one) => one.topics.join(", ") },
          { name: "records", as: counting, of: (one) => one.samples },
          { name: "owners", show: (one) => anybody(one.policy.owners) },
          { name: "purposes", show: (one) => anybody(one.policy.purposes) },
          { name: "recipes", show: (one) => anybody(one.policy.recipes) },
          { name: "models may go to", show: (one) => anybody(one.policy.release_to) },
          { name: "privacy", show: (one) => (one.policy.privacy ? "demanded" : "not demanded") },
          { name: "USD / 1k", as: inDollars, of: (one) => one.price_usd_per_1k ?? 0 },
        ]}
      />
    </Panel>
  );
}
