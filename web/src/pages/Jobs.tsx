import type { ComponentChildren } from "preact";

import { get, mayChange, post, type Schema, segment } from "../api/client";
import { type More, useList, useLoaded, usePolled } from "../api/loading";
import { useAction } from "../parts/action";
import { Chart } from "../parts/Chart";
import { at, counting, inBytes, inDollars, inSeconds, scoring } from "../parts/columns";
import { Cut, type Fitting } from "../parts/Cut";
import { Ranking, Reasons, Rejections } from "../parts/decision";
import { forgotten } from "../parts/forgetting";
import { bytes, change, count, dollars, moment, score, seconds, share } from "../parts/format";
import { Badge, Bar, Empty, Figure, Figures, Heading, Panel, Problem, Shown } from "../parts/show";
import { Table } from "../parts/Table";
import { Link, parameter, setParameter } from "../router";
import { Choice } from "./Sites";

type Job = Schema["JobView"];

const STATES = ["submitted", "planning", "preparing", "visiting", "merging", "verifying", "waiting", "reached", "exhausted", "infeasible", "cancelled", "failed"];

export function Jobs() {
  const state = parameter("state");
  const owner = parameter("owner");
  const jobs = useList<Schema["JobSummary"]>("/jobs", { state, owner }, ["job"]);
  return (
    <>
      <Heading aside={<><Choice name="state" value={state} options={STATES} /><Link to="/intent">New intent</Link></>}>
        Jobs
      </Heading>
      <Panel title="Jobs"><Shown of={jobs}>{(rows) => <JobTable rows={rows} more={jobs.more} filtered={Boolean(state || owner)} />}</Shown></Panel>
    </>
  );
}

type JobTableProps = { rows: Schema["JobSummary"][]; more?: More<Schema["JobSummary"]>; filtered?: boolean };

export function JobTable({ rows, more, filtered = false }: JobTableProps) {
  return (
    <Table
      caption="Jobs"
      rows={rows}
      more={more}
      empty={filtered ? "No job matches." : <>No jobs yet. <Link to="/intent">Write an intent</Link>, or run <code>daitn train</code>.</>}
      columns={[
        { name: "job", show: (job) => <Link to={`/jobs/${segment(job.job)}`}>{job.job}</Link>, value: (job) => job.job },
        { name: "state", show: (job) => <Badge state={job.state} />, value: (job) => job.state },
        { name: "why", show: (job) => job.queued || job.silent || job.detail || job.sentence },
        { name: "owner", show: (job) => job.owner },
        { name: "objectives", show: (job) => <Objectives rows={job.objectives} />, value: (job) => job.objectives.map((one) => `${one.name} ${score(one.reached)}/${one.target}`).join("; ") },
        { name: "visits", show: (job) => job.visits, number: true },
        { name: "time", as: inSeconds, of: (job) => job.seconds },
        { name: "cost", as: inDollars, of: (job) => job.cost_usd },
      ]}
    />
  );
}

function Objectives({ rows }: { rows: Schema["ObjectiveView"][] }) {
  return (
    <>
      {rows.map((one) => (
        <span class="aside" key={one.name}>
          <Bar value={one.reached ?? 0} mark={one.target} label={`${one.name} ${score(one.reached)} of ${one.target}`} />
          <small>{one.name} {score(one.reached)} / {one.target.toFixed(2)}</small>
        </span>
      ))}
    </>
  );
}

export function JobPage({ job: id }: { job: string }) {
  const path = `/jobs/${segment(id)}`;
  const job = useLoaded(path, (signal) => get<Job>(path, {}, signal), ["job"]);
  usePolled(job.reload);
  return (
    <>
      <Heading aside={job.data && <Actions job={job.data} reloaded={job.reloaded} />}>{id}</Heading>
      <Shown of={job}>
        {(found) => (
          <>
            <State job={found} />
            <BudgetLeft path={path} job={found} />
            <Progress job={found} />
            <Visits job={found} />
            <Plan job={found} />
            {found.decision && <Reasons decision={found.decision} />}
            <Decisions path={path} />
            <Relevant path={path} job={found.job} />
            <Forgotten path={path} job={found} />
            <Value path={path} job={found} />
            <LineageOf path={path} job={found} />
          </>
        )}
      </Shown>
    </>
  );
}

const RESUMED = ["exhausted", "cancelled", "failed"];

