"""Descriptors of simulated nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daitn.objects.descriptors import (
    ANY,
    ComputeDescriptor,
    DataPolicy,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
    TestSetDescriptor,
    VerifierDescriptor,
)
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.jobs import WorkNeeds
from daitn.sim.learning.learner import Examined
from daitn.sim.learning.world import BEGIN_S, DATASET

__all__ = ["RECIPE", "data_node", "needs", "verifier_node"]

RECIPE = "causal-lm"
"""The recipe name in intents and sites of simulated networks."""
_DATA_SCHEMA, _TEST_SCHEMA = "qa-pairs/1", "multiple-choice/1"
_MEMORY_BYTES = 1 << 40


def data_node(
    name: SiteId,
    *,
    topics: tuple[str, ...],
    labels: Mapping[str, int],
    speed_flops: float,
    quality: float = 1.0,
    price_usd_per_1k: float = 0.0,
    place: str = "US",
    release_to: tuple[str, ...] = (ANY,),
    version: int = 1,
) -> NodeDescriptor:
    """A site that holds one data set and trains on it."""
    dataset = DatasetDescriptor(
        name=DATASET,
        site=name,
        data_schema=_DATA_SCHEMA,
        modality="text",
        topics=topics,
        samples=sum(labels.values()),
        labels=dict(labels),
        quality=quality,
        fresh_at_s=BEGIN_S,
        price_usd_per_1k=price_usd_per_1k,
        jurisdiction=place,
        policy=DataPolicy(recipes=(ANY,), release_to=release_to),
    )
    compute = ComputeDescriptor(
        device="cpu", memory_bytes=_MEMORY_BYTES, speed_flops=speed_flops, recipes=(RECIPE,)
    )
    return NodeDescriptor(
        site=name,
        owner=OwnerId(name),
        roles=(Role.DATA, Role.COMPUTE),
        jurisdiction=place,
        public_key="",
        started_at_s=BEGIN_S,
        version=version,
        software="simulated",
        datasets=(dataset,),
        compute=compute,
    )


def verifier_node(
    name: SiteId, place: str, tests: Sequence[Examined], labels: Sequence[Mapping[str, int]]
) -> NodeDescriptor:
    """A unit that measures all objectives and publishes these items per label."""
    described = tuple(
        TestSetDescriptor(
            topic=test.topic,
            test_schema=_TEST_SCHEMA,
            metrics=("accuracy",),
            items=test.total,
            chance=test.chance,
            labels=dict(published),
        )
        for test, published in zip(tests, labels, strict=True)
    )
    return NodeDescriptor(
        site=name,
        owner=OwnerId(name),
        roles=(Role.VERIFIER,),
        jurisdiction=place,
        public_key="",
        started_at_s=BEGIN_S,
        version=1,
        software="simulated",
        verifier=VerifierDescriptor(tests=described, recipes=(RECIPE,)),
    )


def needs(flops_per_example: float, size_bytes: int) -> WorkNeeds:
    """What the recipe reports about the model."""
    return WorkNeeds(
        data_schema=_DATA_SCHEMA,
        test_schema=_TEST_SCHEMA,
        parameters=size_bytes // 4,
        flops_per_example=flops_per_example,
        memory_bytes=4 * size_bytes,
        size_bytes=size_bytes,
        merges=True,
        merges_fresh=True,
    )
