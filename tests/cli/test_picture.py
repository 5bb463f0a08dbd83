from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from daitn.oam.pictures.network import network_picture
from daitn.objects import descriptors
from daitn.objects.descriptors import (
    DataPolicy,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
    VerifierDescriptor,
)
from daitn.objects.identifiers import Digest, JobId, OwnerId, SiteId
from daitn.objects.jobs import JobState, JobView, ObjectiveView, VisitView, WorkNeeds
from daitn.objects.models import ModelRef
from daitn.topology.snapshot import SiteState

UNTRAINED = {"broad": 0.252, "expert": 0.261}
TARGETS = {"broad": 0.80, "expert": 0.90}

Stop = tuple[str, float, float]
"""Site, and the values of both objectives after the visit."""

SHORT: tuple[Stop, ...] = (("ghr", 0.512, 0.417), ("gard", 0.811, 0.633), ("ninds", 0.804, 0.913))
LONG: tuple[Stop, ...] = (
    ("ghr", 0.431, 0.372),
    ("gard", 0.528, 0.415),
    ("ninds", 0.547, 0.603),
    ("ninds", 0.561, 0.688),
    ("nhlbi", 0.631, 0.671),
    ("mplus", 0.664, 0.659),
    ("ninds", 0.659, 0.764),
    ("cancergov", 0.702, 0.747),
    ("gard", 0.731, 0.752),
    ("ninds", 0.728, 0.831),
    ("niddk", 0.771, 0.812),
    ("ghr", 0.792, 0.818),
    ("ninds", 0.787, 0.902),
    ("mplus", 0.806, 0.905),
)


def data_site(name: str, topic: str, samples: int, alive: bool = True) -> SiteState:
    dataset = DatasetDescriptor(
        name="qa",
        site=SiteId(name),
        data_schema="qa-pairs/1",
        modality="text",
        topics=(topic,),
        samples=samples,
        labels={},
        quality=1.0,
        fresh_at_s=0.0,
        jurisdiction="US",
        policy=DataPolicy(recipes=("causal-lm",)),
    )
    return _state(name, (Role.DATA, Role.COMPUTE), (dataset,), None, alive)


def verifier_site(name: str, topic: str) -> SiteState:
    test = descriptors.TestSetDescriptor(
        topic=topic,
        test_schema="multiple-choice/1",
        metrics=("accuracy",),
        items=400,
        chance=0.25,
        labels={},
    )
    unit = VerifierDescriptor(tests=(test,), recipes=("causal-lm",))
    return _state(name, (Role.VERIFIER,), (), unit, True)


def _state(
    name: str,
    roles: tuple[Role, ...],
    datasets: tuple[DatasetDescriptor, ...],
    verifier: VerifierDescriptor | None,
    alive: bool,
) -> SiteState:
    node = NodeDescriptor(
        site=SiteId(name),
        owner=OwnerId(name),
        roles=roles,
        jurisdiction="US",
        public_key="",
        started_at_s=0.0,
        version=1,
        software="daitn",
        datasets=datasets,
        verifier=verifier,
    )
    return SiteState(descriptor=node, alive=alive, changed_at_s=0.0)


SITES = (
    data_site("ghr", "medicine/general", 4300),
    data_site("gard", "medicine/general", 4278),
    data_site("mplus", "medicine/general", 780),
    data_site("seniorhealth", "medicine/general", 614),
    data_site("cdc", "medicine/general", 215, alive=False),
    data_site("ninds", "medicine/neurology", 871),
    data_site("nhlbi", "medicine/cardiology", 447),
    data_site("niddk", "medicine/metabolic", 958),
    data_site("cancergov", "medicine/oncology", 583),
    verifier_site("mpvu-broad", "medicine"),
    verifier_site("mpvu-expert", "medicine/neurology"),
)


def made_visits(stops: tuple[Stop, ...]) -> tuple[VisitView, ...]:
    visits: list[VisitView] = []
    before = UNTRAINED
    for number, (site, broad, expert) in enumerate(stops):
        values = {"broad": broad, "expert": expert}
        visits.append(
            VisitView(
                site=SiteId(site),
                dataset="qa",
                work=800 + 50 * number,
                seconds=4.0 + number,
                transfer_s=0.1,
                overhead_s=0.2,
                verify_s=2.0,
                bytes_in=9_000_000 + 2_500_000 * (number % 3),
                cost_usd=0.0,
                loss=2.0,
                values=values,
                gains={name: value - before[name] for name, value in values.items()},
                model=Digest(f"{number:064x}"),
            )
        )
        before = values
    return tuple(visits)


def job_of(stops: tuple[Stop, ...], name: str = "healthcare") -> JobView:
    route = made_visits(stops)
    last = route[-1].values if route else UNTRAINED
    objectives = tuple(
        ObjectiveView(
            name=objective,
            metric="accuracy",
            topic=topic,
            target=TARGETS[objective],
            reached=last[objective],
            standard_error=0.02,
            items=400,
            verifier=SiteId(f"mpvu-{objective}"),
        )
        for objective, topic in (("broad", "medicine"), ("expert", "medicine/neurology"))
    )
    model = route[-1].model if route else Digest("f" * 64)
    return JobView(
        job=JobId(f"{name}-1"),
        name=name,
        owner="health-ai",
        recipe="causal-lm",
        config={},
        state=JobState.REACHED,
        sentence="every objective holds",
        detail="",
        algorithm="sequential",
        objectives=objectives,
        route=route,
        planned=None,
        working=(),
        excluded=(),
        untrained=UNTRAINED,
        seconds=151.2,
        bytes_moved=sum(visit.bytes_in for visit in route),
        cost_usd=0.0,
        examples=sum(visit.work for visit in route),
        model=ModelRef(manifest=model, size_bytes=8_800_000, holders=()),
        assessment=None,
        decision=None,
        error=None,
        submitted_at_s=0.0,
        ended_at_s=151.2,
        needs=WorkNeeds(
            data_schema="qa-pairs/1",
            test_schema="multiple-choice/1",
            parameters=2_200_000,
            flops_per_example=1.0,
            memory_bytes=1,
            size_bytes=1,
        ),
    )


