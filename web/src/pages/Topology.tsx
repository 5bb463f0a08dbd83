import { get, type Schema } from "../api/client";
import { useLoaded } from "../api/loading";
import { ago, counting, inSeconds, sharingFinely } from "../parts/columns";
import { count } from "../parts/format";
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
          { name: "nodes", as: counting, of: (layer) => layer.nodes },
          { name: "edges", as: counting, of: (layer) => layer.edges },
        ]}
      />
    </>
  );
}

function Serving({ of }: { of: Schema["QrrtView"] }) {
  return (
    <Panel title="Serving (QRRT): paths between gateways and facilities" aside={<span class="quiet">version {of.version}</span>}>
      <Table
        caption="Ways"
        rows={of.reachability.slice(0, MOST_WAYS)}
        empty="No gateway has measured a path to a facility yet."
        columns={[
          { name: "from", show: (way) => way.source },
          { name: "to", show: (way) => way.target },
          { name: "delay", as: inSeconds, of: (way) => way.rtt_s?.value },
          { name: "measured", as: ago, of: (way) => way.rtt_s?.age_s },
          { name: "loss", as: sharingFinely, of: (way) => way.loss?.value },
        ]}
      />
    </Panel>
  );
}