function Actions({ job, reloaded }: { job: Job; reloaded: () => Promise<void> }) {
  const { busy, failure, act } = useAction();
  const ask = (what: "cancel" | "resume", question: string) => () =>
    act(() => post(`/jobs/${segment(job.job)}/${what}`, {}).then(reloaded), question);
  return (
    <>
      {failure && <Problem failure={failure} />}
      {mayChange() && job.ended_at_s == null && (
        <button type="button" class="danger" disabled={busy} onClick={ask("cancel", `Cancel ${job.job}? What it has learned stays.`)}>Cancel the job</button>
      )}
      {mayChange() && RESUMED.includes(job.state) && !job.not_resumed && (
        <button type="button" disabled={busy} onClick={ask("resume", `Resume ${job.job}? It goes on from its best model, with what is left of its budget.`)}>Resume the job</button>
      )}
    </>
  );
}

function State({ job }: { job: Job }) {
  const report = `/api/v1/jobs/${segment(job.job)}/report`;
  return (
    <Panel title="Now">
      <p><Badge state={job.state} /> {job.detail || job.sentence}</p>
      {RESUMED.includes(job.state) && job.not_resumed && (
        <p>It cannot be resumed: {job.not_resumed.problem}. To go on: {job.not_resumed.fix}.</p>
      )}
      <Figures>
        <Figure name="owner">{job.owner}</Figure>
        <Figure name="recipe">{job.recipe}</Figure>
        <Figure name="algorithm">{job.algorithm}</Figure>
        <Figure name="working at">{job.working.join(", ") || "–"}</Figure>
        <Figure name="submitted">{moment(job.submitted_at_s)}</Figure>
        <Figure name="time">{seconds(job.seconds)}</Figure>
        <Figure name="cost">{dollars(job.cost_usd)}</Figure>
        <Figure name="examples">{count(job.examples)}</Figure>
        <Figure name="moved">{bytes(job.bytes_moved)}</Figure>
        <Figure name="all of it in one page"><a href={report} target="_blank" rel="noopener">Report</a></Figure>
      </Figures>
    </Panel>
  );
}

/** Of each limit in the intent, what is used and what is left. */
function BudgetLeft({ path, job }: { path: string; job: Job }) {
  const intent = useLoaded(`${path}/intent`, (signal) => get<Schema["TrainingIntent"]>(`${path}/intent`, {}, signal));
  return (
    <Panel title="Budget left">
      <Shown of={intent}>
        {({ budget }) => {
          const limits = [
            { name: "time", used: job.seconds, most: budget?.duration_s, say: seconds },
            { name: "cost", used: job.cost_usd, most: budget?.cost_usd, say: dollars },
            { name: "examples", used: job.examples, most: budget?.examples, say: count },
          ];
          const set = limits.flatMap((one) => (one.most == null ? [] : [{ ...one, most: one.most }]));
          if (set.length === 0) return <Empty>Its intent sets no limit.</Empty>;
          return (
            <Figures>
              {set.map(({ name, used, most, say }) => (
                <Figure key={name} name={name}>
                  {say(Math.max(0, most - used))} of {say(most)}
                  <Bar value={most > 0 ? used / most : 1} label={`${say(used)} of ${say(most)} used`} />
                </Figure>
              ))}
            </Figures>
          );
        }}
      </Shown>
    </Panel>
  );
}

function Progress({ job }: { job: Job }) {
  const x = [0, ...job.route.map((_, at) => at + 1)];
  const series = job.objectives.map((one) => ({
    name: one.name,
    target: one.target,
    values: [job.untrained[one.name] ?? null, ...job.route.map((visit) => visit.values[one.name] ?? null)],
  }));
  return (
    <Panel title="What the model knows" aside={<Objectives rows={job.objectives} />}>
      {job.route.length === 0 ? (
        <Empty>No visit has been measured yet.</Empty>
      ) : (
        <Chart label={`Measured values after each visit of ${job.job}`} x={x} xName="visit" series={series} />
      )}
    </Panel>
  );
}

