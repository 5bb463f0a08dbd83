"""The models of a QRRT for display: where they are deployed, how accurate and how fast."""

from __future__ import annotations

import msgspec

from daitn.objects.deployments import DeploymentState, Runtime, standing_of
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import Trust
from daitn.topology.qrrt.accuracy import TRUSTED
from daitn.topology.qrrt.snapshot import Qrrt, Verdict

__all__ = ["TRUST_OF", "KnownAccuracy", "ServedModel", "ServedModels", "served_models"]

TRUST_OF = {number: trust for trust, number in TRUSTED.items()}


class KnownAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """The known accuracy of a model on a topic."""

    topic: str
    value: float
    standard_error: float
    trust: Trust
    at_s: float


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment."""

    name: str
    site: SiteId
    runtime: Runtime
    state: DeploymentState
    available: bool = False
    """Its site is alive and it reports that it is ready."""
    degraded: bool
    accuracy: tuple[KnownAccuracy, ...]
    in_flight: int
    slots: int
    first_token_s: float
    per_token_s: float
    error_share: float
    measured: bool
    """Whether the three figures above were measured; otherwise assumed."""
    price_usd_per_1k_in: float
    price_usd_per_1k_out: float
    cordoned: str = ""
    """Why it gets no queries, in words, if its site is cordoned."""
    standing: str = ""
    """`lost`, `cordoned`, `draining`, `two-faced` or `degraded`; else its state."""
    two_faced: bool = False
    """Most verifiers that measured it lately say that it answers examinations better than the same
    questions asked one by one."""
    measured_by: tuple[SiteId, ...] = ()
    """Verifiers that measured it lately."""
    degraded_by: tuple[SiteId, ...] = ()
    """Those of them that say that it answers worse than before, or is two-faced. It gets no queries
    if they are most."""
    two_faced_by: tuple[SiteId, ...] = ()
    """Those that say that it is two-faced."""
    unanswered_by: tuple[SiteId, ...] = ()
    """Those that get no answer to most of their single questions, but to examinations."""
    contradicted: tuple[SiteId, ...] = ()
    """Verifiers whose measured accuracy does not count, because most others contradict them."""
    there: bool = False
    """The same as `available`, under the only name that earlier releases read and send."""

    def __post_init__(self) -> None:
        available = self.available or self.there
        msgspec.structs.force_setattr(self, "available", available)
        msgspec.structs.force_setattr(self, "there", available)


class ServedModels(msgspec.Struct, frozen=True, kw_only=True):
    """Deployments by name, then site."""

    models: tuple[ServedModel, ...]


def served_models(snapshot: Qrrt) -> ServedModels:
    """Every known deployment."""
    rows = sorted(
        range(len(snapshot.rows)),
        key=lambda row: (snapshot.rows[row].name, snapshot.rows[row].site),
    )
    return ServedModels(models=tuple(_served(snapshot, row) for row in rows))


def _served(snapshot: Qrrt, row: int) -> ServedModel:
    deployed, columns = snapshot.rows[row], snapshot.columns
    descriptor = deployed.descriptor
    judged = snapshot.verdicts.get(deployed.id, Verdict())
    return ServedModel(
        name=descriptor.name,
        site=deployed.site,
        runtime=descriptor.runtime,
        state=descriptor.state,
        available=bool(columns.available[row]),
        degraded=bool(columns.degraded[row]),
        accuracy=tuple(
            KnownAccuracy(
                topic=topic,
                value=float(known.value[row]),
                standard_error=float(known.standard_error[row]),
                trust=TRUST_OF[int(known.trust[row])],
                at_s=min(snapshot.at_s, float(known.at_s[row])),
            )
            for topic, known in sorted(snapshot.accuracies.topics.items())
            if known.trust[row] > 0
        ),
        in_flight=int(columns.in_flight[row]),
        slots=descriptor.slots,
        first_token_s=float(columns.first_token_s[row]),
        per_token_s=float(columns.per_token_s[row]),
        error_share=float(columns.error_share[row]),
        measured=bool(columns.measured_at_s[row] > 0),
        price_usd_per_1k_in=descriptor.price_usd_per_1k_in,
        price_usd_per_1k_out=descriptor.price_usd_per_1k_out,
        cordoned=deployed.cordoned,
        standing=standing_of(
            descriptor.state,
            deployed.cordon,
            alive=deployed.site in snapshot.nodes,
            degraded=judged.degraded,
            two_faced=judged.two_faced,
        ),
        two_faced=judged.two_faced,
        measured_by=judged.measured_by,
        degraded_by=judged.degraded_by,
        two_faced_by=judged.two_faced_by,
        unanswered_by=judged.unanswered_by,
        contradicted=judged.contradicted,
    )
