"""Models that other programs read: what they compute is what sites measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tiny_llama import BEGIN, CHAT_TEMPLATE, END, SPECIAL, write_folder

from daitn.learning.answering.protocol import Message, Question
from daitn.learning.causal_lm import CausalLm
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.classifier import Classifier
from daitn.learning.corpora.clinic import clinic
from daitn.learning.recipe import Form
from daitn.objects.errors import InvalidInput

torch = pytest.importorskip("torch")

PAIRS = clinic()["cdc"][:60]
TEXT = [5, 60, 61, 62, 63, 64]


def trained(parts: Path, config: dict[str, object]) -> None:
    """Leave weights in `parts` that say something of their own."""
    from safetensors.torch import load_file, save_file

    from daitn.learning.causal_lm import models

    settings = CausalLmConfig.of(config)
    if settings.base:
        models.save(models.load(parts, settings), settings, parts, parts / "new")
        (parts / "new" / "adapter.safetensors").rename(parts / "adapter.safetensors")
    name = "adapter.safetensors" if settings.base else "weights.safetensors"
    torch.manual_seed(1)
    weights = {k: v + 0.05 * torch.randn_like(v) for k, v in load_file(parts / name).items()}
    save_file(weights, parts / name, metadata={"examples_seen": "8"})


def logits(parts: Path, config: dict[str, object]) -> Any:
    """As DA-ITN computes them."""
    from daitn.learning.causal_lm import models, rows

    network = models.load(parts, CausalLmConfig.of(config)).network
    batch = rows.tensors([rows.TokenRow(TEXT, [])])
    with torch.no_grad():
        return network.logits(batch.hidden(network)[0]).float()


def theirs(network: Any) -> Any:
    with torch.no_grad():
        return network.eval()(torch.tensor([TEXT])).logits[0].float()


@pytest.fixture(params=["llama", "gpt2", "tied"])
def imported(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, object]]:
    import transformers

    from daitn.learning.causal_lm.importing import import_pretrained
    from daitn.learning.causal_lm.tokens import learn_tokenizer

    tokenizer = learn_tokenizer(((pair.question, pair.answer) for pair in PAIRS), 500, 1)
    facts: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "bos_token_id": 3,
        "eos_token_id": 3,
    }
    torch.manual_seed(0)
    if request.param == "gpt2":
        shape: Any = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, **facts)
        network: Any = transformers.GPT2LMHeadModel(shape)
    else:
        shape = transformers.LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=request.param == "tied",
            **facts,
        )
        network = transformers.LlamaForCausalLM(shape)
    folder, parts = tmp_path / "folder", tmp_path / "parts"
    parts.mkdir()
    (parts / "new").mkdir()
    network.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = import_pretrained(folder, parts)
    trained(parts, config)
    return parts, config


def exported(parts: Path, config: dict[str, object], form: Form, out: Path) -> str:
    out.mkdir()
    return CausalLm().export_model(parts, config, form, out).usage


def test_adapters_load_in_peft_as_they_are(
    imported: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out"
    usage = exported(*imported, Form.PEFT, out)
    assert "PeftModel.from_pretrained" in usage
    read: Any = AutoModelForCausalLM.from_pretrained
    with_base = PeftModel.from_pretrained(read(out / "base"), out)
    expected = logits(*imported)
    assert torch.allclose(theirs(with_base), expected, atol=1e-4)
    onto_the_original = PeftModel.from_pretrained(read(tmp_path / "folder"), out)
    assert torch.allclose(theirs(onto_the_original), expected, atol=1e-4)
    assert not torch.allclose(theirs(read(out / "base")), expected, atol=1e-2)
    described = json.loads((out / "adapter_config.json").read_text())
    assert described["r"] * 2 == described["lora_alpha"]
    assert isinstance(described["target_modules"], list), "vLLM takes names only"
    tokenize: Any = AutoTokenizer.from_pretrained
    assert tokenize(out / "base").eos_token_id == 3


@pytest.mark.parametrize("form", [Form.HF, Form.MERGED])
def test_a_merged_model_loads_in_transformers(
    imported: tuple[Path, dict[str, object]], tmp_path: Path, form: Form
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out"
    exported(*imported, form, out)
    read: Any = AutoModelForCausalLM.from_pretrained
    network, facts = read(out, output_loading_info=True)
    assert not facts["missing_keys"]
    assert not facts["unexpected_keys"]
    assert torch.allclose(theirs(network), logits(*imported), atol=1e-4)
    tokenize: Any = AutoTokenizer.from_pretrained
    assert tokenize(out)("fever").input_ids


def test_a_model_of_our_own_loads_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parts, out = tmp_path / "parts", tmp_path / "out"
    parts.mkdir()
    config: dict[str, object] = {"layers": 2, "width": 64, "heads": 2, "vocabulary": 600}
    CausalLm().initialise(config, 0, parts)
    trained(parts, config)
    assert "--format hf" in CausalLm().export_model(parts, config, Form.PARTS, parts).usage
    exported(parts, config, Form.HF, out)
    read: Any = AutoModelForCausalLM.from_pretrained
    assert torch.allclose(theirs(read(out)), logits(parts, config), atol=1e-4)
    tokenize: Any = AutoTokenizer.from_pretrained
    assert tokenize(out)("<question>why<answer>").input_ids[0] == 2
    for form in (Form.PEFT, Form.MERGED):
        with pytest.raises(InvalidInput, match="no adapters"):
            CausalLm().export_model(parts, config, form, out)


def test_half_precision_stays(tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import LlamaConfig, LlamaForCausalLM

    from daitn.learning.causal_lm.importing import import_pretrained
    from daitn.learning.causal_lm.tokens import byte_tokenizer

    parts = tmp_path / "parts"
    parts.mkdir()
    shape: Any = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=3,
    )
    network: Any = LlamaForCausalLM(shape)
    network.to(torch.float16).save_pretrained(tmp_path / "folder")
    byte_tokenizer().save(str(tmp_path / "folder" / "tokenizer.json"))
    config = import_pretrained(tmp_path / "folder", parts)
    for form in (Form.MERGED, Form.PEFT):
        exported(parts, config, form, tmp_path / form)
    for file in ("merged/model.safetensors", "peft/base/model.safetensors"):
        assert {w.dtype for w in load_file(tmp_path / file).values()} == {torch.float16}
    adapters = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert {w.dtype for w in adapters.values()} == {torch.float32}


@pytest.mark.parametrize("form", [Form.MERGED, Form.PEFT, Form.GGUF])
def test_it_is_spoken_to_as_before(tmp_path: Path, form: Form) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    from daitn.learning.causal_lm.importing import import_pretrained

    folder, parts, out = (tmp_path / name for name in ("folder", "parts", "out"))
    write_folder(folder)
    templates = {"default": "{{ bos_token }}{{ messages[0].content }}", "tool_use": CHAT_TEMPLATE}
    tokenize: Any = AutoTokenizer.from_pretrained
    theirs = tokenize(folder)
    theirs.chat_template = templates
    theirs.save_pretrained(folder)
    ends = [END, SPECIAL.index("<|user|>")]
    GenerationConfig(eos_token_id=ends).save_pretrained(folder)
    parts.mkdir()
    config = import_pretrained(folder, parts)
    exported(parts, config, form, out)
    if form is Form.GGUF:
        from gguf import GGUFReader

        fields = GGUFReader(out / "model.gguf").fields
        said = {name.removeprefix("tokenizer."): f.contents() for name, f in fields.items()}
        assert said["chat_template"] == templates["default"]
        assert said["chat_template.tool_use"] == CHAT_TEMPLATE
        assert said["ggml.bos_token_id"] == BEGIN
        assert [said["ggml.eos_token_id"], said["ggml.eot_token_id"]] == ends
        return
    whole = out / "base" if form is Form.PEFT else out
    ours = tokenize(whole)
    assert ours.chat_template == templates
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert len(ours) == len(theirs)
    told: Any = GenerationConfig.from_pretrained(whole)
    assert told.eos_token_id == ends


# --------------------------------------------------------------------------------- classifiers


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, dict[str, object]]:
    """A classifier that has learnt from a table with gaps and a column without values."""
    rows = ["x,größe_é,empty,label"]
    rows += [f"{n % 7},{'' if n % 3 else n},,{'a' if n % 7 < 4 else 'b'}" for n in range(120)]
    (tmp_path / "data.csv").write_text("\n".join(rows) + "\n")
    config: dict[str, object] = {"classes": ["a", "b"], "hidden": [8, 5]}
    fresh, parts = tmp_path / "fresh", tmp_path / "parts"
    fresh.mkdir()
    parts.mkdir()
    Classifier().initialise(config, 0, fresh)
    Classifier().train(fresh, config, tmp_path / "data.csv", 600, 0, parts, lambda _: None)
    return parts, config


def test_a_classifier_is_asked_without_pytorch(
    table: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    parts, config = table
    usage = Classifier().export_model(parts, config, Form.PARTS, parts).usage
    assert "predict.py" in usage
    records: list[dict[str, float | None]] = [
        {"x": 1.0, "größe_é": 3.0, "empty": None},
        {"x": 6.0, "größe_é": None, "empty": 5.0},
        {"x": 1e9, "größe_é": None, "empty": None},
    ]
    program = (
        "import json, sys; from predict import Model\n"
        "print(json.dumps(Model('.').probabilities(json.loads(sys.argv[1]))))\n"
        "assert 'torch' not in sys.modules and 'daitn' not in sys.modules"
    )
    command = [sys.executable, "-c", program, json.dumps(records)]
    said = subprocess.run(command, cwd=parts, check=True, capture_output=True, text=True)
    speaker = Classifier().open(parts, config)
    for record, likely in zip(records, json.loads(said.stdout), strict=True):
        asked = Question(
            messages=(Message("user", json.dumps(record)),), max_tokens=2, temperature=0.0, seed=0
        )
        (piece,) = speaker.answer(asked)
        assert piece is not None
        assert max(likely, key=likely.get) == piece.text
        assert likely[piece.text] == pytest.approx(
            float(torch.tensor(piece.logprob).exp()), abs=1e-4
        )
        assert sum(likely.values()) == pytest.approx(1.0, abs=1e-5)


def test_its_program_refuses_a_record_without_all_columns_too(
    table: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    parts, config = table
    Classifier().export_model(parts, config, Form.PARTS, parts)
    (tmp_path / "short.csv").write_text("x,empty\n1,\n")
    command = [sys.executable, str(parts / "predict.py"), str(tmp_path / "short.csv")]
    said = subprocess.run(command, capture_output=True, text=True, env={})
    assert said.returncode
    assert "lacks the column größe_é" in said.stderr


def test_its_program_reads_a_file(table: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    parts, config = table
    Classifier().export_model(parts, config, Form.PARTS, parts)
    command = [sys.executable, str(parts / "predict.py"), str(tmp_path / "data.csv")]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env={})
    found = [line.split("\t")[0] for line in said.stdout.splitlines()]
    test = Classifier().evaluate(parts, config, tmp_path / "data.csv", "accuracy")
    right = ["a" if n % 7 < 4 else "b" for n in range(120)]
    assert sum(a == b for a, b in zip(found, right, strict=True)) == round(120 * test.value)


def test_a_classifier_has_no_other_form(
    table: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="cannot be written as hf"):
        Classifier().export_model(*table, Form.HF, tmp_path)