function Visits({ job }: { job: Job }) {
  const objectives = job.objectives.map((one) => one.name);
  return (
    <Panel title="The route so far">
      <Table
        caption={`Visits of ${job.job}`}
        rows={job.route.map((visit, at) => ({ ...visit, at: at + 1 }))}
        empty="The model has not been trained anywhere yet."
        columns={[
          { name: "no.", show: (visit) => visit.at, number: true },
          { name: "site", show: (visit) => <Link to={`/sites/${segment(visit.site)}`}>{visit.site}</Link>, value: (visit) => visit.site },
          { name: "round", show: (visit) => visit.round || "–", number: true },
          { name: "examples", as: counting, of: (visit) => visit.work },
          ...objectives.map((name) => ({
            name,
            number: true,
            show: (visit: Schema["VisitView"]) => `${score(visit.values[name])} (${change(visit.gains[name])})`,
            value: (visit: Schema["VisitView"]) => visit.values[name] ?? null,
          })),
          { name: "trains", as: inSeconds, of: (visit) => visit.seconds },
          { name: "moves", as: inSeconds, of: (visit) => visit.transfer_s },
          { name: "measured", as: inSeconds, of: (visit) => visit.verify_s },
          { name: "bytes", as: inBytes, of: (visit) => visit.bytes_in },
          { name: "cost", as: inDollars, of: (visit) => visit.cost_usd },
        ]}
      />
    </Panel>
  );
}

function Plan({ job }: { job: Job }) {
  const planned = job.planned;
  if (!planned || job.ended_at_s != null) return null;
  return (
    <Panel title="What is planned from here" aside={<span class="quiet">chance to reach {share(planned.chance)}</span>}>
      <Table
        caption="Planned visits"
        rows={planned.visits}
        empty="Nothing."
        columns={[
          { name: "site", show: (visit) => visit.site },
          { name: "examples", as: counting, of: (visit) => visit.examples },
          { name: "takes", as: inSeconds, of: (visit) => visit.expected_s },
          { name: "cost", as: inDollars, of: (visit) => visit.expected_cost_usd },
          { name: "expected after it", show: (visit) => Object.entries(visit.expected).map(([name, value]) => `${name} ${score(value)}`).join(", ") },
        ]}
      />
    </Panel>
  );
}

/** Shows its content once it is opened; which one is open is part of the address. */
function Fold({ title, children }: { title: string; children: ComponentChildren }) {
  const open = parameter("show") === title;
  const set = (wanted: boolean) => setParameter("show", wanted ? title : "");
  return (
    <Panel title={title} aside={<button type="button" class="plain" aria-expanded={open} onClick={() => set(!open)}>{open ? "Hide" : "Show"}<span class="unseen"> {title}</span></button>}>
      {open && children}
    </Panel>
  );
}

/** Loads what stands behind a fold when it is opened. */
function Folded<T>({ title, path, kinds = [], children }: { title: string; path: string; kinds?: ["job"] | []; children: (data: T) => ComponentChildren }) {
  return (
    <Fold title={title}>
      <Unfolded<T> path={path} kinds={kinds}>{children}</Unfolded>
    </Fold>
  );
}

function Unfolded<T>({ path, kinds, children }: { path: string; kinds: ["job"] | []; children: (data: T) => ComponentChildren }) {
  const loaded = useLoaded(path, (signal) => get<T>(path, {}, signal), kinds);
  return <Shown of={loaded}>{children}</Shown>;
}

function Decisions({ path }: { path: string }) {
  return (
    <Fold title="Every decision, and why">
      <DecisionList path={`${path}/decisions`} />
    </Fold>
  );
}

function DecisionList({ path }: { path: string }) {
  const decisions = useList<Schema["Decided"]>(path, {}, ["job"]);
  return (
    <Shown of={decisions}>
      {(items) =>
        items.length === 0 ? (
          <Empty>Nothing has been decided yet.</Empty>
        ) : (
          <>
            {decisions.more && <button type="button" class="plain" onClick={decisions.more.show}>Later decisions</button>}
            {[...items].reverse().map((one) => (
              <details key={one.number}>
                <summary>
                  {one.number}. after {one.visits_before} visits: {one.decision.chosen ?? one.why ?? "no route"}
                </summary>
                <Ranking decision={one.decision} />
                <Rejections rows={one.decision.rejections} empty="Nothing was left out." />
                <Reasons decision={one.decision} />
              </details>
            ))}
          </>
        )
      }
    </Shown>
  );
}

