"""A facility: its API server, its deployments, and what it publishes about them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from daitn.files.atomic import make_folder
from daitn.files.state_folder import NodeState
from daitn.identity.grants import GrantBook, sign_statement
from daitn.identity.keys import SigningKey
from daitn.identity.sealing import ReceiverKey
from daitn.learning.answering.host import AnsweringHost
from daitn.learning.consultant import Consultant
from daitn.learning.memory import Loading
from daitn.node.config import FacilityConfig, NodeConfig
from daitn.node.mandates import SpeaksFor, stated_owner
from daitn.node.serving.backends.openai_server import OpenAiBackend
from daitn.node.serving.backends.protocol import Backend
from daitn.node.serving.kept_responses import StoredResponses
from daitn.node.serving.lifecycle import ModelLifecycle
from daitn.node.serving.local.model import LocalModel
from daitn.node.serving.metering import FacilityMeter
from daitn.node.serving.metrics import measured
from daitn.node.serving.sealed import Unsealer
from daitn.node.serving.server import ServingServer
from daitn.node.usage.counts import UsageCounts
from daitn.objects.deployments import (
    DeploymentDescriptor,
    DeploymentState,
    FacilityDescriptor,
)
from daitn.objects.descriptors import Role
from daitn.objects.errors import DaitnError, Unreachable
from daitn.objects.grants import NameGrant, SealingKey, Signed, full_name
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.messages import DeployModel, NameAnswer, NameQuestion, RetireModel, Serving
from daitn.objects.moments import DAY_S
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.http import HttpServer
from daitn.tools.mobility.protocol import BlobStore, ModelTransport
from daitn.tools.mobility.releases import Release
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.monitoring.tracing import OFF, Tracer
from daitn.tools.tasks import Tasks

__all__ = ["ADMITTED_ROLES", "Facility"]

log = logging.getLogger(__name__)

ADMITTED_ROLES = (Role.GATEWAY, Role.VERIFIER, Role.FORWARDER)
"""Roles whose passes the API server accepts."""
WRITE_TIMEOUT_S = 600.0
"""Timeout for a gateway that stops reading an answer. It reads no slower than its own client, which
it drops sooner."""
REPORT_INTERVAL_S = 1.0
SEALING_LASTS_S = 366 * DAY_S
"""From the node's start."""
NAME_TIMEOUT_S = 2.0
NAME_RETRY_S, NAME_REFUSED_S, NAME_RENEWAL_S = 2.0, 60.0, DAY_S
"""Pauses between requests for bare names: while a request is unanswered, while a name is another
owner's, and once all are granted."""
POLL_INTERVAL_S = 0.1
"""Changes of load or free memory are published within this time."""


