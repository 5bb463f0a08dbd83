"""What a query owner wants, and how a query was served.

Constraints arrive in the request's `daitn` object or in `daitn-*` headers. The gateway turns the
request into a `QueryIntent`, from which Q-FAM decides feasibility and QIRCE the route.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.abilities import Need
from daitn.objects.bounds import Share
from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId, Word
from daitn.objects.text import plain_fields
from daitn.objects.tokens import Characters

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
"""As a model's name: any model may answer. `auto:<topic>` states the topic of the query."""

Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]
Name = Word
Topic = Name


class Trust(enum.StrEnum):
    """Evidence for a model's accuracy; each level includes those after it."""

    CLAIMED = "claimed"
    """Its provider claims it."""
    WEIGHTS = "weights"
    """A verifier measured weights with the digest that the facility claims to serve."""
    ASKED = "asked"
    """A verifier queried this very deployment, as a query owner would."""


class Privacy(enum.StrEnum):
    """Where the text of a query may go."""

    ANY = "any"
    """Anywhere."""
    UNKEPT = "unkept"
    """Only facilities that do not retain queries after answering."""
    SITE = "site"
    """Only the gateway's own site."""


class Strategy(enum.StrEnum):
    """How many models answer."""

    SINGLE = "single"
    """One."""
    CASCADE = "cascade"
    """A cheap model first; a better one if the first is not confident."""
    ENSEMBLE = "ensemble"
    """Several different models; the answer with the greatest weight wins."""


class QueryConstraints(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `daitn` object of a request. Every field has a default."""

    topic: Topic = ""
    """Topic of the query; empty means inferred from its text where it matters."""
    min_accuracy: Share | None = None
    """Minimum accuracy on the topic."""
    trust: Trust = Trust.WEIGHTS
    """Evidence required for that accuracy."""
    max_first_token_s: Positive | None = None
    """Maximum expected time until the answer begins."""
    deadline_s: Positive | None = None
    """Maximum time until the answer has ended; the gateway then gives up."""
    max_cost_usd: Annotated[float, msgspec.Meta(ge=0.0, le=1e9)] | None = None
    """Maximum expected cost."""
    language: Name = ""
    """ISO 639 code of a language that the model must support; empty means any. Models that state no
    languages count as supporting it."""
    jurisdictions: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    """Jurisdictions (ISO 3166-1 alpha-2 codes) in which it may be answered; empty means any."""
    owners: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()
    """Facility providers allowed to see the query; empty means any."""
    privacy: Privacy = Privacy.ANY
    """Where the text may go."""
    strategy: Strategy = Strategy.SINGLE
    """How many models answer."""
    members: Annotated[int, msgspec.Meta(ge=2, le=7)] = 3
    """Number of models in an ensemble."""
    escalate_below: Share = 0.7
    """In a cascade: if the first answer is less confident than this, a better model is asked."""
    prefer: Annotated[dict[Name, float], msgspec.Meta(max_length=16)] = {}
    """Weights of scorers for comparing deployments, in place of the defaults:
    {control.queries.scoring.QIRCE.weights}."""
    session: Word = ""
    """Queries of one session go to the same deployment unless something prevents it."""
    attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    """Deployments to try before the query fails."""
    autonomous: bool | None = None
    """Whether the query travels as a packet instead of being routed by the gateway. It must then
    name a model or a topic but no site, cannot be a cascade, and its answer comes in one piece.
    Absent means as in the gateway's file."""
    sealed_to: Word | None = None
    """For a packet: the only class of receivers that can read it; empty means it is not sealed.
    Absent means as in the gateway's file."""
    choose_only: bool = False
    """Whether only to choose a deployment: the answer names it and has its facility's sealing key.
    No model is queried."""
    hedge: bool = True
    """Whether to ask a second deployment when the first is unusually late."""

    def __post_init__(self) -> None:
        plain_fields(self, "topic")


class QueryIntent(msgspec.Struct, frozen=True, kw_only=True):
    """One query, reduced to what its route depends on, without its text."""

    origin: SiteId
    """The gateway's site."""
    owner: Word
    """Owner of the query; empty if unknown to the gateway."""
    api: Api
    model: Word
    """A name, or `auto`."""
    site: SiteId | None = None
    """The only facility that may answer (`name@site`), regardless of its score."""
    topic: Word = ""
    """Empty means unknown."""
    tokens_in: int
    """Estimated for a typical tokenizer."""
    tokens_out: int
    """Upper limit."""
    open_ended: bool = False
    """Whether the request sets no limit, so that `tokens_out` is a guess."""
    tokens_expected: float | None = None
    """Mean length of such answers, for estimates of cost; absent means `tokens_out`."""
    tokens_timed: float | None = None
    """Length of the answer for estimates of time; absent means `tokens_expected`."""
    tokens_usual: float | None = None
    """Mean length of the answers for which it may wait; absent means that of its own."""
    characters: Characters | None = None
    """Characters of the prompt, to estimate tokens by each model's own rates; absent means
    `tokens_in` applies to every model."""
    tokens_apart: int = 0
    """Tokens in `tokens_in` that are not characters: pictures, marks around messages."""
    longest_share: Share = 1.0
    """Share of the prompt in its longest text, which a model reads at once: below 1 if there are
    several texts."""
    needs: tuple[Need, ...] = ()
    """Its needs besides `api`, in the order of `Need`."""
    repeatable: bool = False
    """Temperature 0: replicas of a deterministic model give the same answer."""
    prefix: int = 0
    """Hash of the part of the prompt that a cache may hold; 0 means none."""
    constraints: QueryConstraints = QueryConstraints()

    def __post_init__(self) -> None:
        plain_fields(self, "topic")

    @property
    def priced_tokens(self) -> float:
        """Tokens of the answer, for estimates of cost."""
        return self.tokens_out if self.tokens_expected is None else self.tokens_expected

    @property
    def timed_tokens(self) -> float:
        """Tokens of the answer, for estimates of time."""
        return self.priced_tokens if self.tokens_timed is None else self.tokens_timed


class QueryStatus(enum.StrEnum):
    """How a query ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """Infeasible or not allowed."""
    SHED = "shed"
    """Rejected because of load."""
    FAILED = "failed"
    """No eligible deployment was able to answer."""
    ABANDONED = "abandoned"
    """Its owner disconnected."""


class QueryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How one query was served, without its text."""

    id: Word
    """`<gateway's site>:<number>`; `daitn explain` takes it."""
    asked_at_s: float
    owner: Word
    """Owner of the query: a key's owner, or a site whose pass names no owner, such as a
    verification unit; empty if unknown to the gateway."""
    api: Api
    model_wanted: Word
    topic: Word
    status: QueryStatus
    http_status: int
    strategy: Strategy
    deployment: Word = ""
    """Name of the model that answered."""
    site: Word = ""
    """Facility where it was answered."""
    path: tuple[str, ...] = ()
    """Sites on the query's path, from the gateway's to the facility's."""
    attempts: int = 0
    hedged: bool = False
    overhead_s: float = 0.0
    """Time in the gateway, before and after the deployment's answer."""
    first_token_s: float | None = None
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    reason: str = ""
    """Why it was not answered."""
    object_id: Word = ""
    """Id of the packet, if it travelled as one; `daitn trace` takes it."""
