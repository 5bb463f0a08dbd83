"""Carries out commands: the side of a child process that runs recipes."""

from __future__ import annotations

import errno
import importlib
import queue
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from daitn.learning import registry
from daitn.learning.answering.protocol import Answering
from daitn.learning.child.frames import Ready
from daitn.learning.child.inside import error_report, send
from daitn.learning.commands import (
    Advanced,
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
    Kept,
    MergeModels,
    ProbeSpeed,
    RebuildWeights,
    Reply,
    Task,
    Train,
    WorkerFailed,
    WorkerFinished,
)
from daitn.learning.recipe import (
    Adapting,
    DataFault,
    DpSgd,
    Exporting,
    Importing,
    Merging,
    Private,
    Progress,
    Recipe,
    RecipeFacts,
    Resuming,
    Selecting,
    StatingAbilities,
    StatingAlgorithms,
    check_no_columns,
)
from daitn.learning.sandbox.limits import exceeded
from daitn.learning.sandbox.policy import UNLIMITED, Limits
from daitn.learning.saving import FileSavepoints
from daitn.objects.abilities import Abilities
from daitn.objects.errors import DaitnError, InvalidInput
from daitn.objects.merging import LOCAL_RULES, MERGE_RULES, Algorithm, LocalRule
from daitn.objects.wire import encode

__all__ = ["Service"]


class Service:
    """Carries out commands, in an expendable process."""

    def __init__(
        self,
        replies: BinaryIO,
        limits: Limits = UNLIMITED,
        recipes: Mapping[str, Recipe] = MappingProxyType({}),
    ) -> None:
        """`recipes`: the loaded ones."""
        self._replies = replies
        self._limits = limits
        self._recipes = dict(recipes)

    def run(self, inbox: queue.SimpleQueue[bytes]) -> None:
        """Carry out one after the other."""
        self._send(Ready())
        decoder = msgspec.msgpack.Decoder(Task)
        while True:
            self._send(self.answer(decoder.decode(inbox.get()).command))

    def _send(self, reply: Reply) -> None:
        send(self._replies, reply)

    def answer(self, command: Command) -> Reply:
        try:
            return WorkerFinished(result=msgspec.Raw(encode(self._perform(command))))
        except DataFault as error:
            return WorkerFailed(error=error_report(error), fault=error.fault, counts=error.counts)
        except DaitnError as error:
            return WorkerFailed(error=error_report(error))
        except Exception as error:
            if limit := _limit(error, self._limits):
                report = error_report(exceeded(self._limits, limit))
                return WorkerFailed(error=report, by_recipe=False)
            return WorkerFailed(error=error_report(error), traceback=traceback.format_exc())

    def _perform(self, command: Command) -> object:
        if isinstance(command, ProbeSpeed):
            return importlib.import_module("daitn.learning.machine_probe").probe()
        if isinstance(command, CompressUpdate | RebuildWeights):
            _compression(command)
            return None
        recipe = self._recipe(command.recipe)
        match command:
            case Describe():
                return _facts(recipe)
            case EstimateFootprint():
                return recipe.estimate(command.config)
            case Inspect():
                return _bound(recipe, command).inspect(Path(command.data))
            case InspectTest():
                return _bound(recipe, command).inspect_test(Path(command.test))
            case Initialise():
                recipe.initialise(command.config, command.seed, Path(command.out))
                return None
            case ImportModel():
                return _import(recipe, command)
            case ExportModel():
                return _export(recipe, command)
            case Train():
                return _train(self._made_ready(recipe, command), command, self._advance)
            case MergeModels():
                return _merge(recipe, command)
            case Evaluate():
                return _bound(recipe, command).evaluate(
                    Path(command.model), command.config, Path(command.test), command.metric
                )

    def _recipe(self, name: str) -> Recipe:
        if name not in self._recipes:
            self._recipes[name] = registry.load(name)
        return self._recipes[name]

    def _made_ready(self, recipe: Recipe, command: Train) -> Recipe:
        """The recipe, bound to the owner's terms, to the algorithm's requirements, to privacy and,
        if it can resume, to the visit's savepoints.

        Raises `InvalidInput` as `_bound` and `_adapted`, and if it cannot train privately.
        """
        bound = _adapted(_bound(recipe, command), command)
        if command.privacy is not None:
            bound = _private(bound, command.privacy)
        if command.saving is None or not isinstance(bound, Resuming):
            return bound
        return bound.resuming(FileSavepoints(command.saving, self._keep))

    def _advance(self, progress: Progress) -> None:
        self._send(Advanced(progress=progress))

    def _keep(self, number: int) -> None:
        self._send(Kept(number=number))


