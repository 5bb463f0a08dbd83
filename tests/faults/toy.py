"""A recipe whose models are lists of what they learned, and the process that runs it in virtual
time: so it can be told from a model which visits made it, and each of them how often.

The worker is what takes time. It fails as real ones do: it dies, a recipe raises what quotes a
record, a visit goes on from its savepoint.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from safetensors.numpy import load_file

from daitn.learning.answering.hosted_model import AnsweringProcess
from daitn.learning.answering.protocol import Generator
from daitn.learning.child.outside import ProcessFailed
from daitn.learning.commands import (
    Evaluate,
    MergeModels,
    Probed,
    ProbeSpeed,
    Task,
    Train,
    WorkerFailed,
    WorkerFinished,
)
from daitn.learning.process import _raised
from daitn.learning.recipe import (
    Config,
    DataProfile,
    DpSgd,
    Footprint,
    LocalTask,
    Measured,
    MergeTask,
    Progress,
    Recipe,
    Savepoints,
    Trained,
)
from daitn.learning.saving import FileSavepoints
from daitn.learning.service import Service
from daitn.objects.deployments import Api
from daitn.objects.errors import InvalidInput
from daitn.objects.merging import OuterStep
from daitn.objects.wire import decode, encode
from tests.faults.answering import VirtualAnswerer
from tests.faults.examining import Examined
from tests.faults.summing import SUMMED, Sums, is_summed
from tests.faults.virtual import MACHINE

__all__ = ["RECORDS", "SECRET", "Laboratory", "Learned", "Toy", "accuracy", "learned"]

SECRET = b"patient-4711-record"
"""Is in every record of every site, and must not be in anything that leaves one."""
RECORDS = 2000
"""Of each site."""
SPEED_FLOPS = 1e9
_FLOPS = 4e6
"""Of an example: a site reads 250 a second."""
_PART = "learned.json"
_RIPE = 3000.0
"""Examples of one site after which little is left to learn there."""

Learned = Counter[tuple[str, int, int]]
"""How often a model learned what: site, the seed of the visit, examples."""


def learned(model: Path) -> Learned:
    """What a model in a folder learned."""
    return _read((model / _PART).read_bytes())


def _read(data: bytes) -> Learned:
    return Counter({tuple(what): times for what, times in json.loads(data)})


def _written(known: Learned) -> str:
    return json.dumps(sorted(known.items()))


def accuracy(known: Learned, sites: int) -> float:
    """What a model that learned this gets right."""
    examples: Counter[str] = Counter()
    for (site, _, count), times in known.items():
        examples[site] += count * times
    gains = sum(1.0 - math.exp(-count / _RIPE) for count in examples.values())
    return 0.5 + 0.48 * gains / sites


class Toy:
    """See the module."""

    name = "toy"
    data_schema = "toy/1"
    test_schema = "multiple-choice/1"
    metrics: tuple[str, ...] = ("accuracy",)
    apis: tuple[Api, ...] = (Api.CHAT,)

    def __init__(self, sites: int, sums: Sums) -> None:
        self._sites = sites
        self._sums = sums

    def estimate(self, config: Config) -> Footprint:
        return Footprint(
            parameters=10, flops_per_example=_FLOPS, memory_bytes=1000, size_bytes=1000,
            private=True, merges_fresh=True,
        )  # fmt: skip

    def inspect(self, data: Path) -> DataProfile:
        return DataProfile(samples=RECORDS, labels={}, quality=1.0)

    def inspect_test(self, test: Path) -> DataProfile:
        return DataProfile(samples=1000, labels={}, quality=1.0)

    def initialise(self, config: Config, seed: int, out: Path) -> None:
        if config.get("summed"):
            self._sums.fresh(out)
        else:
            (out / _PART).write_text(_written(Counter()))

    def evaluate(self, model: Path, config: Config, test: Path, metric: str) -> Measured:
        value = accuracy(self._known(model), self._sites)
        return Measured(metric=metric, value=value, items=1000, standard_error=0.01)

    def train(
        self,
        model: Path,
        config: Config,
        data: Path,
        examples: int,
        seed: int,
        out: Path,
        watch: Callable[[Progress], None],
    ) -> Trained:
        visit = data.parent.name, seed, examples
        if is_summed(model):
            self._sums.train(model, visit, out)
        else:
            known = learned(model)
            known[visit] += 1
            (out / _PART).write_text(_written(known))
        return Trained(examples=examples, seconds=examples * _FLOPS / SPEED_FLOPS)

    def merge(self, task: MergeTask, config: Config, out: Path, moments: Path) -> tuple[str, ...]:
        base = self._known(Path(task.base))
        if is_summed(Path(task.base)):
            self._sums.merge(map(Path, task.models), out)
        else:
            whole = Counter(base)
            for model in task.models:
                whole |= learned(Path(model))
            if task.moments and _read(Path(task.moments).read_bytes()) != base:
                whole["another model's moments", 0, 0] += 1
            (out / _PART).write_text(_written(whole))
        if task.rule.outer is not OuterStep.PLAIN:
            moments.write_text(_written(self._known(out)))
        return ()

    def _known(self, model: Path) -> Learned:
        if is_summed(model):
            return self._sums.visited(load_file(model / SUMMED)["numbers"])
        return learned(model)

    def open(self, model: Path, config: Config) -> Generator:
        raise AssertionError("another process answers: VirtualAnswerer")

    def resuming(self, savepoints: Savepoints) -> Recipe:
        return self

    def adapting(self, task: LocalTask) -> Recipe:
        return self

    def privately(self, terms: DpSgd) -> Recipe:
        return self


@dataclass
class Laboratory:
    """What all workers of a run do, and what nobody but the run knows of it."""

    sites: int
    rng: random.Random
    dies: float = 0.0
    """Chance that a worker dies at a step of training."""
    quotes: float = 0.0
    """Chance that a recipe fails with the words of a record."""
    praises: dict[str, float] = field(default_factory=dict)
    """Verifiers that lie: what each adds to all that it measures."""
    draws: dict[str, set[bytes]] = field(default_factory=dict)
    """By site, of the private trainings that read records: the secret of each."""
    sums: Sums = field(default_factory=Sums)
    examined: Examined = field(init=False)

    def __post_init__(self) -> None:
        self.examined = Examined(self.rng)

    def start_worker(self) -> Any:
        """In place of `ChildProcess.start`."""

        async def start(
            cls: type, /, threads: int, mechanisms: Iterable[Any] = (), **_: Any
        ) -> Any:
            return VirtualAnswerer(self) if cls is AnsweringProcess else VirtualWorker(self)

        return classmethod(start)


class VirtualWorker:
    """A `WorkerProcess` whose time is the run's."""

    pid = 0
    scratch = ""

    def __init__(self, laboratory: Laboratory) -> None:
        self.alive = True
        self._laboratory = laboratory
        self._service = Service(
            io.BytesIO(), recipes={"toy": Toy(laboratory.sites, laboratory.sums)}
        )

    async def kill(self) -> None:
        self.alive = False

    async def ask(
        self,
        task: Task,
        watch: Callable[[Progress], None],
        *,
        stall_s: float,
        kept: Callable[[int], None] = lambda _: None,
    ) -> msgspec.Raw:
        try:
            return await self._asked(task, watch, kept)
        except BaseException as error:
            if isinstance(error, ProcessFailed | asyncio.CancelledError):
                self.alive = False
            raise

    async def _asked(
        self, task: Task, watch: Callable[[Progress], None], kept: Callable[[int], None]
    ) -> msgspec.Raw:
        command = task.command
        if isinstance(command, ProbeSpeed):
            probed = Probed(device="none", memory_bytes=2**33, speed_flops=SPEED_FLOPS)
            return msgspec.Raw(encode(probed))
        if isinstance(command, Train):
            await self._train(command, watch, kept)
        elif isinstance(command, Evaluate | MergeModels):
            await asyncio.sleep(0.5)
        reply = self._service.answer(command)
        if isinstance(reply, WorkerFailed):
            raise _raised(reply)
        assert isinstance(reply, WorkerFinished)
        return self._praised(reply.result) if isinstance(command, Evaluate) else reply.result

    def _praised(self, measured: msgspec.Raw) -> msgspec.Raw:
        """What its machine says that it measured."""
        machine = MACHINE.get()
        assert machine is not None
        told = decode(bytes(measured), Measured)
        value = min(1.0, told.value + self._laboratory.praises.get(machine.name, 0.0))
        return msgspec.Raw(encode(msgspec.structs.replace(told, value=value)))

    async def _train(
        self, command: Train, watch: Callable[[Progress], None], kept: Callable[[int], None]
    ) -> None:
        """Take the time of training, and do what may go wrong in it."""
        lab, machine = self._laboratory, MACHINE.get()
        assert machine is not None
        examples = command.privacy.examples if command.privacy else command.examples
        saves = FileSavepoints(command.saving, kept) if command.saving else None
        state = saves.latest() if saves else None
        done = int(state) if state else 0
        if command.privacy is not None:
            lab.draws.setdefault(machine.name, set()).add(command.privacy.secret)
        while done < examples:
            step = min(examples - done, max(100, examples // 8))
            await asyncio.sleep(step * _FLOPS / SPEED_FLOPS)
            done += step
            chance = lab.rng.random()
            if chance < lab.dies:
                raise ProcessFailed("the training worker was killed by the kernel")
            if chance < lab.dies + lab.quotes:
                raise InvalidInput(f"line 7: {SECRET.decode()} is odd", field="data")
            watch(Progress(examples=done, of_examples=examples, loss=1.0, sensitivity=0.01))
            if saves is not None and saves.due():
                saves.keep(str(done).encode())
