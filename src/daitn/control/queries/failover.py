"""The failover machine: retries, hedges and their budget as one state machine without I/O.

It asks deployments in turn until one answers, within a budget of retries, and a second one beside
the first where that is unusually late (Dean and Barroso, "The tail at scale", CACM 2013). One door,
a literal table, facts in and commands out.

::

              Failed, another row is left; Late: a second one beside
                               ┌──┐
                       Begun   │  v   Answered
                  new ───────> asking ────────> answered
                               │    ^               │
         Failed, none is left  │    └───────────────┘ BrokenOff, another row is left
                               v                    │
                           given up <───────────────┘ BrokenOff, none is left

The machine takes what comes of a stopped attempt, and does nothing.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from daitn.control.queries.attempts import (
    Answered,
    Ask,
    Attempts,
    Begun,
    BrokenOff,
    Cause,
    Command,
    Fact,
    Failed,
    GiveUp,
    Late,
    ReportFailed,
    ReportLate,
    Stop,
)
from daitn.control.queries.retry_budget import RetryBudget
from daitn.objects.errors import IllegalTransition
from daitn.objects.identifiers import SiteId
from daitn.topology.qrrt.snapshot import Paths

__all__ = ["Failover"]

Commands = tuple[Command, ...]
_NOTHING: Final[Commands] = ()
_HARMLESS: Final = (Cause.FULL, Cause.UNSUITED)
"""Failures that say nothing about a row's health."""


class _State(enum.StrEnum):
    NEW = "new"
    ASKING = "asking"
    ANSWERED = "answered"
    GIVEN_UP = "given up"


