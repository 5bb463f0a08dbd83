"""Adapters on an imported model: precision, devices, and how a step is cut into pieces."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daitn.learning.causal_lm import CausalLm
from daitn.learning.causal_lm.dealing import Dealer
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.corpora.clinic import clinic
from daitn.objects.errors import InvalidInput

torch = pytest.importorskip("torch")

PAIRS = clinic()["cdc"][:60]
Import = Callable[[str], tuple[Path, dict[str, object]]]


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Import:
    """Parts and configuration of a random Llama whose weights have a given number type."""
    import transformers

    from daitn.learning.causal_lm.importing import import_pretrained
    from daitn.learning.causal_lm.tokens import learn_tokenizer

    tokenizer = learn_tokenizer(((pair.question, pair.answer) for pair in PAIRS), 600, 1)

    def made(dtype: str) -> tuple[Path, dict[str, object]]:
        folder, parts = (tmp_path_factory.mktemp(name) for name in ("folder", "parts"))
        torch.manual_seed(0)
        shape: Any = transformers.LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=0,
            eos_token_id=0,
        )
        network: Any = transformers.LlamaForCausalLM(shape)
        network.to(getattr(torch, dtype)).save_pretrained(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
        return parts, import_pretrained(folder, parts)

    return made


def gradient(parts: Path, config: dict[str, object], device: str = "cpu") -> tuple[Any, float, Any]:
    """The network, a batch's loss and its gradient."""
    from daitn.learning.causal_lm import models, training
    from daitn.learning.causal_lm.replicas import Replicas

    settings = CausalLmConfig.of(config)
    model = models.load(parts, settings)
    network: Any = model.network
    if settings.base:
        network._network.to(device)
    rng = random.Random(0)
    layout = training._Layout(model.codec(settings), settings.gradient_accumulation, network.device)
    batch = next(training._batches(Dealer(PAIRS, rng, 10), layout, settings, 60, rng))
    loss, own = training._descend(Replicas([network]), batch)
    grads = [weight.grad for weight in network.trainable().values()]
    assert loss.device.type == own.device.type == device
    assert {grad.device.type for grad in grads} == {device}
    whole = torch.cat([grad.flatten() for grad in grads])
    return network, 0.0 if device == "meta" else float(loss), whole


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_adapters_are_float32_on_any_base(imported: Import, tmp_path: Path, dtype: str) -> None:
    from safetensors.torch import load_file

    from daitn.learning.causal_lm import models

    parts, config = imported(dtype)
    assert config["base_dtype"] == dtype
    settings = CausalLmConfig.of(config)
    model = models.load(parts, settings)
    assert {weight.dtype for weight in model.network.trainable().values()} == {torch.float32}
    models.save(model, settings, parts, tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "adapter.safetensors").values()} == {
        torch.float32
    }
    network, loss, grad = gradient(parts, config)
    _, exact, other = gradient(*imported("float32"))
    assert loss == pytest.approx(exact, rel=0.02)
    assert float((grad - other).norm()) < 0.1 * float(other.norm())
    frozen = {p.dtype for p in network._network.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16 if dtype == "bfloat16" else torch.float32}


def test_pieces_and_recomputing_give_the_same_gradient(imported: Import) -> None:
    parts, config = imported("float32")
    _, loss, grad = gradient(parts, config)
    for change in (
        {"gradient_accumulation": 3},
        {"gradient_accumulation": 256},
        {"gradient_checkpointing": True},
    ):
        _, other, same = gradient(parts, config | change)
        assert other == pytest.approx(loss, rel=1e-5)
        assert float((grad - same).norm()) < 1e-4 * float(grad.norm())


def test_a_model_of_our_own_recomputes_too(tmp_path: Path) -> None:
    config: dict[str, object] = {"layers": 2, "width": 64, "heads": 2, "vocabulary": 600}
    CausalLm().initialise(config, 0, tmp_path)
    _, loss, grad = gradient(tmp_path, config)
    _, other, same = gradient(tmp_path, config | {"gradient_checkpointing": True})
    assert (other, float((grad - same).norm())) == (loss, 0.0)


