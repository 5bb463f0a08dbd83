"""Models that came from elsewhere cost nothing before they are known to be what they say."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daitn.learning.causal_lm import CausalLm
from daitn.learning.classifier import Classifier
from daitn.learning.recipe import DataFault, Fault
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound

torch = pytest.importorskip("torch")

TINY: dict[str, object] = {"layers": 1, "width": 32, "heads": 2, "vocabulary": 400}
ROOM_BYTES = 1 << 30
"""What a process may allocate beyond what it has after its imports."""

Model = dict[str, Any]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    out = tmp_path / "fresh"
    out.mkdir()
    CausalLm().initialise(TINY, 0, out)
    return out


@pytest.fixture(params=["llama", "gpt2"])
def imported(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Model]:
    """A small imported model, and its configuration."""
    import transformers

    from daitn.learning.causal_lm.importing import import_pretrained
    from daitn.learning.causal_lm.tokens import byte_tokenizer

    folder, out = tmp_path / "pretrained", tmp_path / "model"
    if request.param == "llama":
        llama = transformers.LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=400,
        )
        network: Any = transformers.LlamaForCausalLM(llama)
    else:
        gpt2 = transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_positions=256, vocab_size=400
        )
        network = transformers.GPT2LMHeadModel(gpt2)
    network.save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    out.mkdir()
    return out, import_pretrained(folder, out)


def loaded_in_little_memory(config: Model, *models: Path) -> list[str]:
    """Load models where nothing large can be allocated; returns each error's kind and field."""
    program = (
        "import json, resource, sys\n"
        "from pathlib import Path\n"
        "import peft, torch, transformers, transformers.models.auto\n"
        "from daitn.learning.causal_lm import models\n"
        "from daitn.learning.causal_lm import pretrained\n"
        "from daitn.learning.causal_lm.settings import CausalLmConfig\n"
        "from daitn.objects.errors import DaitnError\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        f"room = pages * resource.getpagesize() + {ROOM_BYTES}\n"
        "resource.setrlimit(resource.RLIMIT_AS, (room, room))\n"
        "settings = CausalLmConfig.of(json.loads(sys.argv[1]))\n"
        "for model in sys.argv[2:]:\n"
        "    try:\n"
        "        models.load(Path(model), settings)\n"
        "        print('loaded')\n"
        "    except DaitnError as error:\n"
        "        assert error.fix\n"
        "        print(type(error).__name__, error.field)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, json.dumps(config), *map(str, models)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def described(model: Path, **changes: object) -> None:
    path = model / "base_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ------------------------------------------------------------------------------------ architectures


def test_a_base_that_asks_for_more_than_its_weights_is_refused_before_it_is_built(
    imported: tuple[Path, Model],
) -> None:
    model, config = imported
    asks = model.parent / "asks"
    shutil.copytree(model, asks)
    gpt2 = "n_embd" in json.loads((model / "base_config.json").read_text())
    size = {"n_inner": 1 << 23} if gpt2 else {"intermediate_size": 1 << 23}
    described(asks, **size)
    told = loaded_in_little_memory(config, model, asks)
    assert told == ["loaded", "Corrupt base.safetensors"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_hidden_layers": 100_000}, "model.config.layers"),
        ({"hidden_size": 1 << 20}, "model.config.width"),
        ({"vocab_size": 1 << 24}, "model.config.vocabulary"),
        ({"vocab_size": 1 << 62}, "vocab_size"),
        ({"auto_map": {"AutoConfig": "x.Y"}}, "auto_map"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"_attn_implementation": "kernels-community/flash-attn"}, "_attn_implementation"),
        ({"model_type": "mixtral"}, "model_type"),
        ({"model_type": ["llama"] * 1000}, "model_type"),
        ({"dtype": "float64"}, "dtype"),
        ({"hidden_act": "x" * 1000}, "hidden_act"),
        ({"hidden_act": "no such"}, "base_config.json"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_parameters": {"rope_type": {"a": {}}}}, "rope_parameters"),
        ({"num_attention_heads": 0}, "base_config.json"),
    ],
)
@pytest.mark.parametrize("imported", ["llama"], indirect=True)
def test_a_description_is_plain_bounded_and_of_a_known_architecture(
    imported: tuple[Path, Model], changes: Model, field: str
) -> None:
    from daitn.learning.causal_lm import models
    from daitn.learning.causal_lm.settings import CausalLmConfig

    model, config = imported
    described(model, **changes)
    with pytest.raises(InvalidInput) as raised:
        models.load(model, CausalLmConfig.of(config))
    assert raised.value.field in (field, "model.config.heads")
    assert raised.value.fix


