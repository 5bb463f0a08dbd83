"""The user's pretrained model as the demo's base: its parts, and sizes that suit it and this
machine."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from daitn.cli.importing import import_folder
from daitn.learning import memory
from daitn.learning.commands import Probed
from daitn.learning.corpora.split import MOST_ITEMS
from daitn.learning.published import check_published, weights_bytes
from daitn.learning.recipe import Config, Footprint
from daitn.learning.trainer import Trainer
from daitn.oam.words import size
from daitn.objects.errors import InvalidInput, StorageFull

__all__ = ["PARTS", "Base", "base_sentence", "bring", "check_base", "sizes_for", "target_above"]

RECIPE = "causal-lm"
PARTS = "base"
"""Folder of its parts, in the demo's folder."""
OPTION = "--base"

SHARE = 1 / 3
"""A target is the base's accuracy plus this share of its distance to 1: whatever the model's
ability, it must learn something, and something within reach of low ranks."""
_CHANCE, _MOST_TARGET = 0.25, 0.99

_USUAL: dict[str, object] = {
    "answer_tokens": 128,
    "question_tokens": 48,
    "batch": 16,
    # It should still be able to speak after learning to rank.
    "generation_share": 0.5,
}
_RATES = ((2e7, 3e-3), (3e8, 1e-3), (math.inf, 2e-4))
"""Learning rate of adapters by the base's parameters. The last one is QLoRA's for 7 to 13 billion:
Dettmers et al. 2023, arXiv:2305.14314, table 9."""
_LEANER: tuple[dict[str, object], ...] = (
    {},
    {"gradient_accumulation": 4},
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": True, "gradient_accumulation": 16},
)
"""Settings that reduce a step's memory, fastest first."""
_HOSTED, _BESIDE_BYTES = 2, 1 << 30
"""The base and the trained model answer at the same time; memory of each beside its weights."""
_MEMORY_SHARE = 0.9
_COPIES_ON_DISK = 16
"""Maximum number of copies of the base: its parts, at the control centre, nine institutes, two
verifiers and two facilities, and in the exported model."""
_TEST_S = 60.0
"""Approximate duration of a measurement."""
_FEWEST_ITEMS = 48
_EXAMPLES = 3000
"""Number of planned examples, unless the user limits the training time."""
_LEAST_S, _MOST_S = 600.0, 6 * 3600.0
_REACHED = 0.3
"""Estimated share of the measured speed that adapters on a model of some size achieve."""


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """A base, and how the demo trains it here."""

    name: str
    """Its folder's."""
    device: str
    config: dict[str, Any]
    """Configuration of the recipe."""
    parameters: int
    """Including the adapters."""
    size_bytes: int
    items: int
    """Maximum items of a test set."""
    within_s: float
    """Time for training."""
    threads: int


async def bring(folder: Path, out: Path, minutes: float | None) -> Base:
    """Import the model in `folder` into `out`, and choose sizes for it.

    Raises what importing it raises, and `StorageFull` for one that this machine does not hold.
    """
    imported = await import_folder(RECIPE, folder, out / PARTS, named=OPTION)
    threads = os.cpu_count() or 1
    trainer = Trainer(threads=threads)
    try:
        probed = await trainer.probe()
        tried: list[tuple[dict[str, Any], Footprint]] = []
        for leaner in _LEANER:
            config = configured(imported.config) | leaner
            tried.append((config, await trainer.estimate(RECIPE, config)))
    finally:
        await trainer.close()
    free = probed.memory_bytes if probed.is_gpu else memory.free_bytes()
    return sizes_for(folder.resolve().name, tried, probed, free, threads, minutes)


def configured(imported: Config) -> dict[str, Any]:
    """The configuration of a base's training, except what depends on its memory."""
    parameters = int(str(imported["base_parameters"]))
    rate = next(rate for most, rate in _RATES if parameters <= most)
    return {**imported, **_USUAL, "learning_rate": rate}


def sizes_for(
    name: str,
    tried: list[tuple[dict[str, Any], Footprint]],
    probed: Probed,
    free_bytes: int,
    threads: int,
    minutes: float | None = None,
) -> Base:
    """Choose the first configuration that fits into `free_bytes` of the device's memory, and a test
    and a time that suit its speed. Raises `StorageFull` if none fits."""
    room = _MEMORY_SHARE * free_bytes
    stored, parameters = tried[0][0]["base_dtype"], int(tried[0][0]["base_parameters"])
    held = 4 if stored == "float32" and not probed.is_gpu else 2  # Bytes: GPUs answer in halves.
    hosting = _HOSTED * (held * parameters + _BESIDE_BYTES)
    leanest = min(needs.memory_bytes for _, needs in tried)
    if max(leanest, hosting) > room:
        raise StorageFull(
            f"{name} has {parameters:,} parameters: to train it takes {size(leanest)} of memory, "
            f"and to answer before and after it {size(hosting)}; {probed.device} has "
            f"{size(room)} for it",
            field=OPTION,
            fix="use a smaller model, or a machine with more memory",
        )
    config, needs = next((c, n) for c, n in tried if n.memory_bytes <= room)
    # An item is four options, each read once; an example is an answer and five questions, read
    # forward and backward: about the same.
    example_s = needs.flops_per_example / (_REACHED * probed.speed_flops)
    items = min(MOST_ITEMS, max(_FEWEST_ITEMS, int(_TEST_S / example_s)))
    planned_s = min(_MOST_S, max(_LEAST_S, 2 * _EXAMPLES * example_s))
    return Base(
        name=name,
        device=probed.device,
        config=config,
        parameters=needs.parameters,
        size_bytes=needs.size_bytes,
        items=items,
        within_s=planned_s if minutes is None else 60 * minutes,
        threads=threads,
    )


def base_sentence(base: Base) -> str:
    """For people: what is trained, where, and with what sizes."""
    config = base.config
    pieces = config.get("gradient_accumulation", 1)
    lean = " in recomputed layers" if config.get("gradient_checkpointing") else ""
    return (
        f"{base.name}: {base.parameters:,} parameters in {config['base_dtype']}, "
        f"{'with' if config.get('chat_tokens') else 'without'} a chat template; adapters of rank "
        f"{config.get('adapter_rank', 8)} on {base.device}, {config['batch']} examples a step"
        f"{f' in {pieces} pieces' if pieces != 1 else ''}{lean}, answers of "
        f"{config['answer_tokens']} tokens; up to {base.items} items a test; training may take "
        f"{base.within_s / 60:.0f} min"
    )


def target_above(measured: float) -> float:
    """The target for a test on which the base reaches this accuracy; chance counts as no skill."""
    known = max(_CHANCE, measured)
    return round(min(_MOST_TARGET, known + SHARE * (1 - known)), 3)


def check_base(folder: Path, out: Path) -> None:
    """Raise `NotFound`, `InvalidInput` or `StorageFull` for an unsuitable folder, before anything
    is written to `out` or read."""
    check_published(folder, OPTION)
    if folder.resolve().is_relative_to(out.resolve()):
        raise InvalidInput(
            f"{folder} is in {out}, whose content is replaced",
            field=OPTION,
            fix="write the demo's results elsewhere, see --out",
        )
    parent = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    needed, free = _COPIES_ON_DISK * weights_bytes(folder), shutil.disk_usage(parent).free
    if needed > free:
        raise StorageFull(
            f"nine institutes, two verifiers and two facilities keep the model: up to "
            f"{size(needed)} on disk, and {size(free)} are free",
            field="--out",
            fix="name a folder on a larger disk, or use a smaller model",
        )
