"""Models that the network places at this facility: fetched, loaded, replaced and retired."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from daitn.files.items import ItemStore
from daitn.learning.answering.host import AnsweringHost
from daitn.learning.answering.protocol import Message, Question
from daitn.learning.consultant import Consultant
from daitn.node.config import FacilityConfig, NodeConfig
from daitn.node.serving.admission import AdmissionQueue
from daitn.node.serving.backends.embedded import EmbeddedBackend
from daitn.objects.access import allows
from daitn.objects.deployments import (
    ANY_CONTEXT,
    MOST_DEPLOYMENTS,
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
from daitn.tools.mobility.manifests import checked_digest
from daitn.tools.mobility.protocol import BlobStore, ModelTransport
from daitn.tools.tasks import Tasks

__all__ = ["ModelLifecycle"]

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

    wanted: DeployModel
    admission: AdmissionQueue
    state: DeploymentState = DeploymentState.LOADING
    serving: EmbeddedBackend | None = None


class ModelLifecycle:
    """Keeps what was wished, and makes it so, again after a restart.

    A model that is replaced goes on answering until its successor has been loaded and tried.
    """

    def __init__(
        self,
        config: NodeConfig,
        consultant: Consultant,
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
        self._desired = ItemStore(Path(config.state) / "deployments", DeployModel)
        self._folder = Path(config.state) / "serving"
        self._host = AnsweringHost(threads=config.threads)
        self._places: dict[str, _Place] = {}
        self._tasks = Tasks()
        """One for each place, and one for each model that is still to finish."""
        self._loads = itertools.count()
        self._consultant = consultant

    async def start(self) -> None:
        """Take up what was kept. The worker starts with the first model.

        What the node's file no longer lets in stays away, and comes back when it does again.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        for wanted in self._desired:
            try:
                self._check(wanted)
            except DaitnError as error:
                log.warning("%s stays away: %s", wanted.name, error)
                continue
            self._take(wanted)

    @property
    def recipes(self) -> tuple[str, ...]:
        """Recipes whose models can be placed here."""
        asked = self._consultant
        return tuple(name for name in asked.recipes if asked.facts(name).apis)

    async def close(self) -> None:
        await self._tasks.close()
        await self._host.close()

    def names(self) -> dict[str, EmbeddedBackend]:
        """What answers here."""
        return {name: place.serving for name, place in self._places.items() if place.serving}

    def descriptors(self) -> tuple[DeploymentDescriptor, ...]:
        return tuple(
            self._described(place.wanted, place.state)
            if place.serving is None
            else place.serving.descriptor
            for _, place in sorted(self._places.items())
        )

    def models(self) -> frozenset[Digest]:
        """Weights that must stay in the store."""
        wanted = {place.wanted.model.manifest for place in self._places.values()}
        serving = {p.serving.descriptor.manifest for p in self._places.values() if p.serving}
        return frozenset(wanted | {manifest for manifest in serving if manifest})

    @property
    def memory_free_bytes(self) -> int:
        taken = sum(place.wanted.model.size_bytes for place in self._places.values())
        return max(0, self._facility.memory_bytes - taken)

    def deploy(self, wanted: DeployModel) -> None:
        """Take a wish; it is on disk when this returns.

        Raises `Refused`, `InvalidInput` or `NotFound` for a model that cannot be hosted here, and
        `StorageFull`.
        """
        self._check(wanted)
        known = self._places.get(wanted.name)
        if (
            known is not None
            and known.wanted == wanted
            and known.state is not DeploymentState.DRAINING
        ):
            return
        self._desired.put(wanted.name, wanted)
        self._take(wanted)

    def retire(self, name: str) -> None:
        """Take no more queries, finish what is under way, forget. Retiring twice is harmless."""
        self._desired.forget(name)
        place = self._places.get(name)
        if place is None or place.state is DeploymentState.DRAINING:
            return
        place.state = DeploymentState.DRAINING
        if place.serving is not None:
            said = place.serving.descriptor
            place.serving.descriptor = structs.replace(said, state=DeploymentState.DRAINING)
        self._tasks.anew(name, self._leave(name, place), f"retire {name}")
        self._changed()

    def _check(self, wanted: DeployModel) -> None:
        checked_name(wanted.name, "name")
        checked_digest(wanted.model.manifest)
        if wanted.model.size_bytes < 1:
            raise InvalidInput("a model has bytes", field="model.size_bytes", fix="say how many")
        if not self._facility.hosts:
            raise Refused(f"{self._config.site} hosts no models of others", field="facility.hosts")
        if wanted.recipe not in self.recipes:
            raise NotFound(
                f"{self._config.site} cannot host models of recipe {wanted.recipe}",
                field="recipe",
                fix=f"use one of: {', '.join(self.recipes) or 'none'}",
            )
        if not allows(wanted.policy.release_to, self._config.jurisdiction):
            raise Refused(
                f"{wanted.name} may not be hosted in {self._config.jurisdiction}",
                field="policy.release_to",
                fix=f"host it in {', '.join(wanted.policy.release_to) or 'no jurisdiction'}",
            )
        upstreams = {upstream.name for upstream in self._facility.upstreams}
        if wanted.name in upstreams:
            raise InvalidInput(
                f"{wanted.name} is an upstream of {self._config.site}",
                field="name",
                fix="rename it",
            )
        known = self._places.get(wanted.name)
        if known is None and len(upstreams) + len(self._places) >= MOST_DEPLOYMENTS:
            raise StorageFull(
                f"{self._config.site} has {MOST_DEPLOYMENTS} deployments", fix="retire one first"
            )
        room = self.memory_free_bytes + (known.wanted.model.size_bytes if known else 0)
        if wanted.model.size_bytes > room:
            raise StorageFull(
                f"{wanted.name} takes {wanted.model.size_bytes} bytes, {room} are free",
                field="facility.memory_bytes",
                fix="retire another model, or host it elsewhere",
            )

    def _take(self, wanted: DeployModel) -> None:
        place = self._places.get(wanted.name)
        if place is None:
            admission = AdmissionQueue(self._facility.slots, self._facility.queue)
            place = self._places[wanted.name] = _Place(wanted, admission)
        place.wanted = wanted
        place.state = DeploymentState.LOADING
        self._tasks.anew(wanted.name, self._bring(place), f"deploy {wanted.name}")
        self._changed()

    async def _bring(self, place: _Place) -> None:
        """Fetch, load and try the model, until it works."""
        wanted, before = place.wanted, place.serving
        if before is not None and before.serves(wanted):
            before.descriptor = self._described(wanted, DeploymentState.READY)
        else:
            place.serving = await self._insistently_loaded(place)
            log.info("%s answers", wanted.name)
            if before is not None:
                self._tasks.spawn(self._unload(before), f"drain {wanted.name}")
        place.state = DeploymentState.READY
        self._changed()

    async def _insistently_loaded(self, place: _Place) -> EmbeddedBackend:
        for attempt in itertools.count():
            try:
                return await self._loaded(place.wanted, place.admission)
            except Exception as error:
                known = isinstance(error, DaitnError | OSError)
                log.warning(
                    "%s is not ready: %s",
                    place.wanted.name,
                    error,
                    exc_info=None if known else error,
                )
                if place.state is not DeploymentState.FAILED:
                    place.state = DeploymentState.FAILED
                    self._changed()
                pause_s = AGAIN_S[min(attempt, len(AGAIN_S) - 1)]
                if isinstance(error, WorkFailed):
                    pause_s = min(2.0**attempt, LOST_MOST_S)
            await asyncio.sleep(pause_s)
        raise AssertionError("counting does not end")

    async def _loaded(self, wanted: DeployModel, admission: AdmissionQueue) -> EmbeddedBackend:
        # A name of its own: the same model may still be draining here, under the one it had.
        name = f"{wanted.name}-{next(self._loads)}"
        folder = self._folder / name
        await self._host.start()
        await self._transport.fetch(wanted.model, lambda done, total: None)
        manifest = self._store.manifest(wanted.model.manifest)
        if manifest.size_bytes > wanted.model.size_bytes:
            raise InvalidInput(
                f"{wanted.name} has {manifest.size_bytes} bytes, not {wanted.model.size_bytes}",
                field="model.size_bytes",
                fix="deploy it with its true size",
            )
        try:
            folder.mkdir()
            await asyncio.to_thread(self._store.unpack, manifest, folder)
            await self._host.load(name, wanted.recipe, folder, wanted.config)
            await self._try(name)
        except BaseException:
            await self._host.unload(name)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        descriptor = self._described(wanted, DeploymentState.READY)
        return EmbeddedBackend(wanted, descriptor, name, self._host, admission)

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
                await place.admission.idle.wait()
        if place.serving is not None:
            await self._unload(place.serving)
        if self._places.get(name) is place:
            del self._places[name]
        self._changed()

    async def _unload(self, model: EmbeddedBackend) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_WITHIN_S):
                await model.finished.wait()
        await self._host.unload(model.loaded)
        shutil.rmtree(self._folder / model.loaded, ignore_errors=True)

    def _described(self, wanted: DeployModel, state: DeploymentState) -> DeploymentDescriptor:
        return DeploymentDescriptor(
            name=wanted.name,
            owner=OwnerId(wanted.owner),
            runtime=Runtime.EMBEDDED,
            apis=self._consultant.facts(wanted.recipe).apis,
            state=state,
            manifest=wanted.model.manifest,
            recipe=wanted.recipe,
            size_bytes=wanted.model.size_bytes,
            context_tokens=ANY_CONTEXT,
            slots=self._facility.slots,
            queue=self._facility.queue,
            price_usd_per_1k_in=wanted.price_usd_per_1k_in,
            price_usd_per_1k_out=wanted.price_usd_per_1k_out,
            deterministic=True,
            evidence=wanted.evidence,
            policy=wanted.policy,
        )
