import { get, type Schema } from "../api/client";
import { useLoaded } from "../api/loading";
import { count, seconds, share } from "../parts/format";
import { Figure, Figures, Heading, Panel, Shown } from "../parts/show";
import { Table } from "../parts/Table";
import { Link } from "../router";

const MOST_WAYS = 200;

export function Topology() {
  const analysis = useLoaded("analysis", (signal) => get<Schema["Analysis"]>("/topology/analysis", {}, signal));
  const serving = useLoaded("serving", (signal) => get<Schema["QrrtView"]>("/topology/serving", {}, signal), ["deployment", "site"]);
  return (
    <>
      <Heading aside={<Link to="/map">Map</Link>}>Topologies</Heading>
      <Panel title="Training (DRRT), in numbers"><Shown of={analysis}>{(found) => <Numbers of={found} />}</Shown></Panel>
      <Shown of={serving}>{(found) => <Serving of={found} />}</Shown>
    </>
  );
}

function Numbers({ of }: { of: Schema["Analysis"] }) {
  return (
    <>
      <Figures>
        <Figure name="nodes">{count(of.shape.nodes)}</Figure>
        <Figure name="edges">{count(of.shape.edges)}</Figure>
        <Figure name="between layers">{count(of.inter_layer_edges)}</Figure>
        <Figure name="parts">{of.shape.components}</Figure>
        <Figure name="diameter">{of.shape.diameter_hops} hops</Figure>
        <Figure name="independent cycles">{count(of.shape.cyclomatic_number)}</Figure>
      </Figures>
      <Table
        caption="Layers"
        rows={of.layers}
        empty="No layer."
        columns={[
          { name: "layer", show: (layer) => layer.layer },
          { name: "nodes", show: (layer) => count(layer.nodes), number: true },
          { name: "edges", show: (layer) => count(layer.edges), number: true },
        ]}
      />
    </>
  );
}

function Serving({ of }: { of: Schema["QrrtView"] }) {
  return (
    <Panel title="Serving (QRRT): ways between gateways and facilities" aside={<span class="quiet">version {of.version}</span>}>
      <Table
        caption="Ways"
        rows={of.reachability.slice(0, MOST_WAYS)}
        empty="No gateway has measured a way to a facility yet."
        columns={[
          { name: "from", show: (way) => way.source },
          { name: "to", show: (way) => way.target },
          { name: "delay", show: (way) => seconds(way.rtt_s?.value), number: true },
          { name: "measured", show: (way) => (way.rtt_s ? `${seconds(way.rtt_s.age_s)} ago` : "–"), number: true },
          { name: "loss", show: (way) => share(way.loss?.value, 1), number: true },
        ]}
      />
    </Panel>
  );
}
