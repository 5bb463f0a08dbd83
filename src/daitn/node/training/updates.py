"""Models that travel as compressed updates: made after a visit, made whole before a merge."""

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
    """Compresses what a site's visits make, and rebuilds what others' made."""

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
        """Leave of what was trained an update, if that is asked for and it fits the model; whether
        it did. `folder` is the work's own, with the parts of `model` in `in`; `out` has what was
        trained."""
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
        """Keep what the update lost for the next one, once it is stored."""
        self._feedback.keep(work, folder / "lost" / _LOST, private=private)

    async def rebuild(
        self, model: Path, start: ModelRef, base: Path, out: Path, limits: Limits
    ) -> None:
        """Make a fetched model in the folder `model` whole that came as an update, by way of the
        new folder `out`. Raises `Corrupt` if it is none of `start`, whose parts are in `base`."""
        if not (parts := _updates_in(model)):
            return
        out.mkdir()
        await self._trainer.rebuild(base, start.manifest, model, out, limits=limits)
        for part in parts:
            part.unlink()
        for whole in out.iterdir():
            shutil.move(whole, model / whole.name)  # Of a work that begins anew after a crash.

    def retain(self, needed: frozenset[Digest]) -> None:
        """Forget what updates of models lost that nobody needs."""
        self._feedback.retain(needed)


def _updates_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{UPDATE}"))
