"""Reads a model folder into a network and a tokenizer, and writes it back.

Weights are safetensors only: reading them runs no code. The number of examples that a model was
trained on is in the header of the file that training changes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from daitn.learning.causal_lm.chat import Chat, read_chat
from daitn.learning.causal_lm.network import LanguageModel, Transformer
from daitn.learning.causal_lm.settings import (
    ADAPTER,
    BASE,
    BASE_CONFIG,
    CHAT,
    TOKENIZER,
    WEIGHTS,
    CausalLmConfig,
)
from daitn.learning.causal_lm.tokenizer import load_tokenizer
from daitn.learning.causal_lm.tokens import Codec, byte_tokenizer
from daitn.learning.causal_lm.turns import codec_of
from daitn.learning.engine import engine_device, engine_devices
from daitn.learning.local.companions import Companions, write_companions
from daitn.learning.weights import Header, read_header, read_tensors
from daitn.objects.errors import Corrupt, InvalidInput
from daitn.objects.models import CONFIG_FIX

__all__ = [
    "CausalModel",
    "load",
    "load_on",
    "load_on_all",
    "save",
    "save_weights",
    "seen",
    "unchanged",
    "write_fresh",
]

_SEEN = "examples_seen"
_MOST_SEEN_DIGITS = 15


class CausalModel(msgspec.Struct):
    """A loaded model."""

    network: LanguageModel
    tokenizer: Tokenizer
    end: int | None
    """The end-of-text token of an imported tokenizer."""
    seen: int
    """Number of examples in its training, over all visits."""
    chat: Chat = Chat()
    companions: Companions = msgspec.field(default_factory=Companions)
    """For the trained weights, in their order; read where it trains."""

    def codec(self, settings: CausalLmConfig) -> Codec:
        return codec_of(self.tokenizer, settings, self.end, self.chat)


def write_fresh(settings: CausalLmConfig, seed: int, out: Path) -> None:
    """Write a byte-level model with random weights."""
    if settings.base:
        raise InvalidInput(
            "a model with a base is imported, not trained from scratch",
            field="model.config.base",
            fix="import the model's folder, or leave out `base`",
        )
    network = Transformer(settings, seed)
    save_weights(dict(network.state_dict()), 0, out / WEIGHTS)
    byte_tokenizer().save(str(out / TOKENIZER))


def load(model: Path, settings: CausalLmConfig) -> CausalModel:
    """Load the model in the folder `model` on the engine's device. Raises like `load_on`."""
    return load_on(engine_device(), model, settings)


def load_on_all(model: Path, settings: CausalLmConfig) -> tuple[CausalModel, list[LanguageModel]]:
    """Load the model in the folder `model` on the first of the engine's devices, and its network on
    the others. Raises like `load_on`."""
    first, *others = (load_on(device, model, settings) for device in engine_devices())
    return first, [other.network for other in others]


def load_on(device: torch.device, model: Path, settings: CausalLmConfig) -> CausalModel:
    """Load a model on `device`, after checking its parts against `settings`.

    Raises `NotFound` for a missing part, `Corrupt` for one that is unreadable or holds values that
    are not finite, and `InvalidInput` if the weights do not have the configured shape.
    """
    tokenizer = load_tokenizer(model, settings.vocabulary)
    if settings.base:
        from daitn.learning.causal_lm.pretrained import load_adapted

        adapted = load_adapted(model, settings, device)
        adapter = model / ADAPTER
        examples = seen(adapter) if adapter.is_file() else 0
        chat = read_chat(model, settings.vocabulary)
        return CausalModel(adapted, tokenizer, adapted.end, examples, chat)
    header = read_header(model / WEIGHTS)
    with torch.device("meta"):
        expected = Transformer(settings, seed=None).state_dict()
    if header.shapes != {name: tuple(weight.shape) for name, weight in expected.items()}:
        raise InvalidInput(
            f"{model / WEIGHTS} does not have the configured shape",
            field="model.config",
            fix=CONFIG_FIX,
        )
    weights = read_tensors(model / WEIGHTS)
    network = Transformer(settings, seed=0)
    network.load_state_dict(weights)
    return CausalModel(network.to(device), tokenizer, None, _seen(header))


def save(
    model: CausalModel, settings: CausalLmConfig, came_from: Path, out: Path
) -> tuple[str, ...]:
    """Write the parts that training changes; returns the names of the others."""
    weights = {name: weight.detach() for name, weight in model.network.trainable().items()}
    save_weights(weights, model.seen, out / (ADAPTER if settings.base else WEIGHTS))
    write_companions(model.companions, list(weights), out)
    if settings.base:
        return unchanged(came_from)
    model.tokenizer.save(str(out / TOKENIZER))
    return ()


def unchanged(model: Path) -> tuple[str, ...]:
    """The parts of an imported model that never change."""
    parts = (BASE, BASE_CONFIG, TOKENIZER, CHAT)
    return tuple(name for name in parts if (model / name).is_file())


def save_weights(weights: dict[str, Tensor], seen: int, path: Path) -> None:
    """Save the weights of a model after training on this many examples."""
    contiguous = {name: weight.cpu().contiguous() for name, weight in weights.items()}
    save_file(contiguous, path, metadata={_SEEN: str(seen)})


def seen(path: Path) -> int:
    """The number of examples behind the model with these weights. Raises like `read_header`."""
    return _seen(read_header(path))


def _seen(header: Header) -> int:
    stated = header.metadata.get(_SEEN, "0")
    if stated.isdecimal() and len(stated) <= _MOST_SEEN_DIGITS:
        return int(stated)
    raise Corrupt(f"{_SEEN} is {stated[:80]!r}", field=_SEEN, fix="fetch the model again")
