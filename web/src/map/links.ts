// Measured links, by the numbers of their sites: all that are known, be they drawn or not.
export type Facts = { rtt_s: number | null; throughput_bps: number | null };

export class Links {
  private readonly out = new Map<number, Map<number, Facts>>();
  private readonly into = new Map<number, Set<number>>();
  size = 0;

  set(source: number, target: number, facts: Facts): void {
    const targets = entry(this.out, source, () => new Map<number, Facts>());
    if (!targets.has(target)) this.size++;
    targets.set(target, facts);
    entry(this.into, target, () => new Set<number>()).add(source);
  }

  has(source: number, target: number): boolean {
    return this.out.get(source)?.has(target) ?? false;
  }

  /** What is known of a link, in whichever direction it was measured. */
  between(one: number, other: number): Facts | undefined {
    return this.out.get(one)?.get(other) ?? this.out.get(other)?.get(one);
  }

  cut(source: number, target: number): void {
    if (this.out.get(source)?.delete(target)) this.size--;
    this.into.get(target)?.delete(source);
  }

  /** Cuts all links of a site. */
  leave(site: number): void {
    for (const target of [...(this.out.get(site)?.keys() ?? [])]) this.cut(site, target);
    for (const source of [...(this.into.get(site) ?? [])]) this.cut(source, site);
  }

  /** Whom a site is linked to; what it measured itself goes before what the other did. */
  of(site: number): Map<number, Facts> {
    const found = new Map<number, Facts>();
    for (const source of this.into.get(site) ?? []) found.set(source, this.out.get(source)!.get(site)!);
    for (const [target, facts] of this.out.get(site) ?? []) found.set(target, facts);
    return found;
  }
}

function entry<K, V>(map: Map<K, V>, key: K, made: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = made()));
  return value;
}

export type Measure = "delay" | "rate";
export const GRADES = ["good", "middling", "poor", "unknown"] as const;
export type Grade = (typeof GRADES)[number];

/** Bounds between good, middling and poor: seconds, and bytes per second. */
export const BOUNDS = { delay: [0.01, 0.1], rate: [100e6, 10e6] } as const;

/** How good a link is by one of its measures. */
export function grade(facts: Facts | undefined, by: Measure): Grade {
  const value = by === "delay" ? facts?.rtt_s : facts?.throughput_bps;
  if (value == null) return "unknown";
  const [first, second] = BOUNDS[by];
  const within = (bound: number) => (by === "delay" ? value <= bound : value >= bound);
  return within(first) ? "good" : within(second) ? "middling" : "poor";
}
