"""Builds a node's descriptor from its file and an inspection of its data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from daitn import __version__
from daitn.learning.consultant import Consultant
from daitn.learning.corpora.records import read_pairs
from daitn.learning.installed import installed
from daitn.learning.recipe import DataProfile
from daitn.learning.sandbox.probe import available
from daitn.learning.trainer import Trainer
from daitn.node.config import (
    DatasetConfig,
    NodeConfig,
    PolicyConfig,
    ReadNodeConfig,
    TestSetConfig,
)
from daitn.node.disclosure import in_steps, whole
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

__all__ = [
    "allowed_recipes",
    "describe",
    "described_dataset",
    "described_test_set",
    "stated_anew",
]

T = TypeVar("T")

log = logging.getLogger(__name__)

QUESTIONS = "qa-pairs/1"
"""The schema of records that contain questions."""
MOST_LEFT_OUT = 64
"""The descriptor's limit."""


def allowed_recipes(config: NodeConfig) -> tuple[str, ...]:
    """Installed recipes that the node's file allows.

    Raises `NotFound` if the file names recipes and none of them is installed.
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
    """Inspect the data sets, probe the machine and describe both.

    The descriptor names what cannot be read or run, with the reason, and leaves it out.
    """
    inspection = _Inspection(config, consultant, trainer)
    dataset_positions: Sequence[int] = range(len(config.datasets))
    test_positions: Sequence[int] = range(len(config.tests))
    if isinstance(config, ReadNodeConfig):
        dataset_positions, test_positions = config.dataset_positions, config.test_positions
    datasets = [
        await inspection.dataset(dataset, f"datasets[{i}]")
        for i, dataset in zip(dataset_positions, config.datasets, strict=True)
    ]
    tests = [
        await inspection.test_set(test, f"tests[{i}]")
        for i, test in zip(test_positions, config.tests, strict=True)
    ]
    offered = tuple(test for test in tests if test is not None)
    compute = await inspection.compute() if Role.COMPUTE in config.roles else None
    verifier = VerifierDescriptor(
        tests=offered,
        recipes=consultant.recipes,
        price_usd_per_hour=0.0 if compute else config.compute.price_usd_per_hour,
    )
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
        left_out=tuple(inspection.left_out[:MOST_LEFT_OUT]),
    )


def stated_anew(node: NodeDescriptor, config: NodeConfig) -> NodeDescriptor:
    """The descriptor with the settings that a running node takes over from its file; see
    `config.live`."""
    data = {each.name: each for each in config.datasets}
    datasets = tuple(
        msgspec.structs.replace(
            described,
            policy=data[described.name].terms.published,
            price_usd_per_1k=data[described.name].price_usd_per_1k,
            licence=data[described.name].licence,
            description=data[described.name].description,
        )
        for described in node.datasets
    )
    verifier = node.verifier
    if verifier is not None:
        tests = {(each.topic, each.test_schema): each for each in config.tests}
        offered = tuple(
            msgspec.structs.replace(t, policy=tests[t.topic, t.test_schema].terms.published)
            for t in verifier.tests
        )
        verifier = msgspec.structs.replace(verifier, tests=offered)
    compute, price = node.compute, config.compute.price_usd_per_hour
    if compute is None and verifier is not None:
        verifier = msgspec.structs.replace(verifier, price_usd_per_hour=price)
    if compute is not None:
        compute = msgspec.structs.replace(compute, price_usd_per_hour=price)
    return msgspec.structs.replace(node, datasets=datasets, compute=compute, verifier=verifier)


class _Inspection:
    """Inspects the data sets and test sets of a node's file; collects unusable ones in
    `left_out`."""

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
                self._leave_out(f"recipes[{position}]", name, _not_installed(config, position))
        for name, error in consultant.broken.items():
            self._leave_out("recipes", name, error)

    async def dataset(self, dataset: DatasetConfig, field: str) -> DatasetDescriptor | None:
        try:
            described, profile = await described_dataset(
                self._config, dataset, field, self._consultant, self._trainer
            )
        except Exception as error:
            self._leave_out(field, dataset.name, error, dataset.path)
            return None
        _log_remarks(field, dataset.name, profile)
        return described

    async def test_set(self, test: TestSetConfig, field: str) -> TestSetDescriptor | None:
        try:
            described, profile = await described_test_set(
                test, field, self._consultant, self._trainer
            )
        except Exception as error:
            self._leave_out(field, test.topic, error, test.path)
            return None
        _log_remarks(field, test.topic, profile)
        return described

    async def compute(self) -> ComputeDescriptor | None:
        try:
            probe = await self._trainer.probe()
        except DaitnError as error:
            self._leave_out("roles", Role.COMPUTE, error)
            return None
        return ComputeDescriptor(
            device=probe.device,
            memory_bytes=probe.memory_bytes,
            speed_flops=probe.speed_flops,
            recipes=self._consultant.recipes,
            price_usd_per_hour=self._config.compute.price_usd_per_hour,
        )

    def _leave_out(self, field: str, name: str, error: Exception, path: str = "") -> None:
        """Leave an entry out. Only the log has the full error, which may be private."""
        if isinstance(error, DaitnError):
            log.error("%s %s is left out: %s", field, name, whole(error))
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
    """A data set's public descriptor, and the profile that only its owner sees.

    Raises whatever the recipe raises that reads it.
    """
    path = Path(dataset.path)
    await _check_sandbox(dataset.terms)
    readers = _readers(consultant, "data_schema", dataset.data_schema, field)
    # Recipes that the owner admits come first.
    readers.sort(key=lambda recipe: not allows(dataset.terms.recipes, recipe))
    gate = dataset.disclosure
    with gate.failures():
        _, profile = await _first(readers, lambda r: trainer.inspect(r, path, dataset.selection))
    gate.check_profile(profile)
    described = _decodable(
        DatasetDescriptor(
            name=dataset.name,
            site=config.site,
            data_schema=dataset.data_schema,
            modality=dataset.modality,
            topics=dataset.topics,
            samples=in_steps(profile.samples),
            labels=gate.labels(profile.labels, profile.different),
            quality=gate.quality(profile),
            fresh_at_s=_changed_at_s(path),
            price_usd_per_1k=dataset.price_usd_per_1k,
            jurisdiction=config.jurisdiction,
            licence=dataset.licence,
            description=dataset.description,
            policy=dataset.terms.published,
            least_examples=gate.least_examples(profile),
            columns=gate.columns(profile),
            sketch=await asyncio.to_thread(_sketch, dataset),
        )
    )
    return described, profile


def _sketch(dataset: DatasetConfig) -> TopicSketch | None:
    """A sketch of the questions' wording, if the owner allows it and there are questions."""
    if not dataset.terms.sketch or dataset.data_schema != QUESTIONS:
        return None
    gate = dataset.disclosure
    with gate.failures():
        return gate.sketch(pair.question for pair in read_pairs(Path(dataset.path)))


