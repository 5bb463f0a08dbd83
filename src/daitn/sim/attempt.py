"""One query, asked of one deployment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daitn.control.queries.attempts import Cause
from daitn.sim.load import Arrival

__all__ = ["Served", "SimulatedAttempt"]


@dataclass(frozen=True, slots=True)
class Served:
    """What a facility tells with an answer."""

    waited_s: float
    first_token_s: float
    """From its slot to its first piece."""
    seconds: float
    """From its slot to its end."""


@dataclass(slots=True, eq=False)
class SimulatedAttempt:
    """On its way, waiting, served or ended."""

    arrival: Arrival
    row: int
    """Of the snapshot that was decided on."""
    deployment: str
    """`<model>@<site>`"""
    asked_at_s: float
    rtt_s: float
    """As it is; what the gateway believes is in its paths."""
    ended: Callable[[SimulatedAttempt, Served | Cause], None]
    """Its gateway hears of it by this: what it was served, or why not."""
    reached_at_s: float = 0.0
    began_at_s: float = 0.0
    ends_at_s: float = 0.0

    @property
    def reaches_at_s(self) -> float:
        """When it is at its facility."""
        return self.asked_at_s + self.rtt_s / 2
