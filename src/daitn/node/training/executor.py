"""Carries out a site's visits and verifications: fetch, train or measure, store, sign."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook
from daitn.identity.signing import sign_entry
from daitn.learning.child.outside import ProcessFailed, ProcessOverLimit
from daitn.learning.consultant import Consultant
from daitn.learning.recipe import Config, DpSgd, Footprint, LocalTask, MergeTask, Progress, Trained
from daitn.learning.sandbox.policy import Limits, Sandbox
from daitn.learning.trainer import Trainer
from daitn.node.admission import Admission, Attempt, request_of
from daitn.node.config import DatasetConfig, NodeConfig, TestSetConfig
from daitn.node.disclosure import LossGate
from daitn.node.training.begun import BegunVisit, BegunVisits, UnderWay, digest_of
from daitn.node.training.bounds import Capacity, check_estimate, check_size, within
from daitn.node.training.feedback import Feedback
from daitn.node.training.models import WorkModels, summed
from daitn.node.training.offered import OfferedData
from daitn.node.training.ordered import OrderedWork
from daitn.node.training.private import PrivacyLedger, Private
from daitn.node.training.sums import SecureSums
from daitn.node.training.turns import Turns
from daitn.node.training.work_queue import FETCHING, WorkResult
from daitn.objects.compression import UPDATE, Compression
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, Refused, Unreachable
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.jobs import WorkNeeds
from daitn.objects.lineage import LineageFact, Merge, Origin, Verification, Visit
from daitn.objects.merging import LocalRule, discount
from daitn.objects.messages import (
    MergeWork,
    RecipeQuestion,
    VerifyWork,
    VisitWork,
    Work,
    WorkProgress,
)
from daitn.objects.models import ModelRef
from daitn.tools import clock
from daitn.tools.mobility.protocol import BlobStore, ModelTransport, Moved
from daitn.tools.mobility.releases import Releases

__all__ = ["Executor"]

log = logging.getLogger(__name__)

_MOST_RESUMED = 3
"""Times that a visit goes on after the process that trains has died, while its node lives."""
_KEPT_AT_ONCE = 2
"""Savepoints on disk: one, and the next while it is written."""
_MOMENTS = "moments.safetensors"
"""What a merge's outer step remembers."""
_LOST = "lost.safetensors"
"""What compression loses of an update."""
_MOST_OUTPUTS = 5
"""Of a merge, in models: the model, and two moments of four bytes for each number of two."""
_SLOWEST_FLOPS = 1e9
"""Assumed of a site that has not measured its speed."""
OnProgress = Callable[[WorkProgress], None]


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
        """`orders` checks the owners' orders; none: work needs none. `releases` learns where models
        may go. `begun` keeps savepoints of visits; none: there are none. `privacy` counts what they
        tell; none: it does so in the state folder. `sums` merges what stays at its site; none: only
        what leaves is merged."""
        self._sums = sums
        self._privacy = privacy or PrivacyLedger(Path(config.state) / "privacy", key)
        self._begun = begun if config.save_every_s else None
        self._config = config
        self._trainer = trainer
        self._key = key
        self._consultant = consultant
        self._admission = admission
        self._data = OfferedData(config, trainer)
        self._sandbox = Sandbox(limits=config.sandbox.limits)
        self._speed_flops = _SLOWEST_FLOPS
        self._on_progress = on_progress
        self._ordered = OrderedWork(orders, Path(config.state) / "orders") if orders else None
        self._node: NodeDescriptor | None = None
        self._scratch = config.scratch
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        self._turns = Turns()
        """For the training engine."""
        self._capacity: Capacity | None = None
        self._feedback = Feedback(Path(config.state) / "feedback")
        self.models = WorkModels(config.site, store, transport, releases)

    def offer(self, descriptor: NodeDescriptor) -> None:
        """Accept work on what the node's descriptor lists, and on nothing that it leaves out."""
        self._capacity = Capacity.of(descriptor, self._config.longest_s)
        self._node = descriptor
        self._data.offer(descriptor)
        if descriptor.compute is not None:
            self._speed_flops = descriptor.compute.speed_flops

    async def retain(self, needed: Callable[[], frozenset[Digest]]) -> int:
        """Delete what is of no use any more, see `WorkModels.retain`; returns the bytes freed."""
        await asyncio.to_thread(self._feedback.retain, needed())
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
        self._check_order(work)
        place = self._turns.join()
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            if isinstance(work, VerifyWork):
                return await self._verify(work, place, Path(folder), attempt)
            if isinstance(work, MergeWork):
                return await self._merge(work, place, Path(folder))
            if work.model is None:
                return await self._originate(work, place, Path(folder), attempt)
            return await self._visit(work, work.model, place, Path(folder), attempt)

    def _check_order(self, work: Work) -> None:
        """Raise `Refused` or `Corrupt` unless the work's owner ordered it."""
        if self._ordered is not None:
            assert self._node is not None
            counted = self._counted_at_s(work) is not None
            self._ordered.check(work, self._node, counted=counted)

    def _counted_at_s(self, work: Work) -> float | None:
        """When work that goes on counted against order and policy; none: it will."""
        begun = self._begun.get(work.visit) if self._begun is not None else None
        return begun.counted_at_s if begun is not None and begun.got_on else None

    def _begin_order(self, work: Work) -> None:
        """Count work against its order. Raises as `OrderedWork.begin`."""
        if self._ordered is not None:
            assert self._node is not None
            self._ordered.begin(work, self._node)

    async def prefetch(self, model: ModelRef, of: RecipeQuestion) -> None:
        """Fetch a model of a configuration ahead of its work; the transfer is charged to that work.

        Raises as `ModelTransport.fetch` does, and `InvalidInput` for a model that is too large.
        """
        self._check_recipe(of.recipe)
        check_size((await self._footprint(of.recipe, of.config)).size_bytes, model)
        await self.models.prefetch(model)

    async def needs(self, question: RecipeQuestion) -> WorkNeeds:
        """What a model of this configuration needs. Raises `InvalidInput` for an invalid one."""
        self._check_recipe(question.recipe)
        recipe = self._consultant.facts(question.recipe)
        footprint = await self._footprint(question.recipe, question.config)
        return WorkNeeds(
            data_schema=recipe.data_schema,
            test_schema=recipe.test_schema,
            parameters=footprint.parameters,
            flops_per_example=footprint.flops_per_example,
            memory_bytes=footprint.memory_bytes,
            size_bytes=footprint.size_bytes,
            labels=footprint.labels,
            labels_field=footprint.labels_field,
            private=footprint.private,
            merges=recipe.merges,
            merges_fresh=footprint.merges_fresh,
            learning=footprint.learning,
        )

    async def _footprint(self, recipe: str, config: Config) -> Footprint:
        return check_estimate(recipe, await self._consultant.estimate(recipe, config))

    async def _bounds(self, work: Work, examples: int) -> Limits:
        """What the work may take: what its recipe estimates of the model, with a margin.

        Raises `InvalidInput` for work that this site cannot do, before anything is done for it.
        """
        assert self._capacity is not None
        footprint = await self._footprint(work.recipe, work.config)
        if isinstance(work, MergeWork):
            self._capacity.check(footprint, work.base, 0)
            for number, model in enumerate(work.trained):
                with _about(f"models[{number}]"):
                    check_size(footprint.size_bytes, model)
                    if work.starts:
                        check_size(footprint.size_bytes, work.starts[number])
            if work.moments is not None:
                with _about("moments"):
                    check_size(_MOST_OUTPUTS * footprint.size_bytes, work.moments)
        else:
            if isinstance(work, VisitWork):
                footprint = _with_companions(footprint, work)
                if work.own is not None:
                    with _about("own"):
                        check_size(footprint.size_bytes, work.own)
            self._capacity.check(footprint, work.model, examples)
        most_bytes = _MOST_OUTPUTS * footprint.size_bytes if isinstance(work, MergeWork) else 0
        return self._sandbox.limits_for(
            memory_bytes=footprint.memory_bytes,
            size_bytes=max(footprint.size_bytes, most_bytes),
            # A savepoint has no more than training holds in memory.
            kept_bytes=_KEPT_AT_ONCE * footprint.memory_bytes if self._begun else 0,
            seconds=footprint.flops_per_example * examples / self._speed_flops,
            threads=self._config.threads,
        )

    async def _originate(
        self, work: VisitWork, place: int, folder: Path, attempt: Attempt
    ) -> WorkResult:
        self._dataset(work, attempt)
        limits = await self._bounds(work, 0)
        out = _new_folder(folder / "out")
        async with self._turns.turn(place), within(self._config.longest_s):
            self._begin_order(work)
            await self._trainer.initialise(work.recipe, work.config, work.seed, out, limits=limits)
        model, _ = await self.models.pack(work, out)
        return self._done(
            Origin(
                job=work.job,
                visit=work.visit,
                site=self.site,
                at_s=clock.now_s(),
                recipe=work.recipe,
                seed=work.seed,
                model=model.manifest,
                order=_order_of(work),
            ),
            work,
            model,
        )

    async def _visit(
        self, work: VisitWork, model: ModelRef, place: int, folder: Path, attempt: Attempt
    ) -> WorkResult:
        began = time.perf_counter()
        dataset = self._dataset(work, attempt)
        if dataset.terms.secure_aggregation and not work.secure:
            raise Refused(
                f"the owner of data set {dataset.name} lets out what models learn in sums alone",
                field="training.secure_aggregation",
                fix="state `secure_aggregation: true`, with an algorithm that averages in rounds",
            )
        sums = self._summing(work)
        gate = dataset.disclosure
        limits = await self._bounds(work, work.examples)
        await self._data.inspect_changed(work.recipe, dataset)
        gate.check_examples(work.examples, self._data.facts(dataset).least_examples)
        private = await self._private(work, dataset)
        moved = await self._fetch(work, model, _new_folder(folder / "in"))
        if work.own is not None:
            with _about("own"):
                moved = summed(
                    moved, await self._fetch(work, work.own, _new_folder(folder / "own"))
                )
        seed = gate.drawn(work, self._key)
        async with self._turns.turn(place):
            spent = private.spent if private else None
            made_of = ""
            if self._begun or private:
                made_of = await asyncio.to_thread(digest_of, work, dataset, seed, spent)
            begun = self._begin(work, dataset, made_of, attempt)
            terms = None
            if private is not None:
                terms = self._privacy.begin(work, dataset, private, made_of, resumes=begun.got_on)
            async with within(self._config.longest_s, begun.worked_s):
                trained, losses, out = await self._train(
                    work, dataset, begun, seed, folder, limits, terms
                )
            compressed = sums is None and await self._compress(
                work, model, folder, out, limits, private=private is not None
            )
        release_to = dataset.terms.release_to
        if sums is not None:
            result = await asyncio.to_thread(sums.keep, out)
        else:
            carried = await self.models.carried(model, trained.carried)
            result, _ = await self.models.pack(work, out, release_to, carried)
        if compressed:
            self._feedback.keep(work, folder / "lost" / _LOST, private=private is not None)
        seconds = time.perf_counter() - began
        return self._done(
            Visit(
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
                order=_order_of(work),
                release_to=release_to,
                stands_for=work.stands_for,
                compression=work.compression if compressed else Compression.NONE,
                privacy=spent,
            ),
            work,
            result,
        )

    async def _compress(
        self,
        work: VisitWork,
        model: ModelRef,
        folder: Path,
        out: Path,
        limits: Limits,
        *,
        private: bool,
    ) -> bool:
        """Leave of what was trained an update, if that is asked for and it fits the model."""
        if work.compression is Compression.NONE:
            return False
        await self._trainer.compress(
            folder / "in",
            model.manifest,
            out,
            work.compression,
            self._feedback.before(work, private=private),
            _new_folder(folder / "lost") / _LOST,
            limits=limits,
        )
        return bool(_updates_in(out))

    async def _rebuild(
        self, number: int, start: ModelRef, base: str, folder: Path, limits: Limits
    ) -> None:
        """Make a fetched model whole that came as an update. Raises `Corrupt` if it is none of
        what it was to be trained from."""
        model = folder / str(number)
        if not (parts := _updates_in(model)):
            return
        out = _new_folder(folder / f"whole-{number}")
        with _about(f"models[{number}]"):
            await self._trainer.rebuild(Path(base), start.manifest, model, out, limits=limits)
        for part in parts:
            part.unlink()
        for whole in out.iterdir():
            whole.replace(model / whole.name)

    async def _private(self, work: VisitWork, dataset: DatasetConfig) -> Private | None:
        """How the visit is to be trained privately, if anybody asks for that.

        Raises `InvalidInput` for a model that cannot be, and as `PrivacyLedger.check`.
        """
        private = self._privacy.planned(work, dataset, self._data.facts(dataset).items)
        if private is None:
            return None
        if not (await self._footprint(work.recipe, work.config)).private:
            raise InvalidInput(
                f"{work.recipe} cannot train this configuration with differential privacy",
                field="model.config",
                fix="for the recipe classifier, state `ranges`; or take data whose owner demands "
                "none, and leave out training.privacy",
            )
        if work.local not in (LocalRule(), LocalRule(merged=True)):
            raise InvalidInput(
                "the algorithm learns more from the records than differential privacy covers",
                field="training.algorithm",
                fix="take sequential, fedavg or another one that asks no more of a visit",
            )
        if self._counted_at_s(work) is None:  # What goes on is charged already.
            self._privacy.check(work, dataset, private)
        return private

    def _begin(
        self, work: VisitWork, dataset: DatasetConfig, made_of: str, attempt: Attempt
    ) -> BegunVisit:
        """Count a visit, unless it goes on and has counted. Raises as `Admission.begin` and
        `OrderedWork.begin`."""
        begun = self._begun.get(work.visit) if self._begun is not None else None
        if begun is not None and begun.made_of != made_of:
            log.warning("the savepoint of %s is of other data or work: it goes", work.visit)
            begun = None
        if begun is not None and begun.got_on:
            self._admission.resume(dataset, request_of(work), attempt, begun.counted_at_s)
            return begun
        self._admission.begin(dataset, request_of(work), attempt)
        self._begin_order(work)
        now_s = clock.now_s()
        if begun is not None:
            return msgspec.structs.replace(begun, counted_at_s=now_s)
        if self._begun is not None:
            self._begun.forget(work.visit)
        return BegunVisit(made_of=made_of, counted_at_s=now_s)

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
        """Train, from the visit's savepoint on, and again from the latest if the process that
        trains dies or hangs after it kept one. Returns the folder of the parts, too."""
        gate, resumed = dataset.disclosure, 0
        while True:
            under_way = UnderWay(work, begun, self._begun)
            losses = LossGate(
                self._data.facts(dataset).least_examples,
                gate.noise_secret(work, self._key),
                begun.losses,
                begun.told,
                under_way.told,
            )
            out = _new_folder(folder / f"out-{resumed}")
            try:
                with gate.failures():
                    trained = await self._trainer.train(
                        work.recipe,
                        folder / "in",
                        work.config,
                        Path(dataset.path),
                        work.examples,
                        seed,
                        out,
                        partial(self._publish_training, work, losses),
                        selection=dataset.selection,
                        limits=limits,
                        local=LocalTask(
                            rule=work.local, own=str(folder / "own") if work.own else ""
                        ),
                        saving=under_way.saving(self._config.save_every_s),
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

    async def _verify(
        self, work: VerifyWork, place: int, folder: Path, attempt: Attempt
    ) -> WorkResult:
        test = self._test_set(work, attempt)
        limits = await self._bounds(work, self._data.facts(test).items)
        await self._data.inspect_changed(work.recipe, test)
        moved = await self._fetch(work, work.model, _new_folder(folder / "in"))
        async with self._turns.turn(place), within(self._config.longest_s):
            self._admission.begin(test, request_of(work), attempt)
            self._begin_order(work)
            self._publish_progress(work, "measuring", 0, 0)
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
                told = test.disclosure.measured(measured, self._data.facts(test).labels)
            seconds = time.perf_counter() - began
        return self._done(
            Verification(
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
                value=told.value,
                items=told.items,
                standard_error=told.standard_error,
                by_label={label: one.value for label, one in told.by_label.items()},
            ),
            work,
            None,
        )

    async def _merge(self, work: MergeWork, place: int, folder: Path) -> WorkResult:
        """Merge models that sites trained. It reads nobody's records."""
        began = time.perf_counter()
        self._admit_merge(work)
        limits = await self._bounds(work, 0)
        moved = await self._fetch(work, work.base, _new_folder(folder / "base"))
        sums, members = self._summing(work), tuple[SiteId, ...]()
        if sums is not None:
            self._publish_progress(work, "summing", 0, 0)
            into = _new_folder(folder / "0")
            members = await sums.gather(work, folder / "base", into)
        else:
            for number, model in enumerate(work.trained):
                with _about(f"models[{number}]"):
                    into = _new_folder(folder / str(number))
                    moved = summed(moved, await self._fetch(work, model, into))
        starts = {work.base.manifest: str(folder / "base")}
        for number, start in enumerate(work.starts):
            if start.manifest not in starts:
                with _about(f"models[{number}]"):
                    into = _new_folder(folder / f"start-{number}")
                    moved = summed(moved, await self._fetch(work, start, into))
                    starts[start.manifest] = str(into)
        before = ""
        if work.moments is not None:
            with _about("moments"):
                into = _new_folder(folder / "before")
                moved = summed(moved, await self._fetch(work, work.moments, into))
            before = str(folder / "before" / _MOMENTS)
        out, kept = _new_folder(folder / "out"), _new_folder(folder / "kept")
        task = MergeTask(
            base=str(folder / "base"),
            models=(str(folder / "0"),)
            if sums
            else tuple(str(folder / str(number)) for number in range(len(work.trained))),
            shares=(1.0,) if sums else tuple(map(float, work.shares)),
            rule=work.rule,
            seed=work.seed,
            starts=tuple(starts[start.manifest] for start in work.starts),
            scales=tuple(map(discount, work.behind)),
            moments=before,
        )
        async with self._turns.turn(place), within(self._config.longest_s):
            self._begin_order(work)
            self._publish_progress(work, "merging", 0, 0)
            merging = time.perf_counter()
            for number in range(len(work.trained)):
                start = work.starts[number] if work.starts else work.base
                await self._rebuild(number, start, starts[start.manifest], folder, limits)
            left = await self._trainer.merge(
                work.recipe, work.config, task, out, kept / _MOMENTS, limits=limits
            )
            took_s = time.perf_counter() - merging
        carried = await self.models.carried(work.base, left)
        result, manifest = await self.models.pack(work, out, carried=carried)
        moments = None
        if (kept / _MOMENTS).is_file():
            moments, _ = await self.models.pack(work, kept)
        seconds = time.perf_counter() - began
        return self._done(
            Merge(
                job=work.job,
                visit=work.visit,
                site=self.site,
                at_s=clock.now_s(),
                seconds=took_s,
                transfer_s=moved.seconds,
                overhead_s=max(0.0, seconds - took_s - moved.seconds),
                bytes_in=moved.bytes_in,
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
                summed=members,
                order=_order_of(work),
            ),
            work,
            result,
        )

    def _summing(self, work: VisitWork | MergeWork) -> SecureSums | None:
        """What sums the results of such work, if nobody is to see them. Raises `Refused`."""
        if work.secure and self._sums is None:
            raise Refused(
                "without a roster nobody knows whose sum it is",
                field="training.secure_aggregation",
                fix="found a network, see `daitn up`",
            )
        return self._sums if work.secure else None

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
        raise refused or Refused("this site trains nobody's models", field="owner")

    async def _fetch(self, work: Work, model: ModelRef, folder: Path) -> Moved:
        """Have a model's parts in a folder. Raises as `WorkModels.fetch`."""
        self.models.record(work, model.manifest)
        self._publish_progress(work, FETCHING, 0, model.size_bytes)
        return await self.models.fetch(
            model, folder, partial(self._publish_progress, work, FETCHING)
        )

    def _done(self, fact: LineageFact, work: Work, model: ModelRef | None) -> WorkResult:
        return WorkResult(entry=sign_entry(fact, work.previous, self._key), model=model)

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
        self._admit(dataset, work, attempt)
        return dataset

    def _test_set(self, work: VerifyWork, attempt: Attempt) -> TestSetConfig:
        """The work's test set, if its policy allows the work."""
        schema = self._consultant.facts(work.recipe).test_schema
        test = self._data.test_set(work.topic, schema)
        self._admit(test, work, attempt)
        return test

    def _admit(self, data: DatasetConfig | TestSetConfig, work: Work, attempt: Attempt) -> None:
        attempt.about["data"] = data.disclosure.name
        self._admission.check(data, request_of(work), self._counted_at_s(work))

    def _publish_training(self, work: Work, losses: LossGate, progress: Progress) -> None:
        step = losses.take(progress)
        if step is not None:
            self._publish_progress(work, "training", step.examples, step.of_examples, step.loss)

    def _publish_progress(
        self, work: Work, phase: str, done: int, total: int, loss: float | None = None
    ) -> None:
        self._on_progress(
            WorkProgress(
                job=work.job,
                visit=work.visit,
                site=self.site,
                phase=phase,
                done=done,
                total=total,
                loss=loss,
            )
        )


def _with_companions(footprint: Footprint, work: VisitWork) -> Footprint:
    """What training needs with variates, which are as large as the weights: those that travel, and
    those that it keeps of them meanwhile."""
    more = footprint.size_bytes * work.local.variates
    return msgspec.structs.replace(
        footprint,
        size_bytes=footprint.size_bytes + more,
        memory_bytes=footprint.memory_bytes + 3 * more,
    )


def _order_of(work: Work) -> Digest:
    return work.order.digest if work.order else Digest("")


def _updates_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{UPDATE}"))


@contextmanager
def _about(field: str) -> Iterator[None]:
    """Name what an error is about."""
    try:
        yield
    except (Corrupt, InvalidInput, NotFound, Unreachable) as error:
        error.field = field
        raise


def _new_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder
