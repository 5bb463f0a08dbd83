"""What goes wrong in a run, drawn from its seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from daitn.objects.identifiers import CENTER_SITE

__all__ = ["ALONE_S", "KINDS", "Fault", "drawn"]


ALONE_S = 200.0
"""For so long a network has to live without a control centre."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, from `at_s` on, for `lasts_s`."""

    at_s: float
    kind: str
    where: str
    other: str = ""
    """The other end of a link; empty: all that it has. Of who leaves a sum: its phase."""
    lasts_s: float = 0.0
    size: float = 0.0
    """How bad: of a link a share or seconds, of a clock seconds, of a death how late it is noticed.
    """

    def __str__(self) -> str:
        link = f" to {self.other}" if self.other else ""
        return (
            f"{self.at_s:7.2f} s  {self.kind} {self.where}{link} for {self.lasts_s:.1f} s"
            f" ({self.size:g})"
        )


KINDS = (
    *(4 * ("kill",)),
    "stop",
    "stop",
    "cut",
    "isolate",
    "half-open",
    "slow",
    "lossy",
    "overtaking",
    "doubled",
    "damaged",
    "full disk",
    "database away",
    "database mute",
    "database cut",
    "clock",
    "dying workers",
    "quoting recipes",
    "rotten chunk",
)


def drawn(rng: random.Random, nodes: Sequence[str], until_s: float) -> tuple[Fault, ...]:
    """The faults of a run of a network of these nodes."""
    names = (CENTER_SITE, *nodes)
    faults = []
    for _ in range(rng.randint(2, 16)):
        kind = rng.choice(KINDS)
        where = CENTER_SITE if rng.random() < 0.3 else rng.choice(names)
        other = rng.choice([name for name in names if name != where])
        faults.append(
            Fault(
                at_s=rng.uniform(0.0, until_s),
                kind=kind,
                where=where,
                other=other if kind in _OF_LINKS else "",
                lasts_s=rng.choice((0.3, 2.0, 8.0, 25.0) if kind not in _BRIEF else (1.0, 4.0))
                * rng.uniform(0.5, 1.5),
                size=_size(kind, rng),
            )
        )
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


_OF_LINKS = frozenset(("cut", "half-open", "slow", "lossy", "overtaking", "doubled", "damaged"))
_BRIEF = frozenset(("dying workers", "quoting recipes"))
"""A site that fails is not asked again: not all of them are to."""


def _size(kind: str, rng: random.Random) -> float:
    match kind:
        case "kill":
            return rng.choice((0.05, 1.0, 10.0))
        case "clock":
            return rng.choice((-7200.0, -200.0, -30.0, 30.0, 200.0, 7200.0))
        case "slow":
            return rng.choice((0.3, 2.0, 7.0))
        case "lossy" | "damaged" | "doubled":
            return rng.choice((0.1, 0.4, 0.8))
        case "overtaking":
            return rng.choice((30.0, 300.0))
        case "dying workers" | "quoting recipes":
            return rng.choice((0.05, 0.2))
    return 0.0
