"""Models that the network places at this facility: fetched, loaded, replaced and retired."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from daitn.identity.access import allows
from daitn.learning.answering.host import AnsweringHost
from daitn.learning.answering.protocol import Answering, Message, Question
from daitn.learning.registry import load
from daitn.objects.deployments import (
    ANY_CONTEXT,
    MOST_DEPLOYMENTS,
    Api,
    DeploymentDescriptor,
    DeploymentState,
    Runtime,
)
from daitn.objects.errors import (
    DaitnError,
    InvalidInput,
    NotFound,
    Refused,
    StorageFull,
    WorkFailed,
)
from daitn.objects.identifiers import Digest, OwnerId, checked_name
from daitn.objects.messages import DeployModel
from daitn.terminal.config import FacilityConfig, NodeConfig
from daitn.terminal.facility.hosted import HostedModel
from daitn.terminal.facility.kept import KeptWishes
from daitn.terminal.facility.meter import Meter
from daitn.tools.mobility.manifests import checked_digest
from daitn.tools.mobility.protocol import BlobStore, ModelTransport

__all__ = ["Hosting"]

log = logging.getLogger(__name__)

AGAIN_S = (1.0, 2.0, 5.0, 10.0)
"""Pauses between attempts to fetch and load a model; the last one repeats."""
LOST_MOST_S = 300.0
"""Attempts that fail in the worker are twice as far apart each time, up to this: one that takes the
worker with it takes the answers of other models, too."""
DRAIN_WITHIN_S = 300.0
"""An answer that still runs so long after its model was retired or replaced is ended."""


@dataclass
class _Place:
    """One name: what is wanted under it, and what answers now."""

    wish: DeployModel
    meter: Meter
    state: DeploymentState = DeploymentState.LOADING
    serving: HostedModel | None = None
    working: asyncio.Task[None] | None = None
    drains: set[asyncio.Task[None]] = field(default_factory=set)


class Hosting:
    """Keeps what was wished, and makes it so, again after a restart.

    A model that is replaced goes on answering until its successor has been loaded and tried.
    """

    def __init__(
        self,
        config: NodeConfig,
        recipes: tuple[str, ...],
        store: BlobStore,
        transport: ModelTransport,
        changed: Callable[[], None],
    ) -> None:
        assert config.facility is not None
        self._config = config
        self._facility: FacilityConfig = config.facility
        self._store = store
        self._transport = transport
        self._changed = changed
        self._kept = KeptWishes(Path(config.state) / "deployments")
        self._folder = Path(config.state) / "serving"
        self._host = AnsweringHost(threads=config.threads)
        self._places: dict[str, _Place] = {}
        self._loads = itertools.count()
        self.recipes = tuple(name for name in recipes if _answers(name))
        """Recipes whose models can be placed here."""

    async def start(self) -> None:
        """Take up what was kept. The worker starts with the first model.

        What the node's file no longer lets in stays away, and comes back when it does again.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        for wish in self._kept.all():
            try:
                self._check(wish)
            except DaitnError as error:
                log.warning("%s stays away: %s", wish.name, error)
                continue
            self._take(wish)

    async def close(self) -> None:
        places = self._places.values()
        tasks = [p.working for p in places if p.working] + [d for p in places for d in p.drains]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._host.close()

    def names(self) -> dict[str, HostedModel]:
        """What answers here."""
        return {name: place.serving for name, place in self._places.items() if place.serving}

    def descriptors(self) -> tuple[DeploymentDescriptor, ...]:
        return tuple(
            self._described(place.wish, place.state)
            if place.serving is None
            else place.serving.descriptor
            for _, place in sorted(self._places.items())
        )

    def models(self) -> frozenset[Digest]:
        """Weights that must stay in the store."""
        wanted = {place.wish.model.manifest for place in self._places.values()}
        serving = {p.serving.descriptor.manifest for p in self._places.values() if p.serving}
        return frozenset(wanted | {manifest for manifest in serving if manifest})

    @property
    def memory_free_bytes(self) -> int:
        taken = sum(place.wish.model.size_bytes for place in self._places.values())
        return max(0, self._facility.memory_bytes - taken)

    def deploy(self, wish: DeployModel) -> None:
        """Take a wish; it is on disk when this returns.

        Raises `Refused`, `InvalidInput` or `NotFound` for a model that cannot be hosted here, and
        `StorageFull`.
        """
        self._check(wish)
        known = self._places.get(wish.name)
        if known is not None and known.wish == wish and known.state is not DeploymentState.DRAINING:
            return
        self._kept.put(wish)
        self._take(wish)

    def retire(self, name: str) -> None:
        """Take no more queries, finish what is under way, forget. Retiring twice is harmless."""
        self._kept.forget(name)
        place = self._places.get(name)
        if place is None or place.state is DeploymentState.DRAINING:
            return
        place.state = DeploymentState.DRAINING
        if place.serving is not None:
            said = place.serving.descriptor
            place.serving.descriptor = structs.replace(said, state=DeploymentState.DRAINING)
        if place.working is not None:
            place.working.cancel()
        place.working = asyncio.create_task(self._leave(name, place))
        self._changed()

    def _check(self, wish: DeployModel) -> None:
        checked_name(wish.name, "name")
        checked_digest(wish.model.manifest)
        if wish.model.size_bytes < 1:
            raise InvalidInput("a model has bytes", field="model.size_bytes", fix="say how many")
        if not self._facility.hosts:
            raise Refused(f"{self._config.site} hosts no models of others", field="facility.hosts")
        if wish.recipe not in self.recipes:
            raise NotFound(
                f"{self._config.site} cannot host models of recipe {wish.recipe}",
                field="recipe",
                fix=f"use one of: {', '.join(self.recipes) or 'none'}",
            )
        if not allows(wish.policy.release_to, self._config.jurisdiction):
            raise Refused(
                f"{wish.name} may not be hosted in {self._config.jurisdiction}",
                field="policy.release_to",
                fix=f"host it in {', '.join(wish.policy.release_to) or 'no jurisdiction'}",
            )
        upstreams = {upstream.name for upstream in self._facility.upstreams}
        if wish.name in upstreams:
            raise InvalidInput(
                f"{wish.name} is an upstream of {self._config.site}", field="name", fix="rename it"
            )
        known = self._places.get(wish.name)
        if known is None and len(upstreams) + len(self._places) >= MOST_DEPLOYMENTS:
            raise StorageFull(
                f"{self._config.site} has {MOST_DEPLOYMENTS} deployments", fix="retire one first"
            )
        room = self.memory_free_bytes + (known.wish.model.size_bytes if known else 0)
        if wish.model.size_bytes > room:
            raise StorageFull(
                f"{wish.name} takes {wish.model.size_bytes} bytes, {room} are free",
                field="facility.memory_bytes",
                fix="retire another model, or host it elsewhere",
            )

    def _take(self, wish: DeployModel) -> None:
        place = self._places.get(wish.name)
        if place is None:
            meter = Meter(self._facility.slots, self._facility.queue)
            place = self._places[wish.name] = _Place(wish, meter)
        if place.working is not None:
            place.working.cancel()
        place.wish = wish
        place.state = DeploymentState.LOADING
        place.working = asyncio.create_task(self._bring(place), name=f"deploy {wish.name}")
        self._changed()

    async def _bring(self, place: _Place) -> None:
        """Fetch, load and try the model, until it works."""
        wish, before = place.wish, place.serving
        if before is not None and before.serves(wish):
            before.descriptor = self._described(wish, DeploymentState.READY)
        else:
            place.serving = await self._insistently_loaded(place)
            log.info("%s answers", wish.name)
            if before is not None:
                drain = asyncio.create_task(self._unload(before))
                place.drains.add(drain)
                drain.add_done_callback(place.drains.discard)
        place.state = DeploymentState.READY
        self._changed()

    async def _insistently_loaded(self, place: _Place) -> HostedModel:
        for attempt in itertools.count():
            try:
                return await self._loaded(place.wish, place.meter)
            except (DaitnError, OSError) as error:
                log.warning("%s is not ready: %s", place.wish.name, error)
                if place.state is not DeploymentState.FAILED:
                    place.state = DeploymentState.FAILED
                    self._changed()
                pause_s = AGAIN_S[min(attempt, len(AGAIN_S) - 1)]
                if isinstance(error, WorkFailed):
                    pause_s = min(2.0**attempt, LOST_MOST_S)
            await asyncio.sleep(pause_s)
        raise AssertionError("counting does not end")

    async def _loaded(self, wish: DeployModel, meter: Meter) -> HostedModel:
        # A name of its own: the same model may still be draining here, under the one it had.
        name = f"{wish.name}-{next(self._loads)}"
        folder = self._folder / name
        await self._host.start()
        await self._transport.fetch(wish.model, lambda done, total: None)
        manifest = self._store.manifest(wish.model.manifest)
        if manifest.size_bytes > wish.model.size_bytes:
            raise InvalidInput(
                f"{wish.name} has {manifest.size_bytes} bytes, not {wish.model.size_bytes}",
                field="model.size_bytes",
                fix="deploy it with its true size",
            )
        try:
            folder.mkdir()
            await asyncio.to_thread(self._store.unpack, manifest, folder)
            await self._host.load(name, wish.recipe, folder, wish.config)
            await self._try(name)
        except BaseException:
            await self._host.unload(name)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        descriptor = self._described(wish, DeploymentState.READY)
        return HostedModel(wish, descriptor, name, self._host, meter)

    async def _try(self, name: str) -> None:
        """A first question, so that no query owner pays for what is set up on first use."""
        question = Question(
            messages=(Message("user", "Are you there?"),), max_tokens=1, temperature=0.0, seed=0
        )
        with contextlib.suppress(InvalidInput):  # A recipe may want questions of another form.
            answer = await self._host.ask(name, question)
            async for _ in answer.pieces:
                pass

    async def _leave(self, name: str, place: _Place) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_WITHIN_S):
                await place.meter.idle.wait()
        if place.serving is not None:
            await self._unload(place.serving)
        if self._places.get(name) is place:
            del self._places[name]
        self._changed()

    async def _unload(self, model: HostedModel) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_WITHIN_S):
                await model.finished.wait()
        await self._host.unload(model.loaded)
        shutil.rmtree(self._folder / model.loaded, ignore_errors=True)

    def _described(self, wish: DeployModel, state: DeploymentState) -> DeploymentDescriptor:
        recipe = load(wish.recipe)
        apis: tuple[Api, ...] = recipe.apis if isinstance(recipe, Answering) else ()
        return DeploymentDescriptor(
            name=wish.name,
            owner=OwnerId(wish.owner),
            runtime=Runtime.EMBEDDED,
            apis=apis,
            state=state,
            manifest=wish.model.manifest,
            recipe=wish.recipe,
            size_bytes=wish.model.size_bytes,
            context_tokens=ANY_CONTEXT,
            slots=self._facility.slots,
            queue=self._facility.queue,
            price_usd_per_1k_in=wish.price_usd_per_1k_in,
            price_usd_per_1k_out=wish.price_usd_per_1k_out,
            deterministic=True,
            evidence=wish.evidence,
            policy=wish.policy,
        )


def _answers(recipe: str) -> bool:
    """Whether models of an installed recipe can answer; one that is broken cannot."""
    try:
        return isinstance(load(recipe), Answering)
    except DaitnError as error:
        log.warning("no models of %s here: %s", recipe, error)
        return False
