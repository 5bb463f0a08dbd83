import { get, type Schema, segment } from "../api/client";
import { useList, useLoaded } from "../api/loading";
import { count } from "../parts/format";
import { Badge, Empty, Figure, Figures, Heading, Panel, Shown } from "../parts/show";
import { Link } from "../router";
import { JobTable } from "./Jobs";
import { EventTable, usePast } from "./Events";

export function Overview() {
  const network = useLoaded("network", (signal) => get<Schema["NetworkView"]>("/network", {}, signal), ["site", "job", "deployment", "retired"]);
  const jobs = useList<Schema["JobSummary"]>("/jobs", { limit: 8 }, ["job"]);
  const past = usePast(5);
  const lost = useList<Schema["SiteState"]>("/sites", { alive: false, limit: 20 }, ["site"]);
  return (
    <>
      <Heading>Overview</Heading>
      <Shown of={network}>{(facts) => <Counts facts={facts} />}</Shown>
      <Panel title="Jobs" aside={<Link to="/jobs">All jobs</Link>}><Shown of={jobs}>{(rows) => <JobTable rows={rows} />}</Shown></Panel>
      <Panel title="Latest events" aside={<Link to="/events">All events</Link>}><Shown of={past}>{(rows) => <EventTable rows={rows} />}</Shown></Panel>
      <Panel title="Lost sites"><Shown of={lost}>{(rows) => <Lost rows={rows} />}</Shown></Panel>
    </>
  );
}

function Counts({ facts }: { facts: Schema["NetworkView"] }) {
  return (
    <div class="tiles">
      <Panel title={facts.network || "This network"}>
        <Figures>
          <Figure name="sites alive"><Link to="/sites?alive=true">{count(facts.alive)}</Link></Figure>
          <Figure name="sites known"><Link to="/sites">{count(facts.sites)}</Link></Figure>
          <Figure name="open jobs"><Link to="/jobs">{count(facts.jobs)}</Link></Figure>
          <Figure name="deployments"><Link to="/models">{count(facts.deployments)}</Link></Figure>
        </Figures>
      </Panel>
    </div>
  );
}

function Lost({ rows }: { rows: Schema["SiteState"][] }) {
  if (rows.length === 0) return <Empty>None: every known site is connected.</Empty>;
  return (
    <ul>
      {rows.map(({ descriptor }) => (
        <li key={descriptor.site}>
          <Link to={`/sites/${segment(descriptor.site)}`}>{descriptor.site}</Link> <Badge state="lost" />
        </li>
      ))}
    </ul>
  );
}
