"""Visits: fetch a model, train it on a data set within its owner's rules, store the result. A visit
resumes from its savepoint after the node or the training process died."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from daitn.identity.keys import SigningKey
from daitn.learning.child.outside import ProcessFailed, ProcessOverLimit
from daitn.learning.recipe import DpSgd, LocalTask, Trained
from daitn.learning.sandbox.policy import Limits
from daitn.learning.trainer import Trainer
from daitn.node.admission import Attempt
from daitn.node.config import DatasetConfig
from daitn.node.disclosure import LossGate
from daitn.node.training.begun import BegunVisit, BegunVisits, UnderWay, digest_of
from daitn.node.training.bounds import WorkBounds, about, within
from daitn.node.training.counting import WorkCounter
from daitn.node.training.models import WorkModels, summed
from daitn.node.training.offered import OfferedData
from daitn.node.training.order_ledger import order_of
from daitn.node.training.privacy_ledger import PrivacyLedger, PrivatePlan
from daitn.node.training.private_plan import plan_private
from daitn.node.training.progress import ProgressReporter
from daitn.node.training.sums import SecureSums, summing
from daitn.node.training.turns import Turns
from daitn.node.training.updates import WorkUpdates
from daitn.objects.compression import Compression
from daitn.objects.errors import Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.lineage import Visit
from daitn.objects.messages import VisitWork
from daitn.objects.models import ModelRef
from daitn.tools import clock
from daitn.tools.mobility.protocol import Moved

__all__ = ["Visiting"]

log = logging.getLogger(__name__)

_MOST_RESUMED = 3
"""How often a visit is resumed after its training process died while its node lives."""


@dataclass(frozen=True, kw_only=True)
class Visiting:
    """Trains models on a site's data sets."""

    site: SiteId
    longest_s: float
    save_every_s: float
    key: SigningKey
    trainer: Trainer
    data: OfferedData
    models: WorkModels
    updates: WorkUpdates
    bounds: WorkBounds
    counter: WorkCounter
    privacy: PrivacyLedger
    turns: Turns
    reporter: ProgressReporter
    begun: BegunVisits | None
    """Stores savepoints; `None` means there are none."""
    sums: SecureSums | None
    """`None` means only what leaves its site is merged."""

    async def visit(
        self,
        work: VisitWork,
        model: ModelRef,
        dataset: DatasetConfig,
        place: int,
        folder: Path,
        attempt: Attempt,
    ) -> tuple[Visit, ModelRef]:
        """Train in the work's own `folder`, when its turn at `place` comes. The data's policy has
        admitted `attempt`."""
        began = time.perf_counter()
        _check_sums(work, dataset)
        sums = summing(work, self.sums)
        limits = await self.bounds.limits(work, work.examples)
        private = await self._plan(work, dataset)
        moved = await self._fetch(work, model, folder)
        seed = dataset.disclosure.drawn(work, self.key)
        async with self.turns.turn(place):
            begun, terms = await self._begin(work, dataset, seed, private, attempt)
            async with within(self.longest_s, begun.worked_s):
                trained, losses, out = await self._train(
                    work, dataset, begun, seed, folder, limits, terms
                )
            compressed = sums is None and await self.updates.compress(
                work, model, folder, out, limits, private=private is not None
            )
        release_to = dataset.terms.release_to
        if sums is not None:
            result = await asyncio.to_thread(sums.keep, out)
        else:
            carried = await self.models.carried(model, trained.carried)
            result, _ = await self.models.pack(work, out, release_to, carried)
        if compressed:
            self.updates.keep_lost(work, folder, private=private is not None)
        seconds = time.perf_counter() - began
        fact = Visit(
            job=work.job,
            visit=work.visit,
            site=self.site,
            dataset=dataset.name,
            at_s=clock.now_s(),
            seconds=trained.seconds,
            transfer_s=moved.seconds,
            overhead_s=max(0.0, seconds - trained.seconds - moved.seconds),
            bytes_in=moved.bytes_in,
            examples=trained.examples,
            loss=losses.loss(),
            model_in=model.manifest,
            model_out=result.manifest,
            size_bytes=result.size_bytes,
            order=order_of(work),
            release_to=release_to,
            stands_for=work.stands_for,
            compression=work.compression if compressed else Compression.NONE,
            privacy=private.spent if private else None,
        )
        return fact, result

    async def _plan(self, work: VisitWork, dataset: DatasetConfig) -> PrivatePlan | None:
        """Check the visit against its data. Returns how to train it privately, if so."""
        await self.data.inspect_changed(work.recipe, dataset)
        known = self.data.facts(dataset)
        dataset.disclosure.check_examples(work.examples, known.least_examples)
        return await plan_private(
            self.privacy, self.bounds, self.counter, work, dataset, known.items
        )

    async def _fetch(self, work: VisitWork, model: ModelRef, folder: Path) -> Moved:
        """Put the model into `in`, and the site's earlier result into `own`, if the work names
        it."""
        watch = self.reporter.fetching(work)
        moved = await self.models.fetch(work, model, folder / "in", watch)
        if work.own is not None:
            with about("own"):
                more = await self.models.fetch(work, work.own, folder / "own", watch)
                moved = summed(moved, more)
        return moved

    async def _begin(
        self,
        work: VisitWork,
        dataset: DatasetConfig,
        seed: int,
        private: PrivatePlan | None,
        attempt: Attempt,
    ) -> tuple[BegunVisit, DpSgd | None]:
        """Count and charge a visit, unless it is resumed; returns where it starts and how privately
        it trains."""
        made_of = ""
        if self.begun or private:
            spent = private.spent if private else None
            made_of = await asyncio.to_thread(digest_of, work, dataset, seed, spent)
        begun = self.counter.begin_visit(work, dataset, made_of, attempt)
        if private is None:
            return begun, None
        terms = self.privacy.begin(work, dataset, private, made_of, resumes=begun.got_on)
        return begun, terms

    async def _train(
        self,
        work: VisitWork,
        dataset: DatasetConfig,
        begun: BegunVisit,
        seed: int,
        folder: Path,
        limits: Limits,
        privacy: DpSgd | None,
    ) -> tuple[Trained, LossGate, Path]:
        """Train, from the visit's savepoint on, and again from the latest if the training process
        dies or hangs after writing one. Also returns the folder of the parts."""
        gate, resumed = dataset.disclosure, 0
        while True:
            under_way = UnderWay(work, begun, self.begun)
            losses = LossGate(
                self.data.facts(dataset).least_examples,
                gate.noise_secret(work, self.key),
                begun.losses,
                begun.published,
                under_way.publishing,
            )
            out = folder / f"out-{resumed}"
            out.mkdir()
            try:
                with gate.failures():
                    trained = await self.trainer.train(
                        work.recipe,
                        folder / "in",
                        work.config,
                        Path(dataset.path),
                        work.examples,
                        seed,
                        out,
                        partial(self.reporter.training, work, losses),
                        selection=dataset.selection,
                        limits=limits,
                        local=LocalTask(
                            rule=work.local, own=str(folder / "own") if work.own else ""
                        ),
                        saving=under_way.saving(self.save_every_s),
                        kept=partial(under_way.kept, losses),
                        privacy=privacy,
                    )
            except ProcessFailed as error:
                begun, resumed = under_way.begun, resumed + 1
                over = isinstance(error, ProcessOverLimit)
                if over or not begun.got_on or resumed > _MOST_RESUMED:
                    raise
                log.warning("%s goes on from its savepoint: %s", work.visit, error.problem)
            else:
                seconds = trained.seconds + begun.worked_s
                return msgspec.structs.replace(trained, seconds=seconds), losses, out


def _check_sums(work: VisitWork, dataset: DatasetConfig) -> None:
    """Raise `Refused` for a visit whose result would leave alone, against its owner's terms."""
    if dataset.terms.secure_aggregation and not work.secure:
        raise Refused(
            f"the owner of data set {dataset.name} releases what models learn only in sums",
            field="training.secure_aggregation",
            fix="state `secure_aggregation: true`, with an algorithm that averages in rounds",
        )