function Relevant({ path, job }: { path: string; job: string }) {
  return (
    <Folded<Schema["RelevantSites"]> title="Who can serve this model (MS-DRRT), and who cannot" path={`${path}/relevant`}>
      {(found) => (
        <>
          <Cut of={job} caption={`MS-DRRT of ${job}`} fitting={fitting(found)} rejections={found.rejections} />
          <Table
            caption="Data that fits"
            rows={found.options}
            empty="No data set fits the intent."
            columns={[
              { name: "data set", show: (one) => `${one.site}/${one.dataset.name}` },
              { name: "topics", show: (one) => one.dataset.topics.join(", ") },
              { name: "records", as: counting, of: (one) => one.dataset.samples },
              { name: "queue", show: (one) => one.queue, number: true },
            ]}
          />
          <Rejections rows={found.rejections} empty="Nothing was left out." />
        </>
      )}
    </Folded>
  );
}

/** Data sets, then who measures each objective. */
function fitting({ options, verifiers }: Schema["RelevantSites"]): Fitting[] {
  const data = options.map((one) => ({
    name: `${one.site}/${one.dataset.name}`,
    what: `${count(one.dataset.samples)} records of ${one.dataset.topics.join(", ")}`,
  }));
  const measured = Object.entries(verifiers).flatMap(([objective, those]) =>
    those.map((one) => ({ name: `${one.site}, a verifier`, what: `measures ${objective} on ${count(one.test.items)} items` })),
  );
  return [...data, ...measured];
}

function Value({ path, job }: { path: string; job: Job }) {
  if (job.route.length === 0) return null;
  return (
    <Folded<Schema["ValueOfData"]> title="What each data set was worth" path={`${path}/value`}>
      {(found) => (
        <>
          {found.why && <p class="quiet">{found.why}</p>}
          <Table
            caption="Value of data"
            rows={found.credits}
            empty="Not measured."
            columns={[
              { name: "data set", show: (one) => `${one.site}/${one.dataset}` },
              { name: "owner", show: (one) => one.owner },
              { name: "visits", show: (one) => one.visits, number: true },
              { name: "examples", as: counting, of: (one) => one.examples },
              { name: "value", show: (one) => Object.entries(one.value).map(([name, value]) => `${name} ${change(value)} ± ${score(one.standard_error[name])}`).join(", ") },
            ]}
          />
        </>
      )}
    </Folded>
  );
}

function Forgotten({ path, job }: { path: string; job: Job }) {
  if (!job.model) return null;
  return (
    <Folded<Schema["TrainedModel"]> title="What it forgot, by label" path={`${path}/lineage`}>
      {(found) => (
        <Table
          caption="Labels"
          rows={forgotten(job, found.lineage.entries)}
          empty="No verifier publishes values by label."
          columns={[
            { name: "objective", show: (one) => one.objective },
            { name: "label", show: (one) => one.label },
            { name: "at first", as: scoring, of: (one) => one.first },
            { name: "at its best", as: scoring, of: (one) => one.best },
            { name: "now", as: scoring, of: (one) => one.now },
            { name: "forgotten", as: scoring, of: (one) => one.best - one.now },
          ]}
        />
      )}
    </Folded>
  );
}

function LineageOf({ path, job }: { path: string; job: Job }) {
  if (!job.model) return null;
  return (
    <Folded<Schema["TrainedModel"]> title="Lineage: who created, trained and measured it" path={`${path}/lineage`}>
      {(found) => <Entries rows={found.lineage.entries} />}
    </Folded>
  );
}

function Entries({ rows }: { rows: Schema["Entry"][] }) {
  const facts = rows.map((entry) => entry.fact);
  const said = (fact: Schema["Entry"]["fact"]) => {
    switch (fact.type) {
      case "origin":
        return `made from seed ${fact.seed}`;
      case "visit":
        return `trained on ${count(fact.examples)} examples of ${fact.dataset}`;
      case "verification":
        return `measured ${fact.topic} ${fact.metric}: ${score(fact.value)}`;
      case "merge":
        return `merged ${fact.models.length} models`;
    }
  };
  return (
    <Table
      caption="Lineage"
      rows={facts}
      empty="Nothing."
      columns={[
        { name: "when", as: at, of: (fact) => fact.at_s },
        { name: "piece of work", show: (fact) => fact.visit },
        { name: "site", show: (fact) => fact.site },
        { name: "what", show: said },
      ]}
    />
  );
}
