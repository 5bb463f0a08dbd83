"""Bases in fewer bits: when they are, what they take, and that they learn and answer so.

What needs the library is skipped without it; `tests/long/test_quantised.py` brings it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.scenes.tiny_llama import imported, write_folder

from daitn.learning.answering.protocol import Message, Question, Room
from daitn.learning.causal_lm import CausalLm
from daitn.learning.causal_lm.architecture import published_precision, read_description
from daitn.learning.causal_lm.quantising import has_library
from daitn.learning.causal_lm.settings import CausalLmConfig, footprint
from daitn.learning.corpora.clinic import clinic
from daitn.learning.recipe import Form
from daitn.learning.trainer import Trainer
from daitn.objects.errors import InvalidInput, StorageFull

torch = pytest.importorskip("torch")

LLAMA_8B: dict[str, object] = {
    "base": "base.safetensors",
    "base_parameters": 8_030_261_248,
    "base_dtype": "bfloat16",
    "adapted_parameters": 6_979_321_856,
    "adapted_widths": 2_654_208,
    "layers": 32,
    "width": 4096,
    "heads": 32,
    "vocabulary": 128256,
}
quantises = pytest.mark.skipif(not has_library(), reason="needs bitsandbytes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "folder"
    write_folder(folder, width=64, deviation=0.02)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> tuple[Path, dict[str, object]]:
    parts = folder.parent / "parts"
    return parts, imported(folder, parts)


def test_fewer_bits_take_less_memory_and_travel_as_they_were() -> None:
    stored, eight, four = (
        footprint(CausalLmConfig.of(LLAMA_8B | {"base_precision": precision}))
        for precision in ("stored", "8bit", "4bit")
    )
    adapted = 6_979_321_856
    assert stored.memory_bytes - eight.memory_bytes == pytest.approx(adapted, rel=0.01)
    assert stored.memory_bytes - four.memory_bytes == pytest.approx(1.484 * adapted, rel=0.01)
    assert stored.size_bytes == eight.size_bytes == four.size_bytes
    assert stored.packages == ()
    assert eight.packages == four.packages == ("bitsandbytes",)


def test_only_a_base_has_a_precision() -> None:
    with pytest.raises(InvalidInput) as raised:
        CausalLmConfig.of({"base_precision": "4bit"})
    assert raised.value.field == "model.config.base_precision"
    with pytest.raises(InvalidInput) as raised:
        CausalLmConfig.of(LLAMA_8B | {"base_precision": "2bit"})
    assert raised.value.field == "model.config.base_precision"


def test_a_site_without_the_library_says_so(
    model: tuple[Path, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from daitn.learning.causal_lm import models, quantising

    monkeypatch.setattr(quantising, "has_library", lambda: False)
    parts, config = model
    with pytest.raises(InvalidInput) as raised:
        models.load(parts, CausalLmConfig.of(config | {"base_precision": "4bit"}))
    assert raised.value.field == "model.config.base_precision"
    assert "bitsandbytes" in raised.value.problem


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (None, "stored"),
        ({}, "stored"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "4bit"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "8bit"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"bits": 4}, "None"),
        ("4bit", "None"),
    ],
)
def test_only_what_can_be_undone_is_imported_quantised(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: object, expected: str
) -> None:
    from daitn.learning.causal_lm import quantising

    path = tmp_path / "config.json"
    facts = json.loads((folder / "config.json").read_text())
    path.write_text(json.dumps(facts | {"quantization_config": stated}))
    if stated:
        with pytest.raises(InvalidInput, match="code"):  # At a site.
            read_description(path)
    monkeypatch.setattr(quantising, "has_library", lambda: True)
    if expected in ("stored", "4bit", "8bit"):
        assert published_precision(path) == expected
        assert read_description(path, quantised=True) == read_description(folder / "config.json")
        monkeypatch.setattr(quantising, "has_library", lambda: False)
    if expected != "stored":
        with pytest.raises(InvalidInput) as raised:
            published_precision(path)
        assert raised.value.field == "quantization_config"
        assert ("bitsandbytes is not installed" if "bit" in expected else expected) in (
            raised.value.problem
        )


def test_a_layout_that_cannot_be_undone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    stated = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps({"model_type": "gpt2", "quantization_config": stated}))
    with pytest.raises(InvalidInput, match="this architecture"):
        published_precision(path)


def test_a_facility_quantises_what_it_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from daitn.learning.causal_lm import placing

    monkeypatch.setattr("daitn.learning.memory.free_bytes", lambda: 1 << 40)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {})

    def place(gigabytes: int, *, library: bool = True, quantisable: int = 7 * 10**9) -> str:
        monkeypatch.setattr(placing, "has_library", lambda: library)
        room = Room(memory_bytes=gigabytes * 10**9)
        found = placing.placed(8 * 10**9, quantisable, torch.bfloat16, room)
        return f"{found.dtype} {found.precision}".removeprefix("torch.")

    assert place(40) == "float32 stored"
    assert place(20) == "bfloat16 stored"
    assert place(12) == "bfloat16 8bit"
    assert place(7) == "bfloat16 4bit"
    for gigabytes, library, quantisable in ((5, True, 7), (12, False, 7), (12, True, 0)):
        with pytest.raises(StorageFull):
            place(gigabytes, library=library, quantisable=quantisable * 10**9)


def test_a_gpu_with_little_memory_comes_before_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from daitn.learning.causal_lm import placing

    free = 12 << 30
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda _: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    monkeypatch.setattr("daitn.learning.memory.free_bytes", lambda: 1 << 40)
    for library, device, precision in ((True, "cuda", "8bit"), (False, "cpu", "stored")):
        monkeypatch.setattr(placing, "has_library", lambda library=library: library)
        place = placing.placed(8 * 10**9, 7 * 10**9, torch.bfloat16, Room())
        assert (place.device.type, place.precision) == (device, precision)


@pytest.mark.parametrize("form", [Form.PEFT, Form.MERGED])
def test_an_export_needs_no_library(
    model: tuple[Path, dict[str, object]], tmp_path: Path, form: Form
) -> None:
    parts, config = model
    CausalLm().export_model(parts, config | {"base_precision": "4bit"}, form, tmp_path)
    written = tmp_path / ("base" if form is Form.PEFT else ".") / "model.safetensors"
    assert written.stat().st_size > 3 * int(str(config["base_parameters"]))


def network_bytes(network: Any) -> int:
    """Of a network's weights but its adapters, with what belongs to quantised ones."""
    kept = (t for name, t in network.state_dict().items() if ".lora_" not in name)
    return sum(tensor.nbytes for tensor in kept)


