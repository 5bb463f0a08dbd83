"""Training for the node's event loop: one warm worker process, one command at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import TypeVar

import msgspec

from daitn.learning.child.outside import ProcessFailed
from daitn.learning.commands import (
    Command,
    CompressUpdate,
    Describe,
    EstimateFootprint,
    Evaluate,
    ExportModel,
    ImportModel,
    Initialise,
    Inspect,
    InspectTest,
    MergeModels,
    Probed,
    ProbeSpeed,
    RebuildWeights,
    Task,
    Train,
)
from daitn.learning.process import WorkerProcess
from daitn.learning.pulse import STALL_S
from daitn.learning.recipe import (
    Config,
    DataProfile,
    DpSgd,
    Exported,
    Footprint,
    Form,
    Imported,
    LocalTask,
    Measured,
    MergeTask,
    Progress,
    RecipeFacts,
    Selection,
    Trained,
)
from daitn.learning.sandbox.policy import UNCONFINED, Limits, Sandbox
from daitn.learning.sandbox.probe import fences
from daitn.learning.saving import Saving
from daitn.objects.compression import Compression
from daitn.objects.errors import Corrupt, WorkFailed
from daitn.objects.identifiers import Digest
from daitn.objects.wire import decode

__all__ = ["Trainer"]

T = TypeVar("T")
_ALL = Selection()
_NOTHING_MORE = LocalTask()


class Trainer:
    """Runs recipes in a child process that the node can lose without harm.

    Calls queue and run in order. Cancelling the task that awaits a call kills the worker at once,
    with the work; the next call starts a new one, as it does after a crash. Every method raises
    what the recipe raises, and `WorkFailed` if the recipe or its process failed.
    """

    def __init__(
        self,
        *,
        threads: int,
        stall_s: float = STALL_S,
        within_s: float | None = None,
        process: type[WorkerProcess] = WorkerProcess,
        sandbox: Sandbox = UNCONFINED,
    ) -> None:
        """Train on `threads` processors; the same number gives the same model. A call fails if it
        shows no sign of life for `stall_s`, or takes longer than `within_s`. Recipes run in
        `sandbox`."""
        self._sandbox = sandbox
        self._threads = threads
        self._within_s = within_s
        self._process = process
        self._stall_s = stall_s
        self._turn = asyncio.Lock()
        self._worker: WorkerProcess | None = None
        self._waiting = 0
        self._closed = False

    @property
    def waiting(self) -> int:
        """Number of calls that wait for their turn, without the running one."""
        return self._waiting

    @property
    def pid(self) -> int:
        """Process id of the worker; 0 while there is none."""
        return 0 if self._worker is None or not self._worker.alive else self._worker.pid

    @property
    def scratch(self) -> str:
        """Folder of the worker's temporary files; empty while there is none."""
        return "" if self._worker is None else self._worker.scratch

    async def start(self) -> None:
        """Start the worker, so that the first call does not wait for PyTorch to be imported."""
        async with self._turn:
            await self._ready_worker()

    async def close(self) -> None:
        """Kill the worker. The running call and later ones fail."""
        self._closed = True
        if self._worker is not None:
            await self._worker.kill()
        async with self._turn:
            pass

    async def probe(self) -> Probed:
        """Measure this site's training engine; takes about 0.3 s."""
        return await self._call(ProbeSpeed(), Probed)

    async def facts(self, recipe: str) -> RecipeFacts:
        return await self._call(Describe(recipe=recipe), RecipeFacts)

    async def estimate(self, recipe: str, config: Config) -> Footprint:
        return await self._call(EstimateFootprint(recipe=recipe, config=dict(config)), Footprint)

    async def inspect(self, recipe: str, data: Path, selection: Selection = _ALL) -> DataProfile:
        command = Inspect(recipe=recipe, data=str(data), selection=selection)
        return await self._call(command, DataProfile)

    async def inspect_test(
        self, recipe: str, test: Path, selection: Selection = _ALL
    ) -> DataProfile:
        command = InspectTest(recipe=recipe, test=str(test), selection=selection)
        return await self._call(command, DataProfile)

    async def initialise(
        self, recipe: str, config: Config, seed: int, out: Path, *, limits: Limits | None = None
    ) -> None:
        command = Initialise(recipe=recipe, config=dict(config), seed=seed, out=str(out))
        await self._call(command, NoneType, limits=limits)

    async def import_model(
        self, recipe: str, folder: Path, out: Path, *, limits: Limits | None = None
    ) -> Imported:
        command = ImportModel(recipe=recipe, folder=str(folder), out=str(out))
        return await self._call(command, Imported, limits=limits)

    async def export_model(
        self,
        recipe: str,
        model: Path,
        config: Config,
        form: Form,
        out: Path,
        *,
        limits: Limits | None = None,
    ) -> Exported:
        command = ExportModel(
            recipe=recipe, model=str(model), config=dict(config), form=form, out=str(out)
        )
        return await self._call(command, Exported, limits=limits)

    async def train(
        self,
        recipe: str,
        model: Path,
        config: Config,
        data: Path,
        examples: int,
        seed: int,
        out: Path,
        watch: Callable[[Progress], None],
        selection: Selection = _ALL,
        *,
        limits: Limits | None = None,
        local: LocalTask = _NOTHING_MORE,
        saving: Saving | None = None,
        kept: Callable[[int], None] = lambda _: None,
        privacy: DpSgd | None = None,
    ) -> Trained:
        """Train, calling `watch` on the event loop as training advances. `limits`: its limits, if
        not the usual ones. `local`: the algorithm's requirements. `saving`: the savepoints of a
        recipe that can resume; `kept` is called with the number of each, after `watch` was called
        with its progress. `privacy`: how to train with differential privacy."""
        command = Train(
            recipe=recipe,
            model=str(model),
            config=dict(config),
            data=str(data),
            examples=examples,
            seed=seed,
            out=str(out),
            selection=selection,
            saving=saving,
            local=local,
            privacy=privacy,
        )
        return await self._call(command, Trained, watch, limits, kept)

    async def merge(
        self,
        recipe: str,
        config: Config,
        task: MergeTask,
        out: Path,
        moments: Path,
        *,
        limits: Limits | None = None,
    ) -> tuple[str, ...]:
        command = MergeModels(
            recipe=recipe, config=dict(config), task=task, out=str(out), moments=str(moments)
        )
        return await self._call(command, tuple[str, ...], limits=limits)

    async def compress(
        self,
        base: Path,
        of: Digest,
        trained: Path,
        how: Compression,
        before: Path | None,
        left: Path,
        *,
        limits: Limits | None = None,
    ) -> None:
        command = CompressUpdate(
            base=str(base),
            of=of,
            trained=str(trained),
            how=how,
            before=str(before or ""),
            left=str(left),
        )
        await self._call(command, NoneType, limits=limits)

    async def rebuild(
        self, base: Path, of: Digest, update: Path, out: Path, *, limits: Limits | None = None
    ) -> None:
        command = RebuildWeights(base=str(base), of=of, update=str(update), out=str(out))
        await self._call(command, NoneType, limits=limits)

    async def evaluate(
        self,
        recipe: str,
        model: Path,
        config: Config,
        test: Path,
        metric: str,
        selection: Selection = _ALL,
        *,
        limits: Limits | None = None,
    ) -> Measured:
        command = Evaluate(
            recipe=recipe,
            model=str(model),
            config=dict(config),
            test=str(test),
            metric=metric,
            selection=selection,
        )
        return await self._call(command, Measured, limits=limits)

    async def _call(
        self,
        command: Command,
        kind: type[T],
        watch: Callable[[Progress], None] = lambda _: None,
        limits: Limits | None = None,
        kept: Callable[[int], None] = lambda _: None,
    ) -> T:
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            worker = await self._ready_worker()
            task = Task(command=command, limits=limits or self._sandbox.limits)
            async with asyncio.timeout(self._within_s):
                result = await worker.ask(task, watch, stall_s=self._stall_s, kept=kept)
        except TimeoutError:
            raise ProcessFailed(
                f"the recipe did not finish within {self._within_s:g} s",
                fix="correct the recipe: it must describe itself and its needs at once",
            ) from None
        finally:
            self._turn.release()
        return _decoded(result, kind)

    async def _ready_worker(self) -> WorkerProcess:
        self._refuse_if_closed()
        if self._worker is None or not self._worker.alive:
            self._worker = None
            worker = await self._process.start(
                self._threads,
                await fences(self._sandbox),
                limits=Limits(memory_bytes=self._sandbox.limits.memory_bytes),
                folder=self._sandbox.folder,
            )
            if self._closed:
                await worker.kill()
            self._refuse_if_closed()
            self._worker = worker
        return self._worker

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ProcessFailed("this node has stopped training", fix="try again when it is back")


def _decoded(result: msgspec.Raw, kind: type[T]) -> T:
    try:
        return decode(bytes(result), kind)
    except Corrupt as error:
        raise WorkFailed(
            f"a recipe returned no {kind.__name__}: {error.problem}",
            fix="correct the recipe, or install a version made for this version of daitn",
        ) from error
