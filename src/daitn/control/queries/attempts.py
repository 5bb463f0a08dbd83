"""Attempts of a query at deployments: their facts, the resulting commands, and their record.

The shells of the failover machine (`daitn.control.queries.failover`), a live gateway and a
simulated one, hand in the facts and carry out the commands.
"""

from __future__ import annotations

import math

import msgspec

from daitn.openai.failures import Cause
from daitn.topology.qrrt.snapshot import Paths

__all__ = [
    "Answered",
    "Ask",
    "Attempts",
    "Begun",
    "BrokenOff",
    "Cause",
    "Command",
    "Fact",
    "Failed",
    "GiveUp",
    "Late",
    "ReportFailed",
    "ReportLate",
    "Stop",
]


class Attempts(msgspec.Struct):
    """The record of one query's attempts. Only the query's failover machines write it: a single
    plan has one, a cascade one after the other, an ensemble several side by side."""

    paths: Paths
    """The paths of the query's decision, or newer ones if a site could not be reached."""
    count: int = 0
    hedged: bool = False
    failed: set[int] = set()
    """Rows that were queried and failed."""
    refused: tuple[int, ...] = ()
    """Failed rows not yet known to the topology."""
    answered: bool = False
    """Whether any row answered."""


class Begun(msgspec.Struct, frozen=True):
    """An answer is wanted."""


class Answered(msgspec.Struct, frozen=True):
    """A row answered, or began to if its answer is a stream."""

    row: int


class Failed(msgspec.Struct, frozen=True):
    """A row did not answer."""

    row: int
    cause: Cause
    reason: str = ""
    retry_after_s: float | None = None
    """When a retry may succeed, according to the deployment."""
    paths: Paths | None = None
    """The remaining paths, if it could not be reached."""
    permanent: bool = False
    """Whether retrying soon is useless."""


class Late(msgspec.Struct, frozen=True):
    """A row has not answered within the time that `Ask` named."""

    row: int


class BrokenOff(msgspec.Struct, frozen=True):
    """The answer of a row broke off, and another one is wanted."""

    row: int
    rows: tuple[int, ...] | None = None
    """The only rows that may still answer; `None` means all that are left."""
    reason: str = ""


class Ask(msgspec.Struct, frozen=True):
    """Query a row; answer with `Answered` or `Failed`, and with `Late` after this time if neither
    came."""

    row: int
    late_after_s: float = math.inf


class Stop(msgspec.Struct, frozen=True):
    """Another row was faster; this one's answer is no longer needed."""

    row: int


class ReportFailed(msgspec.Struct, frozen=True):
    """Tell the topology that a row failed."""

    row: int


class ReportLate(msgspec.Struct, frozen=True):
    """Tell the topology that a row takes at least this long."""

    row: int
    waited_s: float


class GiveUp(msgspec.Struct, frozen=True):
    """No eligible row was able to answer."""

    failures: tuple[Failed, ...]
    """The last failure of each row."""
    untried: int = 0
    """Rows that were not queried, because attempts or the gateway's retry budget were used up."""

    @property
    def full(self) -> bool:
        """Whether load is the only obstacle."""
        causes = {one.cause for one in self.failures}
        return Cause.FULL in causes and causes <= {Cause.FULL, Cause.UNSUITED}

    @property
    def permanent(self) -> bool:
        """Whether retrying soon is useless."""
        return (
            bool(self.failures) and not self.untried and all(one.permanent for one in self.failures)
        )

    @property
    def retry_after_s(self) -> float | None:
        """When the first of them may answer, as far as they report it."""
        waits_s = [one.retry_after_s for one in self.failures if one.retry_after_s is not None]
        return min(waits_s, default=None)


Fact = Begun | Answered | Failed | Late | BrokenOff
Command = Ask | Stop | ReportFailed | ReportLate | GiveUp
