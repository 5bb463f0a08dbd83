// Where sites stand on the map: jurisdictions are discs, packed from the largest outward, and a
// site's place within its disc follows from the order of names alone. So it is the same at every
// visit, and ten thousand sites take a few milliseconds.
export type Place = { x: number; y: number };

const GOLDEN_ANGLE = Math.PI * (3 - Math.sqrt(5));
const GAP = 1.5;

type Disc = Place & { radius: number; taken: number };

export class Layout {
  private readonly discs = new Map<string, Disc>();

  /** Where each group's name is to stand: at the top of its disc. */
  get tops(): Map<string, Place> {
    return new Map([...this.discs].map(([group, { x, y, radius }]) => [group, { x, y: y + radius }]));
  }

  /** `sizes`: how many sites each group has to begin with. */
  constructor(sizes: Map<string, number>) {
    const sorted = [...sizes].sort((one, other) => other[1] - one[1] || (one[0] < other[0] ? -1 : 1));
    for (const [group, size] of sorted) this.begin(group, size);
  }

  /** The next place in a group's disc. Sites that come later grow it outward. */
  next(group: string): Place {
    const disc = this.discs.get(group) ?? this.begin(group, 1);
    // A sunflower's seeds: evenly spread at any number.
    const order = disc.taken++;
    const distance = Math.sqrt(order);
    const angle = order * GOLDEN_ANGLE;
    return { x: disc.x + distance * Math.cos(angle), y: disc.y + distance * Math.sin(angle) };
  }

  /** A new disc, as near to the middle as the others let it. */
  private begin(group: string, size: number): Disc {
    const disc = { x: 0, y: 0, radius: Math.sqrt(size) + GAP, taken: 0 };
    const others = [...this.discs.values()];
    for (let step = 0; others.some((other) => overlap(disc, other)); step++) {
      const distance = 0.5 * Math.sqrt(step);
      disc.x = distance * Math.cos(step * GOLDEN_ANGLE);
      disc.y = distance * Math.sin(step * GOLDEN_ANGLE);
    }
    this.discs.set(group, disc);
    return disc;
  }
}

function overlap(one: Disc, other: Disc): boolean {
  return Math.hypot(one.x - other.x, one.y - other.y) < one.radius + other.radius;
}
