"""What a piece of work may take, checked before anything is fetched, unpacked or trained for it."""

from __future__ import annotations

import asyncio
import importlib.util
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from daitn.learning import memory
from daitn.learning.recipe import Footprint
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import InvalidInput, NotFound, WorkFailed
from daitn.objects.models import ModelRef

__all__ = ["Capacity", "check_estimate", "check_size", "within"]

MOST_MODEL_BYTES = 10**14
_SIZE_MARGIN = 2
"""Recipes estimate sizes within some per cent, of networks whose columns they do not know."""
_SIZE_SLACK_BYTES = 64 << 20
"""For tokenizers and lists of columns, which no configuration determines."""
_LEAST_EXAMPLE_S = 1e-6
"""No engine reads more than a million examples per second, however small the model."""


class Capacity(NamedTuple):
    """What a site has for a piece of work."""

    memory_bytes: int
    speed_flops: float
    longest_s: float

    @classmethod
    def of(cls, descriptor: NodeDescriptor, longest_s: float) -> Capacity:
        compute = descriptor.compute
        if compute is None:  # A verifier that does not train; its speed is unknown.
            return cls(memory.total_bytes(), math.inf, longest_s)
        return cls(compute.memory_bytes, compute.speed_flops, longest_s)

    def check(self, needed: Footprint, model: ModelRef | None, examples: int) -> None:
        """Raise `InvalidInput` for work that does not fit here, and `NotFound` for a package that
        it needs and that only other sites have installed."""
        for package in needed.packages:
            if importlib.util.find_spec(package) is None:
                raise NotFound(
                    f"the model needs the package {package}, which the site has not installed",
                    # No field of the model: another site may have it.
                    field="packages",
                    fix="configure a model that does without, or ask the site for it",
                )
        if needed.memory_bytes > self.memory_bytes:
            raise InvalidInput(
                f"the model needs {needed.memory_bytes} bytes of memory, the site has "
                f"{self.memory_bytes}",
                field="model.config",
                fix="configure a smaller model, or a smaller batch",
            )
        if model is not None:
            check_size(needed.size_bytes, model)
        example_s = max(_LEAST_EXAMPLE_S, needed.flops_per_example / max(1.0, self.speed_flops))
        if examples * example_s > self.longest_s:
            raise InvalidInput(
                f"{examples} examples take {examples * example_s:.3g} s here, work may take "
                f"{self.longest_s:g} s",
                field="examples",
                fix=f"train on at most {int(self.longest_s / example_s)} in one visit",
            )


def check_size(estimated_bytes: int, model: ModelRef) -> None:
    """Raise `InvalidInput` unless a model's declared size is plausible for its configuration, by
    the recipe's estimate. The transport then refuses a model of any other size."""
    if not 0 < model.size_bytes <= _SIZE_MARGIN * estimated_bytes + _SIZE_SLACK_BYTES:
        raise InvalidInput(
            f"the model has {model.size_bytes} bytes; one of this configuration has "
            f"{estimated_bytes}",
            field="model.size_bytes",
            fix="use the configuration that the model was made with",
        )


def check_estimate(recipe: str, footprint: Footprint) -> Footprint:
    """Return an estimate that can be true.

    Raises `WorkFailed` for one that cannot, and `InvalidInput` for a model that no site can hold.
    """
    sizes = (footprint.parameters, footprint.memory_bytes, footprint.size_bytes)
    possible = min(sizes) >= 0 and 0.0 <= footprint.flops_per_example < math.inf
    # The name of a module in a package would import that package.
    if not possible or not all(name.isidentifier() for name in footprint.packages):
        raise WorkFailed(
            f"the recipe {recipe} gave an impossible estimate", fix="correct the recipe"
        )
    if max(footprint.memory_bytes, footprint.size_bytes) > MOST_MODEL_BYTES:
        raise InvalidInput(
            f"a model of this configuration takes {footprint.memory_bytes:.3g} bytes",
            field="model.config",
            fix="configure a smaller model",
        )
    return footprint


@asynccontextmanager
async def within(longest_s: float, before_s: float = 0.0) -> AsyncIterator[None]:
    """End work that takes longer, with what it took before it was interrupted. Raises
    `WorkFailed`."""
    try:
        async with asyncio.timeout(longest_s - before_s):
            yield
    except TimeoutError:
        raise WorkFailed(
            f"the work was not done after {longest_s:g} s, the site's limit",
            field="examples",
            fix="train on fewer examples, or a smaller model",
        ) from None
