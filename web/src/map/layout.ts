// Where sites stand on the map: jurisdictions are discs, packed from the largest outward, and a
// site's place within its disc follows from the order of names alone. So it is the same at every
// visit, and ten thousand sites take a few milliseconds.
export type Placed = { x: number; y: number };

const GOLDEN_ANGLE = Math.PI * (3 - Math.sqrt(5));
const GAP = 1.5;

type Disc = { name: string; sites: number[]; x: number; y: number; radius: number };

export function placed(names: string[], groups: string[]): { sites: Placed[]; discs: Disc[] } {
  const byGroup = new Map<string, number[]>();
  for (const [at, group] of groups.entries()) {
    const known = byGroup.get(group);
    if (known) known.push(at);
    else byGroup.set(group, [at]);
  }
  const discs: Disc[] = [...byGroup]
    .map(([name, sites]) => ({ name, sites, x: 0, y: 0, radius: Math.sqrt(sites.length) + GAP }))
    .sort((one, other) => other.radius - one.radius || one.name.localeCompare(other.name));
  pack(discs);
  const sites: Placed[] = new Array(names.length);
  for (const disc of discs) {
    disc.sites.sort((one, other) => (names[one]! < names[other]! ? -1 : 1));
    for (const [order, site] of disc.sites.entries()) {
      // A sunflower's seeds: evenly spread at any number.
      const distance = Math.sqrt(order);
      const angle = order * GOLDEN_ANGLE;
      sites[site] = { x: disc.x + distance * Math.cos(angle), y: disc.y + distance * Math.sin(angle) };
    }
  }
  return { sites, discs };
}

/** Puts each disc as near to the middle as those before it let it. */
function pack(discs: Disc[]): void {
  for (const [at, disc] of discs.entries()) {
    for (let step = 0; ; step++) {
      const distance = 0.5 * Math.sqrt(step);
      disc.x = distance * Math.cos(step * GOLDEN_ANGLE);
      disc.y = distance * Math.sin(step * GOLDEN_ANGLE);
      const near = (other: Disc) =>
        Math.hypot(disc.x - other.x, disc.y - other.y) < disc.radius + other.radius;
      if (!discs.slice(0, at).some(near)) break;
    }
  }
}
