"""From what is wished to what is asked of facilities: nothing goes before its successor answers."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from daitn.control.placement.reconcile import Deploy, Retire, chosen_places, next_steps
from daitn.objects.cordons import Cordon
from daitn.objects.deployments import (
    Api,
    DeploymentDescriptor,
    DeploymentState,
    FacilityDescriptor,
    Runtime,
    config_digest,
)
from daitn.objects.descriptors import ModelDescriptor, NodeDescriptor, Role
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.placement import DeployIntent, DesiredDeployment

NEW, OLD = Digest("b" * 64), Digest("a" * 64)


def model(**changes: object) -> ModelDescriptor:
    fields: dict[str, object] = {
        "name": "doctor-1",
        "owner": OwnerId("me"),
        "recipe": "causal-lm",
        "manifest": NEW,
        "size_bytes": 100,
        "measured": {},
        "holders": (),
        "created_at_s": 0.0,
    }
    return ModelDescriptor(**{**fields, **changes})  # type: ignore[arg-type]


def wish(*places: str, **intent: object) -> DesiredDeployment:
    return DesiredDeployment(
        name="doctor",
        intent=DeployIntent(model="doctor-1", **intent),  # type: ignore[arg-type]
        model=model(),
        places=tuple(SiteId(place) for place in places),
    )


def deployed(
    manifest: Digest = NEW, state: str = "ready", config: dict[str, object] | None = None
) -> DeploymentDescriptor:
    return DeploymentDescriptor(
        name="doctor",
        owner=OwnerId("me"),
        runtime=Runtime.EMBEDDED,
        apis=(Api.CHAT,),
        state=DeploymentState(state),
        manifest=manifest,
        recipe="causal-lm",
        config=config_digest(config or {}),
    )


def mdf(site: str, *deployments: DeploymentDescriptor, law: str = "US") -> NodeDescriptor:
    return NodeDescriptor(
        site=SiteId(site),
        owner=OwnerId(site),
        roles=(Role.FACILITY,),
        jurisdiction=law,
        public_key="",
        started_at_s=0.0,
        version=1,
        software="",
        facility=FacilityDescriptor(
            endpoint="http://x",
            hosts=True,
            memory_bytes=1000,
            recipes=("causal-lm",),
            deployments=deployments,
        ),
    )


NOBODY: frozenset[str] = frozenset()


def steps(desired: DesiredDeployment, *nodes: NodeDescriptor) -> list[tuple[str, str]]:
    found = next_steps({"doctor": desired}, NOBODY, nodes)
    return [("place" if isinstance(step, Deploy) else "retire", step.site) for step in found]


def test_what_is_missing_is_placed_and_what_is_there_is_left() -> None:
    assert steps(wish("east", "west"), mdf("east", deployed()), mdf("west")) == [("place", "west")]
    assert steps(wish("east"), mdf("east", deployed())) == []
    assert steps(wish("east"), mdf("east", deployed(state="loading"))) == []


def test_other_weights_under_the_name_are_replaced() -> None:
    assert steps(wish("east"), mdf("east", deployed(OLD))) == [("place", "east")]
    other = deployed(config={"classes": ["b", "a"]})
    assert steps(wish("east"), mdf("east", other)) == [("place", "east")]


def test_a_moved_model_goes_only_when_its_successor_is_ready() -> None:
    old = mdf("east", deployed())
    assert steps(wish("west"), old, mdf("west")) == [("place", "west")]
    assert steps(wish("west"), old, mdf("west", deployed(state="loading"))) == []
    assert steps(wish("west"), old, mdf("west", deployed())) == [("retire", "east")]


@given(st.permutations(["ready", "loading", "failed", "draining"]))
def test_the_last_that_answers_is_never_retired(states: list[str]) -> None:
    nodes = [
        mdf("old", deployed()),
        *(mdf(f"n{i}", deployed(state=s)) for i, s in enumerate(states)),
    ]
    desired = wish(*(f"n{i}" for i in range(len(states))))
    assert ("retire", "old") not in steps(desired, *nodes)


def test_what_was_retired_is_retired_again_where_it_comes_back() -> None:
    found = next_steps({}, frozenset({"doctor"}), [mdf("east", deployed()), mdf("west")])
    assert found == [Retire("doctor", SiteId("east"))]
    upstream = msgspec.structs.replace(deployed(), runtime=Runtime.OPENAI)
    assert next_steps({}, frozenset({"doctor"}), [mdf("east", upstream)]) == []
    own = msgspec.structs.replace(deployed(), manifest=None)
    assert next_steps({}, frozenset({"doctor"}), [mdf("east", own)]) == []
    assert next_steps({}, NOBODY, [mdf("east", deployed())]) == [], "never ours"


def test_places_are_chosen_once_and_again_where_a_facility_is_gone() -> None:
    nodes = [mdf("a"), mdf("b"), mdf("c", law="FR")]
    free = {SiteId("a"): 500, SiteId("b"): 900, SiteId("c"): 5000}
    fresh = msgspec.structs.replace(wish(replicas=1), model=model(release_to=("US",)))
    assert chosen_places(fresh, nodes, free, frozenset()) == ("b",)
    two = msgspec.structs.replace(wish("a", replicas=2), model=model(release_to=("US",)))
    assert chosen_places(two, nodes, free, frozenset()) == ("a", "b")
    # Away for a moment: it stays. Gone: it is replaced.
    gone = [node for node in nodes if node.site != "b"]
    there = msgspec.structs.replace(wish("b", replicas=1), model=model(release_to=("US",)))
    assert chosen_places(there, gone, free, frozenset({SiteId("b")})) == ("b",)
    assert chosen_places(there, gone, free, frozenset()) == ("a",)
    small = {SiteId("a"): 50, SiteId("b"): 60, SiteId("c"): 70}
    assert chosen_places(fresh, nodes, small, frozenset()) == ()


def test_an_operator_s_places_are_not_chosen() -> None:
    stated = wish(to=(SiteId("z"),))
    assert chosen_places(stated, [mdf("a")], {}, frozenset()) == ("z",)


def out_of_service(node: NodeDescriptor, *, draining: bool = False) -> NodeDescriptor:
    cordon = Cordon(by="ops", since_s=0.0, draining=draining)
    return msgspec.structs.replace(node, cordon=cordon)


def places(desired: DesiredDeployment, *nodes: NodeDescriptor) -> tuple[str, ...]:
    seen = frozenset(node.site for node in nodes)  # As the live ones are, recently.
    return chosen_places(desired, nodes, {node.site: 1000 for node in nodes}, seen)


def test_a_cordoned_facility_keeps_what_it_has_and_gets_nothing_new() -> None:
    east = out_of_service(mdf("east", deployed()))
    assert places(wish("east"), east, mdf("west")) == ("east",)
    assert places(wish(), out_of_service(mdf("east")), mdf("west")) == ("west",)
    assert steps(wish("east"), out_of_service(mdf("east"))) == []


def test_a_drained_facility_hands_over_to_one_that_answers() -> None:
    east = out_of_service(mdf("east", deployed()), draining=True)
    assert places(wish("east"), east, mdf("west")) == ("west",)
    assert steps(wish("west"), east, mdf("west")) == [("place", "west")]
    assert steps(wish("west"), east, mdf("west", deployed())) == [("retire", "east")]
    assert places(wish("east"), east) == ()
    assert steps(wish(), east) == []


def test_what_an_owner_placed_leaves_a_drained_facility_for_its_other_places_alone() -> None:
    east = out_of_service(mdf("east", deployed()), draining=True)
    named = (SiteId("east"), SiteId("west"))
    assert places(wish("east", "west", to=named), east, mdf("west")) == ("west",)
    assert places(wish("east", to=named[:1]), east, mdf("west")) == ("east",)
