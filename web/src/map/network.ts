// The network as a graph that is drawn: what the API's map says, and every difference after it.
import Graph from "graphology";

import type { Schema } from "../api/client";
import { placed } from "./layout";

type MapView = Schema["MapView"];
type MapDelta = Schema["MapDelta"];

export const LOST = 0;
export const GONE = 2;
const BUSY_LOAD = 0.8;
const [SMALLEST, LARGEST, FEW] = [2, 10, 12];

export type Colours = { good: string; busy: string; lost: string; cordoned: string; link: string };

export class NetworkGraph {
  readonly graph = new Graph({ type: "undirected", multi: false });
  /** Names of roles, by their bits. */
  readonly roles: string[];
  private readonly sites: Schema["MapSites"];
  private readonly size: number;

  constructor(view: MapView, private colours: Colours) {
    this.roles = view.role_names;
    this.sites = view.sites;
    const { name, jurisdiction } = view.sites as Required<Schema["MapSites"]>;
    const there = name.map((_, at) => at).filter((at) => this.column("state")[at] !== GONE);
    const places = placed(there.map((at) => name[at]!), there.map((at) => jurisdiction[at]!)).sites;
    this.size = Math.max(SMALLEST, Math.min(LARGEST, LARGEST * Math.sqrt(FEW / (there.length || 1))));
    for (const [order, at] of there.entries()) this.add(at, places[order]!);
    this.connect(view.links);
  }

  get names(): string[] {
    return this.column("name") as string[];
  }

  /** What is known of a site, by its number. */
  site(number: number) {
    const column = (name: keyof Schema["MapSites"]) => this.column(name)[number];
    const bits = Number(column("roles"));
    return {
      name: String(column("name")),
      owner: String(column("owner")),
      jurisdiction: String(column("jurisdiction")),
      state: Number(column("state")),
      load: Number(column("load")),
      queue: Number(column("queue")),
      cordoned: Boolean(column("cordoned")),
      roles: this.roles.filter((_, bit) => bits & (1 << bit)),
    };
  }

  follow(delta: MapDelta): void {
    const added = (delta.added.name ?? []).length;
    const first = this.names.length;
    for (const key of Object.keys(this.sites) as (keyof Schema["MapSites"])[]) {
      (this.column(key) as unknown[]).push(...((delta.added[key] as unknown[] | undefined) ?? []));
    }
    for (let number = first; number < first + added; number++) this.add(number, this.besideItsOwn(number));
    for (const [at, number] of (delta.changed.site ?? []).entries()) {
      for (const key of ["state", "load", "queue", "cordoned"] as const) {
        (this.column(key) as unknown[])[number] = delta.changed[key]?.[at];
      }
      if (!this.graph.hasNode(number)) continue;
      if (this.column("state")[number] === GONE) this.graph.dropNode(number);
      else this.graph.setNodeAttribute(number, "color", this.colour(number));
    }
    for (const [source, target] of delta.cut) {
      const edge = this.graph.edge(source, target);
      if (edge) this.graph.dropEdge(edge);
    }
    this.connect(delta.links);
  }

  private column(name: keyof Schema["MapSites"]): unknown[] {
    return this.sites[name] as unknown[];
  }

  private add(number: number, place: { x: number; y: number }): void {
    const { name } = this.site(number);
    this.graph.addNode(number, { ...place, label: name, size: this.size, color: this.colour(number) });
  }

  private besideItsOwn(number: number): { x: number; y: number } {
    const law = this.column("jurisdiction")[number];
    const sibling = this.graph.findNode((node) => this.column("jurisdiction")[Number(node)] === law);
    const { x, y } = sibling ? this.graph.getNodeAttributes(sibling) : { x: 0, y: 0 };
    const angle = number * 2.4;
    const distance = 1 + Math.sqrt(this.graph.order);
    return { x: x + distance * Math.cos(angle), y: y + distance * Math.sin(angle) };
  }

  private connect(links: MapView["links"]): void {
    for (const [source, target, rtt_s, throughput_bps] of links as [number, number, number | null, number | null][]) {
      if (source === target || !this.graph.hasNode(source) || !this.graph.hasNode(target)) continue;
      const known = this.graph.edge(source, target);
      const facts = { rtt_s, throughput_bps };
      if (known) this.graph.mergeEdgeAttributes(known, facts);
      else this.graph.addEdge(source, target, { ...facts, size: this.size > 6 ? 1.5 : 0.5, color: this.colours.link });
    }
  }

  private colour(number: number): string {
    const { state, cordoned, load } = this.site(number);
    if (state === LOST) return this.colours.lost;
    if (cordoned) return this.colours.cordoned;
    return load >= BUSY_LOAD ? this.colours.busy : this.colours.good;
  }
}
