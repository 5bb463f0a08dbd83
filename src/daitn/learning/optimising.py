"""An optimiser's state and its weights, as bytes of a savepoint.

They are safetensors, as models are: reading them runs no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
import safetensors.torch
import torch
from torch import Tensor

__all__ = ["restore", "state_bytes"]

FactsT = TypeVar("FactsT", bound=msgspec.Struct)

_WEIGHT = "weight"


class _State(msgspec.Struct, frozen=True, kw_only=True):
    facts: msgspec.Raw
    tensors: bytes


def state_bytes(
    facts: msgspec.Struct, weights: Sequence[Tensor], optimiser: torch.optim.Optimizer
) -> bytes:
    """`facts`: what else training needs to resume. `weights`: those that `optimiser` changes, in
    its order."""
    tensors = {f"{_WEIGHT}.{number}": weight for number, weight in enumerate(weights)}
    for number, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"{slot}.{number}": value for slot, value in slots.items()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    encoded = msgspec.Raw(msgspec.msgpack.encode(facts))
    return msgspec.msgpack.encode(_State(facts=encoded, tensors=safetensors.torch.save(plain)))


@torch.no_grad()
def restore(
    state: bytes,
    kind: type[FactsT],
    weights: Sequence[Tensor],
    optimiser: torch.optim.Optimizer,
) -> FactsT:
    """Restore weights and optimiser, and return the facts."""
    read = msgspec.msgpack.decode(state, type=_State)
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in safetensors.torch.load(read.tensors).items():
        slot, _, number = name.rpartition(".")
        if slot == _WEIGHT:
            weights[int(number)].copy_(tensor)
        else:
            slots.setdefault(int(number), {})[slot] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": slots})
    return msgspec.msgpack.decode(read.facts, type=kind)
