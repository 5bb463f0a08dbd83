"""Topologies by hand for tests of the route engine and the feasibility assessment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from immutables import Map

from daitn.control.route.question import PastVisit, RouteQuestion, RouteStart
from daitn.objects.descriptors import (
    ANY,
    ComputeDescriptor,
    DataPolicy,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
    TestSetDescriptor,
    covers_topic,
)
from daitn.objects.identifiers import Digest, ObjectiveName, OwnerId, SiteId
from daitn.objects.intents import Budget, DataWanted, ModelWanted, Objective, TrainingIntent
from daitn.objects.readings import LinkReading, Reading
from daitn.topology.fit import topics_fit
from daitn.topology.snapshot import DataOption, Drrt, MsDrrt, SiteState, VerifierOption

MEDICINE = ("information", "treatment", "inheritance", "outlook", "research", "symptoms")
BROAD = {"information": 200, "treatment": 120, "inheritance": 60, "outlook": 50, "research": 40}
EXPERT = {"information": 80, "treatment": 80, "outlook": 80, "research": 80}
NOW_S = 1_000_000.0
UNLIMITED = Budget()
_MEASURED = 100
"""Networks of up to so many sites have all their links measured."""
TOPICS = {"broad": "medicine", "expert": "medicine/neurology"}


def option(
    site: str,
    topic: str,
    labels: Mapping[str, int],
    *,
    price: float = 0.0,
    hour: float = 0.0,
    speed: float = 1e11,
    release_to: tuple[str, ...] = (ANY,),
    queue: int = 0,
    place: str = "US",
) -> DataOption:
    return DataOption(
        site=SiteId(site),
        dataset=DatasetDescriptor(
            name="pairs",
            site=SiteId(site),
            data_schema="qa-pairs/1",
            modality="text",
            topics=(topic,),
            samples=sum(labels.values()),
            labels=dict(labels),
            quality=1.0,
            fresh_at_s=NOW_S,
            price_usd_per_1k=price,
            jurisdiction=place,
            policy=DataPolicy(recipes=(ANY,), release_to=release_to),
        ),
        compute=ComputeDescriptor(
            device="cpu",
            memory_bytes=1 << 33,
            speed_flops=speed,
            recipes=("causal-lm",),
            price_usd_per_hour=hour,
        ),
        fit={ObjectiveName(name): topics_fit((topic,), on) for name, on in TOPICS.items()},
        coverage={ObjectiveName(name): 1.0 for name in TOPICS},
        queue=queue,
    )


def general(site: str, labels: Mapping[str, int], **more: object) -> DataOption:
    return option(site, "medicine", labels, **more)  # type: ignore[arg-type]


def special(site: str, field: str, labels: Mapping[str, int], **more: object) -> DataOption:
    return option(site, f"medicine/{field}", labels, **more)  # type: ignore[arg-type]


def healthcare() -> tuple[DataOption, ...]:
    """Nine sites, their histograms roughly as in MedQuAD."""
    return (
        special(
            "cancergov",
            "oncology",
            {"information": 100, "treatment": 85, "outlook": 72, "research": 77},
        ),
        general("cdc", {"information": 43, "treatment": 43, "symptoms": 19}),
        general(
            "gard", {"information": 1245, "treatment": 501, "inheritance": 319, "symptoms": 2121}
        ),
        general("ghr", {"information": 975, "treatment": 975, "inheritance": 975}),
        general("mplus", {"information": 874}),
        special(
            "nhlbi",
            "cardiology",
            {"information": 80, "treatment": 77, "outlook": 5, "symptoms": 78},
        ),
        special(
            "niddk",
            "nephrology",
            {"information": 254, "treatment": 130, "symptoms": 106, "research": 1},
        ),
        special(
            "ninds",
            "neurology",
            {"information": 241, "treatment": 241, "outlook": 241, "research": 243},
        ),
        general(
            "seniorhealth", {"information": 267, "treatment": 157, "research": 34, "symptoms": 80}
        ),
    )


def topology(
    options: Iterable[DataOption],
    tests: Mapping[str, tuple[str, Mapping[str, int]]] | None = None,
    *,
    throughput_bps: float = 1e7,
    verifier_place: str = "US",
) -> MsDrrt:
    """All options over links of one throughput; one verifier `judge` measures everything."""
    chosen = tuple(sorted(options, key=lambda o: o.id))
    if tests is None:
        tests = {"broad": ("medicine", BROAD), "expert": ("medicine/neurology", EXPERT)}
    places = {o.site: o.dataset.jurisdiction for o in chosen} | {SiteId("judge"): verifier_place}
    measured = places if len(places) <= _MEASURED else {}
    links = {a: Map({b: _link(a, b, throughput_bps) for b in measured if a != b}) for a in measured}
    verifiers: dict[ObjectiveName, tuple[VerifierOption, ...]] = {
        ObjectiveName(name): (
            VerifierOption(
                site=SiteId("judge"),
                test=TestSetDescriptor(
                    topic=topic,
                    test_schema="multiple-choice/1",
                    metrics=("accuracy",),
                    items=sum(labels.values()) or 400,
                    chance=0.25,
                    labels=dict(labels),
                ),
            ),
        )
        for name, (topic, labels) in tests.items()
    }
    sites = Map({site: _state(site, place) for site, place in places.items()})
    snapshot = Drrt(version=7, at_s=NOW_S, sites=sites, links=Map(links))
    return MsDrrt(snapshot=snapshot, options=chosen, verifiers=verifiers, rejections=())


def intent(*, budget: Budget = UNLIMITED, **targets: float) -> TrainingIntent:
    """Targets by objective: `broad` on medicine, `expert` on neurology."""
    return TrainingIntent(
        name="question-answering",
        owner=OwnerId("clinic"),
        model=ModelWanted(recipe="causal-lm"),
        objectives=tuple(
            Objective(name=name, topic=TOPICS[name], at_least=target)
            for name, target in targets.items()
        ),
        data=DataWanted(topics=("medicine",)),
        budget=budget,
    )


FRESH = RouteStart(model=None, size_bytes=10_000_000)


def question(asked: TrainingIntent, seen: MsDrrt, **more: object) -> RouteQuestion:
    """A fresh model of 2 million parameters, ten seconds a verification."""
    given: dict[str, object] = {
        "flops_per_example": 1e9,
        "checkpoints": (FRESH,),
        "verify_s": 10.0,
        "now_s": NOW_S,
    }
    return RouteQuestion(intent=asked, topology=seen, **(given | more))  # type: ignore[arg-type]


def checkpoint(visits: tuple[PastVisit, ...], name: str = "m", at: str = "ghr") -> RouteStart:
    """The model that `visits` made, as last measured."""
    return RouteStart(
        model=Digest(name * 64),
        size_bytes=10_000_000,
        holders=(SiteId(at),),
        values=visits[-1].after,
        visits=visits,
    )


def cut_by_topic(options: Iterable[DataOption], asked: TrainingIntent) -> tuple[DataOption, ...]:
    """Options on any topic that the intent wants."""
    return tuple(
        o
        for o in options
        if any(
            covers_topic(wanted, has) for wanted in asked.data.topics for has in o.dataset.topics
        )
    )


def _link(a: SiteId, b: SiteId, throughput_bps: float) -> LinkReading:
    return LinkReading(
        source=a,
        target=b,
        rtt_s=Reading(0.02, NOW_S, a),
        throughput_bps=Reading(throughput_bps, NOW_S, a),
    )


def _state(site: SiteId, place: str) -> SiteState:
    node = NodeDescriptor(
        site=site,
        owner=OwnerId(site),
        roles=(Role.DATA, Role.COMPUTE),
        jurisdiction=place,
        public_key="",
        started_at_s=NOW_S,
        version=1,
        software="test",
    )
    return SiteState(descriptor=node, alive=True, changed_at_s=NOW_S)
