"""Lists and pages: what people and pipes see of nodes, data sets and queries."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from daitn.cli import describe
from daitn.cli.describe_pages import dataset_page, node_page
from daitn.cli.queries import queries_table
from daitn.cli.session import UNBROKEN
from daitn.objects.deployments import Api
from daitn.objects.descriptors import (
    ComputeDescriptor,
    DataPolicy,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
    TopicSketch,
    VerifierDescriptor,
)
from daitn.objects.descriptors import TestSetDescriptor as ExamDescriptor
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.queries import QueryRecord, QueryStatus, Strategy
from daitn.tools import clock
from daitn.topology.qrrt.served import served_models
from daitn.topology.snapshot import SiteState
from tests.topology.qrrt.world import deployment, facility, finding, state_of

BUCKETS = tuple(range(5000))


def printed(shown: RenderableType, width: int = UNBROKEN) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def dataset(**changes: object) -> DatasetDescriptor:
    fields: dict[str, object] = {
        "name": "qa", "site": SiteId("ghr"), "data_schema": "table/1", "modality": "table",
        "topics": ("medicine/genes",), "samples": 1000,
        "labels": {f"label-{n:02}": 100 - n for n in range(40)}, "quality": 0.59,
        "fresh_at_s": clock.now_s() - 7200.0, "jurisdiction": "US",
        "policy": DataPolicy(recipes=("classifier",), release_to=("US", "CA")),
        "sketch": TopicSketch(texts=900, buckets=BUCKETS, counts=BUCKETS),
    }  # fmt: skip
    return DatasetDescriptor(**(fields | changes))  # type: ignore[arg-type]


def node() -> SiteState:
    test = ExamDescriptor(
        topic="medicine", test_schema="table/1", metrics=("accuracy",), items=80, chance=0.5,
        labels={},
    )  # fmt: skip
    descriptor = NodeDescriptor(
        site=SiteId("ghr"), owner=OwnerId("nih"), roles=(Role.DATA, Role.VERIFIER),
        jurisdiction="US", public_key="KEY=", started_at_s=clock.now_s() - 90.0, version=3,
        software="daitn 0.1", datasets=(dataset(),),
        compute=ComputeDescriptor(
            device="cpu", memory_bytes=8 * 10**9, speed_flops=75e9, recipes=("classifier",)
        ),
        verifier=VerifierDescriptor(tests=(test,), recipes=("classifier",)),
    )  # fmt: skip
    return SiteState(
        descriptor=descriptor, alive=True, changed_at_s=1.0, since_s=clock.now_s() - 60.0
    )


def test_a_page_of_a_node_fits_a_screen_and_tells_times_as_people_do() -> None:
    lines = printed(node_page(node()), width=100)
    assert len(lines) < 40
    said = "\n".join(lines)
    for word in ("alive, since 1 min ago", "nih, US", "KEY=", "75 GFLOP/s", "8 GB", "qa", "59%"):
        assert word in said
    assert "4999" not in said


def test_a_page_of_a_data_set_tells_what_becomes_of_gaps() -> None:
    lines = printed(dataset_page(dataset()), width=100)
    assert len(lines) < 40
    said = "\n".join(lines)
    assert "0.59: 41% of the records lack a value; none is left out" in said
    assert "2 h ago" in said
    assert "US, CA" in said
    assert "28 more" in said
    assert "of 900 texts" in said
    assert "every record is usable" in "\n".join(printed(dataset_page(dataset(quality=1.0))))


def record(number: int) -> QueryRecord:
    return QueryRecord(
        id=f"gateway-of-a-site-with-a-long-name:{number}", asked_at_s=clock.now_s(), owner="ada",
        api=Api.CHAT, model_wanted="auto:medicine/neurology", topic="medicine/neurology",
        status=QueryStatus.REFUSED, http_status=400, strategy=Strategy.SINGLE,
        path=("gateway", "hub", "facility"), tokens_in=12, tokens_out=34,
        reason="nobody's measured accuracy on this topic is so high, " * 3,
    )  # fmt: skip


def test_no_line_is_broken_in_a_pipe() -> None:
    records = tuple(record(number) for number in range(3))
    assert len(printed(queries_table(records, wide=False))) == 4
    (head, first, *_) = printed(queries_table(records, wide=True))
    for column, cell in (("owner", "ada"), ("tokens out", "34"), ("path", "gateway > hub")):
        assert column in head
        assert cell in first
        assert head.index(column) == first.index(cell)


def test_what_verifiers_say_of_a_deployment_is_shown() -> None:
    told = finding("quack", "mdf", "medicine", 0.4, degraded=True, two_faced=True, unanswered=True)
    site = facility("mdf", deployment("quack"))
    (known,) = served_models(state_of([site], told).snapshot()).models
    one = describe.Deployment(descriptor=deployment("quack"), known=known)
    page = describe.FacilityDescription(
        site=SiteState(descriptor=site, alive=True, load=None, changed_at_s=0.0),
        deployments=(one,),
        used_bytes=0,
        in_flight=0,
    )
    lines = printed(describe._facility_page(page))
    assert any("quack" in line and line.count("two-faced") == 1 for line in lines)
    assert any("better than single questions, by board" in line for line in lines)
    assert any("not most single questions, by board" in line for line in lines)
    measured = describe._by_asking(told)
    assert measured.two_faced
    assert measured.unanswered
    model = describe.ModelDescription(
        name="quack", trained=None, deployments=(one,), measured=(measured,)
    )
    assert any(
        "two-faced, single questions unanswered" in line
        for line in printed(describe._model_page(model))
    )
