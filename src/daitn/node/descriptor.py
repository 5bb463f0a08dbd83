"""What a node says of itself, from its file and from a look at its data."""

from __future__ import annotations

import asyncio
from pathlib import Path

from daitn import __version__
from daitn.learning.corpora.records import read_pairs
from daitn.learning.recipe import Recipe
from daitn.learning.registry import installed, load
from daitn.learning.trainer import Trainer
from daitn.node.config import DatasetConfig, NodeConfig, TestSetConfig
from daitn.objects.descriptors import (
    ComputeDescriptor,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
    TestSetDescriptor,
    TopicSketch,
    VerifierDescriptor,
)
from daitn.objects.errors import InvalidInput, NotFound
from daitn.topology.topics import sketch

__all__ = ["allowed_recipes", "describe"]

QUESTIONS = "qa-pairs/1"
"""The schema whose records hold questions."""


def allowed_recipes(config: NodeConfig) -> tuple[str, ...]:
    """Recipes that are installed here and that the node's file lets run."""
    here = installed()
    for position, name in enumerate(config.recipes):
        if name not in here:
            raise NotFound(
                f"recipe {name} is not installed",
                field=f"recipes[{position}]",
                fix=f"install it, or use one of: {', '.join(here)}",
            )
    return config.recipes or here


async def describe(
    config: NodeConfig, trainer: Trainer, public_key: str, started_at_s: float
) -> NodeDescriptor:
    """Read the data sets, probe the machine and describe both.

    Raises `InvalidInput` naming file, line and field of data that no recipe can read.
    """
    recipes = allowed_recipes(config)
    datasets = [
        await _dataset(config, dataset, f"datasets[{i}]", recipes, trainer)
        for i, dataset in enumerate(config.datasets)
    ]
    tests = [
        await _test_set(test, f"tests[{i}]", recipes, trainer)
        for i, test in enumerate(config.tests)
    ]
    compute = None
    if Role.COMPUTE in config.roles:
        probe = await trainer.probe()
        compute = ComputeDescriptor(
            device=probe.device,
            memory_bytes=probe.memory_bytes,
            speed_flops=probe.speed_flops,
            recipes=recipes,
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
        datasets=tuple(datasets),
        compute=compute,
        verifier=VerifierDescriptor(tests=tuple(tests), recipes=recipes) if tests else None,
    )


async def _dataset(
    config: NodeConfig,
    dataset: DatasetConfig,
    field: str,
    recipes: tuple[str, ...],
    trainer: Trainer,
) -> DatasetDescriptor:
    path = Path(dataset.path)
    recipe = _reader(recipes, "data_schema", dataset.data_schema, field)
    profile = await trainer.inspect(recipe.name, path)
    return DatasetDescriptor(
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


def _sketched(dataset: DatasetConfig) -> TopicSketch | None:
    """How the questions are worded, where the owner lets that be known and there are questions."""
    if not dataset.sketch or dataset.data_schema != QUESTIONS:
        return None
    return sketch(pair.question for pair in read_pairs(Path(dataset.path)))


async def _test_set(
    test: TestSetConfig, field: str, recipes: tuple[str, ...], trainer: Trainer
) -> TestSetDescriptor:
    recipe = _reader(recipes, "test_schema", test.test_schema, field)
    profile = await trainer.inspect_test(recipe.name, Path(test.path))
    return TestSetDescriptor(
        topic=test.topic,
        test_schema=test.test_schema,
        metrics=recipe.metrics,
        items=profile.samples,
        chance=test.chance,
        labels=profile.labels,
    )


def _changed_at_s(path: Path) -> float:
    return path.stat().st_mtime


def _reader(recipes: tuple[str, ...], kind: str, schema: str, field: str) -> Recipe:
    """A recipe that reads `schema`."""
    known = {name: load(name) for name in recipes}
    for recipe in known.values():
        if getattr(recipe, kind) == schema:
            return recipe
    schemas = sorted({getattr(recipe, kind) for recipe in known.values()})
    raise InvalidInput(
        f"no installed recipe reads {schema}",
        field=f"{field}.{kind}",
        fix=f"use one of: {', '.join(schemas)}; or install a recipe for it",
    )
