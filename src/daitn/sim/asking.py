"""One query on its way through a simulated gateway: rows in turn, a second one beside a late one.

As live gateways do it for answers that come whole; see `daitn.node.gateway.failover`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from daitn.control.queries.context import QueryContext
from daitn.objects.queries import QueryStatus
from daitn.sim.attempt import Attempt, Outcome, Served
from daitn.sim.choosing import Chosen
from daitn.sim.clock import Clock
from daitn.sim.load import Arrival
from daitn.topology.qrrt.observation import Observation

__all__ = ["Asking", "Ended", "Sender"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How one query ended. Times and cost are of answered ones."""

    arrival: Arrival
    status: QueryStatus
    deployment: str = ""
    """`<model>@<site>`"""
    attempts: int = 0
    hedged: bool = False
    first_token_s: float = 0.0
    """From its arrival to the first piece of its answer."""
    seconds: float = 0.0
    """From its arrival to the end of its answer."""


class Sender(Protocol):
    """What a gateway does for its queries."""

    def send(self, asking: Asking, row: int) -> Attempt:
        """Ask a row; `asking.heard` is told how it ends."""
        ...

    def done(self, attempt: Attempt) -> None:
        """It is not under way any more."""
        ...

    def cancel(self, attempt: Attempt) -> None:
        """Its answer is not wanted any more."""
        ...

    def saw(self, attempt: Attempt, outcome: Outcome, seen: Observation | None) -> None:
        """What the topology is to learn of an attempt that ended."""
        ...

    def ended(self, ended: Ended) -> None:
        """The query has ended, once."""
        ...


class Asking:
    """Asks rows until one answers."""

    def __init__(
        self, arrival: Arrival, context: QueryContext, choice: Chosen, clock: Clock, sender: Sender
    ) -> None:
        self.arrival = arrival
        self.context = context
        self._rows = deque(choice.rows)
        self._late_after_s = choice.late_after_s
        self._clock = clock
        self._sender = sender
        self._pending: list[Attempt] = []
        self._attempts = 0
        self._hedged = False
        self._full = True
        """Whether it was for nothing but load that no attempt went well."""

    def begin(self) -> None:
        """Ask the first row."""
        self._another()

    def heard(self, attempt: Attempt, outcome: Outcome, served: Served | None) -> None:
        """An attempt has ended."""
        if attempt not in self._pending:
            return  # It was cancelled, and did not know yet.
        self._pending.remove(attempt)
        self._sender.done(attempt)
        if served is not None:
            self._answered(attempt, served)
            return
        self._full &= outcome is Outcome.FULL
        seen = None if outcome is Outcome.FULL else Observation(failed=True)
        self._sender.saw(attempt, outcome, seen)
        self._another()

    def _another(self) -> None:
        if self._rows:
            self._send()
        elif not self._pending:
            status = QueryStatus.SHED if self._full else QueryStatus.FAILED
            self._sender.ended(Ended(self.arrival, status, attempts=self._attempts))

    def _send(self) -> None:
        attempt = self._sender.send(self, self._rows.popleft())
        self._attempts += 1
        self._pending.append(attempt)
        if self._late_after_s < float("inf"):
            self._clock.after(self._late_after_s, lambda: self._late(attempt))

    def _late(self, attempt: Attempt) -> None:
        if self._pending == [attempt] and self._rows:
            self._hedged = True
            self._send()

    def _answered(self, attempt: Attempt, served: Served) -> None:
        now_s, arrival = self._clock.now_s, self.arrival
        for other in self._pending:
            self._sender.done(other)
            self._sender.cancel(other)
            if other.asked_at_s < attempt.asked_at_s:
                self._sender.saw(other, Outcome.ANSWERED, self._seen_late(other))
        self._pending.clear()
        self._sender.saw(attempt, Outcome.ANSWERED, self._seen(attempt, served))
        seconds = now_s - arrival.at_s
        self._sender.ended(
            Ended(
                arrival=arrival,
                status=QueryStatus.ANSWERED,
                deployment=attempt.deployment,
                attempts=self._attempts,
                hedged=self._hedged,
                first_token_s=seconds - (served.seconds - served.first_token_s),
                seconds=seconds,
            )
        )

    def _seen(self, attempt: Attempt, served: Served) -> Observation:
        served_s = self._served_s(attempt, served.waited_s)
        return self._observed(served_s, min(served.first_token_s, served_s))

    def _seen_late(self, attempt: Attempt) -> Observation:
        """Of one that was overtaken: it takes at least this long."""
        served_s, columns = self._served_s(attempt, 0.0), self.context.snapshot.columns
        first_s = float(columns.first_token_s[attempt.row])
        further_s = float(columns.per_token_s[attempt.row]) * self.arrival.tokens_out
        return self._observed(served_s, served_s * first_s / (first_s + further_s))

    def _observed(self, served_s: float, first_s: float) -> Observation:
        further = self.arrival.tokens_out - 1
        per_token_s = (served_s - first_s) / further if further else None
        return Observation(failed=False, first_token_s=first_s, per_token_s=per_token_s)

    def _served_s(self, attempt: Attempt, waited_s: float) -> float:
        """As far as a gateway can tell: it knows the way there from its paths."""
        rtt_s = float(self.context.paths.rtt_s[attempt.row])
        return max(0.0, self._clock.now_s - attempt.asked_at_s - waited_s - rtt_s)
