"""Placement of a pretrained model: the device, the precision, and the size of its cache."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch

from daitn.learning import memory
from daitn.learning.answering.protocol import Room
from daitn.learning.causal_lm.quantising import Precision, has_library, held_bytes
from daitn.objects.errors import StorageFull

__all__ = ["Place", "cache_tokens", "numbers_of", "placed"]

_log = logging.getLogger(__name__)

_BESIDE_WEIGHTS_BYTES = 1 << 29
"""Main or GPU memory beside the weights: the engine (300 MB), and what a step computes."""
_FAST_BF16 = ("amx_bf16", "avx512_bf16", "bf16")
"""CPUs with one of these compute in bf16 at least as fast as in fp32."""


class Place(NamedTuple):
    """A device, and the number formats of a model there."""

    device: torch.device
    dtype: torch.dtype
    precision: Precision = "stored"
    """Precision of the weights that can be quantised; `stored` means `dtype`, like the others."""

    def __str__(self) -> str:
        name = self.device.type
        if name == "cuda":
            name = f"{self.device}, {torch.cuda.get_device_name(self.device)}"
        quantised = "" if self.precision == "stored" else f", most weights in {self.precision}"
        return f"{name}, {numbers_of(self.dtype)}{quantised}"


def numbers_of(dtype: torch.dtype) -> str:
    """A number format in words."""
    return str(dtype).removeprefix("torch.")


def placed(parameters: int, quantisable: int, stored: torch.dtype, room: Room) -> Place:
    """The place of a model with this many parameters: the GPU with the most free memory, else the
    CPU. Raises `StorageFull` if it fits nowhere.

    GPUs compute in half precision. Processors that are slow at that keep wide numbers, unless there
    is no memory for them. Where there is memory for neither, those weights that are `quantisable`
    are quantised, if the library for it is there.
    """
    fewer: tuple[Precision, ...] = ("8bit", "4bit") if quantisable and has_library() else ()
    if (gpu := _gpu()) is not None:
        half = stored in (torch.bfloat16, torch.float32) and torch.cuda.is_bf16_supported(False)
        dtype = torch.bfloat16 if half else torch.float16
        free = torch.cuda.mem_get_info(gpu)[0]
        for precision in ("stored", *fewer):
            needed = _needed(parameters, quantisable, dtype, precision)
            if needed <= free:
                return Place(gpu, dtype, precision)
        _log.warning("the model needs %d bytes, and %s has %d free", needed, gpu, free)
    free = memory.free_bytes()
    if room.memory_bytes:
        free = min(free, room.memory_bytes)
    wide = stored is torch.float32 or not (stored is torch.bfloat16 and _fast_bf16())
    for dtype in (torch.float32, stored) if wide else (stored,):
        needed = _needed(parameters, quantisable, dtype, "stored")
        if needed <= free:
            return Place(torch.device("cpu"), dtype)
    for precision in fewer:
        needed = _needed(parameters, quantisable, stored, precision)
        if needed <= free:
            return Place(torch.device("cpu"), stored, precision)
    raise StorageFull(
        f"the model needs {needed} bytes of memory, but {free} are free",
        field="facility.memory_bytes",
        fix="retire another model, or host it elsewhere",
    )


def cache_tokens(place: Place, per_token_bytes: int, context: int, room: Room) -> int:
    """How many tokens the model can cache, for all its answers in progress: enough for as many full
    contexts as it has slots, if memory permits.

    To be asked once the weights are loaded. Raises `StorageFull` if there is next to none.
    """
    if place.device.type == "cuda":
        free = torch.cuda.mem_get_info(place.device)[0]
    else:
        free = memory.free_bytes()
        if room.memory_bytes:
            free = min(free, room.memory_bytes - memory.own_bytes())
    tokens = int(memory.CACHE_SHARE * max(0, free) / per_token_bytes)
    if tokens < min(memory.LEAST_CACHE_TOKENS, context):
        raise StorageFull(
            f"there is memory for a conversation of {tokens} tokens",
            field="facility.memory_bytes",
            fix="retire another model, or host it elsewhere",
        )
    return min(tokens, context * room.slots)


def _needed(parameters: int, quantised: int, dtype: torch.dtype, precision: Precision) -> int:
    weights = held_bytes(parameters, quantised, dtype.itemsize, precision)
    return int(weights) + _BESIDE_WEIGHTS_BYTES


def _gpu() -> torch.device | None:
    if not torch.cuda.is_available():
        return None
    free = [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]
    return torch.device("cuda", free.index(max(free)))


def _fast_bf16() -> bool:
    known: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name) for name in _FAST_BF16)
