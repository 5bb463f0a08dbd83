"""A language model as folders for `transformers`, `peft` and software based on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    ArceeConfig,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from daitn.learning.causal_lm.chat import Chat
from daitn.learning.causal_lm.models import CausalModel, load_on
from daitn.learning.causal_lm.pretrained import Adapted
from daitn.learning.causal_lm.settings import FORMS_FROM_SCRATCH, FORMS_IMPORTED, CausalLmConfig
from daitn.learning.causal_lm.usage import folder_usage, gguf_usage, peft_usage
from daitn.learning.recipe import Form
from daitn.objects.errors import InvalidInput

__all__ = ["export_model"]

_CPU = torch.device("cpu")
_BASE = "base"


def export_model(model: Path, settings: CausalLmConfig, form: Form, out: Path) -> str:
    """Write the model in `model` as `form` into `out`; returns how to use it.

    Raises `InvalidInput` for a form that it does not have, and what loading a model raises.
    """
    if not settings.base and form not in FORMS_FROM_SCRATCH:
        raise InvalidInput(
            "a model trained from scratch has no adapters", field="--format", fix="use --format hf"
        )
    if settings.base and form not in FORMS_IMPORTED:
        raise InvalidInput(
            f"a language model cannot be exported as {form}",
            field="--format",
            fix="use --format merged",
        )
    # Others read the weights themselves.
    settings = msgspec.structs.replace(settings, base_precision="stored")
    loaded = load_on(_CPU, model, settings)
    chat = loaded.chat
    network = loaded.network
    if not isinstance(network, Adapted):
        described, weights = _as_arcee(dict(network.trainable()), settings)
        _write_folder(described, weights, loaded, chat, out)
        return folder_usage(settings, chat)
    if form is Form.PEFT:
        (out / _BASE).mkdir()
        _write_folder(*_frozen(network), loaded, chat, out / _BASE)
        _write_adapters(network, out)
        return peft_usage(settings, chat)
    for layer in network.network.modules():
        if isinstance(layer, LoraLayer):
            layer.merge(safe_merge=True)
    if form is Form.GGUF:
        _write_gguf(network, loaded, chat, out / "model.gguf")
        return gguf_usage(settings, chat)
    _write_folder(*_frozen(network), loaded, chat, out)
    return folder_usage(settings, chat)


def _write_gguf(adapted: Adapted, model: CausalModel, chat: Chat, path: Path) -> None:
    try:
        from daitn.learning.causal_lm.gguf_file import write_gguf
    except ModuleNotFoundError:
        raise InvalidInput(
            "the package gguf is not installed", field="--format", fix="pip install gguf"
        ) from None
    described, weights = _frozen(adapted)
    if adapted.network.get_output_embeddings().weight is _read_embedding(adapted.network):
        weights = {name: w for name, w in weights.items() if not name.startswith("lm_head.")}
    write_gguf(described, weights, model.tokenizer, chat, path)


def _read_embedding(network: Any) -> Tensor:
    weight: Tensor = network.get_input_embeddings().weight
    return weight


def _frozen(adapted: Adapted) -> tuple[Any, dict[str, Tensor]]:
    """Description and weights of the model under the adapters."""
    network = adapted.network
    weights = {
        name.replace(".base_layer.", "."): weight.to(adapted.stored)
        for name, weight in network.state_dict().items()
        if ".lora_" not in name
    }
    return network.config, weights


def _write_adapters(adapted: Adapted, out: Path) -> None:
    lora: LoraConfig = adapted.network.peft_config["default"]
    lora.target_modules = sorted(
        {
            name.rpartition(".")[2]
            for name, layer in adapted.network.named_modules()
            if isinstance(layer, LoraLayer)
        }
    )
    lora.base_model_name_or_path = _BASE
    lora.inference_mode = True
    lora.save_pretrained(out)
    weights = {
        f"base_model.model.{name.replace('.default.', '.')}": weight.detach().contiguous()
        for name, weight in adapted.trainable().items()
    }
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})


def _as_arcee(
    weights: dict[str, torch.nn.Parameter], settings: CausalLmConfig
) -> tuple[ArceeConfig, dict[str, Tensor]]:
    """Our own network belongs to this family, except for the names: RMSNorm before each block,
    rotary positions, one matrix up and one down, no biases, tied embeddings."""
    described = ArceeConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.width,
        intermediate_size=4 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        hidden_act="gelu",
        rms_norm_eps=torch.finfo(torch.float32).eps,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    named = {
        "norm_attention": "input_layernorm",
        "out": "self_attn.o_proj",
        "norm_feed": "post_attention_layernorm",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    }
    given = {name: weight.detach() for name, weight in weights.items()}
    renamed = {
        "model.embed_tokens.weight": given["embedding.weight"],
        "model.norm.weight": given["norm.weight"],
    }
    for number in range(settings.layers):
        ours, theirs = f"blocks.{number}", f"model.layers.{number}"
        for one, other in named.items():
            renamed[f"{theirs}.{other}.weight"] = given[f"{ours}.{one}.weight"]
        for letter, part in zip("qkv", given[f"{ours}.qkv.weight"].chunk(3), strict=True):
            renamed[f"{theirs}.self_attn.{letter}_proj.weight"] = part
    return described, renamed


def _write_folder(
    described: Any, weights: dict[str, Tensor], model: CausalModel, chat: Chat, out: Path
) -> None:
    """A folder as written by `save_pretrained`, with tokenizer and chat template."""
    described = AutoConfig.for_model(**described.to_dict())
    with torch.device("meta"):
        network: Any = AutoModelForCausalLM.from_config(described)
    end = model.end if model.end is not None else model.tokenizer.token_to_id("<end>")
    described.architectures = [type(network).__name__]
    described.dtype = next(iter(weights.values())).dtype
    described.eos_token_id = end
    described.save_pretrained(out)
    kept = dict(weights)
    if network.get_output_embeddings().weight is network.get_input_embeddings().weight:
        first, *others = (
            name
            for name, weight in network.named_parameters(remove_duplicate=False)
            if weight is network.get_input_embeddings().weight
        )
        for name in others:  # Tied weights are named once.
            if (weight := kept.pop(name, None)) is not None:
                kept[first] = weight
    contiguous = {name: weight.contiguous() for name, weight in kept.items()}
    save_file(contiguous, out / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(model.tokenizer, end, chat, out)
    if chat.ends:
        GenerationConfig(eos_token_id=list(chat.ends)).save_pretrained(out)


def _write_tokenizer(tokenizer: Tokenizer, end: int | None, chat: Chat, out: Path) -> None:
    ends = {} if end is None else {"eos_token": tokenizer.id_to_token(end)}
    # A token that the tokenizer lacks would be added to it, beyond the weights.
    named = {
        name: token
        for name, token in chat.tokens.items()
        if tokenizer.token_to_id(token) is not None
    }
    written = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends | named)
    written.chat_template = chat.templates if chat.tool_template else chat.template
    written.save_pretrained(out)
