"""Models that travel as compressed updates: made after a visit, decompressed before a merge."""

from __future__ import annotations

import shutil
from pathlib import Path

from daitn.learning.sandbox.policy import Limits
from daitn.learning.trainer import Trainer
from daitn.node.training.feedback import Feedback
from daitn.objects.compression import UPDATE, Compression
from daitn.objects.identifiers import Digest
from daitn.objects.messages import VisitWork
from daitn.objects.models import ModelRef

__all__ = ["WorkUpdates"]

_LOST = "lost.safetensors"
"""What compression loses of an update."""


class WorkUpdates:
    """Compresses the results of a site's visits, and rebuilds those of others."""

    def __init__(self, trainer: Trainer, feedback: Feedback) -> None:
        self._trainer = trainer
        self._feedback = feedback

    async def compress(
        self,
        work: VisitWork,
        model: ModelRef,
        folder: Path,
        out: Path,
        limits: Limits,
        *,
        private: bool,
    ) -> bool:
        """Reduce the trained model to an update, if requested and compatible with the model;
        returns whether it did. `folder` is the work's own, with the parts of `model` in `in`; `out`
        has the result."""
        if work.compression is Compression.NONE:
            return False
        lost = folder / "lost"
        lost.mkdir()
        await self._trainer.compress(
            folder / "in",
            model.manifest,
            out,
            work.compression,
            self._feedback.before(work, private=private),
            lost / _LOST,
            limits=limits,
        )
        return bool(_updates_in(out))

    def keep_lost(self, work: VisitWork, folder: Path, *, private: bool) -> None:
        """Store what the update lost for the next one, once it is stored."""
        self._feedback.keep(work, folder / "lost" / _LOST, private=private)

    async def rebuild(
        self, model: Path, start: ModelRef, base: Path, out: Path, limits: Limits
    ) -> None:
        """Turn a fetched update in the folder `model` into the whole model, through the new folder
        `out`.

        `start`: the model that was updated; its parts lie in `base`. Does nothing if `model` holds
        a whole model. Raises `Corrupt` if the update does not fit `start`.
        """
        if not (parts := _updates_in(model)):
            return
        out.mkdir()
        await self._trainer.rebuild(base, start.manifest, model, out, limits=limits)
        for part in parts:
            part.unlink()
        for whole in out.iterdir():
            shutil.move(whole, model / whole.name)  # Of a work that begins anew after a crash.

    def retain(self, needed: frozenset[Digest]) -> None:
        """Forget what updates of unneeded models lost."""
        self._feedback.retain(needed)


def _updates_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{UPDATE}"))
