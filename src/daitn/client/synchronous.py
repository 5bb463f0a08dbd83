"""The client for programs without an event loop, and for notebooks.

It runs an `AsyncClient` on a thread of its own: a notebook has a loop already.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Self, TypeVar

from daitn.client.asynchronous import AsyncClient
from daitn.client.events import NetworkEvent
from daitn.client.transport import Token
from daitn.identity.keys import SigningKey
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
from daitn.objects.cordons import CordonChange, CordonReport
from daitn.objects.decisions import Assessment
from daitn.objects.descriptors import ModelDescriptor, Role
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Decided, JobState, JobSummary, JobView
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder
from daitn.objects.placement import DeployIntent, DeploymentView, PlacementView
from daitn.objects.queries import QueryIntent, QueryRecord
from daitn.objects.requests import QueryExplained, TrainedModel
from daitn.objects.steering import Advice, ForwarderReport, Steer, TraceReport
from daitn.objects.usage import UsageCompared
from daitn.objects.value import ValueOfData
from daitn.topology.analysis import Analysis
from daitn.topology.export import TopologyView
from daitn.topology.qrrt.export import QrrtView, QueryCut
from daitn.topology.qrrt.served import ServedModel
from daitn.topology.snapshot import SiteState

__all__ = ["Client"]

T = TypeVar("T")

_AS_USUAL = Measuring()


class Client:
    """Like `AsyncClient`, without `await`."""

    def __init__(self, url: str, token: Token = "", *, tls: str = "") -> None:
        """See `AsyncClient`."""
        self._client = AsyncClient(url, token, tls=tls)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="daitn client", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections, and end its thread. Closing twice is harmless."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._client.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def network(self) -> NetworkView:
        """The network, the control centre, and the caller."""
        return self._done(self._client.network())

    def session(self) -> SessionView:
        """Whether the token is valid, and the ways to sign in."""
        return self._done(self._client.session())

    def sites(
        self,
        *,
        limit: int = 100,
        cursor: str | None = None,
        owner: str | None = None,
        alive: bool | None = None,
        role: Role | None = None,
    ) -> Page[SiteState]:
        """Sites by name."""
        return self._done(
            self._client.sites(limit=limit, cursor=cursor, owner=owner, alive=alive, role=role)
        )

    def site(self, site: str) -> SiteState:
        """One site."""
        return self._done(self._client.site(site))

    def occupancy(self, site: str) -> CordonReport:
        """A site's cordon, and the work still in progress there."""
        return self._done(self._client.occupancy(site))

    def cordon(self, site: str, change: CordonChange, *, reason: str = "") -> CordonReport:
        """Take a site out of service, or return it to service."""
        return self._done(self._client.cordon(site, change, reason=reason))

    def map(self) -> MapView:
        """All sites and links, in a compact form."""
        return self._done(self._client.map())

    def training(self) -> TopologyView:
        """The whole DRRT."""
        return self._done(self._client.training())

    def serving(self) -> QrrtView:
        """The whole QRRT."""
        return self._done(self._client.serving())

    def analysis(self) -> Analysis:
        """The DRRT in numbers."""
        return self._done(self._client.analysis())

    def jobs(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        owner: str | None = None,
        state: JobState | None = None,
    ) -> Page[JobSummary]:
        """Jobs, newest first."""
        return self._done(self._client.jobs(limit=limit, cursor=cursor, owner=owner, state=state))

    def submit(
        self,
        intent: TrainingIntent,
        *,
        key: SigningKey | None = None,
        order: SignedOrder | None = None,
        start: ModelRef | None = None,
        insist: bool = False,
    ) -> JobView:
        """Start a training job. `key`: its owner's, which signs the order; or the `order` itself.
        `start`: weights held by the control centre. `insist`: also if the targets are expected to
        be missed."""
        return self._done(
            self._client.submit(intent, key=key, order=order, start=start, insist=insist)
        )

    def job(self, job: str) -> JobView:
        """One job."""
        return self._done(self._client.job(job))

    def intent(self, job: str) -> TrainingIntent:
        """A job's intent."""
        return self._done(self._client.intent(job))

    def decisions(self, job: str, *, limit: int = 50, cursor: str | None = None) -> Page[Decided]:
        """Every decision on a job's route, oldest first."""
        return self._done(self._client.decisions(job, limit=limit, cursor=cursor))

    def lineage(self, job: str) -> TrainedModel:
        """Everything known about a job's best model."""
        return self._done(self._client.lineage(job))

    def value(self, job: str) -> ValueOfData:
        """Each data set's contribution to a job's best model."""
        return self._done(self._client.value(job))

    def measure(self, job: str, how: Measuring = _AS_USUAL) -> ValueOfData:
        """Have the value of an ended job's data measured."""
        return self._done(self._client.measure(job, how))

    def relevant(self, job: str) -> RelevantSites:
        """A job's current MS-DRRT."""
        return self._done(self._client.relevant(job))

    def report(self, job: str) -> str:
        """Everything about a job on one page of HTML."""
        return self._done(self._client.report(job))

    def cancel(self, job: str) -> JobView:
        """Stop a job."""
        return self._done(self._client.cancel(job))

    def resume(self, job: str) -> JobView:
        """Continue an ended job from its best model, with the rest of its budget."""
        return self._done(self._client.resume(job))

    def assess(self, intent: TrainingIntent) -> Assessment:
        """Whether an intent is feasible."""
        return self._done(self._client.assess(intent))

    def models(self, *, limit: int = 100, cursor: str | None = None) -> Page[ModelDescriptor]:
        """Trained models by name."""
        return self._done(self._client.models(limit=limit, cursor=cursor))

    def served(self, *, limit: int = 100, cursor: str | None = None) -> Page[ServedModel]:
        """Deployments at facilities."""
        return self._done(self._client.served(limit=limit, cursor=cursor))

    def placement(self) -> PlacementView:
        """What the deployment optimiser would now change."""
        return self._done(self._client.placement())

    def deployments(self, *, limit: int = 100, cursor: str | None = None) -> Page[DeploymentView]:
        """Desired deployments by name."""
        return self._done(self._client.deployments(limit=limit, cursor=cursor))

    def deploy(self, intent: DeployIntent) -> DeploymentView:
        """Deploy a trained model, with its owner's grant in a network with a roster."""
        return self._done(self._client.deploy(intent))

    def deployment(self, name: str) -> DeploymentView:
        """One deployment."""
        return self._done(self._client.deployment(name))

    def retire(self, name: str, *, site: str | None = None) -> DeploymentView:
        """Retire a deployment, everywhere or at one facility."""
        return self._done(self._client.retire(name, site=site))

    def queries(
        self,
        *,
        limit: int = 100,
        cursor: str | None = None,
        owner: str | None = None,
        gateway: str | None = None,
    ) -> Page[QueryRecord]:
        """The latest queries, newest first."""
        return self._done(
            self._client.queries(limit=limit, cursor=cursor, owner=owner, gateway=gateway)
        )

    def query(self, gateway: str, id: str) -> QueryExplained:  # noqa: A002 - its name there
        """A query and its decision."""
        return self._done(self._client.query(gateway, id))

    def cut(self, gateway: str, intent: QueryIntent) -> QueryCut:
        """The QS-QRRT of a hypothetical query."""
        return self._done(self._client.cut(gateway, intent))

    def forwarder(self, site: str) -> ForwarderReport:
        """The state of a forwarder."""
        return self._done(self._client.forwarder(site))

    def trace(self, site: str, object: str) -> TraceReport:  # noqa: A002 - its name there
        """A packet's path, and what each forwarder knew."""
        return self._done(self._client.trace(site, object))

    def advice(self) -> Advice:
        """The control centre's advice to forwarders."""
        return self._done(self._client.advice())

    def steer(self, change: Steer) -> Advice:
        """Change the control centre's advice to forwarders."""
        return self._done(self._client.steer(change))

    def travelling(
        self, site: str, *, limit: int = 100, cursor: str | None = None
    ) -> Page[JobView]:
        """Jobs of travelling models, at their home."""
        return self._done(self._client.travelling(site, limit=limit, cursor=cursor))

    def traveller(self, site: str, job: str) -> JobView:
        """One such job."""
        return self._done(self._client.traveller(site, job))

    def traveller_report(self, site: str, job: str) -> str:
        """Everything about such a job on one page of HTML."""
        return self._done(self._client.traveller_report(site, job))

    def audit(self, *, limit: int = 100, cursor: str | None = None) -> Page[CountersignedHead]:
        """The latest signed state of sites' audit logs."""
        return self._done(self._client.audit(limit=limit, cursor=cursor))

    def accounts(
        self,
        *,
        account: str | None = None,
        from_s: float = 0.0,
        to_s: float = 1e13,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[AccountView]:
        """Accounts with what they paid and earned."""
        return self._done(
            self._client.accounts(
                account=account,
                from_s=from_s,
                to_s=to_s,
                limit=limit,
                cursor=cursor,
            )
        )

    def ledger(
        self,
        *,
        account: str | None = None,
        from_s: float = 0.0,
        to_s: float = 1e13,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[LedgerLine]:
        """Entries of the ledger, oldest first."""
        return self._done(
            self._client.ledger(
                account=account,
                from_s=from_s,
                to_s=to_s,
                limit=limit,
                cursor=cursor,
            )
        )

    def usage(
        self, *, account: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[UsageCompared]:
        """Reports of gateways and facilities on the same answers."""
        return self._done(self._client.usage(account=account, limit=limit, cursor=cursor))

    def openapi(self) -> dict[str, Any]:
        """The API's description."""
        return self._done(self._client.openapi())

    def history(
        self, *, limit: int = 100, cursor: str | None = None, kind: PastKind | None = None
    ) -> Page[PastEvent]:
        """Recent events, newest first."""
        return self._done(self._client.history(limit=limit, cursor=cursor, kind=kind))

    def relay(self, payload: bytes, key: str, *, within_s: float = 60.0) -> bytes:
        """Relay a request of the fabric."""
        return self._done(self._client.relay(payload, key, within_s=within_s))

    def events(self, after: str = "") -> Iterator[NetworkEvent]:
        """Events from now on, or after an event: `event` of a map, or `id` of one; `start` for all
        that are remembered."""
        found = self._client.events(after)
        while True:
            yield self._done(_next(found))

    def _done(self, work: Coroutine[Any, Any, T]) -> T:
        """The result, computed on the client's thread. Raises `RuntimeError` once it is closed."""
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("this client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _next(events: AsyncIterator[NetworkEvent]) -> NetworkEvent:
    return await anext(events)
