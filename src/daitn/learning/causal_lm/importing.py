"""Imports a model from a local folder in the format of `transformers`.

Nothing is loaded from a hub and none of the model's code is run (`trust_remote_code` is never
given, and `architecture` says which are accepted).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from daitn.learning.causal_lm.architecture import (
    published_precision,
    read_description,
    shape,
)
from daitn.learning.causal_lm.chat import chat_of_folder, read_chat
from daitn.learning.causal_lm.pretrained import (
    absent_file,
    adapted_sizes,
    incomplete,
    tied_weights,
)
from daitn.learning.causal_lm.settings import (
    BASE,
    BASE_CONFIG,
    CHAT,
    TOKENIZER,
    CausalLmConfig,
)
from daitn.learning.causal_lm.tokenizer import load_tokenizer
from daitn.learning.causal_lm.turns import template_tokens
from daitn.objects.errors import Corrupt, InvalidInput

__all__ = ["import_pretrained"]


def import_pretrained(folder: Path, out: Path) -> dict[str, object]:
    """Convert a model folder into the parts of a model, in the empty folder `out`.

    Needs what `save_pretrained` writes: `config.json`, `*.safetensors`, and a `tokenizer.json`.
    Chat templates and special tokens are taken along.
    Returns the fields of `model.config` that the model needs. Raises `NotFound` for a missing file,
    `InvalidInput` for an architecture that sites do not build, and `Corrupt` for weights or a
    tokenizer that do not belong to it.
    """
    described = folder / "config.json"
    for path in (described, folder / TOKENIZER):
        if not path.is_file():
            raise absent_file(path)
    precision = published_precision(described)
    facts = read_description(described, quantised=precision != "stored")
    sizes = shape(facts)
    tokenizer = load_tokenizer(folder, sizes["vocabulary"])
    network = _opened(folder, quantised=precision != "stored")
    if precision != "stored":
        network = network.dequantize(network.dtype)
    tied = sorted(tied_weights(network))
    # Unchanged: if a folder has two different matrices, transformers keeps them separate, whatever
    # its description says.
    facts["tie_word_embeddings"] = bool(tied)
    weights = {
        name: weight.contiguous()
        for name, weight in network.state_dict().items()
        if name not in tied[1:]
    }
    _check_finite(folder, weights)
    save_file(weights, out / BASE, metadata={"format": "pt"})
    (out / BASE_CONFIG).write_text(json.dumps(facts, sort_keys=True, indent=1))
    (out / TOKENIZER).write_bytes((folder / TOKENIZER).read_bytes())
    chat = chat_of_folder(folder, facts.get("eos_token_id"), sizes["vocabulary"])
    (out / CHAT).write_bytes(msgspec.json.format(msgspec.json.encode(chat)))
    read_chat(out, sizes["vocabulary"])
    parameters = sum(weight.numel() for weight in weights.values())
    config = {
        "base": BASE,
        "base_parameters": parameters,
        "base_dtype": str(network.dtype).removeprefix("torch."),
        **({} if precision == "stored" else {"base_precision": precision}),
        **adapted_sizes(network),
        **sizes,
    }
    settings = CausalLmConfig.of(config)
    if chat_tokens := template_tokens(tokenizer, settings, chat):
        config["chat_tokens"] = chat_tokens
    return config


def _check_finite(folder: Path, weights: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise Corrupt(
                f"{folder}: {name} has values that are not finite",
                field=str(folder),
                fix="copy it again, or use the weights of an earlier checkpoint",
            )


def _check_shards(folder: Path) -> None:
    """Raise `NotFound` for a missing file of weights in the folder's index.

    Raises `Corrupt` for an index that is malformed.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        shards = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt(f"{index}: {error}", field=index.name, fix="copy it again") from None
    for shard in sorted(map(str, shards)):
        if not (folder / shard).is_file():
            raise absent_file(folder / shard)


def _check_numbers(folder: Path) -> None:
    """Raise `InvalidInput` for weights that need a scale to be meaningful."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as opened:
                kinds = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise Corrupt(f"{path}: {error}", field=path.name, fix="copy it again") from error
        for name, kind in kinds.items():
            if kind == "I8" or kind.startswith("F8"):  # Older files have masks in U8.
                raise InvalidInput(
                    f"{path}: {name} is quantised ({kind}), and `config.json` does not say how",
                    field=path.name,
                    fix="import the model's unquantised release",
                )


def _opened(folder: Path, *, quantised: bool) -> Any:
    """The network as read by transformers, which also knows older names of weights."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM

    _check_shards(folder)
    if not quantised:
        _check_numbers(folder)
    read: Any = AutoModelForCausalLM.from_pretrained
    try:
        network, facts = read(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except OSError as error:
        weights = folder / "model.safetensors", folder / "model.safetensors.index.json"
        if not any(path.is_file() for path in weights):
            raise absent_file(weights[0]) from error
        raise Corrupt(f"{folder}: {error}", field=str(folder), fix="copy it again") from error
    except (RuntimeError, SafetensorError) as error:
        raise Corrupt(f"{folder}: {error}", field=str(folder), fix="copy it again") from error
    absent = set(facts["missing_keys"]) - tied_weights(network)
    if absent:
        raise incomplete(str(folder), absent)
    return network
