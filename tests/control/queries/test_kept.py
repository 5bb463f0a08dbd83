"""What the engine keeps between queries and snapshots changes no decision, to the last bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as replaced

from daitn.control.queries.context import QueryContext, QueryPlan
from daitn.control.queries.engine import Qirce
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Demand, DemandRate
from daitn.objects.queries import AUTO, QueryConstraints, QueryIntent, Strategy, Trust
from daitn.topology.qrrt.cache import PartsCache, cached
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.paths import paths_from, permitted
from daitn.topology.qrrt.snapshot import Accuracies, Paths
from daitn.topology.qrrt.state import QrrtState
from tests.topology.qrrt.world import (
    NOW_S,
    deployment,
    facility,
    figures,
    finding,
    link,
    serving,
    state_of,
)

from .plain import plainly
from .worlds import GW, NAMES, SITES, TOPICS, World

QIRCE = Qirce()
seeds = st.integers(0, 2**32)
_WISHES = ("min_accuracy", "trust", "jurisdictions", "owners", "privacy", "max_cost_usd")


class History(World):
    """A gateway's queries while the network changes between them."""

    def happens(self, state: QrrtState) -> None:
        """Something of all that a snapshot may tell."""
        choose = self.rng.choice
        site, name = SiteId(choose(SITES)), choose(NAMES)
        rate = DemandRate(
            topic="", model=AUTO, per_s=1.0, shed_per_s=0.0, tokens_out=choose([0.0, 9.0, 80.0])
        )
        events: list[Callable[[], object]] = [
            lambda: state.lost(site, NOW_S),
            lambda: state.came(site, NOW_S),
            lambda: self._facility(state, site),
            lambda: state.absorb_finding(
                finding(name, site, choose(TOPICS), choose([0.2, 0.95])), NOW_S
            ),
            lambda: state.absorb_serving(
                serving(site, figures(name, in_flight=choose([0, 2]), per_token_s=0.02)), NOW_S
            ),
            lambda: state.observe(site, name, Observation(failed=choose([True, False])), NOW_S),
            lambda: state.absorb_link(link(GW, site, choose([0.02, 0.2]), at_s=NOW_S), NOW_S),
            lambda: state.absorb_demand(Demand(site=GW, at_s=NOW_S, rates=(rate,)), NOW_S),
        ]
        choose(events)()

    def _nearly(self, intent: QueryIntent) -> QueryIntent:
        """Another intent, or the same but for one thing."""
        other = self.intent(intent.constraints.strategy)
        name = self.rng.choice([*_WISHES, "topic", "tokens_out", "model", "owner", ""])
        if not name:
            return other
        if name in _WISHES:
            wished = {name: getattr(other.constraints, name)}
            return replaced(intent, constraints=replaced(intent.constraints, **wished))
        return replaced(intent, **{name: getattr(other, name)})

    def contexts(self) -> list[QueryContext]:
        """A few kinds of queries that come again and again, as they were asked one by one."""
        state, asked = self.state(), []
        intents = [self.intent(self.rng.choice(list(Strategy)))]
        intents += [self._nearly(self.rng.choice(intents)) for _ in range(4)]
        paths, rows = paths_from(state.snapshot(), GW, NOW_S), state.snapshot().rows
        for _ in range(16):
            if self.rng.random() < 0.5:
                self.happens(state)
            snapshot = state.snapshot()
            if snapshot.rows is not rows or self.rng.random() < 0.2:
                paths, rows = paths_from(snapshot, GW, NOW_S), snapshot.rows
            intent = self.rng.choice(intents)
            numbers = range(len(rows))
            context = QueryContext(
                intent=intent,
                snapshot=snapshot,
                paths=permitted(paths, snapshot, intent.constraints),
                in_flight=np.array([self.usually(0.0, 3.0) for _ in numbers]),
                now_s=NOW_S + self.rng.choice([0.0, 0.4, 60.0]),
                affinity=self.rng.choice([-1, *numbers]),
                excluded=tuple(row for row in numbers if self.usually(False, True)),
            )
            asked.append(context)
        return asked


def bare(context: QueryContext) -> QueryContext:
    """The same with nothing kept."""
    snapshot, paths = context.snapshot, context.paths
    topics = Accuracies(snapshot.accuracies.topics)
    return replace(
        context,
        snapshot=replace(snapshot, accuracies=topics, cache={}),
        paths=Paths(paths.rtt_s, paths.direct_rtt_s, paths.relay, paths.relays, paths.measured),
    )


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_decisions_are_those_of_the_plain_computation(seed: int) -> None:
    history = History(seed)
    contexts = history.contexts()
    again = history.rng.choices(contexts, k=8)  # Recorded ones are explained later.
    for number, context in enumerate([*contexts, *again]):
        plan = QIRCE.decide(context, random.Random(number))
        plain = plainly(context, random.Random(number))
        assert (plan if isinstance(plan, QueryPlan) else None) == plain


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_refusals_and_explanations_are_those_of_a_first_query(seed: int) -> None:
    for number, context in enumerate(History(seed).contexts()):
        first = bare(context)
        assert QIRCE.decide(context, random.Random(number)) == QIRCE.decide(
            first, random.Random(number)
        )
        assert QIRCE.explain(context, random.Random(number)) == QIRCE.explain(
            first, random.Random(number)
        )


def test_what_is_kept_is_bounded_and_lasts_as_long_as_its_parts() -> None:
    cache: dict[str, PartsCache[int]] = {}
    part, other = object(), object()
    for kind in range(5):
        cached(cache, "doubled", (part,), 3).put(kind, 2 * kind)
    kept = cached(cache, "doubled", (part,), 3)
    assert [kept.get(kind) for kind in range(5)] == [None, None, 4, 6, 8]
    assert cached(cache, "doubled", (other,), 3).get(4) is None
    assert cached(cache, "doubled", (part,), 3).get(4) is None, "earlier versions are let go"


def test_names_that_nobody_has_are_not_kept() -> None:
    context = World(7).context(Strategy.SINGLE)
    for number in range(600):
        intent = replaced(context.intent, model=f"m{number}", site=None)
        QIRCE.decide(replace(context, intent=intent), random.Random(0))
    kept = context.snapshot.cache["selected"]
    assert all(kept.get((f"m{number}", None)) is None for number in range(600))


def test_queries_that_differ_in_trust_alone_are_told_apart() -> None:
    state = state_of([facility("s1", deployment("liar", claimed={"m": 1.0}))])
    context = World(0).context(Strategy.SINGLE)
    snapshot = state.snapshot()
    for trust in (Trust.CLAIMED, Trust.ASKED, Trust.CLAIMED):
        constraints = QueryConstraints(min_accuracy=0.9, trust=trust)
        asked = QueryContext(
            intent=replaced(
                context.intent, model=AUTO, site=None, topic="m", constraints=constraints
            ),
            snapshot=snapshot,
            paths=paths_from(snapshot, GW, NOW_S),
            in_flight=np.zeros(1),
            now_s=NOW_S,
        )
        plan = QIRCE.decide(asked, random.Random(0))
        assert isinstance(plan, QueryPlan) == (trust is Trust.CLAIMED)
