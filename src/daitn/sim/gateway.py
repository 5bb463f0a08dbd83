"""A gateway of a simulated world, around the live topology and a way to choose."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import msgspec

from daitn.control.queries.context import QueryContext
from daitn.control.queries.lengths import LengthModel, expecting
from daitn.control.queries.retry_budget import RetryBudget
from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryIntent, QueryStatus
from daitn.sim.attempt import SimulatedAttempt
from daitn.sim.choosing import Chooser
from daitn.sim.clock import Clock
from daitn.sim.facility import SimulatedFacility
from daitn.sim.links import SimulatedLinks
from daitn.sim.load import Arrival
from daitn.sim.query import Ended, SimulatedQuery
from daitn.topology.qrrt.load import GatewayLoad
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.paths import paths_from
from daitn.topology.qrrt.snapshot import Paths, Qrrt
from daitn.topology.qrrt.state import QrrtState

__all__ = ["SimulatedGateway", "path_rtt_s"]

GUESS_TOKENS = 64
"""Limit that a gateway assumes if the request sets none."""


class SimulatedGateway:
    """Decides on queries by what it has received; `state` gets nodes' messages."""

    def __init__(
        self,
        site: SiteId,
        clock: Clock,
        links: SimulatedLinks,
        facilities: Mapping[str, SimulatedFacility],
        chooser: Chooser,
        prefer: Mapping[str, float],
        seed: int,
        ended: Callable[[Ended], None],
        lengths: LengthModel,
    ) -> None:
        """`facilities` by deployment id; `prefer` overrides the queries' preferences."""
        self.state = QrrtState()
        self._on_ended = ended
        self._lengths = lengths
        self._site = site
        self._clock = clock
        self._links = links
        self._facilities = facilities
        self._chooser = chooser
        self._prefer = dict(prefer)
        self._seed = seed
        self._load = GatewayLoad()
        self._paths: tuple[Qrrt, Paths] | None = None
        self._budget = RetryBudget()

    def arrive(self, arrival: Arrival) -> None:
        """A query arrives."""
        self._budget.deposit(self._clock.now_s)
        context = self.context(arrival)
        rng = random.Random(f"{self._seed}:{arrival.number}")  # noqa: S311 - replayable
        choice = self._chooser.choose(context, arrival, rng)
        if choice.rows:
            SimulatedQuery(arrival, context, choice, self._budget, self._clock, self).begin()
        else:
            self.ended(Ended(arrival, QueryStatus.SHED))

    def context(self, arrival: Arrival) -> QueryContext:
        """The context of the query's decision."""
        snapshot = self.state.snapshot()
        constraints = arrival.constraints
        if self._prefer:
            constraints = msgspec.structs.replace(constraints, prefer=self._prefer)
        intent = QueryIntent(
            origin=self._site,
            owner="",
            api=Api.CHAT,
            model=arrival.model,
            topic=arrival.topic,
            tokens_in=arrival.tokens_in,
            tokens_out=arrival.limit or GUESS_TOKENS,
            open_ended=not arrival.limit,
            constraints=constraints,
        )
        return QueryContext(
            intent=expecting(intent, self._lengths),
            snapshot=snapshot,
            paths=self._paths_to(snapshot),
            in_flight=self._load.of(snapshot),
            now_s=self._clock.now_s,
        )

    def send(self, query: SimulatedQuery, row: int) -> SimulatedAttempt:
        context = query.context
        id_ = context.snapshot.rows[row].id
        attempt = SimulatedAttempt(
            arrival=query.arrival,
            row=row,
            deployment=id_,
            asked_at_s=self._clock.now_s,
            rtt_s=path_rtt_s(self._links, context, row),
            ended=query.attempt_ended,
        )
        self._load.begin(id_)
        self._facilities[id_].comes(attempt)
        return attempt

    def done(self, attempt: SimulatedAttempt) -> None:
        self._load.end(attempt.deployment)

    def cancel(self, attempt: SimulatedAttempt) -> None:
        facility = self._facilities[attempt.deployment]
        self._clock.after(attempt.rtt_s / 2, lambda: facility.cancel(attempt))

    def observe(self, deployment: str, seen: Observation) -> None:
        name, _, site = deployment.partition("@")
        self.state.observe(site, name, seen, self._clock.now_s)

    def learn(self, intent: QueryIntent, tokens: int) -> None:
        self._lengths.learn(intent, tokens)

    def ended(self, ended: Ended) -> None:
        self._on_ended(ended)

    def _paths_to(self, snapshot: Qrrt) -> Paths:
        if self._paths is not None:
            known, paths = self._paths
            if known.rows is snapshot.rows and known.links is snapshot.links:
                return paths
        paths = paths_from(snapshot, self._site, self._clock.now_s)
        self._paths = snapshot, paths
        return paths


def path_rtt_s(links: SimulatedLinks, context: QueryContext, row: int) -> float:
    """Current round trip of the context's path to a row."""
    site = context.snapshot.rows[row].site
    return links.rtt_s(context.intent.origin, site, context.paths.via(row))