class Facility:
    """The role `facility` of a node. It calls `changed` when its descriptor changes."""

    def __init__(
        self,
        config: NodeConfig,
        consultant: Consultant,
        fabric: Fabric,
        store: BlobStore,
        transport: ModelTransport,
        admit: Callable[[str, float], SiteId],
        changed: Callable[[], None],
        speaks_for: SpeaksFor = stated_owner,
        grants: GrantBook | None = None,
        key: SigningKey | None = None,
        released: Release | None = None,
        tracer: Tracer = OFF,
        counts: UsageCounts | None = None,
    ) -> None:
        """`consultant` knows the recipes that may run here by the time `start` is called. `admit`
        and `speaks_for`: see `ServingServer`. `grants`: see `ModelLifecycle`. `key`: the site's,
        with which it signs its sealing key. `counts`: counts answers and hosting; `None` means
        nothing is counted."""
        assert config.facility is not None
        self._site = config.site
        self._config = config.facility
        self._fabric = fabric
        self._upstreams = {
            upstream.name: OpenAiBackend(
                upstream, config.owner, changed, config.facility.max_answer_bytes, config.tls
            )
            for upstream in config.facility.upstreams
        }
        make_folder(config.scratch)
        loading = Loading()
        self._host = AnsweringHost(
            threads=config.threads,
            stall_s=config.stall_s,
            sandbox=config.recipe_sandbox,
            loading=loading,
        )
        self._models = {
            model.name: LocalModel(model, config, self._host, consultant, loading, changed)
            for model in config.facility.models
        }
        self._offered: dict[str, Backend] = {**self._upstreams, **self._models}
        """The facility's own offers, by name."""
        self._lifecycle = ModelLifecycle(
            config, consultant, store, transport, self._host, changed, grants, released
        )
        sealed: Unsealer | None = None
        self._sealing: Signed | None = None
        if grants is not None and key is not None:
            receiver = ReceiverKey.at(Path(config.state) / NodeState.SEALING_KEY)
            self._sealing = _sealing_key(grants.network, config.site, receiver, key)
            sealed = Unsealer(config.site, receiver)
        self._responses = _stored_responses(config.facility, Path(config.state))
        self._meter: FacilityMeter | None = None
        if counts is not None:
            price = config.facility.price_usd_per_hour
            hosted = self._lifecycle.descriptors
            self._meter = FacilityMeter(counts, clock.wall_s, price, hosted)
        self._serving = ServingServer(
            admit, self._backends, self._responses, speaks_for, sealed, tracer, self._meter
        )
        self._changed = changed
        self._grants = grants
        self._names: dict[str, Signed] = {}
        """Bare names of its own offers, as granted by the control centre."""
        self._refused: set[str] = set()
        """Names whose refusal was logged."""
        self._server = HttpServer(
            config.facility.listen,
            "facility.listen",
            self._serving.handle,
            config.tls,
            advertise=config.facility.advertise,
            write_timeout_s=WRITE_TIMEOUT_S,
        )
        self._reported: tuple[object, ...] = ()
        """The load last published, and when (monotonic)."""
        self._reported_at_s = 0.0
        self._tasks = Tasks()

    async def start(self) -> None:
        """Start serving. Raises `InvalidInput` for an address that it cannot use."""
        await self._server.start()
        await asyncio.gather(*(upstream.start() for upstream in self._upstreams.values()))
        for model in self._models.values():
            model.start()
        await self._lifecycle.start()
        self._tasks.repeat(self._report, "serving")
        self._tasks.repeat(self._responses.expire, "kept responses")
        if self._grants is not None and self._offered:
            await self._ask_names(self._grants)
            self._tasks.repeat(partial(self._keep_names, self._grants), "names")

    async def drain(self, timeout_s: float) -> None:
        """Let gateways query others, and finish the queries in progress, for at most
        `timeout_s`."""
        self._serving.draining = True
        self._changed()
        await self._server.drain(timeout_s)

    async def close(self) -> None:
        """Stop serving, then stop the backends."""
        await self._tasks.close()
        await self._server.close()
        await self._lifecycle.close()
        await asyncio.gather(*(model.close() for model in self._models.values()))
        await self._host.close()
        for upstream in self._upstreams.values():
            await upstream.close()

    @property
    def server(self) -> str:
        """The server's address within the site, once it listens."""
        return self._server.endpoint

    def descriptor(self) -> FacilityDescriptor:
        """The facility's descriptor now."""
        config = self._config
        return FacilityDescriptor(
            endpoint=self._server.published,
            hosts=config.hosts,
            memory_bytes=config.memory_bytes,
            recipes=self._lifecycle.recipes if config.hosts else (),
            price_usd_per_hour=config.price_usd_per_hour,
            keeps_queries=config.keeps_queries,
            keeps_responses=self._responses.keeps,
            sealing=self._sealing,
            deployments=tuple(map(self._published, self._deployments())),
        )

    def _deployments(self) -> Iterator[DeploymentDescriptor]:
        for name, backend in self._offered.items():
            granted = self._names.get(name)
            yield msgspec.structs.replace(backend.descriptor, name_grant=granted)
        yield from self._lifecycle.descriptors()

    def _published(self, deployment: DeploymentDescriptor) -> DeploymentDescriptor:
        """As published: a stopping facility wants no new queries."""
        if self._serving.draining and deployment.state is DeploymentState.READY:
            return msgspec.structs.replace(deployment, state=DeploymentState.DRAINING)
        return deployment

    def count_hosting(self) -> None:
        """Count the time since the last call for each hosted model."""
        if self._meter is not None:
            self._meter.host()

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        return measured(self._backends(), self._lifecycle.memory_free_bytes)

    def models(self) -> frozenset[Digest]:
        """Manifests of weights that the site must keep."""
        return self._lifecycle.models()

    @property
    def in_progress(self) -> int:
        """Queries that are being answered or wait here."""
        admissions = (backend.admission for backend in self._backends().values())
        return sum(admission.in_flight + admission.waiting for admission in admissions)

    def placed(self) -> tuple[str, ...]:
        """Names of the deployments placed here by a control centre."""
        return tuple(deployment.name for deployment in self._lifecycle.descriptors())

    def close_to(self, closed: Callable[[DeploymentDescriptor], str]) -> None:
        """`closed` says why a deployment takes no queries now; see `ServingServer`."""
        self._serving.closed = closed

    async def on_deploy(self, key: str, payload: bytes) -> bytes:
        """See `Roles.handlers`."""
        self._lifecycle.deploy(decode(payload, DeployModel))
        return b""

    async def on_retire(self, key: str, payload: bytes) -> bytes:
        """`RetireModel` -> nothing: facility: finish the queries in progress, then remove the
        model."""
        self._lifecycle.retire(decode(payload, RetireModel).name)
        return b""

    async def _keep_names(self, grants: GrantBook) -> None:
        lacking = self._offered.keys() - self._names.keys()
        if lacking <= self._refused:
            await asyncio.sleep(NAME_REFUSED_S if lacking else NAME_RENEWAL_S)
        else:
            await asyncio.sleep(NAME_RETRY_S)
        await self._ask_names(grants)

    async def _ask_names(self, grants: GrantBook) -> None:
        """Ask the control centre for bare names of its own offers; `owner/name` needs none."""
        for name in self._offered:
            try:
                question = encode(NameQuestion(name=name))
                key = keys.center_do("name")
                answer = await self._fabric.request(key, question, timeout_s=NAME_TIMEOUT_S)
                signed = decode(answer, NameAnswer).grant
                if signed is None or self._names.get(name) == signed:
                    continue
                grants.read(signed, NameGrant)
                self._names[name] = signed
                self._changed()
            except Unreachable as error:
                log.info("no bare names for now: %s", error)
                return
            except DaitnError as error:
                if name not in self._refused:
                    log.warning("queries find %s as %s: %s", name, self._full_name(name), error)
                self._refused.add(name)

    def _full_name(self, name: str) -> str:
        return full_name(self._offered[name].descriptor.owner, name)

    def _backends(self) -> dict[str, Backend]:
        return {**self._offered, **self._lifecycle.backends()}

    def _reading(self) -> Serving:
        return Serving(
            site=self._site,
            at_s=clock.now_s(),
            memory_free_bytes=self._lifecycle.memory_free_bytes,
            deployments=tuple(
                backend.admission.reading(name) for name, backend in self._backends().items()
            ),
        )

    async def _report(self) -> None:
        """Publish the load of all deployments, at once when it or the free memory changes."""
        state = (
            self._lifecycle.memory_free_bytes,
            *(
                (name, backend.admission.in_flight + backend.admission.waiting)
                for name, backend in self._backends().items()
            ),
        )
        now_s = time.monotonic()
        if state != self._reported or now_s - self._reported_at_s >= REPORT_INTERVAL_S:
            self._reported, self._reported_at_s = state, now_s
            try:
                serving = encode(self._reading())
                await self._fabric.publish(keys.site_serving(self._site), serving)
            except DaitnError as error:
                log.debug("cannot publish the serving load: %s", error)
        await asyncio.sleep(POLL_INTERVAL_S)


def _sealing_key(network: str, site: SiteId, receiver: ReceiverKey, key: SigningKey) -> Signed:
    """The key with which others seal questions to this site, signed by the site."""
    until_s = clock.wall_s() + SEALING_LASTS_S
    public = receiver.public
    return sign_statement(
        SealingKey(network=network, site=site, public=public, until_s=until_s), key
    )


def _stored_responses(config: FacilityConfig, state: Path) -> StoredResponses:
    return StoredResponses(
        state / NodeState.RESPONSES,
        config.kept_responses if config.keeps_queries else 0,
        config.kept_bytes,
        config.kept_days * DAY_S,
    )