@pytest.mark.parametrize("imported", ["llama"], indirect=True)
def test_fields_that_no_architecture_reads_change_nothing(imported: tuple[Path, Model]) -> None:
    model, config = imported
    described(model, num_labels=10**9, id2label={str(n): "x" for n in range(9)}, other=[[[]]])
    assert loaded_in_little_memory(config, model) == ["loaded"]


@pytest.mark.parametrize("imported", ["llama"], indirect=True)
def test_what_is_estimated_of_an_imported_model_is_what_is_loaded(
    imported: tuple[Path, Model],
) -> None:
    from daitn.learning.causal_lm import models
    from daitn.learning.causal_lm.settings import CausalLmConfig

    model, config = imported
    estimate = CausalLm().estimate(config)
    weights = (model / "base.safetensors").stat().st_size
    assert estimate.size_bytes >= weights - 10_000
    for claimed in (1, config["base_parameters"] - 1, 10**9):
        with pytest.raises(InvalidInput) as raised:
            models.load(model, CausalLmConfig.of(config | {"base_parameters": claimed}))
        assert raised.value.field == "model.config.base_parameters"
    with pytest.raises(InvalidInput, match="import"):
        CausalLm().estimate(config | {"base_parameters": 0})


# ----------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize("most", [10**12, 2**62, 2**63, -1])
@pytest.mark.parametrize(
    "name",
    [
        "layers",
        "width",
        "heads",
        "vocabulary",
        "answer_tokens",
        "question_tokens",
        "batch",
        "adapter_rank",
        "learning_rate_halves_after",
        "base_parameters",
    ],
)
def test_every_number_of_a_language_models_configuration_is_bounded(name: str, most: int) -> None:
    if name == "learning_rate_halves_after" and most == 10**12:
        return
    with pytest.raises(InvalidInput) as raised:
        CausalLm().estimate(TINY | {name: most})
    assert raised.value.field == f"model.config.{name}"
    assert raised.value.fix


@pytest.mark.parametrize("most", [10**12, 2**62, 2**63, -1])
@pytest.mark.parametrize("name", ["features", "batch", "hidden", "learning_rate", "proximal"])
def test_every_number_of_a_classifiers_configuration_is_bounded(name: str, most: int) -> None:
    value = [most] if name == "hidden" else most
    with pytest.raises(InvalidInput) as raised:
        Classifier().estimate({"classes": ["a", "b"], name: value})
    assert raised.value.field.startswith(f"model.config.{name}")


@given(
    st.dictionaries(
        st.sampled_from(["layers", "width", "heads", "vocabulary", "batch", "answer_tokens"]),
        st.integers() | st.floats() | st.text(max_size=5) | st.none(),
    )
)
def test_an_estimate_is_finite_or_the_configuration_is_refused(config: Model) -> None:
    try:
        footprint = CausalLm().estimate(config)
    except InvalidInput as error:
        assert error.field
    else:
        assert 0 < footprint.memory_bytes < 10**18
        assert 0 < footprint.flops_per_example < 10**21


# ------------------------------------------------------------------------------------------ weights


def header_of(length: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", length) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        header_of(2**63),
        header_of(1 << 25, b" " * 100),
        header_of(2, b"{}") + b"rest",
        header_of(60, b'{"w":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4]}} '),
        header_of(60, b'{"w":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}      ') + bytes(8),
        header_of(60, b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}     ') + bytes(4),
    ],
)
def test_a_header_that_lies_is_corrupt(data: bytes, fresh: Path) -> None:
    (fresh / "weights.safetensors").write_bytes(data)
    with pytest.raises(Corrupt) as raised:
        CausalLm().open(fresh, TINY)
    assert raised.value.field == "weights.safetensors"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200) | st.builds(header_of, st.integers(0, 300), st.binary(max_size=300)))
