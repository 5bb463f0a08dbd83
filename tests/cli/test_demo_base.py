"""The demo with a base of the user's: sizes, targets, files, questions, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from daitn.center.config import CenterConfig
from daitn.cli.app import app
from daitn.cli.demo import base as bases
from daitn.cli.demo.asking import ask_plainly, ask_streams, base_streams, examined
from daitn.cli.demo.base import Base, base_sentence, bring, configured, sizes_for, target_above
from daitn.cli.demo.scenario import BASE_PLACES, TOPICS, write_base_intent, write_scenario
from daitn.learning.causal_lm import CausalLm
from daitn.learning.commands import Probed
from daitn.learning.corpora.prepare import prepare
from daitn.learning.corpora.records import read_choices
from daitn.learning.recipe import Footprint
from daitn.node.config import NodeConfig
from daitn.objects.choices import LETTERS
from daitn.objects.deployments import DeploymentState, Runtime
from daitn.objects.errors import StorageFull
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.queries import Trust
from daitn.objects.wire import checked
from daitn.topology.qrrt.served import KnownAccuracy, ServedModel, ServedModels
from tests.scenes.tiny_llama import write_folder

IMPORTED: dict[str, Any] = {
    "base": "base.safetensors",
    "base_parameters": 1_235_814_400,
    "base_dtype": "bfloat16",
    "adapted_parameters": 973_078_528,
    "adapted_widths": 704_512,
    "layers": 16,
    "width": 2048,
    "heads": 32,
    "vocabulary": 128_256,
    "chat_tokens": 45,
}
"""Llama 3.2 1B."""


def tried() -> list[tuple[dict[str, Any], Footprint]]:
    configs = [configured(IMPORTED) | leaner for leaner in bases._LEANER]
    return [(config, CausalLm().estimate(config)) for config in configs]


def on(gpu: bool, memory_gb: float, gflops: float) -> Base:
    memory_bytes = int(memory_gb * 1e9)
    probed = Probed(device="it", memory_bytes=memory_bytes, speed_flops=gflops * 1e9, is_gpu=gpu)
    return sizes_for("llama", tried(), probed, memory_bytes, 8)


def test_a_step_is_as_lean_as_the_memory_asks() -> None:
    roomy, narrow = on(True, 80, 4e5), on(True, 11, 4e5)
    assert "gradient_checkpointing" not in roomy.config
    assert "gradient_accumulation" not in roomy.config
    assert narrow.config["gradient_checkpointing"]
    assert {**narrow.config, "gradient_checkpointing": False} != roomy.config
    assert "recomputed" in base_sentence(narrow)
    assert "with a chat template" in base_sentence(roomy)


def test_tests_and_time_suit_the_speed() -> None:
    gpu, cpu = on(True, 80, 4e5), on(False, 64, 100)
    assert gpu.items == 480
    assert cpu.items == 48
    assert gpu.within_s == 600
    assert cpu.within_s == 6 * 3600
    probed = Probed(device="it", memory_bytes=10**11, speed_flops=1e12)
    assert sizes_for("llama", tried(), probed, 10**11, 8, minutes=7).within_s == 420


def test_what_memory_does_not_hold_is_refused_with_both_figures() -> None:
    with pytest.raises(StorageFull) as raised:
        on(False, 4, 100)
    assert raised.value.field == "--base"
    assert "1,235,814,400 parameters" in raised.value.problem
    assert "3.6 GB" in raised.value.problem
    assert "smaller" in raised.value.fix


def test_large_bases_learn_slowly() -> None:
    rates = [
        configured(IMPORTED | {"base_parameters": count})["learning_rate"]
        for count in (50_000, 135_000_000, 1_235_814_400)
    ]
    assert rates == [3e-3, 1e-3, 2e-4]


@pytest.mark.parametrize(
    ("measured", "target"), [(0.1, 0.5), (0.25, 0.5), (0.4, 0.6), (0.7, 0.8), (0.999, 0.99)]
)
def test_a_target_is_a_third_of_what_the_base_lacks(measured: float, target: float) -> None:
    assert target_above(measured) == target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "tiny", context=512)
    return tmp_path / "tiny"


async def test_a_folder_becomes_a_base_and_a_network_that_takes_it(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    base = await bring(folder, out, minutes=3)
    prepared = prepare(out / "data", None, 60)

    network = yaml.safe_load(write_scenario(out, out / "data", prepared, base).read_text())
    write_base_intent(out, "healthcare", base, {"broad": 0.5, "expert": 0.6}, base.within_s)

    assert base.name == "tiny"
    assert base.within_s == 180
    assert base.config["chat_tokens"] > 0
    assert prepared.tests == {"broad": 60, "expert": 60}
    intents = {
        name: checked(yaml.safe_load((out / f"{name}.yaml").read_text()), TrainingIntent, "intent")
        for name in ("base", "healthcare")
    }
    for intent in intents.values():
        assert (out / intent.model.start / "base.safetensors").is_file()
        CausalLm().estimate(intent.model.config)
    assert {o.name: o.at_least for o in intents["healthcare"].objectives} == {
        "broad": 0.5,
        "expert": 0.6,
    }
    assert max(o.at_least for o in intents["base"].objectives) < 0.01
    assert intents["base"].budget.duration_s is None
    assert intents["healthcare"].budget.duration_s == 180
    checked(network["center"], CenterConfig, "center")
    for node in network["nodes"]:
        config = checked({**network["defaults"], **node}, NodeConfig, "node")
        assert not config.tests or config.asking.items == min(240, base.items)
        policies = [dataset.policy for dataset in config.datasets]
        assert all(not isinstance(one, str) and one.start_models for one in policies)


def refused(*words: str) -> str:
    ended = CliRunner().invoke(app, ["demo", *words])
    assert ended.exit_code == 2, ended.output
    return " ".join(ended.output.split())


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused_before_anything_is_replaced(
    folder: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.json").write_text("{}")
    (folder / name).unlink()

    told = refused("--base", str(folder), "-o", str(tmp_path / "out"))

    assert "error --base:" in told
    assert name.replace("model", "*") in told or name in told
    assert "save_pretrained" in told
    assert (tmp_path / "out/report.json").is_file()


def test_other_folders_and_options_are_refused(folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert "there is no folder" in refused("--base", str(tmp_path / "none"), "-o", out)
    assert "content is replaced" in refused("--base", str(folder), "-o", str(tmp_path))
    assert "do not go together" in refused("--base", str(folder), "--baselines")
    assert "goes with --base" in refused("--minutes", "5")


def test_an_architecture_that_sites_do_not_build_is_named(folder: Path, tmp_path: Path) -> None:
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"model_type": "mamba"}))

    told = refused("--base", str(folder), "-o", str(tmp_path / "out"))

    assert "model_type: " in told
    assert "'mamba'" in told
    assert "llama" in told


def test_weights_that_memory_does_not_hold_are_not_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daitn.learning.memory.free_bytes", lambda: 1000)
    ended = CliRunner().invoke(app, ["demo", "--base", str(folder), "-o", str(tmp_path / "out")])
    assert ended.exit_code == 5
    assert "--base: reading the weights in" in " ".join(ended.output.split())


async def test_both_models_are_asked_by_name_and_in_plain_words(tmp_path: Path) -> None:
    prepare(tmp_path, None, 48)
    tests = tmp_path / "tests"
    right = {
        item.question: LETTERS[item.answer]
        for name in TOPICS
        for item in read_choices(tests / f"{name}.jsonl")
    }
    names = [name for name, _, _ in BASE_PLACES]
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        text, model = body["messages"][0]["content"], body["model"]
        asked.append((model, text))
        said = f"{model} says so"
        if "\n" in text:
            said = "E" if model == names[0] else right[text.splitlines()[0]]
        message = {"role": "assistant", "content": said}
        return web.json_response(
            {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]},
            headers={"daitn-model": model, "daitn-facility": "mdf"},
        )

    async def listed(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in names]})

    served = web.Application()
    served.router.add_post("/v1/chat/completions", answer)
    served.router.add_get("/v1/models", listed)
    async with TestServer(served) as server:
        endpoint = f"http://127.0.0.1:{server.port}"
        streams = base_streams(dict(zip(names, ("as it was", "trained"), strict=True)), 20)
        queries = await ask_streams(endpoint, tests, names, streams)
        asked.clear()
        said = await ask_plainly(endpoint, tests, names)

    figures = {query.name: (query.queries, query.accuracy) for query in queries}
    assert figures == {
        "broad, as it was": (20, 0.0),
        "broad, trained": (20, 1.0),
        "expert, as it was": (20, 0.0),
        "expert, trained": (20, 1.0),
        "expert, any model": (20, 1.0),
    }
    assert [model for model, _ in asked] == names * len(said)
    assert len({one.question for one in said}) == len(said) == 3
    assert all(one.answers == {name: f"{name} says so" for name in names} for one in said)


async def test_what_verifiers_find_by_asking_is_waited_for() -> None:
    names, topics = [name for name, _, _ in BASE_PLACES], tuple(TOPICS.values())

    def known(trust: Trust) -> ServedModels:
        accuracy = tuple(
            KnownAccuracy(topic=topic, value=0.5, standard_error=0.1, trust=trust, at_s=0.0)
            for topic in topics
        )
        return ServedModels(models=tuple(deployed(name, accuracy) for name in names))

    states = iter([known(Trust.WEIGHTS), known(Trust.ASKED)])

    async def look() -> ServedModels:
        return next(states)

    assert await examined(look, names, topics, 60.0) == {
        name: dict.fromkeys(topics, 0.5) for name in names
    }
    states = iter([known(Trust.WEIGHTS)])
    assert await examined(look, names, topics, 0.0) == {name: {} for name in names}


def deployed(name: str, accuracy: tuple[KnownAccuracy, ...]) -> ServedModel:
    return ServedModel(
        name=name,
        site=SiteId("mdf"),
        runtime=Runtime.EMBEDDED,
        state=DeploymentState.READY,
        available=True,
        degraded=False,
        accuracy=accuracy,
        in_flight=0,
        slots=4,
        first_token_s=0.1,
        per_token_s=0.1,
        error_share=0.0,
        measured=True,
        price_usd_per_1k_in=0.0,
        price_usd_per_1k_out=0.0,
    )
