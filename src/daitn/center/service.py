"""The DA-ITN control centre (DCC): the process around the pure core."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

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
from daitn.center.jobs import JobService
from daitn.center.metrics import REFUSALS, CenterMetrics, jobs_measured, topology_measured
from daitn.center.names import BareNames
from daitn.center.retention import Retention
from daitn.center.travels import TravelAccounts
from daitn.center.uploads import Uploads
from daitn.control.jobs.job import Job
from daitn.control.jobs.valuing import value_of
from daitn.files.atomic import make_folder
from daitn.identity.certificates import Issuer
from daitn.identity.keys import SigningKey
from daitn.identity.signing import check_report
from daitn.objects.descriptors import ModelDescriptor, Role
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    InvalidInput,
    NotFound,
    Refused,
    StorageFull,
    Unreachable,
)
from daitn.objects.identifiers import (
    CENTER_SITE,
    JobId,
    OwnerId,
    SiteId,
    VisitId,
    checked_name,
)
from daitn.objects.jobs import JobEvent, JobSummary, JobView, Submitted
from daitn.objects.lineage import Lineage
from daitn.objects.messages import (
    CertificateAnswer,
    CertificateQuestion,
    WorkReceipt,
    WorkReport,
    WorkStatus,
)
from daitn.objects.models import CHUNK_BYTES
from daitn.objects.placement import DeployIntent, RetireIntent
from daitn.objects.requests import (
    AssessIntent,
    Blobs,
    DecisionList,
    JobList,
    JobPage,
    JobQuery,
    JobsWanted,
    ModelList,
    NetworkFacts,
    SitesWanted,
    SubmitIntent,
    TrainedModel,
    WitnessedHeads,
)
from daitn.objects.roster import Kind, Member
from daitn.objects.value import ValueOfData, ValueQuestion
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.authority import CENTER_VERBS
from daitn.tools.fabric.caller import caller, check_owner, check_site, visible
from daitn.tools.fabric.delivery import answer
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Fabric, Handler, Registration
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.turns import COSTS, RequestRates
from daitn.tools.journal.sql import SqlJournal
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.manifests import read_manifest
from daitn.tools.mobility.releases import Releases
from daitn.tools.mobility.server import ChunkServer
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.monitoring.tracing import OFF, Tracer
from daitn.tools.qrrt_feed import QrrtFeed
from daitn.tools.roster import LiveRoster
from daitn.tools.tasks import Newest, Tasks
from daitn.topology.analysis import analyse
from daitn.topology.export import export, export_relevant
from daitn.topology.qrrt.export import export_qrrt
from daitn.topology.qrrt.served import served_models
from daitn.topology.snapshot import Drrt, NodeList, SitePage

__all__ = ["ControlCenter"]

log = logging.getLogger(__name__)

SETTLE_S = 10.0
"""After a start, sites have this long to return before interrupted jobs resume."""
_MODEL_KIND = "model"


class ControlCenter:
    """A running control centre."""

    def __init__(
        self,
        config: CenterConfig,
        fabric: Fabric,
        roster: LiveRoster | None = None,
        identity: Identity | None = None,
        tracer: Tracer = OFF,
    ) -> None:
        """`roster`: who is a member; none: trust on first use. `identity`: with which it speaks on
        `fabric`; none on one without signatures."""
        self._orders = identity.orders() if identity else None
        self._config = config
        self._open_jobs = config.open_jobs
        state = Path(config.state)
        make_folder(state)
        self._fabric = fabric
        self._journal = SqlJournal(config.database or f"sqlite:///{state / 'jobs.db'}")
        self._store = DiskBlobStore(state / "models")
        self._uploads = Uploads(self._store, config.stored_bytes)
        self._listeners: list[Callable[[JobView], None]] = []
        self._network = identity.network if identity else ""
        self.api = ""
        """URL of its API, where whoever runs it serves one."""
        self._releases = Releases(state / "releases", self._store)
        self._chunks = ChunkServer(fabric, CENTER_SITE, self._store, self._releases)
        self._key = SigningKey.at(state / "key")
        self._witness = Witness(self._journal, self._key)
        self._feed = DrrtFeed(
            fabric, self._journal, self._joined, self._lost, config.verifiers, roster
        )
        self._accounts = Accounts(
            self._journal, self._key, self._feed.key_of, self._owner_of, self._roles_of
        )
        self._qrrt = QrrtFeed(fabric, self._feed.membership, CENTER_SITE, roster)
        self._deployments = DeploymentService(
            fabric,
            self._journal,
            self._feed.membership,
            self._qrrt,
            roster.grants() if roster else None,
            BareNames(self._journal, identity.network, identity.key, clock.wall_s)
            if identity
            else None,
        )
        root = None
        if config.root:
            root = FabricSettings(mode="client", connect=config.root, tls=config.tls)
        self._advisor = Advisor(fabric, self._journal, root, identity)
        self._experience = Experience(self._journal)
        self._metrics = CenterMetrics()
        self._executor = JobExecutor(
            fabric,
            self._feed.snapshot,
            self._feed.not_back,
            self._feed_job,
            self._status_received,
            self._settle,
            self._experience,
            self._metrics,
            tracer,
        )
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
        self._retention = Retention(
            fabric,
            self._jobs,
            self._deployments,
            self._uploads,
            self._releases,
            lambda: self._feed.snapshot().alive(),
        )
        self._turns = RequestRates(config.requests_per_minute)
        self._verbs = {
            verb: self._metrics.counted(verb, self._turns.limited(verb, do))
            for verb, do in self._handlers().items()
        }

    async def start(self) -> None:
        """Read the jobs back, listen, and resume interrupted jobs once their sites are back."""
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
        self._tasks.spawn(self._recover(), "recovery")
        self._tasks.repeat(self._retention.clean_up_when_due, "needed models")

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield from self._metrics.measured()
        yield from REFUSALS.by(self._turns.refused, COSTS)
        yield from jobs_measured(self._jobs.all())
        yield from topology_measured(self._feed.snapshot())
        yield from self._journal.measured()
        yield from self._chunks.measured()

    def reconfigure(self, config: CenterConfig) -> None:
        """Take over a changed file; `LIVE` says which fields may differ."""
        self._config = config
        self._open_jobs = config.open_jobs
        self._turns.allow(config.requests_per_minute)
        self._uploads.allow(config.stored_bytes)

    async def drain(self) -> None:
        """Nothing: jobs go on when a control centre is back, and requests are sent again."""

    async def close(self) -> None:
        for registration in reversed(self._registrations):
            await registration.close()
        await self._jobs.close()
        await self._tasks.close()
        await self._advisor.close()
        await self._deployments.close()
        await self._qrrt.close()
        await self._feed.close()
        await self._chunks.close()
        self._journal.close()

    @property
    def fabric(self) -> Fabric:
        """On which it speaks."""
        return self._fabric

    def snapshot(self) -> Drrt:
        """The training topology as it is now."""
        return self._feed.snapshot()

    def listen(self, changed: Callable[[JobView], None]) -> None:
        """Call `changed` whenever something has happened to a job."""
        self._listeners.append(changed)

    async def answer(self, verb: str, payload: bytes) -> bytes:
        """Answer a request of whoever `speaking` names, as one that came over the fabric. Raises
        the `DaitnError` that would be the answer there."""
        member = caller()
        if member is not None and member.kind not in CENTER_VERBS[verb]:
            raise Refused(
                f"{member.kind} {member.name} may not ask for {verb}",
                field="sender",
                fix="ask with the key of a member who may",
            )
        return await answer(self._verbs[verb], keys.center_do(verb), payload)

    def _handlers(self) -> dict[str, Handler]:
        return {
            "submit": self._on_submit,
            "assess": self._on_assess,
            "jobs": self._on_jobs,
            "decisions": self._on_decisions,
            "lineage": self._on_lineage,
            "value": self._on_value,
            "cancel": self._on_cancel,
            "models": self._on_models,
            "nodes": self._on_nodes,
            "topology": self._on_topology,
            "relevant": self._on_relevant,
            "analysis": self._on_analysis,
            "report": self._on_report,
            "store": self._on_store,
            "stored": self._on_stored,
            "deploy": self._on_deploy,
            "name": self._deployments.on_name,
            "retire": self._on_retire,
            "deployments": self._on_deployments,
            "placement": self._on_placement,
            "served": self._on_served,
            "qrrt": self._on_qrrt,
            "steer": self._advisor.on_steer,
            "certify": self._on_certify,
            "network": self._on_network,
            "summaries": self._on_summaries,
            "intent": self._on_intent,
            "sites": self._on_sites,
            "witnessed": self._on_witnessed,
            "usage": self._accounts.on_usage,
            "travelled": self._travels.on_travelled,
            "accounts": self._accounts.on_accounts,
            "ledger": self._accounts.on_ledger,
            "metered": self._accounts.on_metered,
        }

    async def _on_certify(self, key: str, payload: bytes) -> bytes:
        """`CertificateQuestion` -> `CertificateAnswer`: certificates of the member who asks."""
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
        """`JobQuery` -> `NetworkFacts`: the network, and this control centre."""
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
            )
        )

    async def _on_submit(self, key: str, payload: bytes) -> bytes:
        """`SubmitIntent` -> `JobView`: start a job; the same order again is the same job."""
        request = decode(payload, SubmitIntent)
        name = checked_name(request.intent.name, "name")
        self._check_order(request)
        if (known := self._jobs.ordered(request.order)) is not None:
            return encode(known)
        self._check_quota(request.intent.owner)
        needs = await self._estimates.needs(request.intent)
        if (known := self._jobs.ordered(request.order)) is not None:
            return encode(known)
        self._check_quota(request.intent.owner)
        submitted = Submitted(
            job=self._jobs.new_id(name),
            intent=request.intent,
            needs=needs,
            start=request.start,
            insist=request.insist,
            order=request.order,
        )
        return encode(self._jobs.submit(submitted))

    def _check_order(self, request: SubmitIntent) -> None:
        """Raise `Refused` or `Corrupt` unless the caller may submit what its owner ordered."""
        check_owner(request.intent.owner, f"an intent of {request.intent.owner}")
        if self._orders is not None:
            self._orders.check(request.order, request.intent, request.start)
            if request.start is not None:
                self._releases.check_own(request.start.manifest, request.intent.owner)

    def _check_quota(self, owner: OwnerId) -> None:
        """Raise `Refused` if the owner has as many open jobs as it may."""
        unfinished = [job for job in self._jobs.unfinished() if not job.state.final]
        open_ = sum(job.intent.owner == owner for job in unfinished)
        if open_ >= self._open_jobs:
            raise Refused(
                f"{owner} has {open_} open jobs, which is the most",
                field="owner",
                fix="wait for one to end, or cancel one",
            )

    async def _on_assess(self, key: str, payload: bytes) -> bytes:
        """`AssessIntent` -> `Assessment`: say whether an intent is feasible, and start nothing."""
        intent = decode(payload, AssessIntent).intent
        checked_name(intent.name, "name")
        check_owner(intent.owner, f"an intent of {intent.owner}")
        return encode(await self._executor.assess(intent, await self._estimates.needs(intent)))

    async def _on_jobs(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `JobList`: one job, or all with an empty id."""
        query = decode(payload, JobQuery)
        if query.job:
            jobs: tuple[Job, ...] = (self._own(query.job),)
        else:
            jobs = tuple(job for job in self._jobs.all() if visible(job.intent.owner))
        return encode(JobList(jobs=tuple(self._jobs.view(job.id) for job in jobs)))

    async def _on_summaries(self, key: str, payload: bytes) -> bytes:
        """`JobsWanted` -> `JobPage`: a page of the jobs, newest first, in a few lines each."""
        wanted = decode(payload, JobsWanted)
        found = [
            job.id
            for job in self._jobs.before(wanted.before)
            if visible(job.intent.owner)
            and wanted.owner in (None, job.intent.owner)
            and wanted.state in (None, job.state)
        ]
        shown = tuple(JobSummary.of(self._jobs.view(job)) for job in found[: wanted.limit])
        return encode(JobPage(jobs=shown, more=len(found) > wanted.limit))

    async def _on_intent(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `TrainingIntent`: what a job's owner wants."""
        return encode(self._own(decode(payload, JobQuery).job).intent)

    async def _on_witnessed(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `WitnessedHeads`: where sites' audit logs stood when it signed them."""
        return encode(WitnessedHeads(heads=self._witness.heads()))

    def _own(self, id_: JobId) -> Job:
        """A job that the caller may see and command. Raises `NotFound`, `Refused`."""
        job = self._jobs.get(id_)
        check_owner(job.intent.owner, f"job {id_}")
        return job

    async def _on_decisions(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `DecisionList`: every decision on a job's route, a list of `Decided`."""
        made = self._jobs.decisions(self._own(decode(payload, JobQuery).job).id)
        return encode(DecisionList(decisions=made))

    async def _on_lineage(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `TrainedModel`: a job's best model with its lineage."""
        job = self._own(decode(payload, JobQuery).job)
        if job.best is None:
            raise NotFound(
                f"job {job.id} has no verified model yet", field="job", fix="wait, or watch it"
            )
        lineage = Lineage(job=job.id, entries=tuple(job.lineage))
        return encode(TrainedModel(job=self._jobs.view(job.id), lineage=lineage, order=job.order))

    async def _on_value(self, key: str, payload: bytes) -> bytes:
        """`ValueQuestion` -> `ValueOfData`: what each data set brought to a job's best model; a
        data owner sees its own part."""
        question = decode(payload, ValueQuestion)
        job = self._jobs.get(question.job)
        if question.measure:
            check_owner(job.intent.owner, f"job {job.id}")
            self._jobs.value(job.id, question.coalitions, question.within_s)

        def owner_of(site: SiteId) -> OwnerId:
            return self._owner_of(site) or OwnerId(site)

        found = value_of(self._jobs.get(question.job), owner_of)
        return encode(found if visible(job.intent.owner) else _own_part(found))

    async def _on_cancel(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `JobView`: stop a job."""
        return encode(self._jobs.cancel(self._own(decode(payload, JobQuery).job).id))

    async def _on_models(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `ModelList`: models that jobs published."""
        stored = self._journal.all(_MODEL_KIND).values()
        models = (decode(model, ModelDescriptor) for model in stored)
        own = sorted((m for m in models if visible(m.owner)), key=lambda m: m.created_at_s)
        return encode(ModelList(models=tuple(own)))

    async def _on_nodes(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `NodeList`: every site's descriptor and load."""
        sites = self._feed.snapshot().sites
        return encode(NodeList(nodes=tuple(sites[site] for site in sorted(sites))))

    async def _on_sites(self, key: str, payload: bytes) -> bytes:
        """`SitesWanted` -> `SitePage`: a page of the sites, by name."""
        wanted, sites = decode(payload, SitesWanted), self._feed.snapshot().sites
        if wanted.only is not None:
            if wanted.only not in sites:
                raise NotFound(
                    f"there is no site {wanted.only}", field="site", fix="see `daitn get nodes`"
                )
            return encode(SitePage(nodes=(sites[wanted.only],), more=False))
        found = sorted(
            site
            for site, state in sites.items()
            if site > wanted.after
            and wanted.alive in (None, state.alive)
            and wanted.owner in (None, state.descriptor.owner)
            and (wanted.role is None or wanted.role in state.descriptor.roles)
        )
        shown = tuple(sites[site] for site in found[: wanted.limit])
        return encode(SitePage(nodes=shown, more=len(found) > wanted.limit))

    async def _on_topology(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `TopologyView`: the DRRT."""
        snapshot = self._feed.snapshot()
        return await asyncio.to_thread(lambda: encode(export(snapshot)))

    async def _on_relevant(self, key: str, payload: bytes) -> bytes:
        """`AssessIntent` -> `RelevantView`: the MS-DRRT of an intent."""
        intent = decode(payload, AssessIntent).intent
        check_owner(intent.owner, f"an intent of {intent.owner}")
        relevant = await self._executor.cut(intent, await self._estimates.needs(intent))
        return await asyncio.to_thread(lambda: encode(export_relevant(relevant)))

    async def _on_analysis(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `Analysis`: the DRRT in numbers."""
        return encode(await asyncio.to_thread(analyse, self._feed.snapshot()))

    async def _on_report(self, key: str, payload: bytes) -> bytes:
        """`WorkReport` -> `WorkReceipt`: a site reports how a piece of work ended, in a signed
        `WorkOutcome`, and where its audit log stands; it repeats the report until it is
        acknowledged."""
        report = decode(payload, WorkReport)
        site = report.outcome.site
        check_site(site)
        public_key = self._feed.key_of(site)
        if public_key is None:
            raise Unreachable(
                f"the control centre has no descriptor of {site} yet", fix="report again"
            )
        check_report(report, public_key)
        self._jobs.reported(report.outcome)
        return encode(WorkReceipt(audit=self._witness.answer(site, report.audit, public_key)))

    async def _on_store(self, key: str, payload: bytes) -> bytes:
        """one chunk -> its digest: an owner uploads weights, at most 1 MiB at a time."""
        if len(payload) > CHUNK_BYTES:
            raise InvalidInput(
                f"a chunk has at most {CHUNK_BYTES} bytes, this one {len(payload)}",
                field="payload",
                fix="split it",
            )
        owner = caller()
        digest = await asyncio.to_thread(self._uploads.write, _name(owner), payload)
        if owner is not None and owner.kind is Kind.OWNER and _is_manifest(payload):
            self._releases.record(digest, owner.name)
        return digest.encode()

    async def _on_stored(self, key: str, payload: bytes) -> bytes:
        """`Blobs` -> `Blobs`: which of them the owner who asks has brought."""
        asked = decode(payload, Blobs).digests
        brought = await asyncio.to_thread(self._uploads.brought, _name(caller()), asked)
        return encode(Blobs(digests=brought))

    async def _on_deploy(self, key: str, payload: bytes) -> bytes:
        """`DeployIntent` -> `DeploymentView`: deploy a trained model."""
        return encode(self._deployments.deploy(decode(payload, DeployIntent)))

    async def _on_retire(self, key: str, payload: bytes) -> bytes:
        """`RetireIntent` -> `DeploymentView`: retire a deployment."""
        return encode(self._deployments.retire(decode(payload, RetireIntent)))

    async def _on_deployments(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `DeploymentList`: every desired deployment and its state at facilities."""
        return encode(self._deployments.all())

    async def _on_placement(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `PlacementView`: what the deployment optimiser would change now."""
        return encode(await self._deployments.placement())

    async def _on_served(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `ServedModels`: every deployment, with accuracy and speed."""
        return encode(served_models(self._qrrt.snapshot()))

    async def _on_qrrt(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `QrrtView`: the QRRT."""
        return encode(export_qrrt(self._qrrt.snapshot(), clock.now_s()))

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
        best = job.best
        if best is not None:
            model = ModelDescriptor(
                name=job.id,
                owner=job.intent.owner,
                recipe=job.intent.model.recipe,
                manifest=best.model.manifest,
                size_bytes=best.model.size_bytes,
                measured={str(name): value for name, value in best.values.items()},
                holders=best.model.holders,
                created_at_s=job.ended_at_s or clock.now_s(),
                config=job.intent.model.config,
                untrained=not job.learned,
                release_to=best.release_to,
                evidence=tuple(e for e in job.lineage if e.digest in best.entries),
            )
            self._journal.put(_MODEL_KIND, job.id, encode(model))
        self._retention.settled()

    async def _recover(self) -> None:
        try:
            self._finish_ended()
        except StorageFull as error:  # Jobs that run resume nevertheless.
            log.error("ended jobs are finished at the next start: %s", error)
        waited_s = 0.0
        while waited_s < SETTLE_S and self._awaited() - set(self._feed.snapshot().alive()):
            await asyncio.sleep(0.05)
            waited_s += 0.05
        self._jobs.recover()

    def _finish_ended(self) -> None:
        """Do for ended jobs what was left to do. Raises `StorageFull`."""
        for job in self._jobs.all():
            if job.state.final and job.best and self._journal.get(_MODEL_KIND, job.id) is None:
                self._settle(job)
            self._executor.value_if_wanted(job)

    def _awaited(self) -> set[SiteId]:
        return {o.site for job in self._jobs.unfinished() for o in job.outstanding.values()}


def _own_part(found: ValueOfData) -> ValueOfData:
    """What a data owner sees of the value of a job's data. Raises `Refused` where it has none."""
    member = caller()
    assert member is not None
    own = tuple(
        credit
        for credit in found.credits
        if member.name == (credit.site if member.kind is Kind.SITE else credit.owner)
    )
    if not own:
        raise Refused(
            f"no data of {member.name} led to the model of job {found.job}",
            field="job",
            fix="ask with the key of the job's owner, or of a data owner",
        )
    return msgspec.structs.replace(found, credits=own, gain={}, why="")


def _name(member: Member | None) -> str:
    return "" if member is None else member.name


def _is_manifest(data: bytes) -> bool:
    try:
        read_manifest(data)
    except Corrupt:
        return False
    return True
