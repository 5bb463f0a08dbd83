"""Small inference networks of all kinds, and queries to them, drawn from a seed. Values come from
short lists, so that ties and bounds that are just met occur often."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np

from daitn.control.queries.context import QueryContext
from daitn.control.queries.scoring import QIRCE
from daitn.objects.abilities import Abilities, Need, Reads, Says
from daitn.objects.cordons import Cordon
from daitn.objects.deployments import Api, DeploymentDescriptor, DeploymentState, ModelPolicy
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO, Privacy, QueryConstraints, QueryIntent, Strategy, Trust
from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.paths import paths_from
from daitn.topology.qrrt.state import QrrtState
from tests.topology.qrrt.world import (
    NOW_S,
    deployment,
    facility,
    figures,
    finding,
    gateway,
    link,
    serving,
)

GW = SiteId("s0")
"""Where queries come in; there may be a facility too."""
SITES = ("s0", "s1", "s2", "s3")
NAMES = ("a", "b", "c")
TOPICS = ("m", "m/n")
RARELY = 0.1


_CORDONS = (
    Cordon(by="ops", since_s=1.0, reason="new disks"),
    Cordon(by="ops", since_s=1.0, draining=True),
)


class World:
    """Draws one."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def usually(self, usual: Any, *others: Any) -> Any:
        return usual if self.rng.random() > RARELY else self.rng.choice(others)

    def context(self, strategy: Strategy) -> QueryContext:
        snapshot = self.state().snapshot()
        rows = range(len(snapshot.rows))
        return QueryContext(
            intent=self.intent(strategy),
            snapshot=snapshot,
            paths=paths_from(snapshot, GW, NOW_S),
            in_flight=np.array([self.usually(0.0, 3.0) for _ in rows]),
            now_s=NOW_S,
            affinity=self.rng.choice([-1, *rows]),
            excluded=tuple(row for row in rows if self.usually(False, True)),
        )

    def state(self) -> QrrtState:
        """What the gateway at `GW` knows."""
        state = QrrtState()
        state.described(gateway(GW), NOW_S)
        state.came(GW, NOW_S)
        for site in SITES:
            self._facility(state, SiteId(site))
        return state

    def intent(self, strategy: Strategy) -> QueryIntent:
        return QueryIntent(
            origin=GW,
            owner=self.rng.choice(["", "me"]),
            api=Api.CHAT,
            model=self.rng.choice([AUTO, AUTO, AUTO, "a", self.usually("b", "zz")]),
            site=self.usually(None, SiteId("s1")),
            topic=self.rng.choice(["", "m", "m/n", "m/n/o", "x"]),
            tokens_in=self.rng.choice([0, 50]),
            tokens_out=self.rng.choice([0, 20, 100]),
            tokens_expected=self.rng.choice([None, 0.0, 12.5, 70.0]),
            tokens_timed=self.rng.choice([None, 30.0]),
            tokens_usual=self.rng.choice([None, 20.0, 60.0]),
            characters=self.usually(None, (40, 0, 0, 0), (8, 0, 40, 1)),
            tokens_apart=self.rng.choice([0, 4]),
            longest_share=self.usually(1.0, 0.25),
            needs=self.usually((), (Need.TEXT, Need.TALK), (Need.RECORD,), (Need.IMAGE, Need.JSON)),
            constraints=self._wishes(strategy),
        )

    def _wishes(self, strategy: Strategy) -> QueryConstraints:
        choose = self.rng.choice
        scorers = self.rng.sample(list(QIRCE.scorers), choose([0, 0, 2]))
        return QueryConstraints(
            strategy=strategy,
            min_accuracy=choose([None, None, None, 0.0, 0.6, self.usually(0.5, 0.99)]),
            trust=choose(list(Trust)),
            max_first_token_s=self.usually(None, 0.05, 1.0),
            deadline_s=choose([None, None, None, 0.5, 1.5, 3.0]),
            max_cost_usd=choose([None, None, None, 0.005, 0.02]),
            jurisdictions=choose([(), (), (), (), self.usually(("US",), ("FR",))]),
            owners=choose([(), (), (), ("who",), ("nih", "who")]),
            language=self.usually("", "de"),
            privacy=self.usually(Privacy.ANY, Privacy.UNKEPT, Privacy.SITE),
            attempts=self.rng.randint(1, 4),
            prefer={scorer: choose([0.0, 1.0, 5.0]) for scorer in scorers},
        )

    def _facility(self, state: QrrtState, site: SiteId) -> None:
        names = [name for name in NAMES if self.rng.random() < 0.7]
        node = facility(
            site,
            *map(self._model, names),
            jurisdiction=self.rng.choice(["US", "CA"]),
            owner=self.rng.choice(["nih", "who"]),
            keeps_queries=self.rng.choice([False, True]),
            cordon=self.usually(msgspec.UNSET, *_CORDONS),
            version=2,
        )
        state.described(node, NOW_S)
        state.came(site, NOW_S)
        for name in names:
            self._happens(state, site, name)
        if (rtt_s := self.rng.choice([None, 0.01, 0.3])) is not None:
            state.absorb_link(link(GW, site, rtt_s, loss=self.usually(None, 0.5, 1.0)), NOW_S)
        if self.usually(False, True):
            state.lost(site, NOW_S)

    def _model(self, name: str) -> DeploymentDescriptor:
        choose = self.rng.choice
        return deployment(
            name,
            apis=self.usually((Api.CHAT,), (Api.EMBEDDINGS,), ()),
            state=self.usually(DeploymentState.READY, DeploymentState.LOADING),
            context_tokens=self.usually(4096, 60),
            abilities=self.usually(
                Abilities(),
                Abilities(reads=(Reads.TABLE,), says=(Says.CLASS,), tools=False),
                Abilities(reads=(Reads.TEXT, Reads.IMAGE), json_schema=False),
                Abilities(languages=("en",)),
            ),
            tokens_per_character=self.usually((), (0.5, 0.5, 0.5, 0.5)),
            slots=choose([1, 2]),
            queue=choose([0, 1, 2]),
            price_usd_per_1k_in=choose([0.0, 0.1]),
            price_usd_per_1k_out=choose([0.0, 0.01, 0.1]),
            claimed={topic: choose([0.5, 1.0]) for topic in TOPICS if self.usually(False, True)},
            policy=self.usually(
                ModelPolicy(), ModelPolicy(release_to=("US",)), ModelPolicy(askers=("me",))
            ),
        )

    def _happens(self, state: QrrtState, site: SiteId, name: str) -> None:
        choose = self.rng.choice
        said = figures(
            name,
            in_flight=choose([0, 0, 0, 0, 1, 4]),
            first_token_s=choose([None, 0.1, 1.0]),
            per_token_s=choose([None, 0.0, 0.01]),
            error_share=choose([0.0, 0.5]),
        )
        state.absorb_serving(serving(site, said), NOW_S)
        for topic in TOPICS:
            if (value := choose([None, 0.3, 0.6, 0.9])) is not None:
                sick = self.usually(False, True)
                state.absorb_finding(finding(name, site, topic, value, degraded=sick), NOW_S)
        if self.usually(False, True):
            failed = Observation(failed=True)
            state.observe(site, name, failed, NOW_S - choose([0, 10]))
