"""A node's knowledge about its recipes, without running one itself.

A recipe is third-party code: it may crash when imported, or hang when asked what a model needs. So
it is asked in a process of its own; the training process is busy for hours.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256

from daitn.learning.process import ConsultedProcess
from daitn.learning.recipe import Config, Footprint, RecipeFacts
from daitn.learning.sandbox.policy import UNCONFINED, Sandbox
from daitn.learning.trainer import Trainer
from daitn.objects.errors import DaitnError, NotFound, WorkFailed
from daitn.objects.wire import canonical

__all__ = ["Consultant"]

_log = logging.getLogger(__name__)

_MOST_ESTIMATES = 256
_WITHIN_S = 20.0
"""For an answer that needs no engine. Callers of the site wait longer."""


class Consultant:
    """Queries the recipes of a site."""

    def __init__(self, recipes: Iterable[str], sandbox: Sandbox = UNCONFINED) -> None:
        """`sandbox`: as in `Trainer`."""
        self._sandbox = sandbox
        self._names = tuple(recipes)
        self._facts: dict[str, RecipeFacts] = {}
        self._estimates: OrderedDict[bytes, Footprint] = OrderedDict()
        self.broken: dict[str, DaitnError] = {}
        """Recipes that cannot be used, with the reasons."""
        self._trainer_in_use = self._trainer()

    async def start(self, warm: Trainer | None = None) -> None:
        """Ask every recipe for its facts, through the process of `warm` if given."""
        trainer = warm or self._trainer()
        for name in self._names:
            try:
                await trainer.start()
                async with asyncio.timeout(_WITHIN_S):
                    self._facts[name] = await trainer.facts(name)
            except (DaitnError, TimeoutError) as failed:
                error = failed if isinstance(failed, DaitnError) else _silent()
                _log.error("the recipe %s is left out: %s", name, error)
                self.broken[name] = error
        if warm is None:
            await trainer.close()

    async def close(self) -> None:
        await self._trainer_in_use.close()

    @property
    def recipes(self) -> tuple[str, ...]:
        """Recipes that can be used."""
        return tuple(self._facts)

    def facts(self, recipe: str) -> RecipeFacts:
        """A recipe's facts. Raises `NotFound` if it cannot be used."""
        known = self._facts.get(recipe)
        if known is None:
            raise NotFound(
                f"recipe {recipe} cannot be used here",
                field="model.recipe",
                fix=f"use one of: {', '.join(self._facts) or 'none'}",
            )
        return known

    async def estimate(self, recipe: str, config: Config) -> Footprint:
        """The needs of a model. Raises what the recipe raises, and `WorkFailed`.

        Each piece of a job's work asks this of one configuration: the recipe is asked once.
        """
        key = sha256(canonical((recipe, config))).digest()
        known = self._estimates.get(key)
        if known is None:
            known = await self._trainer_in_use.estimate(recipe, config)
        self._estimates[key] = known
        self._estimates.move_to_end(key)
        if len(self._estimates) > _MOST_ESTIMATES:
            self._estimates.popitem(last=False)
        return known

    def _trainer(self) -> Trainer:
        return Trainer(
            threads=1, within_s=_WITHIN_S, process=ConsultedProcess, sandbox=self._sandbox
        )


def _silent() -> WorkFailed:
    return WorkFailed(
        f"it did not answer within {_WITHIN_S:g} s", fix="correct the recipe, or remove it"
    )
