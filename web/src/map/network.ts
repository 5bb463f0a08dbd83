// The network as a graph that is drawn: what the API's map says, and every difference after it.
import Graph from "graphology";

import type { Schema } from "../api/client";
import type { LiveEvent } from "../api/live";
import { Layout, type Place } from "./layout";
import { type Grade, grade, Links, type Measure } from "./links";

type MapView = Schema["MapView"];
type MapDelta = Schema["MapDelta"];
type Columns = Required<Schema["MapSites"]>;

const LOST = 0;
const GONE = 2;
const BUSY_LOAD = 0.8;
/** With more, only a chosen site's are drawn: the rest would be one grey patch, and slow. */
const MOST_LINKS_DRAWN = 2000;
/** Radii in pixels: of a site on its own, and of one of very many. */
const [LARGEST, SMALLEST] = [10, 2];
const CROWDED = 100;

/** Widths of links in pixels: what is poor is thick, so that it is seen without colour, too. */
export const WIDTHS: Record<Grade, number> = { unknown: 1, good: 2, middling: 4, poor: 6 };
const WIDER_IF_CHOSEN = 0.75;

/** Tells Sigma to index what is drawn anew: it cannot repaint what was added since the last picture. */
const INDEXED = { attributes: ["zIndex"] };

export type Colours = Record<"good" | "busy" | "lost" | "cordoned", string> & { links: Record<Grade, string> };

export class NetworkGraph {
  readonly graph = new Graph({ type: "undirected", multi: false });
  readonly links = new Links();
  /** Whether every link is drawn. */
  readonly whole: boolean;
  /** Names of roles, by their bits. */
  private readonly roles: string[];
  private readonly sites: Columns;
  private readonly size: number;
  readonly layout: Layout;
  private event: string;
  private chosen = -1;
  private measure: Measure = "delay";

  constructor(view: MapView, private colours: Colours) {
    this.event = view.event;
    this.roles = view.role_names;
    const sites = (this.sites = view.sites as Columns);
    const there = sites.name.map((_, at) => at).filter((at) => sites.state[at] !== GONE);
    there.sort((one, other) => (sites.name[one]! < sites.name[other]! ? -1 : 1));
    const sizes = new Map<string, number>();
    for (const at of there) sizes.set(sites.jurisdiction[at]!, (sizes.get(sites.jurisdiction[at]!) ?? 0) + 1);
    this.layout = new Layout(sizes);
    this.size = Math.max(SMALLEST, Math.min(LARGEST, CROWDED / Math.sqrt(there.length || 1)));
    for (const number of there) this.add(number);
    this.whole = view.links.length <= MOST_LINKS_DRAWN;
    this.connect(view.links);
  }

  get names(): string[] {
    return this.sites.name;
  }

  /** The site of this name; -1: there is none. */
  number(name: string): number {
    const number = this.sites.name.lastIndexOf(name); // The latest, if one has joined anew.
    return this.graph.hasNode(number) ? number : -1;
  }

  /** What is known of a site, by its number. */
  site(number: number) {
    const { name, owner, jurisdiction, roles, state, load, queue, cordoned } = this.sites;
    return {
      name: name[number]!,
      owner: owner[number]!,
      jurisdiction: jurisdiction[number]!,
      state: state[number]!,
      load: load[number]!,
      queue: queue[number]!,
      cordoned: cordoned[number]!,
      roles: this.roles.filter((_, bit) => roles[number]! & (1 << bit)),
    };
  }

  /** Marks a site, and draws its links. */
  choose(number: number): void {
    const before = this.chosen;
    this.chosen = number;
    for (const site of [before, number]) {
      if (!this.graph.hasNode(site)) continue;
      this.draw(site);
      for (const other of this.links.of(site).keys()) this.drawLink(site, other);
    }
  }

  /** Colours the links by one of their measures. */
  gradeBy(measure: Measure): void {
    if (measure === this.measure) return;
    this.measure = measure;
    this.drawLinksAnew();
  }

  /** Draws all in other colours. */
  paint(colours: Colours): void {
    if (colours === this.colours) return;
    this.colours = colours;
    this.graph.updateEachNodeAttributes((site, drawn) => ({ ...drawn, color: this.colour(Number(site)) }), INDEXED);
    this.drawLinksAnew();
  }

