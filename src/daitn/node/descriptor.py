"""What a node says of itself, from its file and from a look at its data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from daitn import __version__
from daitn.learning.consultant import Consultant
from daitn.learning.corpora.records import read_pairs
from daitn.learning.installed import installed
from daitn.learning.recipe import DataProfile
from daitn.learning.trainer import Trainer
from daitn.node.config import DatasetConfig, NodeConfig, ReadNodeConfig, TestSetConfig
from daitn.node.entries import left_out
from daitn.objects.access import allows
from daitn.objects.descriptors import (
    ComputeDescriptor,
    DatasetDescriptor,
    LeftOut,
    NodeDescriptor,
    Role,
    TestSetDescriptor,
    TopicSketch,
    VerifierDescriptor,
)
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound, WorkFailed
from daitn.objects.wire import decode, encode
from daitn.topology.topics import sketch

__all__ = ["allowed_recipes", "describe", "described_dataset", "described_test_set"]

T = TypeVar("T")

log = logging.getLogger(__name__)

QUESTIONS = "qa-pairs/1"
"""The schema whose records hold questions."""
MOST_LEFT_OUT = 64
"""As a descriptor has room for."""


def allowed_recipes(config: NodeConfig) -> tuple[str, ...]:
    """Recipes that are installed here and that the node's file lets run.

    Raises `NotFound` where it names recipes and none is installed.
    """
    here = installed()
    allowed = tuple(name for name in config.recipes if name in here)
    if config.recipes and not allowed:
        raise _not_installed(config, 0)
    return allowed or here


def _not_installed(config: NodeConfig, position: int) -> NotFound:
    return NotFound(
        f"recipe {config.recipes[position]} is not installed",
        field=f"recipes[{position}]",
        fix=f"install it, or use one of: {', '.join(installed())}",
    )


async def describe(
    config: NodeConfig,
    consultant: Consultant,
    trainer: Trainer,
    public_key: str,
    started_at_s: float,
) -> NodeDescriptor:
    """Read the data sets, probe the machine and describe both.

    What cannot be read or run is left out, and named with the reason.
    """
    look = _Look(config, consultant, trainer)
    of_sets: Sequence[int] = range(len(config.datasets))
    of_tests: Sequence[int] = range(len(config.tests))
    if isinstance(config, ReadNodeConfig):
        of_sets, of_tests = config.dataset_positions, config.test_positions
    datasets = [
        await look.dataset(dataset, f"datasets[{i}]")
        for i, dataset in zip(of_sets, config.datasets, strict=True)
    ]
    tests = [
        await look.test_set(test, f"tests[{i}]")
        for i, test in zip(of_tests, config.tests, strict=True)
    ]
    offered = tuple(test for test in tests if test is not None)
    compute = await look.compute() if Role.COMPUTE in config.roles else None
    verifier = VerifierDescriptor(tests=offered, recipes=consultant.recipes)
    return NodeDescriptor(
        site=config.site,
        owner=config.owner,
        roles=config.roles,
        jurisdiction=config.jurisdiction,
        public_key=public_key,
        started_at_s=started_at_s,
        version=1,
        software=f"daitn {__version__}",
        datasets=tuple(dataset for dataset in datasets if dataset is not None),
        compute=compute,
        verifier=verifier if offered else None,
        left_out=tuple(look.left_out[:MOST_LEFT_OUT]),
    )


class _Look:
    """A look at what a node's file names. What cannot be used is put into `left_out`."""

    def __init__(self, config: NodeConfig, consultant: Consultant, trainer: Trainer) -> None:
        self._config = config
        self._consultant = consultant
        self._trainer = trainer
        self.left_out: list[LeftOut] = []
        for entry in config.left_out if isinstance(config, ReadNodeConfig) else ():
            log.error("%s %s is left out: %s", entry.field, entry.name, entry.reason)
            self.left_out.append(entry)
        for position, name in enumerate(config.recipes):
            if name not in installed():
                self._leave(f"recipes[{position}]", name, _not_installed(config, position))
        for name, error in consultant.broken.items():
            self._leave("recipes", name, error)

    async def dataset(self, dataset: DatasetConfig, field: str) -> DatasetDescriptor | None:
        try:
            described, profile = await described_dataset(
                self._config, dataset, field, self._consultant, self._trainer
            )
        except Exception as error:
            self._leave(field, dataset.name, error, dataset.path)
            return None
        _remark(field, dataset.name, profile)
        return described

    async def test_set(self, test: TestSetConfig, field: str) -> TestSetDescriptor | None:
        try:
            described, profile = await described_test_set(
                test, field, self._consultant, self._trainer
            )
        except Exception as error:
            self._leave(field, test.topic, error, test.path)
            return None
        _remark(field, test.topic, profile)
        return described

    async def compute(self) -> ComputeDescriptor | None:
        try:
            probe = await self._trainer.probe()
        except DaitnError as error:
            self._leave("roles", Role.COMPUTE, error)
            return None
        return ComputeDescriptor(
            device=probe.device,
            memory_bytes=probe.memory_bytes,
            speed_flops=probe.speed_flops,
            recipes=self._consultant.recipes,
        )

    def _leave(self, field: str, name: str, error: Exception, path: str = "") -> None:
        """Leave something out. The log has the whole story, which may be private."""
        if isinstance(error, DaitnError):
            log.error("%s %s is left out: %s", field, name, error)
        else:
            log.exception("%s %s is left out", field, name, exc_info=error)
            error = WorkFailed(f"it cannot be described: {type(error).__name__}")
        self.left_out.append(left_out(field, name, error, path))


