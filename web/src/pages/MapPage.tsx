import { computed } from "@preact/signals";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import Sigma from "sigma";

import { get, type Schema } from "../api/client";
import { listen, listening, type LiveEvent } from "../api/live";
import { useLoaded } from "../api/loading";
import { hideWhileMoving, SitePoints } from "../map/drawing";
import { BOUNDS, GRADES, type Grade, type Measure } from "../map/links";
import { NetworkGraph, WIDTHS } from "../map/network";
import { bytes, seconds, share } from "../parts/format";
import { ink } from "../parts/palette";
import { savePicture } from "../parts/picture";
import { Badge, Empty, Figure, Figures, Heading, Panel, Shown } from "../parts/show";
import { Link, parameter, setParameter } from "../router";

const MOST_LINKS_LISTED = 50;
const MOST_EVENTS_KEPT = 300;
const MOST_SUGGESTED = 20;

export function MapPage() {
  const recent = useRef<LiveEvent[]>([]);
  const loaded = useLoaded("map", async (signal) => {
    await listening();
    return get<Schema["MapView"]>("/map", {}, signal);
  });
  // Kept, as some of them are newer than the map that is on its way.
  useEffect(() => listen(["map"], (event) => recent.current.push(event) > MOST_EVENTS_KEPT && recent.current.shift()), []);
  return (
    <>
      <Heading>Map</Heading>
      <Shown of={loaded}>
        {(view) =>
          (view.sites.name ?? []).length ? (
            <Network view={view} recent={recent.current} reloaded={loaded.reloaded} />
          ) : (
            <Empty>No site has joined yet.</Empty>
          )
        }
      </Shown>
    </>
  );
}

type NetworkProps = { view: Schema["MapView"]; recent: readonly LiveEvent[]; reloaded: () => Promise<void> };

function Network({ view, recent, reloaded }: NetworkProps) {
  const holder = useRef<HTMLDivElement>(null);
  const drawn = useRef<Sigma | null>(null);
  const [, redraw] = useState(0);
  const network = useMemo(() => new NetworkGraph(view, colours.peek()), [view]);
  const wanted = parameter("site");
  const chosen = network.number(wanted);

  useEffect(() => {
    if (!holder.current) return;
    let sigma: Sigma;
    try {
      sigma = new Sigma(network.graph, holder.current, {
        // One point each; the usual three corners take three times as long at ten thousand sites.
        defaultNodeType: "point",
        nodeProgramClasses: { point: SitePoints },
        hideLabelsOnMove: true,
        hideEdgesOnMove: true,
        labelColor: { color: ink("--ink") },
        labelRenderedSizeThreshold: 6,
        labelFont: "system-ui, sans-serif",
        minEdgeThickness: 1,
        stagePadding: 48,
        zIndex: true,
        allowInvalidContainer: true,
      });
    } catch {
      return; // No WebGL: the lists beside the map tell the same.
    }
    sigma.on("clickNode", ({ node }) => setParameter("site", network.site(Number(node)).name));
    sigma.on("clickStage", () => setParameter("site", ""));
    drawn.current = sigma;
    const unname = nameDiscs(sigma, network, holder.current);
    const unhide = hideWhileMoving(sigma);
    return () => {
      drawn.current = null;
      unname();
      unhide();
      sigma.kill();
    };
  }, [network]);

  const measure: Measure = parameter("links") === "rate" ? "rate" : "delay";

  const shown = colours.value;
  useEffect(() => {
    network.paint(shown);
    drawn.current?.setSetting("labelColor", { color: ink("--ink") });
  }, [network, shown]);
  useEffect(() => network.choose(chosen), [network, chosen]);
  useEffect(() => network.gradeBy(measure), [network, measure]);

  useEffect(() => {
    const follow = () => {
      try {
        const nodes = network.follow(recent).map(String);
        drawn.current?.refresh({ partialGraph: { nodes }, skipIndexation: true, schedule: true });
      } catch {
        void reloaded(); // A difference to something else than what is shown.
      }
      redraw((n) => n + 1);
    };
    follow();
    return listen(["map"], follow);
  }, [network, recent, reloaded]);

  return (
    <>
      <div class="map">
        <div class="canvas" ref={holder} role="img" aria-label={`Map of ${network.graph.order} sites and ${network.links.size} links`} />
      </div>
      <Legend network={network} picture={() => drawn.current && saveMap(drawn.current)} />
      <LinkLegend measure={measure} />
      <Finder network={network} wanted={wanted} />
      {chosen >= 0 && <Chosen network={network} number={chosen} />}
    </>
  );
}

/** Writes the names of jurisdictions over their discs. Returns how to take them away. */
function nameDiscs(sigma: Sigma, network: NetworkGraph, holder: HTMLElement): () => void {
  const names = new Map<string, HTMLElement>();
  const place = () => {
    for (const [name, top] of network.layout.tops) {
      let label = names.get(name);
      if (!label) {
        label = document.createElement("span");
        label.className = "disc";
        label.textContent = name;
        holder.append(label);
        names.set(name, label);
      }
      const { x, y } = sigma.graphToViewport(top);
      label.style.translate = `${x}px ${y}px`;
    }
  };
  sigma.on("afterRender", place);
  return () => names.forEach((label) => label.remove());
}