class Failover:
    """Failover of one answer. Its times and those of the budget are from one monotonic clock."""

    __slots__ = (
        "_account",
        "_budget",
        "_cut_off",
        "_failures",
        "_hedged",
        "_history",
        "_late_after_s",
        "_left",
        "_relays",
        "_rows",
        "_state",
        "_under_way",
        "_watched",
    )

    def __init__(
        self,
        rows: Iterable[int],
        account: Attempts,
        budget: RetryBudget,
        *,
        most: int,
        late_after_s: Callable[[int], float] | None = None,
        relays: bool = True,
    ) -> None:
        """`rows`: distinct, in the order in which they are queried. `most`: attempts.
        `late_after_s`: when a row is unusually late; `None` means no hedging. `relays`: whether
        rows are queried through other gateways if paths lead through them."""
        self._rows = deque(rows)
        self._account = account
        self._budget = budget
        self._left = most
        self._late_after_s = late_after_s
        self._relays = relays
        self._state = _State.NEW
        self._history: list[Fact] = []
        self._under_way: dict[int, tuple[float, Paths]] = {}
        """Rows in progress, with start times and paths."""
        self._cut_off: tuple[tuple[int, SiteId | None], ...] = ()
        """Rows, and the gateways through which they could not be reached; `None` means directly."""
        self._failures: dict[int, Failed] = {}
        self._watched = -1
        """The only row in progress, for which `Late` is awaited."""
        self._hedged = -1
        """The late row beside which another one was queried."""

    def handle(self, fact: Fact, now_s: float) -> Commands:
        """Process one fact; returns the commands, in order.

        Raises `IllegalTransition`, with what came before, for a fact that the state does not know.
        """
        handler = _TABLE[self._state].get(type(fact))
        if handler is None:
            history = ", ".join(map(str, self._history)) or "nothing"
            raise IllegalTransition(
                f"a failover that is {self._state} cannot take {fact}; so far: {history}",
                fix="this is a defect of the gateway; report it",
            )
        commands = handler(self, fact, now_s)
        self._history.append(fact)
        return commands

    def _on_begun(self, fact: Begun, now_s: float) -> Commands:
        self._state = _State.ASKING
        if self._rows and self._left:
            return (self._ask(self._rows.popleft(), now_s),)
        return self._give_up()

    def _on_answered(self, fact: Answered, now_s: float) -> Commands:
        if self._under_way.pop(fact.row, None) is None:
            return _NOTHING
        self._state = _State.ANSWERED
        account = self._account
        account.answered = True
        if not self._under_way and not account.refused:
            return _NOTHING
        commands: list[Command] = []
        for row, (asked_at_s, _) in self._under_way.items():
            commands.append(Stop(row))
            if self._is_late(row, waited_s := now_s - asked_at_s):
                commands.append(ReportLate(row, waited_s))
        self._under_way.clear()
        # Another row answered this query, so the query was not at fault: bad queries alone cannot
        # get a deployment suspended for others.
        commands += map(ReportFailed, account.refused)
        account.refused = ()
        return tuple(commands)

    def _on_failed(self, fact: Failed, now_s: float) -> Commands:
        attempt = self._under_way.pop(fact.row, None)
        if attempt is None:
            return _NOTHING
        noted = self._note(fact, attempt[1])
        if (ask := self._next(now_s)) is not None:
            return (*noted, ask)
        return noted if self._under_way else (*noted, *self._give_up())

    def _on_late(self, fact: Late, now_s: float) -> Commands:
        if fact.row != self._watched or (ask := self._next(now_s)) is None:
            return _NOTHING
        self._hedged = fact.row
        self._account.hedged = True
        return (ask,)

    def _on_broken_off(self, fact: BrokenOff, now_s: float) -> Commands:
        self._state = _State.ASKING
        self._hedged = -1
        self._account.failed.add(fact.row)
        self._failures[fact.row] = Failed(fact.row, Cause.FAILED, fact.reason)
        if fact.rows is not None:
            self._rows = deque(fact.rows)
        ask = self._next(now_s)
        return (ReportFailed(fact.row), *((ask,) if ask is not None else self._give_up()))

    def _on_stale(self, fact: Fact, now_s: float) -> Commands:
        return _NOTHING

    def _note(self, failed: Failed, by: Paths) -> Commands:
        row, account = failed.row, self._account
        if failed.paths is not None:
            account.paths = failed.paths
            self._cut_off += (self._path(row, by),)
            reached = math.isfinite(failed.paths.rtt_s[row])
            if reached and self._path(row, failed.paths) not in self._cut_off:
                self._rows.appendleft(row)
                return _NOTHING
        account.failed.add(row)
        self._failures[row] = failed
        if failed.cause is Cause.REFUSED and not account.answered:
            account.refused += (row,)
            return _NOTHING
        return _NOTHING if failed.cause in _HARMLESS else (ReportFailed(row),)

    def _next(self, now_s: float) -> Ask | None:
        """The next reachable row, if a retry is left."""
        rtt_s = self._account.paths.rtt_s
        while self._rows and math.isinf(rtt_s[self._rows[0]]):
            self._rows.popleft()
        if not self._rows or not self._left or not self._budget.spend(now_s):
            return None
        return self._ask(self._rows.popleft(), now_s)

    def _ask(self, row: int, now_s: float) -> Ask:
        assert row not in self._under_way
        assert len(self._under_way) < 2
        self._left -= 1
        self._account.count += 1
        alone = not self._under_way
        self._under_way[row] = now_s, self._account.paths
        self._watched = -1
        if self._late_after_s is None or not (alone and self._rows and self._left):
            return Ask(row)
        if self._hedged >= 0:
            return Ask(row)
        self._watched = row
        return Ask(row, self._late_after_s(row))

    def _path(self, row: int, by: Paths) -> tuple[int, SiteId | None]:
        return row, by.via(row) if self._relays else None

    def _is_late(self, row: int, waited_s: float) -> bool:
        """A row queried beside another has had less time: nothing is known about it yet if it is
        overtaken soon."""
        assert self._late_after_s is not None
        return row == self._hedged or waited_s >= self._late_after_s(row)

    def _give_up(self) -> Commands:
        self._state = _State.GIVEN_UP
        return (GiveUp(tuple(self._failures.values()), len(self._rows)),)


_Handler = Callable[[Failover, Any, float], Commands]
_TABLE: Final[dict[_State, dict[type[Fact], _Handler]]] = {
    _State.NEW: {Begun: Failover._on_begun},
    _State.ASKING: {
        Answered: Failover._on_answered,
        Failed: Failover._on_failed,
        Late: Failover._on_late,
    },
    _State.ANSWERED: {
        BrokenOff: Failover._on_broken_off,
        Answered: Failover._on_stale,
        Failed: Failover._on_stale,
        Late: Failover._on_stale,
    },
    _State.GIVEN_UP: {
        Answered: Failover._on_stale,
        Failed: Failover._on_stale,
        Late: Failover._on_stale,
    },
}