  /**
   * Takes in the events that are newer than what is shown. Returns the sites of which nothing but
   * the colour is another: of those the graph tells nobody.
   */
  follow(events: readonly LiveEvent[]): number[] {
    const recoloured: number[] = [];
    for (const { id, data } of events) {
      if (!later(id, this.event)) continue;
      this.event = id;
      recoloured.push(...this.change(data as MapDelta));
    }
    return recoloured;
  }

  private change(delta: MapDelta): number[] {
    const first = this.sites.name.length;
    const added = delta.added as Columns;
    for (const key of Object.keys(this.sites) as (keyof Columns)[]) {
      (this.sites[key] as unknown[]).push(...added[key]);
    }
    for (let number = first; number < this.sites.name.length; number++) this.add(number);
    const recoloured = this.update(delta.changed);
    for (const [source, target] of delta.cut) {
      this.links.cut(source, target);
      this.drawLink(source, target);
    }
    this.connect(delta.links);
    return recoloured;
  }

  private update(changed: Required<MapDelta["changed"]>): number[] {
    const recoloured: number[] = [];
    for (const [at, number] of changed.site.entries()) {
      for (const key of ["state", "load", "queue", "cordoned"] as const) {
        (this.sites[key] as unknown[])[number] = changed[key][at];
      }
      if (!this.graph.hasNode(number)) continue;
      if (this.sites.state[number] === GONE) {
        this.links.leave(number);
        this.graph.dropNode(number);
        continue;
      }
      const drawn = this.graph.getNodeAttributes(number);
      const colour = this.colour(number);
      if (drawn.color === colour) continue;
      drawn.color = colour; // Not by the graph's own method: it would redraw all, for each site.
      recoloured.push(number);
    }
    return recoloured;
  }

  private add(number: number): void {
    const place: Place = this.layout.next(this.sites.jurisdiction[number]!);
    this.graph.addNode(number, { ...place, label: this.sites.name[number] });
    this.draw(number);
  }

  private draw(number: number): void {
    const chosen = number === this.chosen;
    this.graph.mergeNodeAttributes(number, {
      color: this.colour(number),
      size: chosen ? this.size + 4 : this.size,
      forceLabel: chosen,
      zIndex: chosen ? 1 : 0,
    });
  }

  private connect(links: MapView["links"]): void {
    for (const [source, target, rtt_s, throughput_bps] of links) {
      if (source === target || !this.graph.hasNode(source) || !this.graph.hasNode(target)) continue;
      const before = this.links.between(source, target);
      this.links.set(source, target, { rtt_s, throughput_bps });
      const graded = before && grade(before, this.measure) === grade(this.links.between(source, target), this.measure);
      if (!graded) this.drawLink(source, target);
    }
  }

  /** Draws a link, or takes it off, as what is known and chosen demands. */
  private drawLink(one: number, other: number): void {
    if (!this.graph.hasNode(one) || !this.graph.hasNode(other)) return;
    const chosen = one === this.chosen || other === this.chosen;
    const known = this.links.has(one, other) || this.links.has(other, one);
    if (known && (chosen || this.whole)) {
      this.graph.mergeUndirectedEdge(one, other, this.look(one, other));
    } else if (this.graph.hasEdge(one, other)) {
      this.graph.dropEdge(one, other);
    }
  }

  private drawLinksAnew(): void {
    this.graph.updateEachEdgeAttributes((_, drawn, source, target) => ({ ...drawn, ...this.look(Number(source), Number(target)) }), INDEXED);
  }

  private look(one: number, other: number) {
    const graded = grade(this.links.between(one, other), this.measure);
    const chosen = one === this.chosen || other === this.chosen;
    return { color: this.colours.links[graded], size: WIDTHS[graded] + (chosen ? WIDER_IF_CHOSEN : 0), zIndex: chosen ? 1 : 0 };
  }

  private colour(number: number): string {
    const { state, cordoned, load } = this.sites;
    if (state[number] === LOST) return this.colours.lost;
    if (cordoned[number]) return this.colours.cordoned;
    return load[number]! >= BUSY_LOAD ? this.colours.busy : this.colours.good;
  }
}

/** Whether an event of the same log is after another. Events of another log follow a `reset`. */
function later(id: string, than: string): boolean {
  const [log, number] = id.split("-");
  const [otherLog, other] = than.split("-");
  return log === otherLog && Number(number) > Number(other);
}
