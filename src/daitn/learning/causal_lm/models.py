"""Reads a model folder into a network and a tokenizer, and writes it back.

Weights are safetensors only: reading them runs no code. The number of examples that a model was
trained on is in the header of the file that training changes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from daitn.learning.causal_lm.network import LanguageModel, Transformer
from daitn.learning.causal_lm.settings import (
    ADAPTER,
    BASE,
    BASE_CONFIG,
    TOKENIZER,
    WEIGHTS,
    CausalLmConfig,
)
from daitn.learning.causal_lm.tokens import Codec, byte_tokenizer, load_tokenizer
from daitn.objects.errors import Corrupt, InvalidInput, NotFound

__all__ = ["Model", "carry", "load", "save", "write_fresh"]

_SEEN = "examples_seen"


class Model(msgspec.Struct):
    """A loaded model."""

    network: LanguageModel
    tokenizer: Tokenizer
    end: int | None
    """The end-of-text token of an imported tokenizer."""
    seen: int
    """Examples it was trained on, over all visits."""

    def codec(self, settings: CausalLmConfig) -> Codec:
        return Codec(self.tokenizer, settings, self.end)


def write_fresh(settings: CausalLmConfig, seed: int, out: Path) -> None:
    """Write a byte-level model with random weights."""
    if settings.base:
        raise InvalidInput(
            "a model with a base is imported, not made from scratch",
            field="model.config.base",
            fix="import the model's folder, or leave out `base`",
        )
    network = Transformer(settings, seed)
    _save_weights(dict(network.state_dict()), 0, out / WEIGHTS)
    byte_tokenizer().save(str(out / TOKENIZER))


def load(model: Path, settings: CausalLmConfig) -> Model:
    """Load the model in the folder `model`.

    Raises `NotFound` for a missing part, `Corrupt` for an unreadable one, and `InvalidInput` if the
    weights do not have the configured shape.
    """
    if settings.base:
        from daitn.learning.causal_lm.pretrained import load_adapted

        base, adapter = _part(model, BASE), model / ADAPTER
        weights, _ = _read_weights(base)
        adapters, seen = _read_weights(adapter) if adapter.is_file() else ({}, 0)
        adapted = load_adapted(_part(model, BASE_CONFIG), weights, adapters, settings)
        return Model(adapted, load_tokenizer(model), adapted.end, seen)
    weights, seen = _read_weights(_part(model, WEIGHTS))
    network = Transformer(settings, seed=0)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InvalidInput(
            f"{model / WEIGHTS} does not have the configured shape: {error}",
            field="model.config",
            fix="give the configuration that the model was made with",
        ) from error
    return Model(network, load_tokenizer(model), None, seen)


def save(model: Model, settings: CausalLmConfig, came_from: Path, out: Path) -> None:
    """Write the parts; links those that training does not change to the originals."""
    weights = {name: weight.detach() for name, weight in model.network.trainable().items()}
    _save_weights(weights, model.seen, out / (ADAPTER if settings.base else WEIGHTS))
    if settings.base:
        for name in (BASE, BASE_CONFIG, TOKENIZER):
            carry(came_from / name, out / name)
    else:
        model.tokenizer.save(str(out / TOKENIZER))


def carry(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`; a copy if the file system cannot link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _save_weights(weights: dict[str, Tensor], seen: int, path: Path) -> None:
    contiguous = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(contiguous, path, metadata={_SEEN: str(seen)})


def _part(model: Path, name: str) -> Path:
    path = model / name
    if not path.is_file():
        raise NotFound(f"no part {path}", field=name, fix="fetch the model again")
    return path


def _read_weights(path: Path) -> tuple[dict[str, Tensor], int]:
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            seen = int((file.metadata() or {}).get(_SEEN, "0"))
    except (SafetensorError, ValueError) as error:
        raise Corrupt(f"{path}: {error}", field=path.name, fix="fetch the model again") from error
    return weights, seen
