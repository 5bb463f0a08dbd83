"""Folders of transformers that are not as they say, or not whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.scenes.tiny_llama import write_folder

from daitn.learning.causal_lm import CausalLm
from daitn.objects.errors import Corrupt, InvalidInput, NotFound

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write_folder(folder)
    return folder


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "folder"))


def imported(folder: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    return dict(CausalLm().import_model(folder, out).config)


@pytest.mark.parametrize("differs", [False, True])
def test_a_model_says_at_sites_what_it_says_in_transformers(
    folder: Path, tmp_path: Path, differs: bool
) -> None:
    """Also where its description ties two matrices of which the folder has both."""
    from transformers import AutoModelForCausalLM

    from daitn.learning.causal_lm import models
    from daitn.learning.causal_lm.settings import CausalLmConfig

    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "tie_word_embeddings": True}))
    weights = load_file(folder / "model.safetensors")
    if differs:
        weights["lm_head.weight"] = torch.randn_like(weights["model.embed_tokens.weight"])
    else:
        weights.pop("lm_head.weight", None)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = imported(folder, tmp_path / "parts")
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = torch.arange(3, 20)[None]
    ours: Any = models.load(tmp_path / "parts", CausalLmConfig.of(config)).network
    with torch.no_grad():
        expected = theirs(tokens).logits[0]
        hidden = ours.network.base_model(tokens).last_hidden_state[0]
        torch.testing.assert_close(ours.logits(hidden), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_taken(
    folder: Path, tmp_path: Path, bad: float
) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = bad
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Corrupt, match=r"model\.norm\.weight has values that are not finite"):
        imported(folder, tmp_path / "parts")


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_without_a_word_of_it_are_not_taken(
    folder: Path, tmp_path: Path, kind: Any
) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].to(kind)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match=r"model\.norm\.weight is quantised"):
        imported(folder, tmp_path / "parts")


def test_what_is_wrong_with_a_file_is_said_of_that_file(folder: Path, tmp_path: Path) -> None:
    def refused(name: str, content: bytes, parts: str = "parts") -> str:
        before = (folder / name).read_bytes() if (folder / name).is_file() else None
        (folder / name).write_bytes(content)
        with pytest.raises(Corrupt) as said:
            imported(folder, tmp_path / f"{parts} of {name}")
        if before is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(before)
        return str(said.value)

    described = (folder / "config.json").read_bytes()
    assert "config.json" in refused("config.json", b"\xef\xbb\xbf" + described)
    for parts, template in (("a", "{{ messages }}".encode("utf-16")), ("b", b"\xe9{{ messages }}")):
        assert "chat_template.jinja" in refused("chat_template.jinja", template, parts)
    assert "model.safetensors" in refused("model.safetensors", b"version https://git-lfs")


def test_a_missing_shard_is_named(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    lost = "model-00002-of-00002.safetensors"
    places = dict.fromkeys(weights, "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": {**places, "lm_head.weight": lost}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(NotFound, match=lost):
        imported(folder, tmp_path / "parts")
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(Corrupt, match="index"):
        imported(folder, tmp_path / "other")