async def described_test_set(
    test: TestSetConfig, field: str, consultant: Consultant, trainer: Trainer
) -> tuple[TestSetDescriptor, DataProfile]:
    """Describe a test set; see `described_dataset`."""
    await _check_sandbox(test.terms)
    readers = _readers(consultant, "test_schema", test.test_schema, field)
    path = Path(test.path)
    gate = test.disclosure
    with gate.failures():
        recipe, profile = await _first(
            readers, lambda r: trainer.inspect_test(r, path, test.selection)
        )
    gate.check_profile(profile)
    described = _decodable(
        TestSetDescriptor(
            topic=test.topic,
            test_schema=test.test_schema,
            metrics=profile.metrics or consultant.facts(recipe).metrics,
            items=profile.samples,
            chance=test.chance,
            labels=gate.labels(profile.labels, profile.different),
            policy=test.terms.published,
            columns=gate.columns(profile),
        )
    )
    return described, profile


async def _check_sandbox(policy: PolicyConfig) -> None:
    """Raise `InvalidInput` if a policy demands a sandbox that this site does not have."""
    found = (await available()).mechanisms if policy.sandbox.required else ()
    missing = [name for name in policy.sandbox.required if name not in found]
    if missing:
        raise InvalidInput(
            "its policy demands a sandbox that this site does not have",
            field="policy.sandbox.required",
            fix=f"run the site where it has {', '.join(missing)}, or change the policy",
        )


def _changed_at_s(path: Path) -> float:
    return max(0.0, path.stat().st_mtime)  # Archives bring files of before the epoch.


def _log_remarks(field: str, name: str, profile: DataProfile) -> None:
    for remark in profile.remarks:
        log.warning("%s %s: %s", field, name, remark)


def _decodable(described: T) -> T:
    """Check that others can decode a descriptor; they ignore a node whose descriptor they cannot
    decode. Raises `InvalidInput`."""
    try:
        return decode(encode(described), type(described))
    except Corrupt as error:
        _, _, problem = error.problem.partition(": ")
        raise InvalidInput(
            f"other sites could not decode its descriptor: {problem}",
            fix="shorten labels and topics",
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
    """The result of the first recipe that can read a file.

    One recipe that fails is no reason to leave a file out. Raises the first error if all fail.
    """
    errors: list[DaitnError] = []
    for recipe in readers:
        try:
            return recipe, await inspect(recipe)
        except DaitnError as error:
            errors.append(error)
    raise errors[0]
