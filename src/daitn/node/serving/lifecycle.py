"""Models placed at this facility by the control centre: fetched, loaded, replaced and retired."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import structs

from daitn.files.items import ItemStore
from daitn.files.state_folder import NodeState
from daitn.identity.grants import GrantBook
from daitn.learning.answering.host import AnsweringHost
from daitn.learning.answering.protocol import Facts
from daitn.learning.consultant import Consultant
from daitn.node.config import FacilityConfig, NodeConfig
from daitn.node.serving.admission import AdmissionQueue
from daitn.node.serving.backends.embedded import EmbeddedBackend, engine_of, warm_up
from daitn.objects.access import allows
from daitn.objects.deployments import (
    ANY_CONTEXT,
    MOST_DEPLOYMENTS,
    DeploymentDescriptor,
    DeploymentState,
    Runtime,
    config_digest,
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
from daitn.tools.entitled import check_grant, check_latest, check_place
from daitn.tools.mobility.manifests import checked_digest
from daitn.tools.mobility.protocol import BlobStore, ModelTransport
from daitn.tools.mobility.releases import Release
from daitn.tools.tasks import Tasks

__all__ = ["ModelLifecycle"]

log = logging.getLogger(__name__)

RETRY_PAUSES_S = (1.0, 2.0, 5.0, 10.0)
"""Pauses between attempts to fetch and load a model; the last one repeats."""
MAX_WORKER_PAUSE_S = 300.0
"""Upper bound of the pause after a failure of the model's process, which doubles each time: others
need the disk and the memory that each attempt takes."""
_UNKNOWN = Facts()
"""Facts of a model that is not loaded."""
DRAIN_TIMEOUT_S = 300.0
"""Answers that still run this long after their model was retired or replaced are cut off."""


@dataclass
class _Deployment:
    """One deployment: its desired state, and what answers now."""

    desired: DeployModel
    admission: AdmissionQueue
    state: DeploymentState = DeploymentState.LOADING
    backend: EmbeddedBackend | None = None
    loaded: DeployModel | None = None
    """The deployment for which `backend` was loaded."""

    @property
    def answers_as_desired(self) -> bool:
        """Whether the desired model would give the same answers."""
        if self.backend is None or self.loaded is None:
            return False
        mine, other = self.loaded, self.desired
        return (mine.model.manifest, mine.recipe, mine.config) == (
            other.model.manifest,
            other.recipe,
            other.config,
        )


class ModelLifecycle:
    """Stores the desired deployments and realises them, also after a restart.

    A model that is being replaced answers until its successor has been loaded and tried.
    """

    def __init__(
        self,
        config: NodeConfig,
        consultant: Consultant,
        store: BlobStore,
        transport: ModelTransport,
        host: AnsweringHost,
        changed: Callable[[], None],
        grants: GrantBook | None = None,
        released: Release | None = None,
    ) -> None:
        """`host` runs the models; the caller closes it. `grants` checks what models' owners signed;
        none in a network without a roster."""
        self._grants = grants
        assert config.facility is not None
        self._config = config
        self._facility: FacilityConfig = config.facility
        self._store = store
        self._transport = transport
        self._changed = changed
        self._released = released
        self._desired = ItemStore(Path(config.state) / NodeState.DEPLOYMENTS, DeployModel)
        self._folder = Path(config.state) / NodeState.SERVING
        self._host = host
        self._deployments: dict[str, _Deployment] = {}
        self._tasks = Tasks()
        """One per deployment, and one per replaced model that is still draining."""
        self._load_count = itertools.count()
        self._consultant = consultant

    async def start(self) -> None:
        """Resume the stored deployments.

        A deployment that the node file no longer permits is skipped; it stays stored, and resumes
        once the file permits it again.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        for desired in self._desired:
            try:
                self._check(desired)
            except DaitnError as error:
                log.warning("deployment %s is skipped: %s", desired.name, error)
                continue
            self._start_loading(desired)

    @property
    def recipes(self) -> tuple[str, ...]:
        """Recipes whose models this facility can host."""
        consultant = self._consultant
        return tuple(name for name in consultant.recipes if consultant.facts(name).apis)

    async def close(self) -> None:
        await self._tasks.close()

    def backends(self) -> dict[str, EmbeddedBackend]:
        """The loaded models, by deployment name."""
        return {
            name: deployment.backend
            for name, deployment in self._deployments.items()
            if deployment.backend
        }

    def descriptors(self) -> tuple[DeploymentDescriptor, ...]:
        return tuple(
            self._descriptor(deployment.desired, deployment.state)
            if deployment.backend is None
            else deployment.backend.descriptor
            for _, deployment in sorted(self._deployments.items())
        )

    def models(self) -> frozenset[Digest]:
        """Manifests of weights that must stay in the store."""
        desired = {deployment.desired.model.manifest for deployment in self._deployments.values()}
        serving = {p.backend.descriptor.manifest for p in self._deployments.values() if p.backend}
        return frozenset(desired | {manifest for manifest in serving if manifest})

    @property
    def memory_free_bytes(self) -> int:
        taken = sum(
            deployment.desired.model.size_bytes for deployment in self._deployments.values()
        )
        return max(0, self._facility.memory_bytes - taken)

    def deploy(self, desired: DeployModel) -> None:
        """Accept a deployment; it is on disk when this returns.

        Raises `Refused`, `InvalidInput` or `NotFound` for a model that cannot be hosted here, and
        `StorageFull`.
        """
        self._check(desired)
        existing = self._deployments.get(desired.name)
        if (
            existing is not None
            and existing.desired == desired
            and existing.state is not DeploymentState.DRAINING
        ):
            return
        self._desired.put(desired.name, desired)
        self._start_loading(desired)

    def retire(self, name: str) -> None:
        """Take no more queries, finish those in progress, then remove the model. Retiring twice is
        harmless."""
        self._desired.forget(name)
        deployment = self._deployments.get(name)
        if deployment is None or deployment.state is DeploymentState.DRAINING:
            return
        deployment.state = DeploymentState.DRAINING
        if deployment.backend is not None:
            descriptor = deployment.backend.descriptor
            deployment.backend.descriptor = structs.replace(
                descriptor, state=DeploymentState.DRAINING
            )
        self._tasks.anew(name, self._drain(name, deployment), f"retire {name}")
        self._changed()

    def _check(self, desired: DeployModel) -> None:
        checked_name(desired.name, "name")
        checked_digest(desired.model.manifest)
        if desired.model.size_bytes < 1:
            raise InvalidInput("must be at least 1", field="model.size_bytes", fix="state the size")
        if self._grants is not None:
            grant = check_grant(
                self._grants,
                desired.grant,
                desired.owner,
                desired.name,
                desired.model.manifest,
                desired.terms,
            )
            check_place(self._grants, grant, desired.place_grant, self._config.site)
            if (known := self._deployments.get(desired.name)) is not None:
                check_latest(grant, known.desired.grant)
        if not self._facility.hosts:
            raise Refused(
                f"{self._config.site} does not host other owners' models", field="facility.hosts"
            )
        if desired.recipe not in self.recipes:
            raise NotFound(
                f"{self._config.site} cannot host models of recipe {desired.recipe}",
                field="recipe",
                fix=f"use one of: {', '.join(self.recipes) or 'none'}",
            )
        if not allows(desired.policy.release_to, self._config.jurisdiction):
            raise Refused(
                f"{desired.name} may not be hosted in {self._config.jurisdiction}",
                field="policy.release_to",
                fix=f"host it in {', '.join(desired.policy.release_to) or 'no jurisdiction'}",
            )
        offered = self._facility.offered
        if desired.name in offered:
            raise InvalidInput(
                f"{desired.name} is an upstream server or a model of {self._config.site}'s own",
                field="name",
                fix="rename it",
            )
        existing = self._deployments.get(desired.name)
        if self._grants is not None and existing and existing.desired.owner != desired.owner:
            raise Refused(
                f"{desired.name} is {existing.desired.owner}'s at {self._config.site}",
                field="name",
                fix="retire that one first, or use another name",
            )
        if existing is None and len(offered) + len(self._deployments) >= MOST_DEPLOYMENTS:
            raise StorageFull(
                f"{self._config.site} has {MOST_DEPLOYMENTS} deployments", fix="retire one first"
            )
        room = self.memory_free_bytes + (existing.desired.model.size_bytes if existing else 0)
        if desired.model.size_bytes > room:
            raise StorageFull(
                f"{desired.name} needs {desired.model.size_bytes} bytes, but {room} are free",
                field="facility.memory_bytes",
                fix="retire another model, or host it elsewhere",
            )

    def _start_loading(self, desired: DeployModel) -> None:
        deployment = self._deployments.get(desired.name)
        if deployment is None:
            admission = AdmissionQueue(self._facility.slots, self._facility.queue)
            deployment = self._deployments[desired.name] = _Deployment(desired, admission)
        deployment.desired = desired
        deployment.state = DeploymentState.LOADING
        self._tasks.anew(desired.name, self._bring_up(deployment), f"deploy {desired.name}")
        self._changed()

    async def _bring_up(self, deployment: _Deployment) -> None:
        """Fetch, load and try the model, until it works."""
        desired, previous = deployment.desired, deployment.backend
        if previous is not None and deployment.answers_as_desired:
            previous.descriptor = self._descriptor(desired, DeploymentState.READY, previous.facts)
        else:
            deployment.backend = await self._load_until_ready(deployment)
            deployment.loaded = desired
            log.info("deployment %s is ready", desired.name)
            if previous is not None:
                self._tasks.spawn(self._unload(previous), f"drain {desired.name}")
        deployment.state = DeploymentState.READY
        self._changed()

    async def _load_until_ready(self, deployment: _Deployment) -> EmbeddedBackend:
        for attempt in itertools.count():
            try:
                return await self._load(deployment.desired, deployment.admission)
            except Exception as error:
                expected = isinstance(error, DaitnError | OSError)
                log.warning(
                    "deployment %s cannot be loaded: %s",
                    deployment.desired.name,
                    error,
                    exc_info=None if expected else error,
                )
                if deployment.state is not DeploymentState.FAILED:
                    deployment.state = DeploymentState.FAILED
                    self._changed()
                pause_s = RETRY_PAUSES_S[min(attempt, len(RETRY_PAUSES_S) - 1)]
                if isinstance(error, WorkFailed):
                    pause_s = min(2.0**attempt, MAX_WORKER_PAUSE_S)
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    async def _load(self, desired: DeployModel, admission: AdmissionQueue) -> EmbeddedBackend:
        # A unique name: the same model may still be draining under its previous one.
        name = f"{desired.name}-{next(self._load_count)}"
        folder = self._folder / name
        if self._released is not None:
            self._released(desired.model.manifest, desired.owner, desired.policy.release_to)
        await self._transport.fetch(desired.model, lambda done, total: None)
        manifest = self._store.manifest(desired.model.manifest)
        try:
            folder.mkdir()
            await asyncio.to_thread(self._store.unpack, manifest, folder, link=True)
            size_bytes = desired.model.size_bytes
            facts = await self._host.load(
                name,
                desired.recipe,
                folder,
                desired.config,
                size_bytes=size_bytes,
                slots=self._facility.slots,
            )
            log.info("%s is loaded%s", desired.name, facts.runs_on and f": {facts.runs_on}")
            await warm_up(self._host, name)
        except BaseException:
            await self._host.unload(name)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        descriptor = self._descriptor(desired, DeploymentState.READY, facts)
        return EmbeddedBackend(descriptor, name, self._host, admission, facts)

    async def _drain(self, name: str, deployment: _Deployment) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await deployment.admission.idle.wait()
        if deployment.backend is not None:
            await self._unload(deployment.backend)
        if self._deployments.get(name) is deployment:
            del self._deployments[name]
        self._changed()

    async def _unload(self, model: EmbeddedBackend) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await model.finished.wait()
        await self._host.unload(model.loaded_name)
        shutil.rmtree(self._folder / model.loaded_name, ignore_errors=True)

    def _descriptor(
        self, desired: DeployModel, state: DeploymentState, facts: Facts = _UNKNOWN
    ) -> DeploymentDescriptor:
        of_recipe = self._consultant.facts(desired.recipe)
        abilities = msgspec.structs.replace(
            of_recipe.abilities, tools=of_recipe.abilities.tools or "tools" in facts.honours
        )
        return DeploymentDescriptor(
            name=desired.name,
            owner=OwnerId(desired.owner),
            runtime=Runtime.EMBEDDED,
            apis=of_recipe.apis,
            abilities=abilities,
            state=state,
            manifest=desired.model.manifest,
            recipe=desired.recipe,
            config=config_digest(desired.config),
            size_bytes=desired.model.size_bytes,
            context_tokens=ANY_CONTEXT if facts.reads_in_parts else facts.context_tokens,
            engine=engine_of(facts),
            slots=self._facility.slots,
            queue=self._facility.queue,
            price_usd_per_1k_in=desired.price_usd_per_1k_in,
            price_usd_per_1k_out=desired.price_usd_per_1k_out,
            deterministic=facts.deterministic,
            evidence=desired.evidence,
            policy=desired.policy,
            grant=desired.grant,
            name_grant=desired.name_grant,
            place_grant=desired.place_grant,
        )
