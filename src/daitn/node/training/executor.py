"""Does a site's work: admits each piece, runs it in turn, and signs the outcome.

Models are trained in `visiting` and merged in `merging`; fresh ones are made, and models measured,
here.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from daitn.files.state_folder import NodeState
from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook
from daitn.identity.signing import sign_entry
from daitn.learning.consultant import Consultant
from daitn.learning.trainer import Trainer
from daitn.node.admission import Admission, Attempt, request_of
from daitn.node.config import DatasetConfig, NodeConfig, TestSetConfig
from daitn.node.training.begun import BegunVisits
from daitn.node.training.bounds import WorkBounds, check_size, within
from daitn.node.training.counting import WorkCounter
from daitn.node.training.feedback import Feedback
from daitn.node.training.merging import RoundMerging
from daitn.node.training.models import WorkModels
from daitn.node.training.offered import OfferedData
from daitn.node.training.order_ledger import OrderedWork, order_of
from daitn.node.training.privacy_ledger import PrivacyLedger
from daitn.node.training.progress import OnProgress, ProgressReporter
from daitn.node.training.sums import SecureSums
from daitn.node.training.turns import Turns
from daitn.node.training.updates import WorkUpdates
from daitn.node.training.visiting import Visiting
from daitn.node.training.work_queue import WorkResult
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import NotFound, Refused
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.jobs import WorkNeeds
from daitn.objects.lineage import LineageFact, Origin, Verification
from daitn.objects.messages import MergeWork, RecipeQuestion, VerifyWork, VisitWork, Work
from daitn.objects.models import ModelRef
from daitn.tools import clock
from daitn.tools.mobility.protocol import BlobStore, ModelTransport
from daitn.tools.mobility.releases import Releases

__all__ = ["Executor"]


class Executor:
    """Does a site's work. Models live in the blob store; they are unpacked only while in use."""

    def __init__(
        self,
        config: NodeConfig,
        trainer: Trainer,
        store: BlobStore,
        transport: ModelTransport,
        key: SigningKey,
        consultant: Consultant,
        admission: Admission,
        on_progress: OnProgress,
        orders: OrderBook | None = None,
        releases: Releases | None = None,
        begun: BegunVisits | None = None,
        privacy: PrivacyLedger | None = None,
        sums: SecureSums | None = None,
    ) -> None:
        """`orders` checks the owners' orders; `None` means work needs none. `releases` learns where
        models may go. `begun` stores savepoints of visits; `None` means there are none. `privacy`
        counts what they reveal; `None` means in the state folder. `sums` merges what stays at its
        site; `None` means only what leaves is merged."""
        state, begun = Path(config.state), begun if config.save_every_s else None
        self._config = config
        self._trainer = trainer
        self._key = key
        self._consultant = consultant
        self._admission = admission
        self._scratch = config.scratch
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        self._turns = Turns()
        """For the training engine."""
        self._data = OfferedData(config, trainer)
        self._bounds = WorkBounds(config, consultant, saves=begun is not None)
        ordered = OrderedWork(orders, state / NodeState.ORDERS) if orders else None
        self._counter = WorkCounter(admission, ordered, begun)
        self._sums = sums
        self._updates = WorkUpdates(trainer, Feedback(state / NodeState.FEEDBACK))
        self._reporter = ProgressReporter(config.site, on_progress)
        self.models = WorkModels(config.site, store, transport, releases)
        self._visiting = Visiting(
            site=config.site,
            longest_s=config.longest_s,
            save_every_s=config.save_every_s,
            key=key,
            trainer=trainer,
            data=self._data,
            models=self.models,
            updates=self._updates,
            bounds=self._bounds,
            counter=self._counter,
            privacy=privacy or PrivacyLedger(state / NodeState.PRIVACY, key),
            turns=self._turns,
            reporter=self._reporter,
            begun=begun,
            sums=sums,
        )
        self._merging = RoundMerging(
            site=config.site,
            longest_s=config.longest_s,
            trainer=trainer,
            models=self.models,
            updates=self._updates,
            bounds=self._bounds,
            counter=self._counter,
            turns=self._turns,
            reporter=self._reporter,
            sums=sums,
        )

    def reconfigure(self, config: NodeConfig) -> None:
        """Apply a changed file."""
        self._config = config
        self._bounds.reconfigure(config)
        self._data.reconfigure(config)

    def offer(self, descriptor: NodeDescriptor) -> None:
        """Accept work only on what the node's descriptor lists."""
        self._bounds.offer(descriptor)
        self._counter.offer(descriptor)
        self._data.offer(descriptor)

    async def retain(self, needed: Callable[[], frozenset[Digest]]) -> int:
        """Delete what is no longer needed, see `WorkModels.retain`; returns the bytes freed."""
        await asyncio.to_thread(self._updates.retain, needed())
        if self._sums is not None:
            await asyncio.to_thread(self._sums.forget_old)
        return await self.models.retain(needed)

    @property
    def site(self) -> SiteId:
        return self._config.site

    async def perform(self, work: Work) -> WorkResult:
        """Do one piece of work. Raises `DaitnError` with the reason if it cannot be done, and
        `Refused` if the data's policy does not allow it."""
        with self._admission.attempt(work) as attempt:
            result = await self._perform(work, attempt)
            self._admission.finished(attempt, result.entry, result.model)
        return result

    async def _perform(self, work: Work, attempt: Attempt) -> WorkResult:
        self._check_recipe(work.recipe)
        self._counter.check_order(work)
        place = self._turns.join()
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            fact, model = await self._dispatch(work, place, Path(folder), attempt)
        return WorkResult(entry=sign_entry(fact, work.previous, self._key), model=model)

    async def _dispatch(
        self, work: Work, place: int, folder: Path, attempt: Attempt
    ) -> tuple[LineageFact, ModelRef | None]:
        """Admit work and run it, in its own folder."""
        match work:
            case VerifyWork():
                return await self._verify(work, place, folder, attempt), None
            case MergeWork():
                self._admit_merge(work)
                return await self._merging.merge(work, place, folder)
        dataset = self._dataset(work, attempt)
        if work.model is None:
            return await self._originate(work, place, folder)
        return await self._visiting.visit(work, work.model, dataset, place, folder, attempt)

    async def prefetch(self, model: ModelRef, of: RecipeQuestion) -> None:
        """Fetch a model of a configuration ahead of its work; the transfer is charged to that work.

        Raises as `ModelTransport.fetch` does, and `InvalidInput` for a model that is too large.
        """
        self._check_recipe(of.recipe)
        check_size((await self._bounds.footprint(of.recipe, of.config)).size_bytes, model)
        await self.models.prefetch(model)

    async def needs(self, question: RecipeQuestion) -> WorkNeeds:
        """The needs of a model with this configuration. Raises `InvalidInput` for an invalid
        one."""
        self._check_recipe(question.recipe)
        recipe = self._consultant.facts(question.recipe)
        footprint = await self._bounds.footprint(question.recipe, question.config)
        return WorkNeeds(
            data_schema=recipe.data_schema,
            test_schema=recipe.test_schema,
            parameters=footprint.parameters,
            flops_per_example=footprint.flops_per_example,
            memory_bytes=footprint.memory_bytes,
            size_bytes=footprint.size_bytes,
            labels=footprint.labels,
            labels_field=footprint.labels_field,
            columns=footprint.columns,
            metrics=recipe.metrics,
            imported=footprint.imported,
            private=footprint.private,
            merges=recipe.merges,
            merges_fresh=footprint.merges_fresh,
            algorithms=recipe.algorithms,
            learning=footprint.learning,
        )

    async def _originate(
        self, work: VisitWork, place: int, folder: Path
    ) -> tuple[Origin, ModelRef]:
        """Make a fresh model. It reads no records."""
        limits = await self._bounds.limits(work, 0)
        out = folder / "out"
        out.mkdir()
        async with self._turns.turn(place), within(self._config.longest_s):
            self._counter.begin(work)
            await self._trainer.initialise(work.recipe, work.config, work.seed, out, limits=limits)
        model, _ = await self.models.pack(work, out)
        fact = Origin(
            job=work.job,
            visit=work.visit,
            site=self.site,
            at_s=clock.now_s(),
            recipe=work.recipe,
            seed=work.seed,
            model=model.manifest,
            order=order_of(work),
        )
        return fact, model

    async def _verify(
        self, work: VerifyWork, place: int, folder: Path, attempt: Attempt
    ) -> Verification:
        """Measure a model on a test set."""
        test = self._test_set(work, attempt)
        limits = await self._bounds.limits(work, self._data.facts(test).items)
        await self._data.inspect_changed(work.recipe, test)
        watch = self._reporter.fetching(work)
        moved = await self.models.fetch(work, work.model, folder / "in", watch)
        async with self._turns.turn(place), within(self._config.longest_s):
            self._counter.begin_on(test, work, attempt)
            self._reporter.tell(work, "measuring")
            began = time.perf_counter()
            with test.disclosure.failures():
                measured = await self._trainer.evaluate(
                    work.recipe,
                    folder / "in",
                    work.config,
                    Path(test.path),
                    work.metric,
                    selection=test.selection,
                    limits=limits,
                )
                let_out = test.disclosure.measured(measured, self._data.facts(test).labels)
            seconds = time.perf_counter() - began
        return Verification(
            job=work.job,
            visit=work.visit,
            site=self.site,
            at_s=clock.now_s(),
            seconds=seconds,
            transfer_s=moved.seconds,
            bytes_in=moved.bytes_in,
            model=work.model.manifest,
            topic=work.topic,
            metric=work.metric,
            value=let_out.value,
            items=let_out.items,
            standard_error=let_out.standard_error,
            by_label={label: one.value for label, one in let_out.by_label.items()},
        )

    def _admit_merge(self, work: MergeWork) -> None:
        """Raise `Refused` unless a data owner here would let the model's owner train: nobody else's
        models are merged here."""
        refused: Refused | None = None
        for dataset in self._data.datasets:
            try:
                self._admission.check(dataset, request_of(work))
            except Refused as error:
                refused = error
            else:
                return
        raise refused or Refused("this site trains models for no one", field="owner")

    def _check_recipe(self, recipe: str) -> None:
        if recipe not in self._consultant.recipes:
            raise NotFound(
                f"{self.site} does not run recipe {recipe}",
                field="model.recipe",
                fix=f"use one of: {', '.join(self._consultant.recipes)}",
            )

    def _dataset(self, work: VisitWork, attempt: Attempt) -> DatasetConfig:
        """The work's data set, if its policy allows the work."""
        dataset = self._data.dataset(work.dataset)
        self._counter.check_policy(dataset, work, attempt)
        return dataset

    def _test_set(self, work: VerifyWork, attempt: Attempt) -> TestSetConfig:
        """The work's test set, if its policy allows the work."""
        schema = self._consultant.facts(work.recipe).test_schema
        test = self._data.test_set(work.topic, schema)
        self._counter.check_policy(test, work, attempt)
        return test