@quantises
@pytest.mark.parametrize(("precision", "share"), [("8bit", 0.01), ("4bit", 0.1)])
def test_a_quantised_base_is_small_and_computes_about_the_same(
    model: tuple[Path, dict[str, object]], precision: str, share: float
) -> None:
    from daitn.learning.causal_lm import models
    from daitn.learning.causal_lm.quantising import held_bytes

    parts, config = model
    tokens, positions = torch.arange(10, 30)[None], torch.arange(20)[None]
    mask = torch.ones(20, 20, dtype=torch.bool).tril()[None, None]
    found = []
    for stated in ("stored", precision):
        settings = CausalLmConfig.of(config | {"base_precision": stated})
        adapted: Any = models.load(parts, settings).network
        with torch.no_grad():
            found.append(adapted.logits(adapted.hidden(tokens, positions, mask)))
        assert {weight.dtype for weight in adapted.trainable().values()} == {torch.float32}
        expected = held_bytes(
            settings.base_parameters, settings.adapted_parameters, 4.0, settings.base_precision
        )
        # Of small matrices, the tables beside them are not so small.
        assert network_bytes(adapted.network) == pytest.approx(expected, rel=0.35)
    exact, other = found
    assert 0.0 < float((other - exact).norm()) < share * float(exact.norm())