def _limit(error: Exception, limits: Limits) -> str:
    """The limit that an error shows to be exhausted, by its field of `Limits`; empty for other
    errors."""
    if limits.memory_bytes and (
        isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
    ):
        return "memory_bytes"
    if limits.file_bytes and isinstance(error, OSError) and error.errno == errno.EFBIG:
        return "file_bytes"
    return ""


def _facts(recipe: Recipe) -> RecipeFacts:
    return RecipeFacts(
        data_schema=recipe.data_schema,
        test_schema=recipe.test_schema,
        metrics=recipe.metrics,
        apis=recipe.apis if isinstance(recipe, Answering) else (),
        abilities=recipe.abilities if isinstance(recipe, StatingAbilities) else Abilities(),
        merges=isinstance(recipe, Merging),
        algorithms=tuple(algorithm for algorithm in Algorithm if _trains_by(recipe, algorithm)),
    )


def _trains_by(recipe: Recipe, algorithm: Algorithm) -> bool:
    if algorithm in MERGE_RULES and not isinstance(recipe, Merging):
        return False
    if not LOCAL_RULES.get(algorithm, LocalRule()).plain and not isinstance(recipe, Adapting):
        return False
    return not isinstance(recipe, StatingAlgorithms) or recipe.trains_by(algorithm)


def _bound(recipe: Recipe, command: Inspect | InspectTest | Train | Evaluate) -> Recipe:
    """The recipe, bound to the data owner's terms. Raises `InvalidInput` if it cannot be."""
    if isinstance(recipe, Selecting):
        return recipe.selecting(command.selection)
    check_no_columns(command.recipe, command.selection)
    return recipe


def _adapted(recipe: Recipe, command: Train) -> Recipe:
    """Raises `InvalidInput` for a recipe that does not support the algorithm."""
    if isinstance(recipe, Adapting):
        return recipe.adapting(command.local)
    if not command.local.rule.plain:
        raise InvalidInput(
            f"the recipe {command.recipe} does not support this algorithm",
            field="training.algorithm",
            fix="use the algorithm sequential or fedavg",
        )
    return recipe


def _private(recipe: Recipe, terms: DpSgd) -> Recipe:
    if not isinstance(recipe, Private):
        raise InvalidInput(
            f"the recipe {recipe.name} does not train with differential privacy",
            field="model.recipe",
            fix="use one that does, such as classifier or causal-lm",
        )
    return recipe.privately(terms)


def _import(recipe: Recipe, command: ImportModel) -> object:
    if not isinstance(recipe, Importing):
        raise InvalidInput(
            f"the recipe {command.recipe} does not import models",
            field="--recipe",
            fix="name a recipe that does, such as causal-lm",
        )
    return recipe.import_model(Path(command.folder), Path(command.out))


def _export(recipe: Recipe, command: ExportModel) -> object:
    if not isinstance(recipe, Exporting):
        raise InvalidInput(
            f"the recipe {command.recipe} exports its models only as parts",
            field="--format",
            fix="leave out --format",
        )
    return recipe.export_model(Path(command.model), command.config, command.form, Path(command.out))


def _compression(command: CompressUpdate | RebuildWeights) -> None:
    from daitn.learning.compression import compress, rebuild

    base = Path(command.base)
    if isinstance(command, RebuildWeights):
        rebuild(base, command.of, Path(command.update), Path(command.out))
        return
    before = Path(command.before) if command.before else None
    compress(base, command.of, Path(command.trained), command.how, before, Path(command.left))


def _merge(recipe: Recipe, command: MergeModels) -> object:
    if not isinstance(recipe, Merging):
        raise InvalidInput(
            f"the recipe {command.recipe} does not merge models",
            field="training.algorithm",
            fix="use the algorithm sequential",
        )
    return recipe.merge(command.task, command.config, Path(command.out), Path(command.moments))


def _train(recipe: Recipe, command: Train, watch: Callable[[Progress], None]) -> object:
    return recipe.train(
        Path(command.model),
        command.config,
        Path(command.data),
        command.examples,
        command.seed,
        Path(command.out),
        watch,
    )