def test_recomputing_keeps_less(imported: Import) -> None:
    parts, config = imported("float32")

    def kept(change: dict[str, object]) -> int:
        tensors: dict[int, int] = {}

        def pack(tensor: Any) -> Any:
            tensors[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            gradient(parts, config | change)
        return sum(tensors.values())

    assert kept({"gradient_checkpointing": True}) < 0.6 * kept({})


def test_every_tensor_of_a_step_is_where_the_network_is(imported: Import) -> None:
    """On a device that refuses to mix with the CPU, as a GPU does."""
    parts, config = imported("float32")
    gradient(parts, config | {"gradient_accumulation": 2}, device="meta")


@pytest.mark.parametrize("base", [True, False])
def test_both_networks_compute_in_mixed_precision(
    imported: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: bool
) -> None:
    """As on a GPU."""
    from daitn.learning.causal_lm import network, pretrained

    parts, config = imported("float32") if base else (tmp_path, dict[str, object]())
    if not base:
        CausalLm().initialise(config, 0, tmp_path)
    _, exact, reference = gradient(parts, config)
    for module in (network, pretrained):
        monkeypatch.setattr(
            module, "mixed_precision", lambda *_: torch.autocast("cpu", dtype=torch.bfloat16)
        )
    computed, loss, grad = gradient(parts, config)
    assert loss == pytest.approx(exact, rel=0.01)
    assert loss != exact
    assert grad.dtype == torch.float32
    assert float((grad - reference).norm()) < 0.1 * float(reference.norm())
    with torch.inference_mode():
        _, memory = computed.following(torch.tensor([1, 2, 3]), None)
        hidden, _ = computed.following(torch.tensor([4]), memory)
    assert bool(computed.logits(hidden).isfinite().all())


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_processor_casts_for_short_weights_only() -> None:
    from daitn.learning.engine import mixed_precision

    cpu, gpu, whole, half = torch.device("cpu"), torch.device("cuda"), torch.float32, torch.bfloat16
    assert isinstance(mixed_precision(cpu, whole), contextlib.nullcontext)
    assert isinstance(mixed_precision(cpu, half), torch.autocast)
    assert isinstance(mixed_precision(gpu, whole), torch.autocast)


def test_a_base_is_what_its_configuration_says(imported: Import) -> None:
    from daitn.learning.causal_lm import models

    parts, config = imported("float32")
    for name, value in (
        ("base_dtype", "bfloat16"),
        ("adapted_parameters", 1),
        ("adapted_widths", 1),
    ):
        with pytest.raises(InvalidInput) as raised:
            models.load(parts, CausalLmConfig.of(config | {name: value}))
        assert raised.value.field == "model.config"


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("Granite", {"logits_scaling": 8.0}),
        ("Gemma2", {"final_logit_softcapping": 0.05, "head_dim": 8}),
    ],
)
def test_scores_are_shaped_as_the_architecture_does(
    tmp_path: Path, kind: str, facts: dict[str, Any]
) -> None:
    import transformers

    from daitn.learning.causal_lm import models, rows
    from daitn.learning.causal_lm.importing import import_pretrained
    from daitn.learning.causal_lm.tokens import byte_tokenizer

    shape = getattr(transformers, f"{kind}Config")(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=3,
        initializer_range=0.2,
        **facts,
    )
    torch.manual_seed(0)
    network = getattr(transformers, f"{kind}ForCausalLM")(shape).eval()
    folder, parts = tmp_path / "folder", tmp_path / "parts"
    parts.mkdir()
    network.save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    model = models.load(parts, CausalLmConfig.of(import_pretrained(folder, parts)))
    text = [5, 60, 61, 62]
    batch = rows.tensors([rows.TokenRow(text, [])])
    with torch.no_grad():
        expected = network(torch.tensor([text])).logits[0]
        scores = model.network.logits(batch.hidden(model.network)[0])
    assert float(expected.abs().max()) > 1e-3
    assert torch.allclose(scores, expected, atol=1e-5)
