"""Resource bounds of a piece of work, checked before anything is fetched, unpacked or trained for
it."""

from __future__ import annotations

import asyncio
import importlib.util
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import msgspec

from daitn.learning import memory
from daitn.learning.consultant import Consultant
from daitn.learning.recipe import Config, Footprint
from daitn.learning.sandbox.policy import Limits, Sandbox
from daitn.node.config import NodeConfig
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, Unreachable, WorkFailed
from daitn.objects.messages import MergeWork, VisitWork, Work
from daitn.objects.models import CONFIG_FIX, ModelRef

__all__ = ["Capacity", "WorkBounds", "about", "check_estimate", "check_size", "within"]

MOST_MODEL_BYTES = 10**14
_SIZE_MARGIN = 2
"""Recipes estimate sizes within some per cent, for networks whose columns they do not know."""
_SIZE_SLACK_BYTES = 64 << 20
"""For tokenizers and lists of columns, which no configuration determines."""
_LEAST_EXAMPLE_S = 1e-6
"""No engine reads more than a million examples per second, however small the model."""
_SLOWEST_FLOPS = 1e9
"""Assumed for a site that has not measured its speed."""
_KEPT_AT_ONCE = 2
"""Savepoints on disk: one, and the next while it is written."""
_MOST_OUTPUTS = 5
"""Outputs of a merge, in models: the model, and two moments of four bytes for each number of
two."""


class Capacity(NamedTuple):
    """A site's capacity for a piece of work."""

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
        """Raise `InvalidInput` for work that does not fit here, and `NotFound` for a missing
        package that other sites may have installed."""
        for package in needed.packages:
            if importlib.util.find_spec(package) is None:
                raise NotFound(
                    f"the model needs the package {package}, which is not installed at the site",
                    # Not a field of the model: another site may have it.
                    field="packages",
                    fix="configure a model that does not need it, or ask the site to install it",
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


class WorkBounds:
    """Resource bounds of work at a site: its recipe's estimates of the model, with a margin."""

    def __init__(self, config: NodeConfig, consultant: Consultant, *, saves: bool) -> None:
        """`saves`: whether training writes savepoints."""
        self._consultant = consultant
        self._sandbox = Sandbox(limits=config.sandbox.limits)
        self._longest_s = config.longest_s
        self._threads = config.threads
        self._saves = saves
        self._capacity: Capacity | None = None
        self._speed_flops = _SLOWEST_FLOPS

    def reconfigure(self, config: NodeConfig) -> None:
        """Apply a changed file."""
        self._config = config

    def offer(self, descriptor: NodeDescriptor) -> None:
        """Learn the site's capacity."""
        self._capacity = Capacity.of(descriptor, self._longest_s)
        if descriptor.compute is not None:
            self._speed_flops = descriptor.compute.speed_flops

    async def footprint(self, recipe: str, config: Config) -> Footprint:
        """The footprint of a model of a configuration. Raises like `check_estimate`."""
        return check_estimate(recipe, await self._consultant.estimate(recipe, config))

    async def limits(self, work: Work, examples: int) -> Limits:
        """Limits for the process that works on this many examples. Raises `InvalidInput`, before
        anything else happens, for work that this site cannot do."""
        assert self._capacity is not None
        needed, outputs = await self.footprint(work.recipe, work.config), 1
        if isinstance(work, MergeWork):
            self._capacity.check(needed, work.base, 0)
            _check_merged(work, needed.size_bytes)
            outputs = _MOST_OUTPUTS
        else:
            if isinstance(work, VisitWork):
                needed = _with_companions(needed, work)
                if work.own is not None:
                    with about("own"):
                        check_size(needed.size_bytes, work.own)
            self._capacity.check(needed, work.model, examples)
        return self._sandbox.limits_for(
            memory_bytes=needed.memory_bytes,
            size_bytes=outputs * needed.size_bytes,
            # A savepoint is no larger than what training holds in memory.
            kept_bytes=_KEPT_AT_ONCE * needed.memory_bytes if self._saves else 0,
            seconds=needed.flops_per_example * examples / self._speed_flops,
            threads=self._threads,
        )


def _check_merged(work: MergeWork, model_bytes: int) -> None:
    for number, model in enumerate(work.trained):
        with about(f"models[{number}]"):
            check_size(model_bytes, model)
            if work.starts:
                check_size(model_bytes, work.starts[number])
    if work.moments is not None:
        with about("moments"):
            check_size(_MOST_OUTPUTS * model_bytes, work.moments)


def _with_companions(footprint: Footprint, work: VisitWork) -> Footprint:
    """The needs of training with variates, which are as large as the weights: those that travel,
    and those kept meanwhile."""
    more = footprint.size_bytes * work.local.variates
    return msgspec.structs.replace(
        footprint,
        size_bytes=footprint.size_bytes + more,
        memory_bytes=footprint.memory_bytes + 3 * more,
    )


@contextmanager
def about(field: str) -> Iterator[None]:
    """Name the field of work that an error is about."""
    try:
        yield
    except (Corrupt, InvalidInput, NotFound, Unreachable) as error:
        error.field = field
        raise


def check_size(estimated_bytes: int, model: ModelRef) -> None:
    """Raise `InvalidInput` unless a model's declared size is plausible for its configuration, by
    the recipe's estimate. The transport then refuses a model of any other size."""
    if not 0 < model.size_bytes <= _SIZE_MARGIN * estimated_bytes + _SIZE_SLACK_BYTES:
        raise InvalidInput(
            f"the model has {model.size_bytes} bytes, but its configuration implies "
            f"{estimated_bytes}",
            field="model.size_bytes",
            fix=CONFIG_FIX,
        )


def check_estimate(recipe: str, footprint: Footprint) -> Footprint:
    """Return a plausible estimate.

    Raises `WorkFailed` for one that cannot, and `InvalidInput` for a model that no site can hold.
    """
    sizes = (footprint.parameters, footprint.memory_bytes, footprint.size_bytes)
    possible = min(sizes) >= 0 and 0.0 <= footprint.flops_per_example < math.inf
    # Importing by the name of a module in a package would import that package.
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
    """End work that takes longer, including its time before an interruption. Raises
    `WorkFailed`."""
    try:
        async with asyncio.timeout(longest_s - before_s):
            yield
    except TimeoutError:
        raise WorkFailed(
            f"the work did not finish within {longest_s:g} s, the site's limit",
            field="examples",
            fix="train on fewer examples, or a smaller model",
        ) from None
