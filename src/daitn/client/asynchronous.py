"""The client for `asyncio`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Self

from daitn.client.events import NetworkEvent, follow
from daitn.client.transport import Token, Transport, segment
from daitn.identity.keys import SigningKey
from daitn.identity.orders import sign_order
from daitn.oam.api.answers import (
    MapView,
    Measuring,
    NetworkView,
    Page,
    PastEvent,
    PastKind,
    RelevantSites,
    SessionView,
)
from daitn.objects.accounts import AccountView, LedgerLine
from daitn.objects.audit import CountersignedHead
from daitn.objects.cordons import CordonChange, CordonQuestion, CordonReport
from daitn.objects.decisions import Assessment
from daitn.objects.descriptors import ModelDescriptor, Role
from daitn.objects.errors import NotFound
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Decided, JobState, JobSummary, JobView, model_left
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder, order_until_s
from daitn.objects.placement import DeployIntent, DeploymentView, PlacementView
from daitn.objects.queries import QueryIntent, QueryRecord
from daitn.objects.requests import (
    AssessIntent,
    CutQuery,
    QueryExplained,
    SubmitIntent,
    TrainedModel,
)
from daitn.objects.steering import Advice, ForwarderReport, Steer, TraceReport
from daitn.objects.usage import UsageCompared
from daitn.objects.value import ValueOfData
from daitn.tools import clock
from daitn.topology.analysis import Analysis
from daitn.topology.export import TopologyView
from daitn.topology.qrrt.export import QrrtView, QueryCut
from daitn.topology.qrrt.served import ServedModel
from daitn.topology.snapshot import SiteState

__all__ = ["AsyncClient"]

_PASSING_S = 10.0
"""Time that a control centre may take besides the wait for an answer."""
_AS_USUAL = Measuring()


class AsyncClient:
    """Client of one control centre. Each method raises the `DaitnError` that is the answer, and
    `Unreachable`; see `daitn.client`."""

    def __init__(self, url: str, token: Token = "", *, tls: str = "") -> None:
        """`url`: as printed by `daitn dashboard`, up to the `#`. `token`: from `daitn token create
        --center-api`, or a function that returns one; none if there is no roster. `tls`: folder of
        the network's certificates, if the control centre uses one of those. Raises
        `InvalidInput`."""
        self._http = Transport(url.partition("#")[0].rstrip("/"), token, tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    async def network(self) -> NetworkView:
        """The network, the control centre, and the caller."""
        return await self._http.get(NetworkView, "/network")

    async def session(self) -> SessionView:
        """Whether the token is valid, and the ways to sign in."""
        return await self._http.get(SessionView, "/session")

    async def sites(
        self,
        *,
        limit: int = 100,
        cursor: str | None = None,
        owner: str | None = None,
        alive: bool | None = None,
        role: Role | None = None,
    ) -> Page[SiteState]:
        """Sites by name."""
        return await self._http.get(
            Page[SiteState],
            "/sites",
            limit=limit,
            cursor=cursor,
            owner=owner,
            alive=alive,
            role=role,
        )

    async def site(self, site: str) -> SiteState:
        """One site."""
        return await self._http.get(SiteState, f"/sites/{segment(site)}")

    async def occupancy(self, site: str) -> CordonReport:
        """A site's cordon, and the work still in progress there."""
        return await self._http.get(CordonReport, f"/sites/{segment(site)}/cordon")

    async def cordon(self, site: str, change: CordonChange, *, reason: str = "") -> CordonReport:
        """Take a site out of service, or return it to service."""
        question = CordonQuestion(change=change, reason=reason)
        return await self._http.post(CordonReport, f"/sites/{segment(site)}/cordon", question)

    async def map(self) -> MapView:
        """All sites and links, in a compact form."""
        return await self._http.get(MapView, "/map")

    async def training(self) -> TopologyView:
        """The whole DRRT."""
        return await self._http.get(TopologyView, "/topology/training")

    async def serving(self) -> QrrtView:
        """The whole QRRT."""
        return await self._http.get(QrrtView, "/topology/serving")

    async def analysis(self) -> Analysis:
        """The DRRT in numbers."""
        return await self._http.get(Analysis, "/topology/analysis")

    async def jobs(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        owner: str | None = None,
        state: JobState | None = None,
    ) -> Page[JobSummary]:
        """Jobs, newest first."""
        return await self._http.get(
            Page[JobSummary], "/jobs", limit=limit, cursor=cursor, owner=owner, state=state
        )

    async def submit(
        self,
        intent: TrainingIntent,
        *,
        key: SigningKey | None = None,
        order: SignedOrder | None = None,
        start: ModelRef | None = None,
        insist: bool = False,
    ) -> JobView:
        """Start a training job. `key`: its owner's, which signs the order; or the `order` itself.
        `start`: weights held by the control centre; if left out, the result of the job named in the
        intent's `model.start`. `insist`: also if the targets are expected to be missed."""
        if start is None and intent.model.from_job is not None:
            start = await self._left(intent.model.from_job, intent.model.recipe)
        if key is not None and order is None:
            until_s = order_until_s(intent, clock.wall_s())
            order = sign_order(
                intent,
                (await self.network()).network,
                until_s,
                key,
                start=start.manifest if start else None,
            )
        body = SubmitIntent(intent=intent, start=start, insist=insist, order=order)
        return await self._http.post(JobView, "/jobs", body)

    async def _left(self, job: str, recipe: str) -> ModelRef:
        try:
            return model_left(await self.job(job), recipe)
        except NotFound as error:
            raise NotFound(error.problem, field="model.start", fix=error.fix) from None

    async def job(self, job: str) -> JobView:
        """One job."""
        return await self._http.get(JobView, f"/jobs/{segment(job)}")

    async def intent(self, job: str) -> TrainingIntent:
        """A job's intent."""
        return await self._http.get(TrainingIntent, f"/jobs/{segment(job)}/intent")

    async def decisions(
        self, job: str, *, limit: int = 50, cursor: str | None = None
    ) -> Page[Decided]:
        """Every decision on a job's route, oldest first."""
        path = f"/jobs/{segment(job)}/decisions"
        return await self._http.get(Page[Decided], path, limit=limit, cursor=cursor)

    async def lineage(self, job: str) -> TrainedModel:
        """Everything known about a job's best model."""
        return await self._http.get(TrainedModel, f"/jobs/{segment(job)}/lineage")

    async def value(self, job: str) -> ValueOfData:
        """Each data set's contribution to a job's best model."""
        return await self._http.get(ValueOfData, f"/jobs/{segment(job)}/value")

    async def measure(self, job: str, how: Measuring = _AS_USUAL) -> ValueOfData:
        """Have the value of an ended job's data measured."""
        return await self._http.post(ValueOfData, f"/jobs/{segment(job)}/value", how)

    async def relevant(self, job: str) -> RelevantSites:
        """A job's current MS-DRRT."""
        return await self._http.get(RelevantSites, f"/jobs/{segment(job)}/relevant")

    async def report(self, job: str) -> str:
        """Everything about a job on one page of HTML."""
        return await self._http.text(f"/jobs/{segment(job)}/report")

    async def cancel(self, job: str) -> JobView:
        """Stop a job."""
        return await self._http.post(JobView, f"/jobs/{segment(job)}/cancel")

    async def resume(self, job: str) -> JobView:
        """Continue an ended job from its best model, with the rest of its budget."""
        return await self._http.post(JobView, f"/jobs/{segment(job)}/resume")

    async def assess(self, intent: TrainingIntent) -> Assessment:
        """Whether an intent is feasible."""
        return await self._http.post(Assessment, "/assessments", AssessIntent(intent=intent))

    async def models(self, *, limit: int = 100, cursor: str | None = None) -> Page[ModelDescriptor]:
        """Trained models by name."""
        return await self._http.get(Page[ModelDescriptor], "/models", limit=limit, cursor=cursor)

    async def served(self, *, limit: int = 100, cursor: str | None = None) -> Page[ServedModel]:
        """Deployments at facilities."""
        return await self._http.get(Page[ServedModel], "/served", limit=limit, cursor=cursor)

    async def placement(self) -> PlacementView:
        """What the deployment optimiser would now change."""
        return await self._http.get(PlacementView, "/placement")

    async def deployments(
        self, *, limit: int = 100, cursor: str | None = None
    ) -> Page[DeploymentView]:
        """Desired deployments by name."""
        return await self._http.get(
            Page[DeploymentView], "/deployments", limit=limit, cursor=cursor
        )

    async def deploy(self, intent: DeployIntent) -> DeploymentView:
        """Deploy a trained model, with its owner's grant in a network with a roster."""
        return await self._http.post(DeploymentView, "/deployments", intent)

    async def deployment(self, name: str) -> DeploymentView:
        """One deployment."""
        return await self._http.get(DeploymentView, f"/deployments/{segment(name)}")

    async def retire(self, name: str, *, site: str | None = None) -> DeploymentView:
        """Retire a deployment, everywhere or at one facility."""
        return await self._http.delete(DeploymentView, f"/deployments/{segment(name)}", site=site)

    async def queries(
        self,
        *,
        limit: int = 100,
        cursor: str | None = None,
        owner: str | None = None,
        gateway: str | None = None,
    ) -> Page[QueryRecord]:
        """The latest queries, newest first."""
        return await self._http.get(
            Page[QueryRecord],
            "/queries",
            limit=limit,
            cursor=cursor,
            owner=owner,
            gateway=gateway,
        )

    async def query(self, gateway: str, id: str) -> QueryExplained:  # noqa: A002 - its name there
        """A query and its decision."""
        path = f"/queries/{segment(gateway)}/{segment(id)}"
        return await self._http.get(QueryExplained, path)

    async def cut(self, gateway: str, intent: QueryIntent) -> QueryCut:
        """The QS-QRRT of a hypothetical query."""
        return await self._http.post(
            QueryCut, f"/gateways/{segment(gateway)}/cuts", CutQuery(intent=intent)
        )

    async def forwarder(self, site: str) -> ForwarderReport:
        """The state of a forwarder."""
        return await self._http.get(ForwarderReport, f"/forwarders/{segment(site)}")

    async def trace(self, site: str, object: str) -> TraceReport:  # noqa: A002 - its name there
        """A packet's path, and what each forwarder knew."""
        return await self._http.get(TraceReport, f"/traces/{segment(site)}/{segment(object)}")

    async def advice(self) -> Advice:
        """The control centre's advice to forwarders."""
        return await self._http.get(Advice, "/advice")

    async def steer(self, change: Steer) -> Advice:
        """Change the control centre's advice to forwarders."""
        return await self._http.post(Advice, "/advice", change)

    async def travelling(
        self, site: str, *, limit: int = 100, cursor: str | None = None
    ) -> Page[JobView]:
        """Jobs of travelling models, at their home."""
        return await self._http.get(
            Page[JobView], f"/homes/{segment(site)}/jobs", limit=limit, cursor=cursor
        )

    async def traveller(self, site: str, job: str) -> JobView:
        """One such job."""
        return await self._http.get(JobView, f"/homes/{segment(site)}/jobs/{segment(job)}")

    async def traveller_report(self, site: str, job: str) -> str:
        """Everything about such a job on one page of HTML."""
        return await self._http.text(f"/homes/{segment(site)}/jobs/{segment(job)}/report")

    async def audit(
        self, *, limit: int = 100, cursor: str | None = None
    ) -> Page[CountersignedHead]:
        """The latest signed state of sites' audit logs."""
        return await self._http.get(Page[CountersignedHead], "/audit", limit=limit, cursor=cursor)

    async def history(
        self, *, limit: int = 100, cursor: str | None = None, kind: PastKind | None = None
    ) -> Page[PastEvent]:
        """Recent events, newest first."""
        return await self._http.get(
            Page[PastEvent], "/history", limit=limit, cursor=cursor, kind=kind
        )

    async def accounts(
        self,
        *,
        account: str | None = None,
        from_s: float = 0.0,
        to_s: float = 1e13,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[AccountView]:
        """Accounts with what they paid and earned."""
        return await self._http.get(
            Page[AccountView],
            "/accounts",
            account=account,
            from_s=from_s,
            to_s=to_s,
            limit=limit,
            cursor=cursor,
        )

    async def ledger(
        self,
        *,
        account: str | None = None,
        from_s: float = 0.0,
        to_s: float = 1e13,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[LedgerLine]:
        """Entries of the ledger, oldest first."""
        return await self._http.get(
            Page[LedgerLine],
            "/ledger",
            account=account,
            from_s=from_s,
            to_s=to_s,
            limit=limit,
            cursor=cursor,
        )

    async def usage(
        self, *, account: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[UsageCompared]:
        """Reports of gateways and facilities on the same answers."""
        return await self._http.get(
            Page[UsageCompared], "/usage", account=account, limit=limit, cursor=cursor
        )

    async def relay(self, payload: bytes, key: str, *, within_s: float = 60.0) -> bytes:
        """Relay a request of the fabric: see `daitn.client.carrier`."""
        return await self._http.octets(
            "/relay",
            payload,
            silence_timeout_s=within_s + _PASSING_S,
            key=key,
            within_s=within_s,
        )

    def events(self, after: str = "") -> AsyncIterator[NetworkEvent]:
        """Events from now on, or after an event: `event` of a map, or `id` of one; `start` for all
        that are remembered."""
        return follow(self._http, after)

    async def openapi(self) -> dict[str, Any]:
        """The API's description."""
        return await self._http.get(dict[str, Any], "/openapi.json")
