"""Resource estimates for a model, from sites that run its recipe, since the control centre runs
none."""

from __future__ import annotations

import logging
from collections.abc import Callable

from daitn.objects.errors import InvalidInput, NotFound, Unreachable
from daitn.objects.identifiers import SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import WorkNeeds
from daitn.objects.messages import RecipeQuestion
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.topology.snapshot import Drrt

__all__ = ["Estimates"]

log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
"""Long, as a site may have to start its training engine first."""


class Estimates:
    """Queries one site after the other."""

    def __init__(self, fabric: Fabric, snapshot: Callable[[], Drrt]) -> None:
        self._fabric = fabric
        self._snapshot = snapshot

    async def needs(self, intent: TrainingIntent) -> WorkNeeds:
        """The needs of an intent's model.

        Raises what the recipe raises, `NotFound` where no site runs it, `Unreachable`, and
        `InvalidInput` for models that travel by themselves.
        """
        if intent.training.travelling > 1:
            raise InvalidInput(
                f"{intent.training.algorithm} is for models that travel by themselves",
                field="training.algorithm",
                fix="train with --autonomous, or use another algorithm",
            )
        question = encode(RecipeQuestion(recipe=intent.model.recipe, config=intent.model.config))
        sites = self._sites_with(intent.model.recipe)
        for site in sites:
            try:
                answer = await self._fabric.request(
                    keys.site_do(site, "estimate"), question, timeout_s=_TIMEOUT_S
                )
                return decode(answer, WorkNeeds)
            except Unreachable as error:
                log.warning("%s did not estimate what a model needs: %s", site, error)
        raise Unreachable(
            f"none of the sites that run {intent.model.recipe} answered: {', '.join(sites)}",
            fix="see `daitn get nodes`, and try again",
        )

    def _sites_with(self, recipe: str) -> tuple[SiteId, ...]:
        known: set[str] = set()
        sites = []
        for site, state in sorted(self._snapshot().sites.items()):
            units = (state.descriptor.compute, state.descriptor.verifier)
            recipes = {name for unit in units if unit for name in unit.recipes}
            known |= recipes
            if state.alive and recipe in recipes:
                sites.append(site)
        if sites:
            return tuple(sites)
        fix = f"use one of: {', '.join(sorted(known))}" if known else "start nodes, then try again"
        raise NotFound(f"no site runs recipe {recipe}", field="model.recipe", fix=fix)