def baselines_of() -> tuple[tuple[str, JobView], ...]:
    general = job_of((("ghr", 0.6, 0.4), ("gard", 0.783, 0.655)))
    specialist = job_of((("ninds", 0.588, 0.874),))
    slow = replace(job_of(LONG), seconds=1234.4, examples=98_765)
    return (
        ("by size, 2 epochs", job_of(LONG)),
        ("ring, 500 examples", slow),
        ("general sites only", general),
        ("specialist only", specialist),
    )


def drawn(job: JobView, **changes: object) -> str:
    given = {"sites": SITES, "baselines": baselines_of(), "data_source": "MedQuAD", **changes}
    return network_picture(job, **given)  # type: ignore[arg-type]


def words(svg: str) -> list[str]:
    """Every text of the picture; parsing it fails unless it is well-formed XML."""
    return [e.text or "" for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("stops", [(), SHORT, LONG, LONG * 2], ids=["0", "3", "14", "28"])
def test_every_site_value_and_target_is_told(stops: tuple[Stop, ...]) -> None:
    job = job_of(stops)

    told = words(drawn(job))

    assert {state.descriptor.site for state in SITES} <= set(told)
    for visit in job.route:
        assert {f"{value:.3f}" for value in visit.values.values()} <= set(told)
    assert {f"{value:.3f}" for value in UNTRAINED.values()} <= set(told)
    for name, target in TARGETS.items():
        assert f"target {name} {target:.2f}" in told
    numbers = [word for word in told if word.isdigit()]
    assert sorted(map(int, numbers)) == sorted([*range(1, len(stops) + 1)] * 2)
    assert {"untrained", "general sites only", "specialist only", "planned route"} <= set(told)
    assert {"98,765, 1234 s", f"{job.examples:,}, 151 s"} <= set(told)


def test_what_was_forgotten_stands_out_from_what_was_gained() -> None:
    svg = drawn(job_of(SHORT))

    losses = re.findall(r"<text[^>]*fill:#dc2626[^>]*>([^<]*)</text>", svg)
    assert losses == ["−.007"]
    assert "+.280" in words(svg)


def test_a_visit_that_was_taken_back_is_hollow_and_the_next_starts_before_it() -> None:
    kept, spoilt, again = made_visits((("ghr", 0.6, 0.5), ("cdc", 0.4, 0.4), ("ninds", 0.7, 0.7)))
    gains = {name: value - kept.values[name] for name, value in again.values.items()}
    again = replace(again, gains=gains)
    straight = drawn(job_of((("ghr", 0.6, 0.5), ("cdc", 0.4, 0.4), ("ninds", 0.7, 0.7))))
    job = job_of(SHORT)
    assert job.model is not None
    model = replace(job.model, manifest=again.model)

    taken_back = drawn(replace(job, route=(kept, spoilt, again), model=model))

    def hollow(svg: str) -> int:
        return len(re.findall(r'<circle[^>]*r="4.2"[^>]*class="node"', svg))

    assert hollow(straight) == 0
    assert hollow(taken_back) == 2


def test_names_from_the_network_cannot_break_out_of_the_picture() -> None:
    nasty = '<a href="x">&'
    site = data_site(nasty, "medicine/<script>", 10)
    job = job_of(((nasty, 0.5, 0.5),), name="</svg>")

    svg = drawn(job, sites=(*SITES, site), data_source="a & b\x00 < c")

    assert nasty in words(svg)
    assert "Data: a & b  < c" in words(svg)
    tags = {element.tag.partition("}")[2] for element in ET.fromstring(svg).iter()}
    assert tags <= {"svg", "style", "text", "rect", "line", "path", "circle", "polygon"}


def test_the_same_job_gives_the_same_picture() -> None:
    assert drawn(job_of(LONG)) == drawn(job_of(LONG), sites=tuple(reversed(SITES)))


def test_texts_stay_apart_and_inside_the_picture() -> None:
    """Of one class of text, on one line: what is 14 units high must be 10 apart or more."""
    root = ET.fromstring(drawn(job_of(LONG)))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [
        _extent(element)
        for element in root.iter("{http://www.w3.org/2000/svg}text")
        if "transform" not in element.attrib
    ]
    for number, (left, top, right, bottom, told) in enumerate(boxes):
        assert left >= 0, told
        assert right <= width, told
        assert bottom <= height, told
        for other in boxes[:number]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart, f"{told!r} lies on {other[4]!r}"


def _extent(element: ET.Element) -> tuple[float, float, float, float, str]:
    """Left, top, right, bottom of a text, at the mean width of a sans-serif's characters."""
    told, class_ = element.text or "", element.attrib["class"]
    em = 21 if "h1" in class_ else 13.5 if "h2" in class_ else 11 if "small" in class_ else 12
    width = 0.53 * em * len(told)
    x, y = float(element.attrib["x"]), float(element.attrib["y"])
    left = x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[element.attrib["text-anchor"]]
    return left, y - 0.75 * em, left + width, y + 0.2 * em, told
