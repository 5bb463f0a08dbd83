"""A site comes up with what is good, says what is not, and runs nobody's recipe itself."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from daitn.cli.network import read_node
from daitn.node.node import Node
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import DaitnError, InvalidInput, NotFound, WorkFailed
from daitn.objects.identifiers import JobId, VisitId
from daitn.objects.jobs import WorkNeeds
from daitn.objects.messages import RecipeQuestion, VisitWork
from daitn.objects.models import ModelRef
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryNetwork
from tests.scenes.recipes import installed_hostile

pytestmark = pytest.mark.processes

GOOD = "x,label\n" + "".join(f"{n},{('no', 'yes')[n % 2]}\n" for n in range(20))
LINE = '{"topic":"flu","label":"cause","question":"Why?","answer":"Of a virus that spreads"}\n'
ITEM = '{"topic":"t","label":"l","question":"q","options":["a","b","c","d"],"answer":1}\n'


def dataset(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "path": f"{name}.csv",
        "data_schema": "table/1",
        "modality": "table",
        "topics": ["t"],
        "policy": {"recipes": ["*"], "start_models": True},
        **changes,
    }


def exam(topic: str, **changes: Any) -> dict[str, Any]:
    return {"topic": topic, "path": f"{topic}.csv", "test_schema": "table/1", **changes}


def visit(
    to: str,
    model: ModelRef | None,
    recipe: str = "classifier",
    config: dict[str, object] = {"classes": ["no", "yes"]},  # noqa: B006 - nobody changes it
) -> VisitWork:
    """Of no model: make one."""
    return VisitWork(
        job=JobId("j-1"),
        visit=VisitId("j-1-1"),
        owner="you",
        recipe=recipe,
        config=config,
        seed=0,
        dataset=to,
        examples=10,
        model=model,
        previous=(),
    )


@asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[tuple[Node, MemoryNetwork]]:
    """A node of a file in `folder`."""
    plain = {
        "site": "here",
        "owner": "me",
        "jurisdiction": "US",
        "roles": ["data"],
        "center": ["tcp/127.0.0.1:1"],
        "state": "state",
        "threads": 1,
        "recipes": ["classifier", "causal-lm"],
        **changes,
    }
    (folder / "node.yaml").write_text(yaml.safe_dump(plain, allow_unicode=True))
    network = MemoryNetwork()
    node = Node(read_node(folder / "node.yaml", ""), network.open("here"))
    try:
        await node.start()
        yield node, network
    finally:
        await node.close()


def said(node: Node) -> NodeDescriptor:
    """As others hear it."""
    return decode(encode(node.descriptor), NodeDescriptor)


def reasons(node: Node) -> dict[str, str]:
    return {left.field: left.reason for left in said(node).left_out}


async def test_a_site_comes_up_with_its_good_data_sets_and_says_which_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "header.csv").write_text("x,label\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "wide.csv").write_text(
        "x,label\n" + "".join(f"{n},{'y' * 300}\n" for n in range(20))
    )
    (tmp_path / "headless.csv").write_text("Smith,influenza\nJones,measles\n")
    os.mkfifo(tmp_path / "pipe.csv")
    bad = ["header", "empty", "binary", "folder", "loop", "wide", "headless", "pipe", "absent"]
    sets = [dataset(bad[0]), dataset("good"), *map(dataset, bad[1:])]
    async with running(tmp_path, datasets=sets) as (node, _):
        described = said(node)
        assert [d.name for d in described.datasets] == ["good"]
        left = {entry.name: entry for entry in described.left_out}
        assert sorted(left) == sorted(bad)
        assert left["header"].field == "datasets[0]"
        assert left["absent"].field == "datasets[9]"
        for name, why in (
            ("header", "no records"),
            ("empty", "fewer than two columns"),
            ("binary", "not UTF-8 text"),
            ("folder", "is not a file"),
            ("loop", "cannot be read"),
            ("wide", "could not decode"),
            ("headless", "malformed: 2 problems"),
            ("pipe", "is not a file"),
            ("absent", "a file is missing"),
        ):
            assert why in left[name].reason
            assert f"{name} is left out" in caplog.text
        told = " ".join(entry.reason for entry in described.left_out)
        for private in ("Smith", "influenza", str(tmp_path), "yyy"):
            assert private not in told
    for name in bad:
        if name in ("header", "empty", "absent"):
            (tmp_path / f"{name}.csv").write_text(GOOD)
    async with running(tmp_path, datasets=sets) as (node, _):
        assert [d.name for d in said(node).datasets] == ["header", "good", "empty", "absent"]


async def test_a_wrong_entry_is_wrong_alone(tmp_path: Path) -> None:
    for name in ("good", "other", "t"):
        (tmp_path / f"{name}.csv").write_text(GOOD)
    sets: list[Any] = [
        dataset("good"),
        {**dataset("typo"), "polcy": {}},
        {"name": "short"},
        "text",
        dataset("good", path="other.csv"),
        dataset("Not A Name"),
        dataset("nul", path="a\0b"),
        dataset("pictures", data_schema="pictures/1"),
        dataset("questions", data_schema="qa-pairs/1", path="q.jsonl", label="answer"),
        dataset("other"),
    ]
    (tmp_path / "q.jsonl").write_text(LINE)
    facility = {
        "upstreams": [{"name": "up", "url": "ftp://secret.example"}, 7],
        "models": [{"name": "m"}, {"gguf": "/secret/Big one.gguf"}, {"gguf": "a", "folder": "b"}],
    }
    async with running(
        tmp_path,
        roles=["data", "compute", "verifier", "facility"],
        recipes=["alchemy", "classifier", "causal-lm"],
        datasets=sets,
        tests=[exam("u"), exam("t"), exam("t"), exam("q", chance=7)],
        facility=facility,
    ) as (node, _):
        described = said(node)
        assert [d.name for d in described.datasets] == ["good", "other"]
        assert described.verifier is not None
        assert [t.topic for t in described.verifier.tests] == ["t"]
        assert described.compute is not None
        assert described.compute.recipes == ("classifier", "causal-lm")
        told = reasons(node)
        for field, why in (
            ("datasets[1]", "polcy"),
            ("datasets[2]", "missing"),
            ("datasets[3]", "a mapping"),
            ("datasets[4]", "used twice"),
            ("datasets[5]", "usable name"),
            ("datasets[6]", "not a path"),
            ("datasets[7]", "no installed recipe reads pictures/1"),
            ("datasets[8]", "cannot limit which columns"),
            ("tests[0]", "a file is missing"),
            ("tests[2]", "used twice"),
            ("tests[3]", "chance"),
            ("facility.upstreams[0]", "not an HTTP address"),
            ("facility.upstreams[1]", "a mapping"),
            ("facility.models[0]", "a file or a folder"),
            ("facility.models[1]", "usable name"),
            ("facility.models[2]", "a file or a folder"),
            ("recipes[0]", "not installed"),
        ):
            assert why in told[field]
        assert len(told) == 17
        assert "secret" not in str(told)


async def test_a_site_without_any_good_data_set_is_there_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,label\n")
    async with running(tmp_path, datasets=[dataset("d")]) as (node, network):
        answer = await network.open("other").request(
            keys.site_do(said(node).site, "describe"), b"", timeout_s=5.0
        )
        assert b"no records" in answer


async def test_a_verifier_measures_on_its_good_test_sets(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "asked.jsonl").write_text(
        "".join(ITEM.replace('"q"', f'"q{n}"') for n in range(10))
    )
    (tmp_path / "torn.jsonl").write_text(ITEM[:-10])
    tests = [
        exam("torn", path="torn.jsonl", test_schema="multiple-choice/1"),
        exam("asked", path="asked.jsonl", test_schema="multiple-choice/1"),
        exam("good"),
    ]
    async with running(tmp_path, roles=["verifier"], tests=tests) as (node, _):
        verifier = said(node).verifier
        assert verifier is not None
        assert [test.topic for test in verifier.tests] == ["asked", "good"]
        assert "malformed: 1 problem" in reasons(node)["tests[0]"]
    async with running(tmp_path, roles=["verifier"], recipes=["classifier"], tests=tests) as (
        node,
        _,
    ):
        verifier = said(node).verifier
        assert verifier is not None
        assert [test.topic for test in verifier.tests] == ["good"]
        assert "no installed recipe reads" in reasons(node)["tests[1]"]


async def test_a_set_that_is_left_out_is_not_visited(tmp_path: Path) -> None:
    names = "".join(f"{n},patient-{n}\n" for n in range(1100))
    (tmp_path / "people.csv").write_text(f"x,label\n{names}")
    async with running(tmp_path, datasets=[dataset("people")]) as (node, _):
        assert "1100 different labels" in reasons(node)["datasets[0]"]
        with pytest.raises(NotFound, match="no data set people"):
            await node._executor.perform(visit("people", None))


async def test_an_error_of_a_visit_does_not_tell_where_the_data_lies(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(GOOD)
    async with running(tmp_path, datasets=[dataset("d")]) as (node, _):
        model = (await node._executor.perform(visit("d", None))).model
        work = msgspec.structs.replace(visit("d", model), config={"classes": ["no", "maybe"]})
        with pytest.raises(
            InvalidInput, match="labels that are not classes of the model"
        ) as caught:
            await node._executor.perform(work)
        assert str(tmp_path) not in str(caught.value)


async def test_data_that_changed_since_the_start_is_looked_at_again_before_it_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "d.csv"
    data.write_text(GOOD)
    async with running(tmp_path, datasets=[dataset("d")]) as (node, _):
        model = (await node._executor.perform(visit("d", None))).model
        assert model is not None
        data.write_text(GOOD + GOOD.partition("\n")[2])
        with pytest.raises(InvalidInput, match="train on at least 20"):
            await node._executor.perform(visit("d", model))
        data.write_text(GOOD + "".join(f"{n},{('no', 'yes')[n % 2]}\n" for n in range(20, 40)))
        assert (await node._executor.perform(visit("d", model))).model is not None
        for text in ("Smith,influenza\nJones,measles\n", "x,label\n1,yes\n", None):
            data.unlink()
            if text:
                data.write_text(text)
            with pytest.raises(InvalidInput) as caught:
                await node._executor.perform(visit("d", model))
            assert caught.value.field == "dataset"
            assert "has changed" in caught.value.problem
            for private in ("Smith", "influenza", str(tmp_path)):
                assert private not in str(caught.value)
            assert "has changed and is not usable" in caplog.text
            data.write_text(GOOD)
        assert (await node._executor.perform(visit("d", model))).model is not None


async def test_the_owner_names_label_and_columns_for_data_and_tests(tmp_path: Path) -> None:
    rows = "".join(f"{('no', 'yes')[n % 2]},P{n},{n},note\n" for n in range(20))
    for name in ("d", "t"):
        (tmp_path / f"{name}.csv").write_text(f"Diagnose,id,größe,notes\n{rows}")
    entry = {"label": "Diagnose", "ignore": ["id", "notes"], "topics": ["fieber/ü", " fieber/ü"]}
    async with running(
        tmp_path,
        roles=["data", "verifier"],
        datasets=[dataset("d", **entry)],
        tests=[exam("t", label="Diagnose", columns=["größe"])],
    ) as (node, _):
        described = said(node)
        assert described.left_out == ()
        assert described.datasets[0].labels == {"no": 10, "yes": 10}
        assert described.datasets[0].topics == ("fieber/ü",)
        assert described.verifier is not None
        assert described.verifier.tests[0].labels == {"no": 10, "yes": 10}


# ----------------------------------------------------------------------------- hostile recipes


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed_hostile(tmp_path_factory.mktemp("site")):
        yield


USABLE = ["classifier", "dying", "estimating", "harmless", "telling"]
ALL = [*USABLE, "gone", "half", "silent", "unmade"]


async def needs(node: Node, recipe: str, **config: object) -> WorkNeeds:
    return await node._executor.needs(RecipeQuestion(recipe=recipe, config=config))


async def test_recipes_that_cannot_be_used_are_left_out_and_the_others_are_there(
    hostile: None, tmp_path: Path
) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "any.txt").write_text("secret words")
    sets = [
        dataset("good"),
        dataset("any", data_schema="any/1", path="any.txt"),
        dataset("told", data_schema="telling/1", path="any.txt"),
    ]
    async with running(tmp_path, roles=["data", "compute"], recipes=ALL, datasets=sets) as (
        node,
        _,
    ):
        described = said(node)
        assert described.compute is not None
        assert described.compute.recipes == tuple(USABLE)
        broken = {e.name: e.reason for e in described.left_out if e.field == "recipes"}
        assert sorted(broken) == ["gone", "half", "silent", "unmade"]
        assert "did not answer within 20 s" in broken["silent"]
        assert "exit code 1" in broken["gone"]
        assert "cannot be imported: RuntimeError" in broken["unmade"]
        assert "no licence" not in str(described), "it is the site's own, and stays in its log"
        # `dying` reads it too, and dies of it.
        assert [d.name for d in described.datasets] == ["good", "any"]
        assert reasons(node)["datasets[2]"] == "the recipe failed"
        assert "secret" not in str(described)


async def test_a_recipe_that_fails_in_estimate_is_an_error_and_the_site_lives_on(
    hostile: None, tmp_path: Path
) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    async with running(
        tmp_path,
        roles=["data", "compute"],
        recipes=["classifier", "estimating"],
        datasets=[dataset("good")],
    ) as (node, network):
        for do, why in (
            ("raise", "ZeroDivisionError"),
            ("exit", "exit code 3"),
            ("die", "exit code 3"),
            ("crash", "SIGSEGV"),
            ("babble", "no Footprint"),
            ("recurse", "RecursionError"),
            ("hang", "did not finish within 20 s"),
            ("nothing", "gave an impossible estimate"),
            ("huge", ""),
        ):
            with pytest.raises((WorkFailed, InvalidInput)) as caught:
                await needs(node, "estimating", do=do)
            assert why in caught.value.problem
            assert (await needs(node, "estimating")).parameters == 1
        question = RecipeQuestion(recipe="estimating", config={"do": "die"})
        with pytest.raises(DaitnError, match="exit code 3"):
            await network.open("other").request(
                keys.site_do(said(node).site, "estimate"), encode(question), timeout_s=30.0
            )
        told = await needs(node, "classifier", classes=["a", "b"])
        assert told.labels == ("a", "b")
        with pytest.raises(InvalidInput, match=r"model\.config\.classes"):
            await needs(node, "classifier")