def test_no_bytes_break_the_reading_of_a_header(tmp_path: Path, data: bytes) -> None:
    from daitn.learning.weights import read_header

    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    try:
        header = read_header(path)
    except Corrupt:
        return
    assert header.numbers * 2 <= len(data)


def test_other_shapes_are_refused_before_a_tensor_is_read(fresh: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(fresh / "weights.safetensors")
    for change in ({"extra": torch.zeros(3)}, {"norm.weight": torch.zeros(33)}):
        save_file(weights | change, fresh / "weights.safetensors")
        with pytest.raises(InvalidInput) as raised:
            CausalLm().open(fresh, TINY)
        assert raised.value.field == "model.config"


def infinite(weights: Model) -> None:
    weights["norm.weight"][0] = float("inf")


def undefined(weights: Model) -> None:
    weights["embedding.weight"][7, 3] = float("nan")


@pytest.mark.parametrize("spoil", [infinite, undefined])
def test_weights_that_are_not_finite_are_found(
    spoil: Callable[[Model], None], fresh: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(fresh / "weights.safetensors")
    spoil(weights)
    save_file(weights, fresh / "weights.safetensors")
    with pytest.raises(Corrupt, match="not finite") as raised:
        CausalLm().evaluate(fresh, TINY, choices(tmp_path), "accuracy")
    assert raised.value.field == "weights.safetensors"


def test_finite_weights_with_scores_that_are_not_are_no_chance_result(
    fresh: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(fresh / "weights.safetensors")
    weights["norm.weight"][:] = 3e38
    save_file(weights, fresh / "weights.safetensors")
    with pytest.raises(DataFault) as raised:
        CausalLm().evaluate(fresh, TINY, choices(tmp_path), "accuracy")
    assert raised.value.fault is Fault.SCORES_NOT_FINITE


def choices(folder: Path) -> Path:
    item = {
        "topic": "t",
        "label": "l",
        "question": "q",
        "options": ["a", "b", "c", "d"],
        "answer": 0,
    }
    path = folder / "choices.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for _ in range(20)))
    return path


# --------------------------------------------------------------------------------------- tokenizers


def spoiled(model: Path, change: Callable[[Model], object]) -> None:
    path = model / "tokenizer.json"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))


def test_padding_truncation_and_added_texts_of_a_tokenizer_are_left_out(fresh: Path) -> None:
    from daitn.learning.causal_lm.tokenizer import load_tokenizer

    before = load_tokenizer(fresh, 400).encode("hello", add_special_tokens=False).ids
    padding = {
        "strategy": {"Fixed": 10**12},
        "direction": "Right",
        "pad_to_multiple_of": 10**12,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    truncation = {
        "direction": "Right",
        "max_length": 1,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    processor = {"type": "RobertaProcessing", "sep": ["x" * 1000, 10**9], "cls": ["y", 10**9]}
    spoiled(
        fresh,
        lambda d: d.update(padding=padding, truncation=truncation, post_processor=processor),
    )
    assert load_tokenizer(fresh, 400).encode("hello", add_special_tokens=False).ids == before


def replace(content: str, pattern: object) -> Model:
    return {"type": "Replace", "pattern": pattern, "content": content}


def chain(*parts: Model) -> Model:
    return {"type": "Sequence", "normalizers": list(parts)}


def split(expression: str) -> Model:
    pattern = {"Regex": expression}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


ATTACKS: dict[str, Callable[[Model], object]] = {
    "a token beyond the vocabulary": lambda d: d["model"]["vocab"].update({"zz": 10_000}),
    "a token of 2^40": lambda d: d["model"]["vocab"].update({"zz": 2**40}),
    "a negative token": lambda d: d["model"]["vocab"].update({"zz": -1}),
    "a long token": lambda d: d["model"]["vocab"].update({"z" * 10_000: 300}),
    "too many entries": lambda d: d["model"]["vocab"].update({f"z{n}": 1 for n in range(300_001)}),
    "an added token of a megabyte": lambda d: d["added_tokens"].append(
        {"id": 5, "content": "x" * 2**20}
    ),
    "random tokens": lambda d: d["model"].update(dropout=0.5),
    "a character becomes a megabyte": lambda d: d.update(
        normalizer=replace("x" * 2**20, {"String": "a"})
    ),
    "nothing becomes something": lambda d: d.update(normalizer=replace("xx", {"String": ""})),
    "growth upon growth": lambda d: d.update(
        normalizer=chain(*[replace("xxxx", {"String": "x"})] * 30)
    ),
    "bytes of bytes": lambda d: d.update(normalizer=chain(*[{"type": "ByteLevel"}] * 30)),
    "too many components": lambda d: d.update(normalizer=chain(*[{"type": "NFC"}] * 1000)),
    "a pattern that takes years": lambda d: d.update(pre_tokenizer=split("(a+)+$")),
    "one with alternatives": lambda d: d.update(pre_tokenizer=split("(a|a)*$")),
    "one of high degree": lambda d: d.update(pre_tokenizer=split("a*a*a*a*a*a*b")),
    "one that repeats often": lambda d: d.update(pre_tokenizer=split("a{1,9999999}")),
    "one that looks back": lambda d: d.update(pre_tokenizer=split(r"(a*)\1")),
    "unknown normalizer": lambda d: d.update(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "A" * 10_000}
    ),
    "unknown model": lambda d: d["model"].update(type="Program"),
    "other fields of the model": lambda d: d["model"].update(cache_capacity=2**62),
    "a decoder without end": lambda d: d.update(decoder=replace("x" * 1000, {"String": "a"})),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_tokenizer_that_is_no_plain_vocabulary_is_refused(attack: str, fresh: Path) -> None:
    spoiled(fresh, ATTACKS[attack])
    with pytest.raises(Corrupt) as raised:
        CausalLm().open(fresh, TINY)
    assert raised.value.field == "tokenizer.json"
    assert raised.value.fix
    assert len(raised.value.problem) < 1000


def test_a_deep_a_huge_and_an_absent_tokenizer_are_refused(fresh: Path) -> None:
    from daitn.learning.causal_lm.tokenizer import MOST_TOKENIZER_BYTES

    path = fresh / "tokenizer.json"
    deep = '{"model":' * 100_000
    path.write_text(deep)
    with pytest.raises(Corrupt):
        CausalLm().open(fresh, TINY)
    with path.open("wb") as file:
        file.truncate(MOST_TOKENIZER_BYTES + 1)
    with pytest.raises(Corrupt, match="bytes"):
        CausalLm().open(fresh, TINY)
    path.unlink()
    with pytest.raises(NotFound):
        CausalLm().open(fresh, TINY)


@pytest.mark.parametrize(
    "expression",
    [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    ],
)
def test_the_patterns_of_published_models_are_built(expression: str, fresh: Path) -> None:
    from daitn.learning.causal_lm.tokenizer import load_tokenizer

    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    parts = {"type": "Sequence", "pretokenizers": [split(expression), byte_level]}
    spoiled(fresh, lambda d: d.update(pre_tokenizer=parts))
    tokenizer = load_tokenizer(fresh, 400)
    text = "It's 12345 degrees,  isn't it?"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["model", "normalizer", "pre_tokenizer", "decoder", "added_tokens"]), JSON
    )
)
def test_any_description_gives_a_tokenizer_or_a_typed_error(described: Model) -> None:
    from daitn.learning.causal_lm.tokenizer import read_tokenizer

    whole = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}} | described
    try:
        read_tokenizer(json.dumps(whole).encode(), 400)
    except Corrupt as error:
        assert error.field == "tokenizer.json"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(["hidden_size", "rope_parameters", "hidden_act"]), JSON))
def test_any_architecture_gives_a_shape_or_a_typed_error(tmp_path: Path, facts: Model) -> None:
    from daitn.learning.causal_lm.architecture import read_description, shape

    path = tmp_path / "base_config.json"
    path.write_text(json.dumps({"model_type": "llama"} | facts))
    try:
        assert set(shape(read_description(path))) == {"layers", "width", "heads", "vocabulary"}
    except DaitnError as error:
        assert error.field
