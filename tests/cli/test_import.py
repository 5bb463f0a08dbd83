"""`daitn model import` makes the parts of a pretrained model, and says what an intent needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from daitn.cli.app import app
from daitn.cli.models import limits_of
from daitn.learning import memory
from daitn.learning.published import stored_bytes, weights_bytes
from tests.scenes.tiny_llama import WIDTH, write_folder

PARTS = {"base.safetensors", "base_config.json", "chat.json", "tokenizer.json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as a hub's cache has it: links to files that lie elsewhere."""
    root = tmp_path_factory.mktemp("hub")
    blobs, snapshot = root / "blobs", root / "snapshot"
    write_folder(blobs)
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    return snapshot


def ran(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["model", "import", *map(str, arguments)])


@pytest.mark.processes
def test_a_pretrained_model_becomes_parts_and_lines_for_an_intent(
    folder: Path, tmp_path: Path
) -> None:
    told = ran(folder, "-o", tmp_path / "parts")
    assert told.exit_code == 0, told.output
    assert {path.name for path in (tmp_path / "parts").iterdir()} >= PARTS
    model = yaml.safe_load(told.stdout)["model"]
    assert model["start"] == str(tmp_path / "parts")
    assert (model["recipe"], model["config"]["width"]) == ("causal-lm", WIDTH)
    told = ran(folder, "-o", tmp_path / "again", "--json")
    assert json.loads(told.stdout)["config"] == model["config"]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "classifier"], "does not import models"),
        (["--recipe", "no-such"], "no-such"),
    ],
)
def test_a_recipe_that_takes_none_says_so_and_leaves_nothing(
    folder: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    told = ran(folder, "-o", tmp_path / "parts", *options)
    assert told.exit_code == 2
    assert words in told.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_a_folder_without_a_model_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, words in ((empty, "config.json"), (tmp_path / "none", "no folder")):
        told = ran(folder, "-o", tmp_path / "parts")
        assert told.exit_code == 2
        assert words in told.stderr
        assert list(tmp_path.iterdir()) == [empty]


def test_nothing_is_written_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    told = ran(folder, "-o", tmp_path)
    assert told.exit_code == 2
    assert "empty folder" in told.stderr


def test_weights_in_few_bits_take_the_memory_of_what_they_are_put_back_to(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "packed"
    shutil.copytree(folder, packed)
    described = json.loads((packed / "config.json").read_text())
    described |= {"dtype": "bfloat16", "quantization_config": {"load_in_4bit": True}}
    (packed / "config.json").write_text(json.dumps(described))
    stored = stored_bytes(packed)
    monkeypatch.setattr(memory, "free_bytes", lambda: 2 * 4 * stored - 1)
    told = ran(packed, "-o", tmp_path / "parts")
    assert told.exit_code == 5
    assert "reading the weights in" in " ".join(told.stderr.split())
    assert not (tmp_path / "parts").exists()
    usual = limits_of(packed, 3)
    more = limits_of(packed, 3, least_bytes=weights_bytes(packed))
    assert more.file_bytes >= usual.file_bytes + 2 * 2 * stored
    assert more.memory_bytes >= usual.memory_bytes + 2 * 3 * 2 * stored
