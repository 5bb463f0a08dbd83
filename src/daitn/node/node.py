"""A site's node: one process with the roles in its file."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from daitn.files.state_folder import NodeState, ProcessState
from daitn.identity.keys import SigningKey, key_mark
from daitn.identity.orders import OrderBook
from daitn.identity.signing import sign_advert, sign_report
from daitn.learning.consultant import Consultant
from daitn.learning.trainer import Trainer
from daitn.node.admission import Admission
from daitn.node.agents.guard import AgentGuard
from daitn.node.agents.role import AgentsRole
from daitn.node.audit import AuditLog
from daitn.node.behalf import Behalf
from daitn.node.config import NodeConfig
from daitn.node.cordon import CordonFile
from daitn.node.descriptor import allowed_recipes, describe, stated_anew
from daitn.node.forwarder.role import ForwarderRole
from daitn.node.incarnation import MARKED_EVERY_S, mark, started_at_s
from daitn.node.metrics import budgets
from daitn.node.roles import Roles
from daitn.node.sandbox import check_sandbox
from daitn.node.training.begun import BegunVisits
from daitn.node.training.executor import Executor
from daitn.node.training.privacy_ledger import PrivacyLedger
from daitn.node.training.sums import SecureSums
from daitn.node.training.work_log import WorkLog
from daitn.node.training.work_queue import WorkQueue
from daitn.objects.audit import AuditEvent
from daitn.objects.cordons import CordonQuestion, CordonReport
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.errors import DaitnError, WorkFailed
from daitn.objects.identifiers import Digest, VisitId
from daitn.objects.messages import (
    CancelWork,
    MergeWork,
    ModelsNeeded,
    RecipeQuestion,
    StatusQuestion,
    Work,
    WorkOutcome,
    WorkProgress,
    WorkReceipt,
)
from daitn.objects.wire import canonical, decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.caller import caller_name, check_owner
from daitn.tools.fabric.protocol import Fabric, Handler, Registration
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.releases import Release, Releases
from daitn.tools.mobility.server import ChunkServer
from daitn.tools.mobility.transport import ChunkTransport
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.monitoring.tracing import OFF, Tracer
from daitn.tools.roster import LiveRoster
from daitn.tools.sensing.sensing import Sensing
from daitn.tools.tasks import Newest, Tasks

__all__ = ["Node"]

log = logging.getLogger(__name__)

REPORT_TIMEOUT_S = 5.0
PUBLISH_AFTER_S = 0.05
"""Changes within this time are published together."""


class Node:
    """A running node. `start` returns when it can accept work; `close` leaves the network at once:
    a `drain` before it spares queries in progress."""

    _work: WorkQueue

    def __init__(
        self,
        config: NodeConfig,
        fabric: Fabric,
        roster: LiveRoster | None = None,
        orders: OrderBook | None = None,
        tracer: Tracer = OFF,
    ) -> None:
        """`roster`: the members; `None` means trust on first use. `orders` checks the owners'
        orders; none on a fabric without signatures."""
        self._config = config
        self._fabric = fabric
        self._grants = roster.grants() if roster else None
        self._changed = asyncio.Event()
        """Set when the descriptor may have changed."""
        state = Path(config.state)
        self._key = SigningKey.at(state / ProcessState.KEY)
        self._store = DiskBlobStore(state / ProcessState.MODELS)
        self._trainer = Trainer(
            threads=config.threads, stall_s=config.stall_s, sandbox=config.recipe_sandbox
        )
        self._sensing = self._new_sensing(state)
        self._transport = ChunkTransport(
            fabric, config.site, self._store, on_transfer=self._sensing.learn_transfer
        )
        self._consultant = Consultant(allowed_recipes(config), config.recipe_sandbox)
        self._audit = AuditLog(state / NodeState.AUDIT, config.site, self._key)
        admission = Admission(self._audit, (*config.datasets, *config.tests))
        self._cordon = CordonFile(state / NodeState.CORDON, self._cordoned)
        releases = Releases(state / ProcessState.RELEASES, self._store)
        begun = BegunVisits(state / NodeState.VISITS)
        self._sums: SecureSums | None = None
        self._network = orders.network if orders is not None else ""
        if orders is not None:
            self._sums = SecureSums(config.site, state / NodeState.SUMS, self._key, fabric, orders)
        self._privacy = PrivacyLedger(state / NodeState.PRIVACY, self._key, self._changed.set)
        self._executor = Executor(
            config,
            self._trainer,
            self._store,
            self._transport,
            self._key,
            self._consultant,
            admission,
            self._publish_progress,
            orders,
            releases,
            begun,
            self._privacy,
            self._sums,
        )
        self._roles: Roles | None = None
        if Roles.has_any(config):
            self._roles = self._new_roles(config, admission, roster, releases.record, tracer)
        self._agents: AgentsRole | None = None
        if self._roles is not None and self._roles.forwarder is not None:
            self._agents = self._new_agents_role(
                self._roles.forwarder, self._roles.announced, orders, releases.record, begun.forget
            )
        self._work = WorkQueue(
            config.site,
            WorkLog(state / NodeState.WORK),
            self._executor.perform,
            self._report,
            begun,
            tracer,
            self._sensing.queue_changed,
        )
        self._chunks = ChunkServer(fabric, config.site, self._store, releases)
        self._registrations: list[Registration] = []
        self._tasks = Tasks()
        self._progress = Newest(self._send_progress, self._tasks)
        self.descriptor: NodeDescriptor | None = None

    def _new_sensing(self, state: Path) -> Sensing:
        return Sensing(
            self._fabric,
            self._config.site,
            queue=lambda: self._work.queue,
            edition=lambda: self.descriptor.edition if self.descriptor else (0.0, 0),
            folder=state,
            rng=random.Random(self._config.site),  # noqa: S311 - spreads probes, keeps no secret
            of_all=self._config.gateway is not None,
        )

    def _new_roles(
        self,
        config: NodeConfig,
        admission: Admission,
        roster: LiveRoster | None,
        released: Release,
        tracer: Tracer,
    ) -> Roles:
        return Roles(
            config,
            self._consultant,
            self._fabric,
            self._store,
            self._transport,
            self._key,
            admission,
            self._changed.set,
            roster,
            released,
            tracer,
            partial(self._cordon.check, config.site),
        )

    def _new_agents_role(
        self,
        forwarder: ForwarderRole,
        announced: Callable[[], Iterable[NodeDescriptor]],
        orders: OrderBook | None,
        released: Release,
        ended: Callable[[VisitId], None],
    ) -> AgentsRole:
        return AgentsRole(
            self._config.site,
            Path(self._config.state),
            self._fabric,
            forwarder,
            self._transport,
            self._executor,
            self._described,
            AgentGuard(orders, self._key) if orders else None,
            released,
            ended,
            announced,
        )

    async def start(self) -> None:
        """Inspect the data, probe the machine, then join the network. Raises `DaitnError`."""
        await self._start_recipes()
        started = started_at_s(Path(self._config.state), clock.wall_s())
        clock.not_before(started)
        self.descriptor = await describe(
            self._config, self._consultant, self._trainer, self._key.public, started
        )
        self._executor.offer(self.descriptor)
        if self._roles is not None:
            self._roles.cordon(self._cordon.cordon)
            self._roles.offer(self.descriptor)
            await self._roles.start()
        self.descriptor = self._now_described(self.descriptor)
        await self._chunks.start()
        for verb, handler in self._handlers().items():
            served = await self._fabric.serve(keys.site_do(self._config.site, verb), handler)
            self._registrations.append(served)
        await self._sensing.start()
        token = await self._fabric.announce(
            keys.site_alive(self._config.site, key_mark(self._key.public))
        )
        self._registrations.append(token)
        await self._publish_advert()
        self._work.resume()
        self._tasks.repeat(self._mark_time, "time")
        if self._roles is not None:
            await self._roles.listen()
        self._tasks.repeat(self._publish_changes, "descriptor")
        if self._agents is not None:
            self._agents.start()

    async def _start_recipes(self) -> None:
        """Start the processes that train and answer for recipes."""
        roles = set(self._config.roles)
        if roles - {Role.GATEWAY}:
            await check_sandbox(self._config.sandbox)
        if {Role.DATA, Role.COMPUTE, Role.VERIFIER} & roles:
            try:
                await self._trainer.start()
            except WorkFailed as error:
                log.error("this site cannot train or measure: %s", error)
            await self._consultant.start(self._trainer)
        elif {Role.FACILITY, Role.FORWARDER} & roles:
            await self._consultant.start()

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield from self._work.measured()
        yield from self._transport.measured()
        yield from self._chunks.measured()
        if self.descriptor is not None:
            yield from budgets(self.descriptor)
        if self._roles is not None:
            yield from self._roles.measured()

    def reconfigure(self, config: NodeConfig) -> None:
        """Apply a changed file; `LIVE` says which fields may differ. Raises `InvalidInput`, and
        then nothing has changed."""
        if self._roles is not None:
            self._roles.reconfigure(config)
        self._config = config
        self._executor.reconfigure(config)
        self._changed.set()

    async def drain(self) -> None:
        """Finish the queries in progress, for at most `drain_s`, and take no new ones."""
        if self._roles is not None:
            log.info("finishing queries in progress, within %g s", self._config.drain_s)
            await self._roles.drain(self._config.drain_s)

    async def close(self) -> None:
        """Leave the network. Visits stop at their savepoints, other unfinished work is lost; unsent
        reports stay on disk."""
        for registration in reversed(self._registrations):
            await registration.close()
        if self._agents is not None:
            await self._agents.close()
        await self._work.close()
        await self._tasks.close()
        if self._roles is not None:
            await self._roles.close()
        await self._sensing.close()
        await self._chunks.close()
        await self._transport.close()
        await self._trainer.close()
        await self._consultant.close()
        self._audit.close()

    async def _publish_advert(self) -> None:
        assert self.descriptor is not None
        advert = canonical(sign_advert(self.descriptor, self._key))
        await self._fabric.publish(keys.site_advert(self._config.site), advert)

    async def _mark_time(self) -> None:
        await asyncio.sleep(MARKED_EVERY_S)
        try:
            await asyncio.to_thread(mark, Path(self._config.state), clock.now_s())
        except DaitnError as error:
            log.warning("the time was not written to disk: %s", error)

    def _now_described(self, node: NodeDescriptor) -> NodeDescriptor:
        """The descriptor, with the parts that change while the node runs."""
        node = stated_anew(node, self._config)
        node = self._privacy.described(node, self._config.datasets)
        node = msgspec.structs.replace(node, cordon=self._cordon.cordon or msgspec.UNSET)
        return node if self._roles is None else self._roles.described(node)

    async def _publish_changes(self) -> None:
        """Publish the descriptor whenever it changes."""
        await self._changed.wait()
        await asyncio.sleep(PUBLISH_AFTER_S)
        self._changed.clear()
        await self._publish_if_changed()

    async def _publish_if_changed(self) -> None:
        assert self.descriptor is not None
        changed = self._now_described(self.descriptor)
        if changed == self.descriptor:
            return
        version = self.descriptor.version + 1
        self.descriptor = msgspec.structs.replace(changed, version=version)
        try:
            await self._publish_advert()
        except DaitnError as error:
            log.warning("the changed descriptor was not published: %s", error)
            self._changed.set()

    def _handlers(self) -> dict[str, Handler]:
        handlers = self._own_handlers()
        if "submit" in handlers:
            handlers["submit"] = self._unless_cordoned("jobs", handlers["submit"])
        if self._grants is not None:
            handlers["behalf"] = Behalf(self._config.site, self._grants, handlers).on_behalf
        return handlers

    def _own_handlers(self) -> dict[str, Handler]:
        return {
            "describe": self._on_describe,
            "cordon": self._on_cordon,
            "estimate": self._on_estimate,
            "work": self._on_work,
            "status": self._on_status,
            "stop": self._on_stop,
            "retain": self._on_retain,
            **(self._sums.handlers() if self._sums else {}),
            **(self._roles.handlers() if self._roles else {}),
            **(self._agents.handlers() if self._agents else {}),
        }

    def _unless_cordoned(self, what: str, handler: Handler) -> Handler:
        """The handler of a request for new work, unless the site is cordoned."""

        async def handled(key: str, payload: bytes) -> bytes:
            self._cordon.check(self._config.site, what)
            return await handler(key, payload)

        return handled

    def _cordoned(self) -> None:
        if self._roles is not None:
            self._roles.cordon(self._cordon.cordon)
        self._changed.set()

    async def _on_cordon(self, key: str, payload: bytes) -> bytes:
        """`CordonQuestion` -> `CordonReport`: take the site out of service or return it to service;
        what is still in progress there."""
        question = decode(payload, CordonQuestion)
        check_owner(self._config.owner, f"the site {self._config.site}")
        self._cordon.change(question, caller_name(), self._note_cordon)
        await self._publish_if_changed()  # The control centre then tells those who ask, too.
        report = CordonReport(
            site=self._config.site,
            cordon=self._cordon.cordon,
            clock_s=clock.wall_s(),
            visits=self._work.unfinished,
            agents=self._agents.hosted if self._agents else 0,
        )
        return encode(self._roles.occupied(report) if self._roles else report)

    def _note_cordon(self, event: AuditEvent, by: str, reason: str) -> None:
        self._audit.append(event, owner=by, reason=reason)

    def _described(self) -> NodeDescriptor:
        assert self.descriptor is not None
        return self.descriptor

    async def _on_describe(self, key: str, payload: bytes) -> bytes:
        """nothing -> `Advert`: the site's signed descriptor."""
        assert self.descriptor is not None
        return canonical(sign_advert(self.descriptor, self._key))

    async def _on_estimate(self, key: str, payload: bytes) -> bytes:
        """`RecipeQuestion` -> `WorkNeeds`: what a model of a configuration needs."""
        question = decode(payload, RecipeQuestion)
        return encode(await self._executor.needs(question))

    async def _on_work(self, key: str, payload: bytes) -> bytes:
        """`Work` -> `WorkStatus`: do a `VisitWork`, a `MergeWork` or a `VerifyWork`; the same work
        submitted twice is done once."""
        work = decode(payload, Work)
        if not isinstance(work, MergeWork) and not self._work.knows(work.visit):
            self._cordon.check(self._config.site, "visits")  # A merge ends rounds under way.
        return encode(self._work.start(work))

    async def _on_status(self, key: str, payload: bytes) -> bytes:
        """`StatusQuestion` -> `WorkStatus`: the state of a piece of work (a `WorkState`)."""
        return encode(self._work.status(decode(payload, StatusQuestion).visit))

    async def _on_stop(self, key: str, payload: bytes) -> bytes:
        """`CancelWork` -> nothing: stop a piece of work and forget it."""
        await self._work.stop(decode(payload, CancelWork).visit)
        return b""

    async def _on_retain(self, key: str, payload: bytes) -> bytes:
        """`ModelsNeeded` -> nothing: delete every other model once it has been omitted for half an
        hour."""
        needed = decode(payload, ModelsNeeded)
        freed = await self._executor.retain(lambda: frozenset(needed.models) | self._in_use())
        if freed:
            log.info("freed %d bytes of models no longer needed", freed)
        return b""

    def _in_use(self) -> frozenset[Digest]:
        """Models that this site itself needs."""
        serving = self._roles.models() if self._roles else frozenset()
        travelling = self._agents.models() if self._agents else frozenset()
        return self._work.models() | serving | travelling

    async def _report(self, outcome: WorkOutcome) -> None:
        report = sign_report(outcome, self._key, self._audit.claim(), self._network)
        answer = await self._fabric.request(
            keys.center_do("report"), canonical(report), timeout_s=REPORT_TIMEOUT_S
        )
        self._take_receipt(answer)

    def _take_receipt(self, answer: bytes) -> None:
        """The report has arrived, even if its receipt is faulty."""
        try:
            head = decode(answer, WorkReceipt).audit
            if head is not None:
                self._audit.witnessed(head)
        except DaitnError as error:
            log.warning("the audit log is not countersigned: %s", error)

    def _publish_progress(self, progress: WorkProgress) -> None:
        self._work.progressed(progress)
        self._progress.put(progress.visit, progress)

    async def _send_progress(self, progress: WorkProgress) -> None:
        try:
            key = keys.site_progress(self._config.site, progress.job)
            await self._fabric.publish(key, encode(progress))
        except DaitnError as error:
            log.debug("progress was not published: %s", error)