function Legend({ network, picture }: { network: NetworkGraph; picture: () => void }) {
  const { good, busy, lost, cordoned } = colours.value;
  return (
    <p class="legend">
      <span><Dot colour={good} />alive</span>
      <span><Dot colour={busy} />over 80 % busy</span>
      <span><Dot colour={cordoned} />cordoned</span>
      <span><Dot colour={lost} />lost</span>
      <span>
        {network.graph.order} sites, {network.links.size} links{network.whole ? "" : " (drawn for a chosen site)"}; a disc is a
        jurisdiction
      </span>
      <button type="button" class="plain" onClick={picture}>Picture</button>
    </p>
  );
}

function LinkLegend({ measure }: { measure: Measure }) {
  const { links } = colours.value;
  const [first, second] = BOUNDS[measure];
  const say = (bound: number) => (measure === "delay" ? seconds(bound) : `${bytes(bound)}/s`);
  const [good, middling, poor] = measure === "delay" ? ["up to", "up to", "over"] : ["from", "from", "under"];
  const words: Record<Grade, string> = {
    good: `${good} ${say(first)}`,
    middling: `${middling} ${say(second)}`,
    poor: `${poor} ${say(second)}`,
    unknown: "not measured",
  };
  return (
    <div class="legend">
      <label>
        links by
        <select value={measure} onChange={(event) => setParameter("links", event.currentTarget.value === "rate" ? "rate" : "")}>
          <option value="delay">delay (round trip)</option>
          <option value="rate">rate</option>
        </select>
      </label>
      {GRADES.map((grade) => (
        <span key={grade}>
          <svg width="28" height="12" viewBox="0 0 28 12" aria-hidden="true">
            <line x1="0" x2="28" y1="6" y2="6" stroke={links[grade]} stroke-width={WIDTHS[grade]} />
          </svg>
          {words[grade]}
        </span>
      ))}
    </div>
  );
}

function Dot({ colour }: { colour: string }) {
  return (
    <svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true">
      <circle cx="6" cy="6" r="5" fill={colour} />
    </svg>
  );
}

function Finder({ network, wanted }: { network: NetworkGraph; wanted: string }) {
  const fitting = network.names.filter((name) => name.includes(wanted)).slice(0, MOST_SUGGESTED);
  return (
    <div class="aside">
      <label>
        Find a site
        <input
          list="sites-of-map"
          value={wanted}
          onInput={(event) => setParameter("site", event.currentTarget.value)}
        />
      </label>
      <datalist id="sites-of-map">
        {fitting.map((name) => <option key={name} value={name} />)}
      </datalist>
    </div>
  );
}

function Chosen({ network, number }: { network: NetworkGraph; number: number }) {
  const site = network.site(number);
  const links = [...network.links.of(number)].map(([other, facts]) => ({ to: network.site(other).name, ...facts }));
  links.sort((one, other) => (other.rtt_s ?? 0) - (one.rtt_s ?? 0));
  return (
    <Panel title={site.name} aside={<Link to={`/sites/${encodeURIComponent(site.name)}`}>Everything about it</Link>}>
      <Figures>
        <Figure name="state"><Badge state={["lost", "alive", "gone"][site.state] ?? "unknown"} /></Figure>
        <Figure name="takes work">{site.state !== 1 ? "no" : site.cordoned ? <Badge state="cordoned" /> : "yes"}</Figure>
        <Figure name="owner">{site.owner}</Figure>
        <Figure name="jurisdiction">{site.jurisdiction}</Figure>
        <Figure name="roles">{site.roles.join(", ")}</Figure>
        <Figure name="load">{share(site.load)}</Figure>
        <Figure name="queue">{site.queue}</Figure>
      </Figures>
      {links.length > 0 && (
        <table>
          <caption class="unseen">Links of {site.name}</caption>
          <thead><tr><th scope="col">link to</th><th scope="col" class="number">delay</th><th scope="col" class="number">rate</th></tr></thead>
          <tbody>
            {links.slice(0, MOST_LINKS_LISTED).map((link) => (
              <tr key={link.to}>
                <td>{link.to}</td>
                <td class="number">{seconds(link.rtt_s)}</td>
                <td class="number">{link.throughput_bps == null ? "–" : `${bytes(link.throughput_bps)}/s`}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Panel>
  );
}

function saveMap(sigma: Sigma): void {
  const { width, height } = sigma.getDimensions();
  sigma.refresh();
  savePicture("map.png", Object.values(sigma.getCanvases()), width, height);
}

const colours = computed(() => {
  const links = { good: ink("--link-good"), middling: ink("--link-middling"), poor: ink("--link-poor"), unknown: ink("--link") };
  return { good: ink("--good"), busy: ink("--line-2"), lost: ink("--bad"), cordoned: ink("--line-4"), links };
});
