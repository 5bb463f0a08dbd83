"""One query to one deployment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daitn.control.queries.attempts import Cause
from daitn.sim.load import Arrival

__all__ = ["Served", "SimulatedAttempt"]


@dataclass(frozen=True, slots=True)
class Served:
    """A facility's report with an answer."""

    waited_s: float
    first_token_s: float
    """Seconds from its slot to its first piece."""
    seconds: float
    """Seconds from its slot to its end."""


@dataclass(slots=True, eq=False)
class SimulatedAttempt:
    """In transit, waiting, served or ended."""

    arrival: Arrival
    row: int
    """Row of the snapshot on which the decision was based."""
    deployment: str
    """`<model>@<site>`"""
    asked_at_s: float
    rtt_s: float
    """The true one; the gateway's belief is in its paths."""
    ended: Callable[[SimulatedAttempt, Served | Cause], None]
    """Reports its end to its gateway: the served result, or the reason for failure."""
    reached_at_s: float = 0.0
    began_at_s: float = 0.0
    ends_at_s: float = 0.0

    @property
    def reaches_at_s(self) -> float:
        """When it is at its facility."""
        return self.asked_at_s + self.rtt_s / 2