async def described_dataset(
    config: NodeConfig,
    dataset: DatasetConfig,
    field: str,
    consultant: Consultant,
    trainer: Trainer,
) -> tuple[DatasetDescriptor, DataProfile]:
    """What is published of a data set, and what its owner may know beyond that.

    Raises what a recipe raises that reads it.
    """
    path = Path(dataset.path)
    readers = _readers(consultant, "data_schema", dataset.data_schema, field)
    # Those that its owner lets run on it, before others.
    readers.sort(key=lambda recipe: not allows(dataset.policy.recipes, recipe))
    _, profile = await _first(readers, lambda r: trainer.inspect(r, path, dataset.selection))
    described = _fitting(
        DatasetDescriptor(
            name=dataset.name,
            site=config.site,
            data_schema=dataset.data_schema,
            modality=dataset.modality,
            topics=dataset.topics,
            samples=profile.samples,
            labels=profile.labels,
            quality=profile.quality,
            fresh_at_s=_changed_at_s(path),
            price_usd_per_1k=dataset.price_usd_per_1k,
            jurisdiction=config.jurisdiction,
            licence=dataset.licence,
            description=dataset.description,
            policy=dataset.policy,
            sketch=await asyncio.to_thread(_sketched, dataset),
        )
    )
    return described, profile


def _sketched(dataset: DatasetConfig) -> TopicSketch | None:
    """How the questions are worded, where the owner lets that be known and there are questions."""
    if not dataset.sketch or dataset.data_schema != QUESTIONS:
        return None
    return sketch(pair.question for pair in read_pairs(Path(dataset.path)))


async def described_test_set(
    test: TestSetConfig, field: str, consultant: Consultant, trainer: Trainer
) -> tuple[TestSetDescriptor, DataProfile]:
    """Of a test set, as `described_dataset`."""
    readers = _readers(consultant, "test_schema", test.test_schema, field)
    path = Path(test.path)
    recipe, profile = await _first(readers, lambda r: trainer.inspect_test(r, path, test.selection))
    described = _fitting(
        TestSetDescriptor(
            topic=test.topic,
            test_schema=test.test_schema,
            metrics=consultant.facts(recipe).metrics,
            items=profile.samples,
            chance=test.chance,
            labels=profile.labels,
        )
    )
    return described, profile


def _changed_at_s(path: Path) -> float:
    return path.stat().st_mtime


def _remark(field: str, name: str, profile: DataProfile) -> None:
    for remark in profile.remarks:
        log.warning("%s %s: %s", field, name, remark)


def _fitting(described: T) -> T:
    """What is described, where others can read it: they leave out a node of which they cannot read
    one word. Raises `InvalidInput`."""
    try:
        return decode(encode(described), type(described))
    except Corrupt as error:
        _, _, problem = error.problem.partition(": ")
        raise InvalidInput(
            f"others could not read its description: {problem}", fix="shorten labels and topics"
        ) from None


def _readers(consultant: Consultant, kind: str, schema: str, field: str) -> list[str]:
    """Recipes that read `schema`."""
    schemas = {name: getattr(consultant.facts(name), kind) for name in consultant.recipes}
    readers = [name for name, reads in schemas.items() if reads == schema]
    if readers:
        return readers
    raise InvalidInput(
        f"no installed recipe reads {schema}",
        field=f"{field}.{kind}",
        fix=f"use one of: {', '.join(sorted(set(schemas.values())))}; or install a recipe for it",
    )


async def _first(
    readers: list[str], inspect: Callable[[str], Awaitable[DataProfile]]
) -> tuple[str, DataProfile]:
    """What the first recipe says that can read a file; what the first of all raises, where none
    can: one recipe that fails is no reason to leave a file out."""
    errors: list[DaitnError] = []
    for recipe in readers:
        try:
            return recipe, await inspect(recipe)
        except DaitnError as error:
            errors.append(error)
    raise errors[0]
