import { get, mayChange, remove, type Schema, segment } from "../api/client";
import { useList, useLoaded, usePolled } from "../api/loading";
import { useAction } from "../parts/action";
import { at, inBytes, inDollars, inSeconds, sharingFinely } from "../parts/columns";
import { moment, score } from "../parts/format";
import { Badge, Heading, Panel, Problem, Shown } from "../parts/show";
import { Table } from "../parts/Table";
import { Link } from "../router";

export function Models() {
  return (
    <>
      <Heading>Models</Heading>
      <Trained />
      <Deployments />
      <Served />
      <Placement />
    </>
  );
}

function Trained() {
  const models = useList<Schema["ModelDescriptor"]>("/models", {}, ["job"]);
  return (
    <Panel title="Trained by jobs">
      <Shown of={models}>
        {(rows) => (
          <Table
            caption="Trained models"
            rows={rows}
            more={models.more}
            empty="No job has left a model yet."
            columns={[
              { name: "model", show: (one) => <Link to={`/jobs/${segment(one.name)}`}>{one.name}</Link>, value: (one) => one.name },
              { name: "owner", show: (one) => one.owner },
              { name: "recipe", show: (one) => one.recipe },
              { name: "measured", show: (one) => Object.entries(one.measured).map(([name, value]) => `${name} ${score(value)}`).join(", ") },
              { name: "lies at", show: (one) => one.holders.join(", ") },
              { name: "may go to", show: (one) => one.release_to?.join(", ") || "–" },
              { name: "size", as: inBytes, of: (one) => one.size_bytes },
              { name: "since", as: at, of: (one) => one.created_at_s },
              { name: "to deploy it", show: (one) => (one.untrained ? "it cannot be: no visit of its job improved it" : <code>daitn deploy {one.name}</code>), value: null },
            ]}
          />
        )}
      </Shown>
    </Panel>
  );
}

function Deployments() {
  const deployments = useList<Schema["DeploymentView"]>("/deployments", {}, ["deployment", "retired"]);
  const { busy, failure, act } = useAction();
  const retire = (name: string) =>
    act(() => remove(`/deployments/${segment(name)}`).then(deployments.reloaded), `Retire ${name} everywhere?`);
  return (
    <Panel title="Deployed by this network">
      {failure && <Problem failure={failure} />}
      <Shown of={deployments}>
        {(rows) => (
          <Table
            caption="Deployments"
            rows={rows}
            more={deployments.more}
            empty="Nothing is deployed."
            columns={[
              { name: "name", show: (one) => one.name },
              { name: "model", show: (one) => one.model },
              { name: "where", show: (one) => one.places.map((place) => `${place.site} (${place.standing})`).join(", ") },
              { name: "why there", show: (one) => one.why },
              ...(mayChange() ? [{ name: "action", show: (one: Schema["DeploymentView"]) => <button type="button" class="plain" disabled={busy} onClick={() => retire(one.name)}>Retire <span class="unseen">{one.name}</span></button>, value: null }] : []),
            ]}
          />
        )}
      </Shown>
    </Panel>
  );
}

function Served() {
  const served = useList<Schema["ServedModel"]>("/served", {}, ["deployment", "retired", "site"]);
  usePolled(served.reload);
  return (
    <Panel title="Served by facilities">
      <Shown of={served}>
        {(rows) => (
          <Table
            caption="Served models"
            rows={rows}
            more={served.more}
            empty="No facility serves a model."
            columns={[
              { name: "model", show: (one) => one.name },
              { name: "facility", show: (one) => <Link to={`/sites/${segment(one.site)}`}>{one.site}</Link>, value: (one) => one.site },
              { name: "state", show: (one) => <Badge state={one.standing} />, value: (one) => one.standing },
              { name: "accuracy, and who says so", show: (one) => <Accuracy rows={one.accuracy} />, value: (one) => one.accuracy.map((known) => `${known.topic} ${score(known.value)} (${known.trust})`).join("; ") },
              { name: "load", show: (one) => `${one.in_flight} / ${one.slots}`, value: (one) => `${one.in_flight} of ${one.slots}`, number: true },
              { name: "first token", as: inSeconds, of: (one) => one.first_token_s },
              { name: "errors", as: sharingFinely, of: (one) => one.error_share },
              { name: "USD / 1k out", as: inDollars, of: (one) => one.price_usd_per_1k_out },
            ]}
          />
        )}
      </Shown>
    </Panel>
  );
}

function Accuracy({ rows }: { rows: Schema["KnownAccuracy"][] }) {
  if (rows.length === 0) return <>unknown</>;
  return (
    <ul class="gains">
      {rows.map((known) => (
        <li key={known.topic}>
          {known.topic} {score(known.value)} ± {score(known.standard_error)} <span class="quiet">{known.trust}, {moment(known.at_s)}</span>
        </li>
      ))}
    </ul>
  );
}

function Placement() {
  const placement = useLoaded("placement", (signal) => get<Schema["PlacementView"]>("/placement", {}, signal), ["deployment"]);
  return (
    <Panel title="What the deployment optimiser would now change">
      <Shown of={placement}>
        {(found) => (
          <Table
            caption="Changes of placement"
            rows={found.changes}
            empty="Nothing: demand is already served as well as possible."
            columns={[
              { name: "model", show: (one) => one.name },
              { name: "facility", show: (one) => one.site },
              { name: "change", show: (one) => (one.add ? "deploy" : "retire") },
              { name: "why", show: (one) => one.why },
            ]}
          />
        )}
      </Shown>
    </Panel>
  );
}
