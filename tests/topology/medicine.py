"""Nine sites with medical questions and two verification units, as descriptors."""

from __future__ import annotations

from collections.abc import Iterable

from daitn.objects.descriptors import (
    ComputeDescriptor,
    DataPolicy,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
    TestSetDescriptor,
    VerifierDescriptor,
)
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.intents import (
    DataWanted,
    ModelWanted,
    Objective,
    PinnedVisit,
    Requirement,
    TrainingIntent,
)
from daitn.objects.model_needs import ColumnsNeeded, ModelNeeds
from daitn.objects.readings import LinkReading, Reading
from daitn.topology.relevance import relevant_to
from daitn.topology.snapshot import Drrt, MsDrrt
from daitn.topology.state import DrrtState

NOW_S = 1_000_000.0
RECIPE = "causal-lm"
TOPICS = {
    "cdc": "medicine/general",
    "gard": "medicine/general",
    "ghr": "medicine/general",
    "medlineplus": "medicine/general",
    "seniorhealth": "medicine/general",
    "ninds": "medicine/neurology",
    "nhlbi": "medicine/cardiology",
    "niddk": "medicine/metabolic",
    "cancergov": "medicine/oncology",
}
LABELS = {"information": 300, "treatment": 150}


def dataset(site: str, topic: str, **changes: object) -> DatasetDescriptor:
    fields: dict[str, object] = {
        "name": "questions",
        "site": SiteId(site),
        "data_schema": "qa-pairs/1",
        "modality": "text",
        "topics": (topic,),
        "samples": 450,
        "labels": LABELS,
        "quality": 0.9,
        "fresh_at_s": NOW_S - 3600,
        "price_usd_per_1k": 2.0,
        "jurisdiction": "US",
        "policy": DataPolicy(recipes=(RECIPE,)),
    }
    return DatasetDescriptor(**{**fields, **changes})  # type: ignore[arg-type]


def data_site(site: str, *sets: DatasetDescriptor, **changes: object) -> NodeDescriptor:
    fields: dict[str, object] = {
        "site": SiteId(site),
        "owner": OwnerId("nih"),
        "roles": (Role.DATA, Role.COMPUTE),
        "jurisdiction": "US",
        "public_key": "",
        "started_at_s": 0.0,
        "version": 1,
        "software": "daitn",
        "datasets": sets,
        "compute": ComputeDescriptor(
            device="cpu", memory_bytes=8_000_000_000, speed_flops=5e10, recipes=(RECIPE,)
        ),
    }
    return NodeDescriptor(**{**fields, **changes})  # type: ignore[arg-type]


def exam(topic: str, **changes: object) -> TestSetDescriptor:
    fields: dict[str, object] = {
        "topic": topic,
        "test_schema": "multiple-choice/1",
        "metrics": ("accuracy",),
        "items": 400,
        "chance": 0.25,
        "labels": {"information": 200, "treatment": 100, "outlook": 100},
    }
    return TestSetDescriptor(**{**fields, **changes})  # type: ignore[arg-type]


def verifier_site(site: str, *tests: TestSetDescriptor, **changes: object) -> NodeDescriptor:
    verifier = VerifierDescriptor(tests=tests, recipes=(RECIPE,))
    fields: dict[str, object] = {
        "roles": (Role.VERIFIER,),
        "compute": None,
        "verifier": verifier,
        "owner": OwnerId("board"),
    }
    return data_site(site, **{**fields, **changes})


def nodes() -> list[NodeDescriptor]:
    return [
        *(data_site(site, dataset(site, topic)) for site, topic in TOPICS.items()),
        verifier_site("board", exam("medicine")),
        verifier_site("clinic", exam("medicine/neurology")),
    ]


def link(source: str, target: str, **values: float) -> LinkReading:
    """A link measured a minute ago, or `at_s`."""
    at_s = values.pop("at_s", NOW_S - 60)
    readings = {name: Reading(value, at_s, SiteId(source)) for name, value in values.items()}
    return LinkReading(source=SiteId(source), target=SiteId(target), **readings)


def drrt(
    described: Iterable[NodeDescriptor],
    links: Iterable[LinkReading] = (),
    lost: Iterable[str] = (),
) -> Drrt:
    state = DrrtState()
    for descriptor in described:
        state.absorb(descriptor, NOW_S)
    for reading in links:
        state.absorb(reading, NOW_S)
    for site in lost:
        state.lost(SiteId(site), NOW_S)
    return state.snapshot(NOW_S)


def intent(
    *requirements: Requirement,
    topics: tuple[str, ...] = ("medicine",),
    objectives: tuple[Objective, ...] = (
        Objective(name="broad", topic="medicine", at_least=0.5),
        Objective(name="expert", topic="medicine/neurology", at_least=0.5),
    ),
    route: tuple[PinnedVisit, ...] = (),
    owner: str = "university",
) -> TrainingIntent:
    return TrainingIntent(
        name="doctor",
        owner=OwnerId(owner),
        model=ModelWanted(recipe=RECIPE),
        objectives=objectives,
        data=DataWanted(topics=topics),
        requirements=requirements,
        route=route,
    )


def needs(
    memory_bytes: int = 1_000_000_000,
    labels: tuple[str, ...] = (),
    private: bool = False,
    columns: ColumnsNeeded | None = None,
    metrics: tuple[str, ...] = (),
    imported: bool = False,
) -> ModelNeeds:
    return ModelNeeds(
        data_schema="qa-pairs/1",
        test_schema="multiple-choice/1",
        memory_bytes=memory_bytes,
        labels=labels,
        labels_field="model.config.classes" if labels else "",
        columns=columns,
        metrics=metrics,
        private=private,
        imported=imported,
    )


def cut(
    snapshot: Drrt,
    wanted: TrainingIntent,
    memory_bytes: int = 1_000_000_000,
    labels: tuple[str, ...] = (),
    now_s: float = NOW_S,
    private: bool = False,
    columns: ColumnsNeeded | None = None,
    metrics: tuple[str, ...] = (),
    imported: bool = False,
) -> MsDrrt:
    return relevant_to(
        snapshot,
        wanted,
        needs(memory_bytes, labels, private, columns, metrics, imported),
        now_s=now_s,
    )
