"""The architecture of an imported model, checked before anything is built from it.

A `config.json` of transformers can name code to run, kernels to fetch, and sizes without end. So
only dense decoders that transformers brings are built, from those of their own fields that are
plain and bounded. Everything else is left out, or refused where it asks for code.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from daitn.learning.causal_lm.quantising import Precision, check_library
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.objects.errors import Corrupt, InvalidInput

__all__ = [
    "ARCHITECTURES",
    "check_shape",
    "published_precision",
    "read_description",
    "shape",
]

ARCHITECTURES = frozenset(
    [
        "gemma",
        "gemma2",
        "gpt2",
        "gpt_neox",
        "granite",
        "llama",
        "mistral",
        "olmo",
        "olmo2",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
        "stablelm",
        "starcoder2",
    ]
)
"""Dense decoders: a few numbers determine the number and size of their layers."""

_MOST_BYTES = 1 << 18
_QUANTISED = "quantization_config"
_TRANSPOSED = frozenset(["gpt2"])
"""Transposed linear layers, which quantised ones cannot be converted back to."""
_CODE = frozenset(
    [
        "auto_map",
        "trust_remote_code",
        "custom_pipelines",
        _QUANTISED,
        "attn_implementation",
        "_attn_implementation",
        "experts_implementation",
    ]
)
"""Fields that request code outside the architecture."""
_LABELS = frozenset(["id2label", "label2id", "num_labels"])
"""Fields that grow with a number, only in classifiers."""
_OLDER = frozenset(
    ["rope_scaling", "rope_theta", "partial_rotary_factor", "rotary_pct", "torch_dtype"]
)
"""Fields of older files that transformers still reads."""
_SHAPE = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "vocabulary": "vocab_size",
}
_MOST_NUMBER = 1 << 24
_MOST_FLOAT = 1e12
_MOST_CHARS = 64
_MOST_ITEMS = 1024
_NUMBERS = ("float32", "bfloat16", "float16", None)


def published_precision(path: Path) -> Precision:
    """The precision in which a model was published, by its description: `quantization_config`.

    Raises `Corrupt` as `read_description`, and `InvalidInput` for one that cannot be undone here.
    """
    facts = _facts(path)
    stated = facts.get(_QUANTISED)
    if not stated:
        return "stored"
    method = stated.get("quant_method") if isinstance(stated, dict) else None
    fix = "import the model's unquantised release"
    if method != "bitsandbytes":
        raise InvalidInput(
            f"{path}: the weights are quantised by {str(method)[:_MOST_CHARS]!r}; only "
            f"'bitsandbytes' is supported",
            field=_QUANTISED,
            fix=fix,
        )
    if facts.get("model_type") in _TRANSPOSED:
        raise InvalidInput(
            f"{path}: quantised weights of this architecture are not supported",
            field=_QUANTISED,
            fix=fix,
        )
    check_library(_QUANTISED)
    return "4bit" if stated.get("load_in_4bit") else "8bit"


def read_description(path: Path, *, quantised: bool = False) -> dict[str, Any]:
    """The fields of `path` from which a network may be built. `quantised`: whether its weights may
    have been published in quantised form, which then is not one of its fields.

    Raises `Corrupt` for a file that is not a description, and `InvalidInput` for one that needs
    code, an unknown architecture, or values without bounds.
    """
    facts = _facts(path)
    if quantised:
        facts.pop(_QUANTISED, None)
    kind = str(facts.get("model_type"))
    if kind not in ARCHITECTURES:
        raise InvalidInput(
            f"{path} describes a {kind[:_MOST_CHARS]!r}",
            field="model_type",
            fix=f"use one of: {', '.join(sorted(ARCHITECTURES))}",
        )
    if code := sorted(field for field in _CODE if facts.get(field)):
        raise InvalidInput(
            f"{path} needs code that is not part of transformers",
            field=code[0],
            fix="use a model without custom code or number formats",
        )
    known = _fields(kind)
    facts = {name: value for name, value in facts.items() if name in known}
    for name, value in facts.items():
        if not _is_plain(value):
            raise InvalidInput(
                f"{path}: {name} is neither a short text nor a bounded number",
                field=name,
                fix="use the configuration with which the model was published",
            )
    if facts.get("dtype") not in _NUMBERS or facts.get("torch_dtype") not in _NUMBERS:
        raise InvalidInput(
            f"{path}: weights of an unsupported data type",
            field="dtype",
            fix="use float32, bfloat16 or float16",
        )
    return {"model_type": kind, **facts}


def _facts(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MOST_BYTES:
        raise Corrupt(
            f"{path} has more than {_MOST_BYTES} bytes", field=path.name, fix="copy it again"
        )
    try:
        facts = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path}: {error}", field=path.name, fix="copy it again") from error
    if not isinstance(facts, dict):
        raise Corrupt(f"{path} is not an object", field=path.name, fix="copy it again")
    return facts


def shape(facts: dict[str, Any]) -> dict[str, int]:
    """Layers, width, heads and vocabulary of a description, by their names in a configuration.

    Raises `InvalidInput` for values that the architecture does not take.
    """
    from transformers import AutoConfig

    try:
        known = AutoConfig.for_model(**facts)
        return {ours: int(getattr(known, theirs)) for ours, theirs in _SHAPE.items()}
    except Exception as error:  # Each architecture checks in its own way.
        raise InvalidInput(
            f"the architecture cannot be built: {str(error)[:300]}",
            field="base_config.json",
            fix="use the configuration with which the model was published",
        ) from None


def check_shape(facts: dict[str, Any], settings: CausalLmConfig) -> None:
    """Raise `InvalidInput` unless a description has the configured shape."""
    for name, value in shape(facts).items():
        if value != getattr(settings, name):
            raise InvalidInput(
                f"the base has {name} {value}, not {getattr(settings, name)} as configured",
                field=f"model.config.{name}",
                fix="give the configuration that its import printed",
            )


def _fields(kind: str) -> frozenset[str]:
    """The fields of an architecture."""
    from transformers import AutoConfig

    usual = AutoConfig.for_model(kind)
    return (frozenset(usual.to_dict()) | frozenset(usual.attribute_map) | _OLDER) - _LABELS


def _is_plain(value: object, *, nested: bool = True) -> bool:
    match value:
        case None | bool():
            return True
        case int():
            return -1 <= value <= _MOST_NUMBER
        case float():
            return math.isfinite(value) and abs(value) <= _MOST_FLOAT
        case str():
            return len(value) <= _MOST_CHARS and value.isprintable()
        case list() if nested:
            return len(value) <= _MOST_ITEMS and all(_is_plain(one, nested=False) for one in value)
        case dict() if nested:
            names = len(value) <= _MOST_ITEMS and all(len(name) <= _MOST_CHARS for name in value)
            return names and all(
                _is_plain(one, nested=isinstance(one, list)) for one in value.values()
            )
    return False