@quantises
@pytest.mark.parametrize("precision", ["8bit", "4bit"])
async def test_a_visit_learns_about_the_same_on_a_quantised_base(
    model: tuple[Path, dict[str, object]], tmp_path: Path, precision: str
) -> None:
    from safetensors.torch import load_file

    parts, config = model
    data = tmp_path / "data.jsonl"
    pairs = clinic()["cdc"][:40]
    data.write_text("".join(json.dumps(msgspec.to_builtins(pair)) + "\n" for pair in pairs))
    trainer, learnt = Trainer(threads=2, stall_s=120), []
    try:
        for stated in ("stored", precision):
            out = tmp_path / stated
            out.mkdir()
            visit = (parts, config | {"base_precision": stated}, data, 48, 5, out)
            trained = await trainer.train("causal-lm", *visit, lambda _: None)
            weights = load_file(out / "adapter.safetensors")
            learnt.append(torch.cat([w.flatten() for n, w in weights.items() if "lora_B" in n]))
    finally:
        await trainer.close()
    exact, other = learnt
    assert float(exact @ other) > 0.9 * float(exact.norm() * other.norm()) > 0.0
    assert not torch.equal(exact, other)
    assert set(trained.carried) >= {"base.safetensors", "base_config.json"}


@quantises
@pytest.mark.parametrize("precision", ["8bit", "4bit"])
async def test_a_model_published_quantised_is_imported(
    folder: Path, tmp_path: Path, precision: str
) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from daitn.learning.causal_lm import models

    stated = BitsAndBytesConfig(
        load_in_4bit=precision == "4bit",
        load_in_8bit=precision == "8bit",
        bnb_4bit_quant_type="nf4",
    )
    load: Any = AutoModelForCausalLM.from_pretrained
    theirs = load(folder, quantization_config=stated, dtype=torch.float32).eval()
    published = tmp_path / "published"
    theirs.save_pretrained(published)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (published / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "parts").mkdir()
    trainer = Trainer(threads=2, stall_s=120)
    try:
        made = await trainer.import_model("causal-lm", published, tmp_path / "parts")
    finally:
        await trainer.close()
    config = made.config
    assert config["base_precision"] == precision
    ours: Any = models.load(tmp_path / "parts", CausalLmConfig.of(config)).network
    tokens = torch.arange(10, 30)
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
        found = ours.logits(ours.following(tokens, None)[0])
    assert float((found - expected).norm()) < 0.05 * float(expected.norm())


@quantises
@pytest.mark.parametrize("precision", ["8bit", "4bit"])
def test_a_quantised_model_answers(
    model: tuple[Path, dict[str, object]], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    from daitn.learning.causal_lm import placing, pretrained

    place = placing.Place(torch.device("cpu"), torch.float32, precision)  # type: ignore[arg-type]
    monkeypatch.setattr(pretrained, "placed", lambda *_: place)
    generator: Any = CausalLm().host(*model, Room(slots=2))
    assert precision in generator.facts.runs_on
    question = Question(
        messages=(Message("user", "rest and water"),), max_tokens=6, temperature=0.0, seed=0
    )
    said = [piece.text for piece in generator.answer(question) if piece is not None]
    assert said
    (vector,) = generator.embed(["fever"])
    assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-3)


@quantises
def test_adapters_of_a_quantised_base_answer_beside_it(
    model: tuple[Path, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daitn.learning.causal_lm import models, placing, pretrained

    parts, config = model
    settings = CausalLmConfig.of(config | {"base_precision": "4bit"})
    trained = models.load(parts, settings)
    for weight in trained.network.trainable().values():
        weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    carried = models.save(trained, settings, parts, tmp_path)
    for name in carried:
        (tmp_path / name).symlink_to(parts / name)
    place = placing.Place(torch.device("cpu"), torch.float32, "4bit")
    monkeypatch.setattr(pretrained, "placed", lambda *_: place)
    answerer = pretrained.load_answering(tmp_path, settings, Room())
    tokens = torch.arange(10, 30)
    with torch.no_grad():
        (expected, _), (found, _) = (
            one.following(tokens, None) for one in (trained.network, answerer.adapted)
        )
    assert torch.allclose(found, expected, atol=0.05)
