"""How visits and verifications are done at a site: fetch, train or measure, keep, sign."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from daitn.identity.keys import SigningKey
from daitn.identity.signing import sign_entry
from daitn.learning.consultant import Consultant
from daitn.learning.recipe import Progress as TrainingProgress
from daitn.learning.trainer import Trainer
from daitn.node.config import DatasetConfig, NodeConfig, TestSetConfig
from daitn.node.training.turns import Turns
from daitn.node.training.work_queue import FETCHING, WorkResult
from daitn.objects.access import check_visit
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound, WorkFailed
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.jobs import WorkNeeds
from daitn.objects.lineage import LineageFact, Origin, Verification, Visit
from daitn.objects.messages import RecipeQuestion, VerifyWork, VisitWork, Work, WorkProgress
from daitn.objects.models import Manifest, ModelRef
from daitn.tools import clock
from daitn.tools.mobility.protocol import BlobStore, ModelTransport, Moved

__all__ = ["Executor"]

log = logging.getLogger(__name__)

MOST_MODEL_BYTES = 10**14
KEEP_RECENT_S = 600.0
"""How long a model that was made or fetched here is kept without being asked for."""

Watch = Callable[[WorkProgress], None]


class Executor:
    """Does a site's work. Models live in the blob store, and as folders only while in use."""

    def __init__(
        self,
        config: NodeConfig,
        trainer: Trainer,
        store: BlobStore,
        transport: ModelTransport,
        key: SigningKey,
        consultant: Consultant,
        watch: Watch,
    ) -> None:
        self._config = config
        self._trainer = trainer
        self._store = store
        self._transport = transport
        self._key = key
        self._consultant = consultant
        self._datasets: tuple[DatasetConfig, ...] = ()
        self._tests: tuple[TestSetConfig, ...] = ()
        self._seen: dict[str, tuple[int, int]] = {}
        """Files as they were when they were last found good."""
        self._watch = watch
        self._scratch = Path(config.state) / "scratch"
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        self._packing = asyncio.Lock()
        self._turns = Turns()
        """At the training engine."""
        self._came_at_s: dict[Digest, float] = {}
        self._brought: dict[Digest, Moved] = {}

    def offer(self, descriptor: NodeDescriptor) -> None:
        """Work on what the node's descriptor says is there: what was left out is worked on by
        nobody."""
        names = {dataset.name for dataset in descriptor.datasets}
        tested = {
            (test.topic, test.test_schema)
            for test in (descriptor.verifier.tests if descriptor.verifier else ())
        }
        self._datasets = tuple(d for d in self._config.datasets if d.name in names)
        self._tests = tuple(t for t in self._config.tests if (t.topic, t.test_schema) in tested)
        read: tuple[DatasetConfig | TestSetConfig, ...] = (*self._datasets, *self._tests)
        self._seen = {each.path: _stamp(each.path) for each in read}

    @property
    def site(self) -> SiteId:
        return self._config.site

    async def perform(self, work: Work) -> WorkResult:
        """Do one piece of work. Raises `DaitnError` telling why it could not be done."""
        self._check_recipe(work.recipe)
        place = self._turns.come()
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            if isinstance(work, VerifyWork):
                return await self._verify(work, place, Path(folder))
            if work.model is None:
                return await self._originate(work, place, Path(folder))
            return await self._visit(work, work.model, place, Path(folder))

    async def bring(self, model: ModelRef) -> None:
        """Fetch a model before there is work on it; that work accounts for it. Raises as
        `ModelTransport.fetch` does."""
        moved = await self._transport.fetch(model, lambda done, total: None)
        self._came_at_s[model.manifest] = time.monotonic()
        if moved.bytes_in:
            self._brought[model.manifest] = moved

    async def needs(self, question: RecipeQuestion) -> WorkNeeds:
        """What a model of this configuration needs. Raises `InvalidInput` for a bad one."""
        self._check_recipe(question.recipe)
        recipe = self._consultant.facts(question.recipe)
        footprint = await self._consultant.estimate(question.recipe, question.config)
        sizes = (footprint.parameters, footprint.memory_bytes, footprint.size_bytes)
        if min(sizes) < 0 or not 0.0 <= footprint.flops_per_example < math.inf:
            raise WorkFailed(
                f"the recipe {question.recipe} estimates what no model needs",
                fix="correct the recipe",
            )
        if max(footprint.memory_bytes, footprint.size_bytes) > MOST_MODEL_BYTES:
            raise InvalidInput(
                f"a model of this configuration takes {footprint.memory_bytes:.3g} bytes",
                field="model.config",
                fix="make it smaller",
            )
        return WorkNeeds(
            data_schema=recipe.data_schema,
            test_schema=recipe.test_schema,
            parameters=footprint.parameters,
            flops_per_example=footprint.flops_per_example,
            memory_bytes=footprint.memory_bytes,
            size_bytes=footprint.size_bytes,
            labels=footprint.labels,
            labels_field=footprint.labels_field,
            learning=footprint.learning,
        )

    async def retain(self, needed: Callable[[], frozenset[Digest]]) -> int:
        """Forget every model but those needed and those that came lately; returns bytes freed.

        Whoever says what is needed may not have heard yet of a model that was just made or
        fetched here.
        """
        async with self._packing:
            now_s = time.monotonic()
            recent = {m for m, at_s in self._came_at_s.items() if now_s - at_s < KEEP_RECENT_S}
            self._came_at_s = {model: self._came_at_s[model] for model in recent}
            return await asyncio.to_thread(self._store.retain, needed() | recent)

    async def _originate(self, work: VisitWork, place: int, folder: Path) -> WorkResult:
        self._dataset(work)
        out = _made(folder / "out")
        async with self._turns.turn(place):
            await self._trainer.initialise(work.recipe, work.config, work.seed, out)
        model, _ = await self._keep(work.recipe, out)
        return self._done(
            Origin(
                job=work.job,
                visit=work.visit,
                site=self.site,
                at_s=clock.now_s(),
                recipe=work.recipe,
                seed=work.seed,
                model=model.manifest,
            ),
            work,
            model,
        )

    async def _visit(
        self, work: VisitWork, model: ModelRef, place: int, folder: Path
    ) -> WorkResult:
        began = time.perf_counter()
        dataset = self._dataset(work)
        await self._look_again(work.recipe, dataset)
        moved = await self._fetch(work, model, _made(folder / "in"))
        out = _made(folder / "out")
        async with self._turns.turn(place):
            with _nameless(dataset.path):
                trained = await self._trainer.train(
                    work.recipe,
                    folder / "in",
                    work.config,
                    Path(dataset.path),
                    work.examples,
                    work.seed,
                    out,
                    lambda progress: self._training(work, progress),
                    selection=dataset.selection,
                )
        result, manifest = await self._keep(work.recipe, out)
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
                loss=trained.loss,
                model_in=model.manifest,
                model_out=result.manifest,
                size_bytes=manifest.size_bytes,
            ),
            work,
            result,
        )

    async def _verify(self, work: VerifyWork, place: int, folder: Path) -> WorkResult:
        test = self._test_set(work)
        await self._look_again(work.recipe, test)
        moved = await self._fetch(work, work.model, _made(folder / "in"))
        async with self._turns.turn(place):
            self._tell(work, "measuring", 0, 0)
            began = time.perf_counter()
            with _nameless(test.path):
                measured = await self._trainer.evaluate(
                    work.recipe,
                    folder / "in",
                    work.config,
                    Path(test.path),
                    work.metric,
                    selection=test.selection,
                )
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
                value=measured.value,
                items=measured.items,
                standard_error=measured.standard_error,
                by_label=measured.by_label,
            ),
            work,
            None,
        )

    async def _fetch(self, work: Work, model: ModelRef, folder: Path) -> Moved:
        self._came_at_s[model.manifest] = time.monotonic()
        self._tell(work, FETCHING, 0, model.size_bytes)
        moved = await self._transport.fetch(
            model, lambda done, total: self._tell(work, FETCHING, done, total)
        )
        if (brought := self._brought.pop(model.manifest, None)) is not None:
            moved = _together(brought, moved)
        try:
            await asyncio.to_thread(
                self._store.unpack, self._store.manifest(model.manifest), folder
            )
        except (Corrupt, NotFound):
            # The disk lost a chunk; the store has dropped it, so a second fetch brings it again.
            shutil.rmtree(folder)
            again = await self._transport.fetch(model, lambda done, total: None)
            await asyncio.to_thread(
                self._store.unpack, self._store.manifest(model.manifest), _made(folder)
            )
            moved = _together(moved, again)
        return moved

    async def _keep(self, recipe: str, folder: Path) -> tuple[ModelRef, Manifest]:
        async with self._packing:
            digest, manifest = await asyncio.to_thread(self._store.pack, recipe, folder)
            self._came_at_s[digest] = time.monotonic()
        ref = ModelRef(manifest=digest, size_bytes=manifest.size_bytes, holders=(self.site,))
        return ref, manifest

    def _done(self, fact: LineageFact, work: Work, model: ModelRef | None) -> WorkResult:
        return WorkResult(entry=sign_entry(fact, work.previous, self._key), model=model)

    def _check_recipe(self, recipe: str) -> None:
        if recipe not in self._consultant.recipes:
            raise NotFound(
                f"{self.site} does not run recipe {recipe}",
                field="model.recipe",
                fix=f"use one of: {', '.join(self._consultant.recipes)}",
            )

    async def _look_again(self, recipe: str, changed: DatasetConfig | TestSetConfig) -> None:
        """Check a file anew that has changed since it was found good.

        What is wrong with it stays in the log: it was not told when the site was described, and
        whoever sends work here is not its owner.
        """
        stamp, path = _stamp(changed.path), Path(changed.path)
        if stamp == self._seen.get(changed.path):
            return
        of_tests = isinstance(changed, TestSetConfig)
        inspect = self._trainer.inspect_test if of_tests else self._trainer.inspect
        try:
            await inspect(recipe, path, changed.selection)
        except (InvalidInput, NotFound) as error:
            log.error("%s has changed and cannot be used: %s", path, error)
            raise InvalidInput(
                f"data of {self.site} has changed since the site described it, and is not usable",
                field="topic" if of_tests else "dataset",
                fix="the site's log says why",
            ) from None
        self._seen[changed.path] = stamp

    def _dataset(self, work: VisitWork) -> DatasetConfig:
        """The data set that the work names, if its owner's policy lets this model in."""
        for dataset in self._datasets:
            if dataset.name == work.dataset:
                check_visit(dataset.policy, dataset.name, work.recipe, work.owner)
                return dataset
        raise NotFound(
            f"{self.site} has no data set {work.dataset}",
            field="dataset",
            fix="see `daitn get datasets`",
        )

    def _test_set(self, work: VerifyWork) -> TestSetConfig:
        schema = self._consultant.facts(work.recipe).test_schema
        for test in self._tests:
            if (test.topic, test.test_schema) == (work.topic, schema):
                return test
        raise NotFound(
            f"{self.site} has no test set on {work.topic}",
            field="topic",
            fix="see `daitn get verifiers`",
        )

    def _training(self, work: Work, progress: TrainingProgress) -> None:
        self._tell(work, "training", progress.examples, progress.of_examples, progress.loss)

    def _tell(
        self, work: Work, phase: str, done: int, total: int, loss: float | None = None
    ) -> None:
        self._watch(
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


@contextlib.contextmanager
def _nameless(path: str) -> Iterator[None]:
    """Where a site keeps a file is nobody's business who sends work to it."""
    try:
        yield
    except DaitnError as error:
        problem, field, fix = (
            text.replace(path, "the data") for text in (error.problem, error.field, error.fix)
        )
        raise type(error)(problem, field=field, fix=fix) from None


def _stamp(path: str) -> tuple[int, int]:
    """Another one after each change; none of a file that is there, where it is not."""
    try:
        status = Path(path).stat()
    except OSError:
        return (-1, -1)
    return (status.st_mtime_ns, status.st_size)


def _together(one: Moved, other: Moved) -> Moved:
    return Moved(
        bytes_in=one.bytes_in + other.bytes_in,
        seconds=one.seconds + other.seconds,
        sources={**one.sources, **other.sources},
    )


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
