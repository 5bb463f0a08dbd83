"""Merges of rounds: a site fetches the models of others, decompresses them, and has them merged."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from daitn.learning.recipe import MergeTask
from daitn.learning.trainer import Trainer
from daitn.node.training.bounds import WorkBounds, about, within
from daitn.node.training.counting import WorkCounter
from daitn.node.training.models import WorkModels, summed
from daitn.node.training.order_ledger import order_of
from daitn.node.training.progress import ProgressReporter
from daitn.node.training.sums import SecureSums, summing
from daitn.node.training.turns import Turns
from daitn.node.training.updates import WorkUpdates
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.lineage import Merge
from daitn.objects.merging import discount
from daitn.objects.messages import MergeWork
from daitn.objects.models import ModelRef
from daitn.tools import clock
from daitn.tools.mobility.protocol import Moved

__all__ = ["RoundMerging"]

_MOMENTS = "moments.safetensors"
"""State of a merge's outer step."""


@dataclass
class _Gathered:
    """The inputs of a merge, in folders of this machine."""

    moved: Moved
    starts: dict[Digest, Path]
    """The models from which others were trained, including the base."""
    models: list[Path] = field(default_factory=list)
    """In the order of the work; for a secure sum, one mean of all."""
    members: tuple[SiteId, ...] = ()
    """Members whose models are in a secure sum."""
    moments: str = ""
    """The file of the outer step's last moments."""


@dataclass(frozen=True, kw_only=True)
class RoundMerging:
    """Merges models that sites trained. It reads no records."""

    site: SiteId
    longest_s: float
    trainer: Trainer
    models: WorkModels
    updates: WorkUpdates
    bounds: WorkBounds
    counter: WorkCounter
    turns: Turns
    reporter: ProgressReporter
    sums: SecureSums | None
    """`None` means only what leaves its site is merged."""

    async def merge(self, work: MergeWork, place: int, folder: Path) -> tuple[Merge, ModelRef]:
        """Merge in the work's own `folder`, when its turn at `place` comes.

        An error's field names the model that it is about: `models[N]`, `moments`.
        """
        began = time.perf_counter()
        limits = await self.bounds.limits(work, 0)
        given = await self._gather(work, folder)
        out, kept = folder / "out", folder / "kept"
        out.mkdir()
        kept.mkdir()
        async with self.turns.turn(place), within(self.longest_s):
            self.counter.begin(work)
            self.reporter.tell(work, "merging")
            merging = time.perf_counter()
            for number in range(len(work.trained)):
                start = work.starts[number] if work.starts else work.base
                with about(f"models[{number}]"):
                    await self.updates.rebuild(
                        folder / str(number),
                        start,
                        given.starts[start.manifest],
                        folder / f"whole-{number}",
                        limits,
                    )
            left = await self.trainer.merge(
                work.recipe, work.config, _task(work, given), out, kept / _MOMENTS, limits=limits
            )
            took_s = time.perf_counter() - merging
        carried = await self.models.carried(work.base, left)
        result, manifest = await self.models.pack(work, out, carried=carried)
        moments = None
        if (kept / _MOMENTS).is_file():
            moments, _ = await self.models.pack(work, kept)
        seconds = time.perf_counter() - began
        fact = Merge(
            job=work.job,
            visit=work.visit,
            site=self.site,
            at_s=clock.now_s(),
            seconds=took_s,
            transfer_s=given.moved.seconds,
            overhead_s=max(0.0, seconds - took_s - given.moved.seconds),
            bytes_in=given.moved.bytes_in,
            base=work.base.manifest,
            models=tuple(model.manifest for model in work.trained),
            shares=work.shares,
            rule=work.rule,
            starts=tuple(start.manifest for start in work.starts),
            behind=work.behind,
            part=work.part,
            model_out=result.manifest,
            size_bytes=manifest.size_bytes,
            moments=moments.manifest if moments else Digest(""),
            moments_bytes=moments.size_bytes if moments else 0,
            summed=given.members,
            order=order_of(work),
        )
        return fact, result

    async def _gather(self, work: MergeWork, folder: Path) -> _Gathered:
        """Fetch the models to merge, or have them summed."""
        base = folder / "base"
        given = _Gathered(await self._fetch(work, work.base, base), {work.base.manifest: base})
        if (sums := summing(work, self.sums)) is not None:
            self.reporter.tell(work, "summing")
            mean = folder / "0"
            mean.mkdir()
            given.members = await sums.gather(work, base, mean)
            given.models.append(mean)
        else:
            for number, model in enumerate(work.trained):
                with about(f"models[{number}]"):
                    given.models.append(await self._add(given, work, model, folder / str(number)))
        for number, start in enumerate(work.starts):
            if start.manifest not in given.starts:
                with about(f"models[{number}]"):
                    into = folder / f"start-{number}"
                    given.starts[start.manifest] = await self._add(given, work, start, into)
        if work.moments is not None:
            with about("moments"):
                before = await self._add(given, work, work.moments, folder / "before")
            given.moments = str(before / _MOMENTS)
        return given

    async def _add(self, given: _Gathered, work: MergeWork, model: ModelRef, into: Path) -> Path:
        given.moved = summed(given.moved, await self._fetch(work, model, into))
        return into

    async def _fetch(self, work: MergeWork, model: ModelRef, into: Path) -> Moved:
        return await self.models.fetch(work, model, into, self.reporter.fetching(work))


def _task(work: MergeWork, given: _Gathered) -> MergeTask:
    return MergeTask(
        base=str(given.starts[work.base.manifest]),
        models=tuple(map(str, given.models)),
        # The mean of a secure sum includes all shares.
        shares=(1.0,) if given.members else tuple(map(float, work.shares)),
        rule=work.rule,
        seed=work.seed,
        starts=tuple(str(given.starts[start.manifest]) for start in work.starts),
        scales=tuple(map(discount, work.behind)),
        moments=given.moments,
        single=() if given.members else _single(work),
        alike=() if given.members else work.alike,
    )


def _single(work: MergeWork) -> tuple[int, ...]:
    return tuple(range(len(work.trained))) if work.screened else work.single
