"""Attempts of a query at deployments: facts of them, commands that follow, and their account.

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
    "Stop",
    "TellFailed",
    "TellLate",
]


class Attempts(msgspec.Struct):
    """The account of one query's attempts. Only the query's failover machines write it: a single
    plan has one, a cascade one after the other, an ensemble several side by side."""

    paths: Paths
    """Those that the query was decided on, or newer ones where a site could not be reached."""
    count: int = 0
    hedged: bool = False
    failed: set[int] = set()
    """Rows that were asked and failed."""
    refused: tuple[int, ...] = ()
    """Rows that did, of which the topology was not told yet."""
    answered: bool = False
    """Whether any row answered."""


class Begun(msgspec.Struct, frozen=True):
    """Somebody wants an answer."""


class Answered(msgspec.Struct, frozen=True):
    """A row answered, or began to where its answer is a stream."""

    row: int


class Failed(msgspec.Struct, frozen=True):
    """A row did not answer."""

    row: int
    cause: Cause
    reason: str = ""
    retry_after_s: float | None = None
    """When it may go better, as the deployment says."""
    paths: Paths | None = None
    """Those that are left, where it could not be reached."""
    permanent: bool = False
    """Whether asking again soon is useless."""


class Late(msgspec.Struct, frozen=True):
    """A row has not answered within the time that `Ask` named."""

    row: int


class BrokenOff(msgspec.Struct, frozen=True):
    """The answer of a row that answered did not come to its end, and another is wanted."""

    row: int
    rows: tuple[int, ...] | None = None
    """The only ones that may still answer; none: those that are left."""
    reason: str = ""


class Ask(msgspec.Struct, frozen=True):
    """Ask a row; answer with `Answered` or `Failed`, and with `Late` after so long if neither
    came."""

    row: int
    late_after_s: float = math.inf


class Stop(msgspec.Struct, frozen=True):
    """Another row was faster; nobody waits for this one's answer."""

    row: int


class TellFailed(msgspec.Struct, frozen=True):
    """Tell the topology that a row failed."""

    row: int


class TellLate(msgspec.Struct, frozen=True):
    """Tell the topology that a row takes at least so long."""

    row: int
    waited_s: float


class GiveUp(msgspec.Struct, frozen=True):
    """No row that may answer could."""

    failures: tuple[Failed, ...]
    """The last one of each row."""
    untried: int = 0
    """Rows that were not asked, because attempts or the gateway's retry budget were used up."""

    @property
    def full(self) -> bool:
        """Whether load is all that stands in the way."""
        causes = {one.cause for one in self.failures}
        return Cause.FULL in causes and causes <= {Cause.FULL, Cause.UNSUITED}

    @property
    def permanent(self) -> bool:
        """Whether asking again soon is useless."""
        return (
            bool(self.failures) and not self.untried and all(one.permanent for one in self.failures)
        )

    @property
    def retry_after_s(self) -> float | None:
        """When the first of them may answer, as far as they say."""
        waits_s = [one.retry_after_s for one in self.failures if one.retry_after_s is not None]
        return min(waits_s, default=None)


Fact = Begun | Answered | Failed | Late | BrokenOff
Command = Ask | Stop | TellFailed | TellLate | GiveUp
