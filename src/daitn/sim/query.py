"""One query in a simulated gateway, led by the failover machine of live gateways.

Answers come whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from daitn.control.queries.attempts import (
    Answered,
    Ask,
    Attempts,
    Begun,
    Cause,
    Fact,
    Failed,
    GiveUp,
    Late,
    ReportFailed,
    ReportLate,
    Stop,
)
from daitn.control.queries.context import QueryContext
from daitn.control.queries.failover import Failover
from daitn.control.queries.observing import seen_whole
from daitn.control.queries.retry_budget import RetryBudget
from daitn.objects.queries import QueryIntent, QueryStatus
from daitn.sim.attempt import Served, SimulatedAttempt
from daitn.sim.choosing import Chosen
from daitn.sim.clock import Clock
from daitn.sim.load import Arrival
from daitn.topology.qrrt.observation import FAILED, Observation

__all__ = ["Ended", "Sender", "SimulatedQuery"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How one query ended. Times and cost are those of answered ones."""

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
    """A gateway's services for its queries."""

    def send(self, query: SimulatedQuery, row: int) -> SimulatedAttempt:
        """Query a row; its end is passed to `query.attempt_ended`."""
        ...

    def done(self, attempt: SimulatedAttempt) -> None:
        """It is no longer in progress."""
        ...

    def cancel(self, attempt: SimulatedAttempt) -> None:
        """Its answer is no longer wanted."""
        ...

    def observe(self, deployment: str, seen: Observation) -> None:
        """Report an observation of a deployment to the topology."""
        ...

    def learn(self, intent: QueryIntent, tokens: int) -> None:
        """Report the length of an answer."""
        ...

    def ended(self, ended: Ended) -> None:
        """The query has ended, once."""
        ...


class SimulatedQuery:
    """Carries out the commands of its failover machine."""

    def __init__(
        self,
        arrival: Arrival,
        context: QueryContext,
        choice: Chosen,
        budget: RetryBudget,
        clock: Clock,
        sender: Sender,
    ) -> None:
        self.arrival = arrival
        self.context = context
        self._clock = clock
        self._sender = sender
        self._account = Attempts(context.paths)
        constraints = context.intent.constraints
        self._failover = Failover(
            choice.rows,
            self._account,
            budget,
            most=constraints.attempts,
            late_after_s=choice.late_after_s if constraints.hedge else None,
        )
        self._under_way: dict[int, SimulatedAttempt] = {}

    def begin(self) -> None:
        """Query the first row."""
        self._handle(Begun())

    def attempt_ended(self, attempt: SimulatedAttempt, outcome: Served | Cause) -> None:
        """An attempt has ended."""
        if self._under_way.get(attempt.row) is not attempt:
            return  # It was cancelled, and did not know yet.
        del self._under_way[attempt.row]
        self._sender.done(attempt)
        if isinstance(outcome, Served):
            self._handle(Answered(attempt.row))
            self._answered(attempt, outcome)
        else:
            self._handle(Failed(attempt.row, outcome))

    def _handle(self, fact: Fact) -> None:
        for command in self._failover.handle(fact, self._clock.now_s):
            match command:
                case Ask(row=row, late_after_s=late_after_s):
                    self._ask(row, late_after_s)
                case Stop(row=row):
                    stopped = self._under_way.pop(row)
                    self._sender.done(stopped)
                    self._sender.cancel(stopped)
                case ReportFailed(row=row):
                    self._observe(row, FAILED)
                case ReportLate(row=row, waited_s=waited_s):
                    served_s = self._served_s(row, waited_s)
                    tokens = round(self.context.intent.timed_tokens)
                    self._observe(row, self._seen(row, served_s, tokens))
                case GiveUp(full=full):
                    status = QueryStatus.SHED if full else QueryStatus.FAILED
                    self._sender.ended(Ended(self.arrival, status, attempts=self._account.count))

    def _ask(self, row: int, late_after_s: float) -> None:
        attempt = self._under_way[row] = self._sender.send(self, row)
        if late_after_s < float("inf"):
            self._clock.after(late_after_s, lambda: self._late(attempt))

    def _late(self, attempt: SimulatedAttempt) -> None:
        if self._under_way.get(attempt.row) is attempt:
            self._handle(Late(attempt.row))

    def _answered(self, attempt: SimulatedAttempt, served: Served) -> None:
        now_s, arrival, row = self._clock.now_s, self.arrival, attempt.row
        served_s = self._served_s(row, now_s - attempt.asked_at_s - served.waited_s)
        self._observe(row, self._seen(row, served_s, arrival.tokens_out, served.first_token_s))
        self._sender.learn(self.context.intent, arrival.tokens_out)
        seconds = now_s - arrival.at_s
        self._sender.ended(
            Ended(
                arrival=arrival,
                status=QueryStatus.ANSWERED,
                deployment=attempt.deployment,
                attempts=self._account.count,
                hedged=self._account.hedged,
                first_token_s=seconds - (served.seconds - served.first_token_s),
                seconds=seconds,
            )
        )

    def _observe(self, row: int, seen: Observation) -> None:
        self._sender.observe(self.context.snapshot.rows[row].id, seen)

    def _seen(
        self, row: int, served_s: float, tokens: int, first_token_s: float | None = None
    ) -> Observation:
        columns = self.context.snapshot.columns
        return seen_whole(columns, row, served_s, tokens, first_token_s)

    def _served_s(self, row: int, waited_s: float) -> float:
        """Service time as known to a gateway, which knows the path from its paths."""
        return max(0.0, waited_s - float(self._account.paths.rtt_s[row]))
