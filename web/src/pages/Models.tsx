import { useState } from "preact/hooks";

import { Failure, get, remove, type Schema, segment } from "../api/client";
import { useList, useLoaded, usePolled } from "../api/loading";
import { bytes, dollars, moment, score, seconds, share } from "../parts/format";
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
              { name: "size", show: (one) => bytes(one.size_bytes), number: true },
              { name: "since", show: (one) => moment(one.created_at_s) },
              { name: "to deploy it", show: (one) => <code>daitn deploy {one.name}</code>, value: () => "" },
            ]}
          />
        )}
      </Shown>
    </Panel>
  );
}

function Deployments() {
  const deployments = useList<Schema["DeploymentView"]>("/deployments", {}, ["deployment", "retired"]);
  const [failure, fail] = useState<Failure>();
  const retire = (name: string) => {
    if (!confirm(`Retire ${name} everywhere?`)) return;
    remove(`/deployments/${segment(name)}`).then(deployments.reload, fail);
  };
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
              { name: "where", show: (one) => one.places.map((place) => `${place.site} (${place.state ?? "asked"})`).join(", "), },
              { name: "why there", show: (one) => one.why },
              { name: "action", show: (one) => <button class="plain" onClick={() => retire(one.name)}>Retire <span class="unseen">{one.name}</span></button>, value: () => "" },
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
              { name: "state", show: (one) => <Badge state={one.degraded ? "degraded" : one.state} />, value: (one) => one.state },
              { name: "accuracy, and who says so", show: (one) => <Accuracy rows={one.accuracy} />, value: (one) => one.accuracy.map((known) => `${known.topic} ${score(known.value)} (${known.trust})`).join("; ") },
              { name: "load", show: (one) => `${one.in_flight} / ${one.slots}`, number: true },
              { name: "first token", show: (one) => seconds(one.first_token_s), number: true },
              { name: "errors", show: (one) => share(one.error_share, 1), number: true },
              { name: "USD / 1k out", show: (one) => dollars(one.price_usd_per_1k_out), number: true },
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
    <Panel title="What the deployment optimiser would change now">
      <Shown of={placement}>
        {(found) => (
          <Table
            caption="Changes of placement"
            rows={found.changes}
            empty="Nothing: demand is served as well as can be."
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
