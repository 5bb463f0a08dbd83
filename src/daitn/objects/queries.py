"""What a query owner wants, how a query was served, and how that is told.

A query's wishes come in the request's `daitn` object or in headers `daitn-*`; the gateway makes a
`QueryIntent` of the request, on which feasibility (Q-FAM) and route (QIRCE) are decided.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId
from daitn.objects.text import plain_fields

__all__ = [
    "AUTO",
    "Privacy",
    "QueryConstraints",
    "QueryIntent",
    "QueryRecord",
    "QueryStatus",
    "Strategy",
    "Trust",
]

AUTO = "auto"
"""As a model's name: any model may answer. `auto:<topic>` says what the query is about."""

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]
Name = Annotated[str, msgspec.Meta(max_length=200)]
Topic = Name


class Trust(enum.StrEnum):
    """What a model's accuracy rests on; each level includes those after it."""

    CLAIMED = "claimed"
    """Its provider says so."""
    WEIGHTS = "weights"
    """A verification unit measured weights of the digest that the facility says it serves."""
    ASKED = "asked"
    """A verification unit asked this very deployment, as a query owner would."""


class Privacy(enum.StrEnum):
    """Where the text of a query may go."""

    ANY = "any"
    UNKEPT = "unkept"
    """Only where queries are not kept after they were answered."""
    SITE = "site"
    """Nowhere but the gateway's own site."""


class Strategy(enum.StrEnum):
    """How many models answer."""

    SINGLE = "single"
    CASCADE = "cascade"
    """A cheap model first; a better one where the first is unsure."""
    ENSEMBLE = "ensemble"
    """Several different models, of whose answers the weightier is given."""


class QueryConstraints(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `daitn` object of a request. Everything has a default."""

    topic: Topic = ""
    """What the query is about; empty: found out from its text where it matters."""
    min_accuracy: Share | None = None
    """On the topic, with trust of at least `trust`."""
    trust: Trust = Trust.WEIGHTS
    max_first_token_s: Positive | None = None
    """Expected seconds until the answer begins."""
    deadline_s: Positive | None = None
    """Seconds until the answer has ended; the gateway gives up then."""
    max_cost_usd: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] | None = None
    jurisdictions: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    """ISO 3166-1 alpha-2 codes; empty: any."""
    owners: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    """Facility providers that may see the query; empty: any."""
    privacy: Privacy = Privacy.ANY
    strategy: Strategy = Strategy.SINGLE
    members: Annotated[int, msgspec.Meta(ge=2, le=7)] = 3
    """Models of an ensemble."""
    escalate_below: Share = 0.7
    """Of a cascade: an answer of which the first model is less sure than this goes on."""
    prefer: Annotated[dict[Name, float], msgspec.Meta(max_length=16)] = {}
    """Scorer to weight: `accuracy`, `latency`, `cost`, `affinity`."""
    session: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """Queries of one session go to one deployment where nothing speaks against it."""
    attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    """Deployments that may be tried before the query fails."""
    autonomous: bool | None = None
    """Whether the query finds its own way as a packet, hop by hop, instead of being routed by the
    gateway; none: as the gateway does it."""
    sealed_to: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    """Class of receivers, as the gateway names it, who alone may read the query where it finds its
    own way; empty: it is not sealed; none: as the gateway does it."""
    hedge: bool = True
    """Whether a second deployment may be asked when the first is unusually late."""

    def __post_init__(self) -> None:
        plain_fields(self, "topic")


class QueryIntent(msgspec.Struct, frozen=True, kw_only=True):
    """One query, as far as its route depends on it. Its text is not part of it."""

    origin: SiteId
    """The gateway's site."""
    owner: str
    """Who asks; empty if the gateway does not know."""
    api: Api
    model: str
    """A name, or `auto`."""
    site: SiteId | None = None
    """The one facility that may answer (`name@site`), whatever is thought of it."""
    topic: str = ""
    """Empty: not known."""
    tokens_in: int
    """Estimated."""
    tokens_out: int
    """At most."""
    repeatable: bool = False
    """Temperature 0: replicas of a deterministic model give the same answer."""
    prefix: int = 0
    """Hash of the part of the prompt that a cache may hold; 0: none."""
    constraints: QueryConstraints = QueryConstraints()

    def __post_init__(self) -> None:
        plain_fields(self, "topic")


class QueryStatus(enum.StrEnum):
    """How a query ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """Not feasible, or not allowed."""
    SHED = "shed"
    """Turned away because of load."""
    FAILED = "failed"
    """No deployment that may answer could."""
    ABANDONED = "abandoned"
    """Its owner went away."""


class QueryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How one query was served, without its text."""

    id: str
    """`<gateway's site>:<number>`; `daitn explain` takes it."""
    asked_at_s: float
    owner: str
    """Who asked: a key's owner, or a site with a pass that names none, as verification units are;
    empty if the gateway does not know."""
    api: Api
    model_wanted: str
    topic: str
    status: QueryStatus
    http_status: int
    strategy: Strategy
    deployment: str = ""
    """Name of the model that answered."""
    site: str = ""
    """Facility at which it answered."""
    path: tuple[str, ...] = ()
    """Sites that the query passed, the gateway's first and the facility's last."""
    attempts: int = 0
    hedged: bool = False
    overhead_s: float = 0.0
    """Spent in the gateway, before and after the answer of the deployment."""
    first_token_s: float | None = None
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    reason: str = ""
    """Why it was not answered."""
    object_id: str = ""
    """Of the packet, where it found its own way; `daitn trace` takes it."""
