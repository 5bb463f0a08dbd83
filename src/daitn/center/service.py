"""The DA-ITN control centre (DCC): the process around the pure core."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from daitn import __version__
from daitn.center.accounts import Accounts
from daitn.center.advice import Advisor
from daitn.center.audit import Witness
from daitn.center.config import CenterConfig
from daitn.center.deployments import DeploymentService
from daitn.center.drrt_feed import DrrtFeed
from daitn.center.estimates import Estimates
from daitn.center.executor import JobExecutor
from daitn.center.experience import Experience
from daitn.center.job_commands import JobCommands
from daitn.center.job_views import JobViews
from daitn.center.jobs import JobService
from daitn.center.metrics import EPOCH, REFUSALS, CenterMetrics, jobs_measured, topology_measured
from daitn.center.names import BareNames
from daitn.center.published import PublishedModels
from daitn.center.reports import WorkReports
from daitn.center.retention import Retention
from daitn.center.sharing import ReleaseRecords, SharedStore
from daitn.center.spent_secrets import SpentSecrets
from daitn.center.topology_views import TopologyViews
from daitn.center.travels import TravelAccounts
from daitn.center.uploads import Uploads
from daitn.control.jobs.job import Job
from daitn.files.atomic import make_folder
from daitn.files.state_folder import ProcessState
from daitn.identity.certificates import Issuer
from daitn.identity.keys import SigningKey
from daitn.objects.descriptors import Role
from daitn.objects.errors import DaitnError, Refused, StorageFull
from daitn.objects.identifiers import CENTER_SITE, JobId, OwnerId, SiteId, VisitId
from daitn.objects.jobs import JobEvent, JobView
from daitn.objects.messages import CertificateAnswer, CertificateQuestion, WorkStatus
from daitn.objects.placement import DeploymentView
from daitn.objects.requests import NetworkFacts, WitnessedHeads
from daitn.objects.roster import SignedRoster
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.authority import CENTER_VERBS
from daitn.tools.fabric.caller import caller, visible
from daitn.tools.fabric.delivery import answer
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Fabric, Handler, Registration
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.turns import COSTS, RequestRates
from daitn.tools.journal.leadership import LASTS_S, LeadershipTurn
from daitn.tools.journal.sql import SqlJournal
from daitn.tools.membership import Listener
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.releases import Releases
from daitn.tools.mobility.server import ChunkServer
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.monitoring.tracing import OFF, Tracer
from daitn.tools.qrrt_feed import QrrtFeed
from daitn.tools.roster import LiveRoster
from daitn.tools.tasks import Newest, Tasks
from daitn.topology.snapshot import Drrt

__all__ = ["ControlCenter"]

log = logging.getLogger(__name__)

SETTLE_S = 10.0
"""After a start, sites have this long to return before interrupted jobs resume."""
_SETTLED_AT_ONCE = 50
"""Limit on ended jobs finalised before anything else gets a turn."""
_ROSTER_KIND = "roster"


class ControlCenter:
    """A running control centre."""

    def __init__(
        self,
        config: CenterConfig,
        fabric: Fabric,
        roster: LiveRoster | None = None,
        identity: Identity | None = None,
        tracer: Tracer = OFF,
        turn: LeadershipTurn | None = None,
    ) -> None:
        """`roster`: the members; none means trust on first use. `identity`: its identity on
        `fabric`; none on one without signatures. `turn`: its leadership, if others share its
        database."""
        self._orders = identity.orders() if identity else None
        self._config = config
        state = Path(config.state)
        make_folder(state)
        self._fabric = fabric
        self._turn, self._roster = turn, roster
        database = config.database_url
        self._journal = (
            SqlJournal(database, turn.term.fence, LASTS_S) if turn else SqlJournal(database)
        )
        models = state / ProcessState.MODELS
        self._store = SharedStore(models, database, turn.term) if turn else DiskBlobStore(models)
        self._listeners: list[Callable[[JobView], None]] = []
        self._network = identity.network if identity else ""
        self.api = ""
        """URL of its API, if there is one."""
        self.spent = SpentSecrets(self._journal, clock.wall_s)
        """Credentials already used, which the API refuses."""
        self._releases = Releases(self._rules(state / ProcessState.RELEASES), self._store)
        self._uploads = Uploads(self._store, self._releases, config.stored_bytes)
        self._chunks = ChunkServer(fabric, CENTER_SITE, self._store, self._releases)
        self._key = SigningKey.at(state / ProcessState.KEY)
        self._witness = Witness(self._journal, self._key)
        self._feed = DrrtFeed(
            fabric, self._journal, self._joined, self._lost, config.verifiers, roster
        )
        self._accounts = Accounts(
            self._journal, self._key, self._feed.key_of, self._owner_of, self._roles_of
        )
        self._qrrt = QrrtFeed(fabric, self._feed.membership, CENTER_SITE, roster)
        self._published = PublishedModels(self._journal)
        self._deployments = self._new_deployments(identity)
        root = None
        if config.root:
            root = FabricSettings(mode="client", connect=config.root, tls=config.tls)
        self._advisor = Advisor(fabric, self._journal, root, identity)
        self._experience = Experience(self._journal)
        self._metrics = CenterMetrics()
        self._executor = self._new_executor(tracer)
        self._jobs = JobService(self._journal, self._executor.carry_out, self._show)
        self._travels = TravelAccounts(
            self._journal,
            self._orders,
            self._feed.key_of,
            lambda order: self._jobs.ordered(order) is not None,
        )
        self._registrations: list[Registration] = []
        self._tasks = Tasks()
        self._updates = Newest(self._publish, self._tasks)
        self._estimates = Estimates(fabric, self._feed.snapshot)
        self._job_views = JobViews(self._jobs, self._owner_of)
        self._job_commands = self._new_commands(config.open_jobs)
        self._reports = WorkReports(self._jobs, self._witness, self._feed.key_of, self._network)
        self._topology = TopologyViews(
            self._feed.snapshot, self._qrrt.snapshot, self._executor, self._estimates
        )
        self._retention = self._new_retention()
        self._turns = RequestRates(config.requests_per_minute)
        self._verbs = {
            verb: self._metrics.counted(verb, self._turns.limited(verb, do))
            for verb, do in self._handlers().items()
        }

    def _new_deployments(self, identity: Identity | None) -> DeploymentService:
        names = None
        if identity is not None:
            names = BareNames(self._journal, identity.network, identity.key, clock.wall_s)
        return DeploymentService(
            self._fabric,
            self._journal,
            self._published,
            self._feed.membership,
            self._qrrt,
            self._roster.grants() if self._roster else None,
            names,
        )

    def _new_executor(self, tracer: Tracer) -> JobExecutor:
        return JobExecutor(
            self._fabric,
            self._feed.snapshot,
            self._feed.not_back,
            self._feed_job,
            self._status_received,
            self._is_taken,
            self._settle,
            self._experience,
            self._metrics,
            tracer,
        )

    def _new_commands(self, open_jobs: int) -> JobCommands:
        return JobCommands(
            self._jobs,
            self._job_views.own,
            self._estimates,
            self._executor,
            self._releases,
            self._orders,
            open_jobs,
        )

    def _new_retention(self) -> Retention:
        return Retention(
            self._fabric,
            self._jobs,
            self._deployments,
            self._uploads,
            self._releases,
            lambda: self._feed.snapshot().alive(),
        )

    async def start(self) -> None:
        """Load the jobs, listen, and resume interrupted jobs once their sites are back."""
        self.spent.start()
        self._experience.start()
        self._jobs.start()
        self._accounts.start()
        await self._feed.start()
        await self._qrrt.start()
        await self._deployments.start()
        self._advisor.start()
        await self._chunks.start()
        for verb, handler in self._verbs.items():
            self._registrations.append(await self._fabric.serve(keys.center_do(verb), handler))
        self._registrations.append(await self._fabric.announce(keys.center_alive()))
        if self._turn is not None and self._roster is not None:
            self._share(self._roster)
        if isinstance(self._store, SharedStore):
            self._tasks.spawn(self._share_weights(self._store), "weights of owners")
        self._tasks.spawn(self._recover(), "recovery")
        self._tasks.repeat(self._retention.clean_up_when_due, "needed models")

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield from self._metrics.measured()
        yield from REFUSALS.by(self._turns.refused, COSTS)
        yield from jobs_measured(self._jobs.states(), self._jobs.unfinished())
        yield from topology_measured(self._feed.snapshot())
        yield EPOCH.at(self._turn.term.epoch if self._turn else 0)
        yield from self._journal.measured()
        yield from self._chunks.measured()

    def reconfigure(self, config: CenterConfig) -> None:
        """Apply a changed file; `LIVE` says which fields may differ."""
        self._config = config
        self._job_commands.allow(config.open_jobs)
        self._turns.allow(config.requests_per_minute)
        self._uploads.allow(config.stored_bytes)

    async def drain(self) -> None:
        """Does nothing: jobs continue when a control centre is back, and requests are sent
        again."""

    async def close(self) -> None:
        for registration in reversed(self._registrations):
            await registration.close()
        await self._jobs.close()
        await self._tasks.close()
        self._executor.close()
        await self._advisor.close()
        await self._deployments.close()
        await self._qrrt.close()
        await self._feed.close()
        await self._chunks.close()
        if isinstance(self._store, SharedStore):
            self._store.close()
        self._journal.close()

    @property
    def fabric(self) -> Fabric:
        """The fabric that it uses."""
        return self._fabric

    def snapshot(self) -> Drrt:
        """The current training topology."""
        return self._feed.snapshot()

    def site_keys(self) -> Mapping[SiteId, str] | None:
        """Public keys of the network's sites, from its roster; none if there is none."""
        return self._orders.sites() if self._orders else None

    def deployment(self, name: str) -> DeploymentView | None:
        """A deployment and its state at facilities; none if there is no such deployment."""
        return self._deployments.current(name)

    def deployments_at(self, site: SiteId) -> tuple[str, ...]:
        """Names of the deployments that are, or should be, at a facility."""
        return self._deployments.at(site)

    def not_back(self) -> tuple[SiteId, ...]:
        """Sites known before it started that may still return."""
        return self._feed.not_back()

    def observe(self, sites: Listener, deployed: Callable[[str], None]) -> None:
        """Tell `sites` of each node as it is now and whenever it changes, and call `deployed` with
        the name of each deployment, and whenever that is placed, fails to be, or is retired."""
        self._feed.membership.listen(sites)
        self._deployments.listen(deployed)

    def listen(self, changed: Callable[[JobView], None]) -> None:
        """Call `changed` whenever something has happened to a job."""
        self._listeners.append(changed)

    def check_leads(self) -> None:
        """Raise `Unreachable` if it shares its database and leads no more."""
        if self._turn is not None:
            self._turn.term.speaking()

    async def answer(self, verb: str, payload: bytes) -> bytes:
        """Answer a request of the member in `speaking`, like one over the fabric. Raises the
        `DaitnError` that would be the answer there."""
        member = caller()
        if member is not None and member.kind not in CENTER_VERBS[verb]:
            raise Refused(
                f"{member.kind} {member.name} may not ask for {verb}",
                field="sender",
                fix="use the key of a member that may",
            )
        self.check_leads()
        return await answer(self._verbs[verb], keys.center_do(verb), payload)

    def _handlers(self) -> dict[str, Handler]:
        return {
            "submit": self._job_commands.on_submit,
            "assess": self._job_commands.on_assess,
            "jobs": self._job_views.on_jobs,
            "decisions": self._job_views.on_decisions,
            "lineage": self._job_views.on_lineage,
            "value": self._job_views.on_value,
            "cancel": self._job_commands.on_cancel,
            "resume": self._job_commands.on_resume,
            "models": self._published.on_models,
            "nodes": self._topology.on_nodes,
            "topology": self._topology.on_topology,
            "relevant": self._topology.on_relevant,
            "analysis": self._topology.on_analysis,
            "report": self._reports.on_report,
            "store": self._uploads.on_store,
            "stored": self._uploads.on_stored,
            "deploy": self._deployments.on_deploy,
            "name": self._deployments.on_name,
            "retire": self._deployments.on_retire,
            "deployments": self._deployments.on_deployments,
            "placement": self._deployments.on_placement,
            "served": self._topology.on_served,
            "qrrt": self._topology.on_qrrt,
            "steer": self._advisor.on_steer,
            "certify": self._on_certify,
            "network": self._on_network,
            "summaries": self._job_views.on_summaries,
            "intent": self._job_views.on_intent,
            "sites": self._topology.on_sites,
            "witnessed": self._on_witnessed,
            "usage": self._accounts.on_usage,
            "travelled": self._travels.on_travelled,
            "accounts": self._accounts.on_accounts,
            "ledger": self._accounts.on_ledger,
            "metered": self._accounts.on_metered,
        }

    async def _on_certify(self, key: str, payload: bytes) -> bytes:
        """`CertificateQuestion` -> `CertificateAnswer`: certificates for the calling member."""
        member = caller()
        if member is None:
            raise Refused("certificates are for members", field="sender", fix="join the network")
        issuer = Issuer.center(Path(self._config.tls), self._key)
        lasts_s = 3600.0 * self._config.certificate_hours
        issued = issuer.certify(decode(payload, CertificateQuestion).request, member, lasts_s)
        return encode(
            CertificateAnswer(
                authority=issued.authority,
                membership=issued.membership,
                certificate=issued.certificate,
            )
        )

    async def _on_network(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `NetworkFacts`: the network, this control centre, and a `ReplicaView` of
        each that shares its database."""
        snapshot = self._feed.snapshot()
        unfinished = (job for job in self._jobs.unfinished() if not job.state.final)
        return encode(
            NetworkFacts(
                network=self._network,
                center=self._config.name,
                version=__version__,
                api=self.api,
                sites=len(snapshot.sites),
                alive=len(snapshot.alive()),
                jobs=sum(visible(job.intent.owner) for job in unfinished),
                deployments=len(self._deployments.all().deployments),
                replicas=self._turn.replicas() if self._turn else (),
                unreadable_jobs=tuple(self._jobs.unreadable) if visible(OwnerId("")) else (),
            )
        )

    async def _on_witnessed(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `WitnessedHeads`: the state of sites' audit logs when it signed them."""
        return encode(WitnessedHeads(heads=self._witness.heads()))

    def _owner_of(self, site: SiteId) -> OwnerId | None:
        node = self._feed.membership.node(site)
        return None if node is None else node.owner

    def _roles_of(self, site: SiteId) -> tuple[Role, ...]:
        node = self._feed.membership.node(site)
        return () if node is None else node.roles

    def _joined(self, site: SiteId) -> None:
        self._jobs.joined(site)

    def _lost(self, site: SiteId) -> None:
        self._jobs.lost(site)

    def _feed_job(self, job: JobId, event: JobEvent) -> None:
        self._jobs.feed(job, event)

    def _status_received(self, job: JobId, visit: VisitId, status: WorkStatus) -> None:
        self._jobs.status_received(job, visit, status)

    def _is_taken(self, visit: VisitId) -> bool:
        return self._jobs.is_taken(visit)

    def _show(self, shown: JobView) -> None:
        self._updates.put(shown.job, shown)
        for changed in self._listeners:
            changed(shown)

    async def _publish(self, shown: JobView) -> None:
        try:
            await self._fabric.publish(keys.job_event(shown.job), encode(shown))
        except DaitnError as error:
            log.debug("the state of %s was not published: %s", shown.job, error)

    def _settle(self, job: Job) -> None:
        self._published.publish(job)
        self._retention.settled()

    def _rules(self, folder: Path) -> Path | ReleaseRecords:
        """Store of the release rules of owners' start weights."""
        if self._turn is None:
            return folder
        records = ReleaseRecords(self._journal)
        records.take_in(folder)
        return records

    async def _share_weights(self, store: SharedStore) -> None:
        """Share start weights from the time before there were other control centres."""
        await asyncio.to_thread(store.share)

    def _share(self, roster: LiveRoster) -> None:
        """Take over the previous leader's roster, and store ours for the next one: a standby hears
        of no newer one."""
        kept = self._journal.get(_ROSTER_KIND, roster.network)
        with contextlib.suppress(DaitnError):  # Ours may be newer, or of another root.
            roster.take(decode(kept or b"", SignedRoster))

        def keep() -> None:
            with contextlib.suppress(DaitnError):  # The next change, or leader, keeps it again.
                self._journal.put(_ROSTER_KIND, roster.network, encode(roster.signed))

        keep()
        roster.listen(keep)

    async def _recover(self) -> None:
        try:
            await self._finish_ended()
        except StorageFull as error:  # Jobs that run resume nevertheless.
            log.error("ended jobs are finished at the next start: %s", error)
        waited_s = 0.0
        while waited_s < SETTLE_S and self._jobs.awaited() - set(self._feed.snapshot().alive()):
            await asyncio.sleep(0.05)
            waited_s += 0.05
        self._jobs.recover()

    async def _finish_ended(self) -> None:
        """Finalise ended jobs; after an upgrade, possibly all there ever were. Raises
        `StorageFull`."""
        unsettled = self._jobs.unsettled()
        for at in range(0, len(unsettled), _SETTLED_AT_ONCE):
            some = unsettled[at : at + _SETTLED_AT_ONCE]
            for job in some:
                if not self._published.has(job):
                    self._settle(job)
                self._executor.value_if_wanted(job)
            self._jobs.settled(some)
            await asyncio.sleep(0)
