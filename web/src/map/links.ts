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
