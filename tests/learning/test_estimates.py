"""What a causal language model is said to need, against networks of real shapes.

They hold no numbers (PyTorch's device `meta`), and a few of their layers: all are alike.
"""

from __future__ import annotations

import contextlib
import weakref
from functools import partial
from typing import Any

import pytest

from daitn.learning.causal_lm.settings import NUMBER_BYTES, CausalLmConfig, footprint
from daitn.learning.recipe import Footprint

torch = pytest.importorskip("torch")

LAYERS = 2
RECORDS = 15
QUESTIONS = 5
SHAPES: dict[str, dict[str, Any]] = {
    "Llama 3.2 1B": {
        "model_type": "llama",
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "Llama 3.1 8B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "Qwen 2.5 1.5B": {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "Qwen 3 4B": {
        "model_type": "qwen3",
        "hidden_size": 2560,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 9728,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "Gemma 2 2B": {
        "model_type": "gemma2",
        "hidden_size": 2304,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "intermediate_size": 9216,
        "vocab_size": 256000,
        "tie_word_embeddings": True,
    },
    "Phi 3 mini": {
        "model_type": "phi3",
        "hidden_size": 3072,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 8192,
        "vocab_size": 32064,
        "pad_token_id": 32000,
    },
}


class _Attention(torch.autograd.Function):  # type: ignore[misc, name-defined]
    """What the fused kernels of processors and GPUs keep; `meta` would take the plain formula."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
        said = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, said)
        return said

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        query, key, value, _said = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def peak_bytes(work: Any, network: Any) -> int:
    """The most bytes that tensors on `meta` had at once, without those of `network`."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    known = {tensor.untyped_storage()._cdata for tensor in network.state_dict().values()}
    alive: dict[int, Any] = {}
    now = peak = 0

    def gone(key: int, size: int, _: object) -> None:
        nonlocal now
        now -= size
        del alive[key]

    mode: Any = TorchDispatchMode

    class Watching(mode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal now, peak
            made = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(made):
                if not isinstance(tensor, torch.Tensor) or tensor.device.type != "meta":
                    continue
                storage = tensor.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key in known or key in alive:
                    continue
                now += size
                peak = max(peak, now)
                alive[key] = weakref.ref(storage, partial(gone, key, size))
            return made

    with Watching():
        work()
    return peak


def needed(facts: dict[str, Any], change: dict[str, object], dtype: str) -> tuple[Footprint, Any]:
    """The estimate for a shape, and what a network of it had: adapters, bytes in all, and
    operations per example."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    from daitn.learning.causal_lm import pretrained, rows, training
    from daitn.learning.causal_lm.architecture import shape
    from daitn.learning.causal_lm.replicas import Replicas

    made: Any = AutoConfig.for_model
    described = made(**facts, num_hidden_layers=LAYERS, dtype=dtype)
    build: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        network = build(described)
        parameters = sum(weight.numel() for weight in network.parameters())
        settings = CausalLmConfig.of(
            {
                "base": "base.safetensors",
                "base_parameters": parameters,
                "base_dtype": dtype,
                "batch": RECORDS,
                **pretrained.adapted_sizes(network),
                **shape(described.to_dict()),
                **change,
            }
        )
        adapted = pretrained.adapt(network, None, settings)
    adapters = sum(weight.numel() for weight in adapted.trainable().values())
    network.to(getattr(torch, dtype))  # What mixed precision multiplies in.
    answer, question = settings.answer_tokens, settings.question_tokens
    row = rows.TokenRow([1] * answer, [[1] * (question + 2)] * QUESTIONS)
    groups: list[Any] = [[None] * QUESTIONS] * (RECORDS // QUESTIONS)
    meta = torch.device("meta")
    dialogues = rows.reads([rows.TokenRow([1] * (answer + question), [])] * 2, meta)
    piece = training._Piece(groups, rows.reads([row] * RECORDS, meta), dialogues)
    batch = training._Batch([piece], RECORDS, len(dialogues.batches[0].read))

    def work() -> None:
        training._descend(Replicas([adapted]), batch)

    with FlopCounterMode(display=False) as counter:
        work()
    for weight in adapted.trainable().values():
        weight.grad = None
    active = peak_bytes(work, network)
    memory = NUMBER_BYTES[dtype] * parameters + 20 * adapters + active
    return footprint(settings), (
        parameters + adapters,
        memory,
        counter.get_total_flops() / RECORDS,
    )


@pytest.mark.parametrize(
    ("name", "checkpointing"),
    [*((name, False) for name in SHAPES), ("Llama 3.1 8B", True), ("Phi 3 mini", True)],
)
def test_an_estimate_is_true_within_a_fifth(
    monkeypatch: pytest.MonkeyPatch, name: str, checkpointing: bool
) -> None:
    from torch.nn import functional

    from daitn.learning.causal_lm import pretrained

    def attended(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return _Attention.apply(query, key, value)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attended)
    monkeypatch.setattr(pretrained, "mixed_precision", lambda *_: contextlib.nullcontext())
    dtype = "float32" if name == "Phi 3 mini" else "bfloat16"
    estimate, (parameters, memory, flops) = needed(
        SHAPES[name], {"gradient_checkpointing": checkpointing}, dtype
    )
    assert estimate.parameters == parameters
    assert estimate.size_bytes == pytest.approx(NUMBER_BYTES[dtype] * parameters, rel=0.05)
    assert estimate.memory_bytes == pytest.approx(memory, rel=0.2)
    assert estimate.flops_per_example == pytest.approx(flops, rel=0.2)


def test_smaller_pieces_and_recomputing_take_less_memory() -> None:
    base: dict[str, object] = {
        "base": "base.safetensors",
        "base_parameters": 1_235_814_400,
        "base_dtype": "bfloat16",
        "adapted_parameters": 973_078_528,
        "adapted_widths": 704_512,
        "layers": 16,
        "width": 2048,
        "heads": 32,
        "vocabulary": 128256,
    }

    def memory(**change: object) -> int:
        return footprint(CausalLmConfig.of(base | change)).memory_bytes

    assert memory() > memory(gradient_checkpointing=True) > 2 * 1_235_814_400
    assert memory() > memory(gradient_accumulation=2) > memory(gradient_accumulation=4)
