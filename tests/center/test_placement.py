"""What the optimiser is told of demand that names no model."""

from __future__ import annotations

import msgspec
import pytest

from daitn.center.placement import placement
from daitn.objects.descriptors import ModelDescriptor, NodeDescriptor
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.messages import Demand, DemandRate
from daitn.objects.placement import AUTO_REPLICAS, DeployIntent, DesiredDeployment
from daitn.objects.queries import AUTO
from tests.topology.qrrt.world import (
    NOW_S,
    WEIGHTS,
    deployment,
    facility,
    finding,
    gateway,
    state_of,
)

SIZE_BYTES = 1_000_000
HOME, SPARE, GATE = SiteId("home"), SiteId("spare"), SiteId("gate")


def wish(name: str) -> DesiredDeployment:
    """It is at home, and may be anywhere."""
    return DesiredDeployment(
        name=name,
        intent=DeployIntent(model=name, replicas=AUTO_REPLICAS),
        model=ModelDescriptor(
            name=name,
            owner=OwnerId("university"),
            recipe="causal-lm",
            manifest=Digest(WEIGHTS),
            size_bytes=SIZE_BYTES,
            measured={},
            holders=(HOME,),
            created_at_s=1.0,
        ),
        places=(HOME,),
    )


def host(site: str, *names: str) -> NodeDescriptor:
    node = facility(site, *(deployment(name) for name in names))
    assert node.facility is not None
    can = msgspec.structs.replace(node.facility, recipes=("causal-lm",))
    return msgspec.structs.replace(node, facility=can)


def added(topic: str, per_s: float, **accuracies: float) -> set[str]:
    """Which models get a replica at the spare facility, that has room for one."""
    nodes = [host("home", *accuracies), host("spare"), gateway("gate")]
    found = [finding(name, "home", "medicine", value) for name, value in accuracies.items()]
    state = state_of(nodes, *found)
    rate = DemandRate(topic=topic, model=AUTO, per_s=per_s, shed_per_s=0.0, tokens_out=20.0)
    state.absorb_demand(Demand(site=GATE, at_s=NOW_S, rates=(rate,)), NOW_S)
    free = {HOME: 0, SPARE: SIZE_BYTES}
    view = placement({name: wish(name) for name in accuracies}, state.snapshot(), free)
    return {change.name for change in view.changes if change.add}


@pytest.mark.parametrize("good", ["doctor", "quack"])
def test_queries_to_any_model_count_for_those_that_are_as_good_as_the_best(good: str) -> None:
    accuracies = {"doctor": 0.6, "quack": 0.6} | {good: 0.9}
    assert added("medicine", 30.0, **accuracies) == {good}
    assert added("medicine/neurology", 30.0, **accuracies) == {good}


def test_models_that_are_alike_share_them() -> None:
    assert added("medicine", 18.0, doctor=0.90, quack=0.88) == set()
    assert added("medicine", 18.0, doctor=0.90, quack=0.60) == {"doctor"}
    assert added("law", 18.0, doctor=0.90, quack=0.60) == set(), "nobody knows who is better"
