"""Answers of the API without a struct of the network."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from daitn.objects.decisions import Rejection
from daitn.objects.identifiers import ObjectiveName
from daitn.objects.requests import NetworkFacts
from daitn.objects.roster import Kind
from daitn.objects.value import MOST_MEASURED, VALUED_WITHIN_S
from daitn.topology.snapshot import DataOption, VerifierOption

__all__ = [
    "ApiRole",
    "Assigned",
    "MapChanges",
    "MapDelta",
    "MapLink",
    "MapSites",
    "MapView",
    "Measuring",
    "NetworkView",
    "Opening",
    "Page",
    "PastEvent",
    "PastKind",
    "Problem",
    "RelevantSites",
    "SessionView",
    "SiteNews",
    "You",
]

T = TypeVar("T")


class ApiRole(enum.StrEnum):
    """What a caller may do here. Each role includes those before it."""

    VIEWER = "viewer"
    """Read what its member may see."""
    OWNER = "owner"
    """Submit, cancel, deploy and retire its own."""
    OPERATOR = "operator"
    """See everything and run the network."""

    def reaches(self, least: ApiRole) -> bool:
        """Whether it includes `least`."""
        ranks = list(ApiRole)
        return ranks.index(self) >= ranks.index(least)


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A part of a list."""

    items: tuple[T, ...]
    next: str | None
    """`cursor` of the next part; none if this is the last one."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was not answered (RFC 9457)."""

    type: str
    """Names the kind of problem: `urn:daitn:problem:` and its code."""
    title: str
    """The status in words."""
    status: int
    detail: str
    """What is wrong."""
    field: str = ""
    """Dotted path of the offending field, or the parameter's name."""
    fix: str = ""
    """What to do about it."""
    cause: str = ""
    """A more precise name than that in `type`, where there is one."""


class You(msgspec.Struct, frozen=True, kw_only=True):
    """The caller."""

    member: str
    """Name in the roster; empty if there is no roster."""
    kind: Kind | None
    role: ApiRole
    until_s: float | None
    """When the session or token expires, in seconds since the epoch; none means never."""


class NetworkView(NetworkFacts, frozen=True, kw_only=True):
    """A network, the control centre that answers, and the caller."""

    you: You
    at_s: float
    """The control centre's time, in seconds since the epoch."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """Opens a session."""

    token: Annotated[str, msgspec.Meta(max_length=8192)]
    """As created by `daitn token create --center-api` or `daitn dashboard`."""


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the caller is signed in, and how to sign in."""

    you: You | None
    """None if nobody is signed in."""
    ways: tuple[str, ...]
    """Ways to sign in: `token`, `oidc`; empty if nobody needs to."""
    center: str = ""
    """The control centre for which a token must be made."""


class RelevantSites(msgspec.Struct, frozen=True, kw_only=True):
    """The MS-DRRT of a job: what can serve the model, and why everything else cannot."""

    version: int
    """Version of the topology from which it was cut."""
    at_s: float
    options: tuple[DataOption, ...]
    verifiers: dict[ObjectiveName, tuple[VerifierOption, ...]]
    rejections: tuple[Rejection, ...]


class Measuring(msgspec.Struct, frozen=True, kw_only=True):
    """Has the value of a job's data measured."""

    coalitions: Annotated[int, msgspec.Meta(ge=2, le=1000)] = MOST_MEASURED
    """Maximum number to measure."""
    within_s: Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)] = VALUED_WITHIN_S


class Assigned(enum.IntEnum):
    """State of a site of the map."""

    LOST = 0
    ALIVE = 1
    GONE = 2
    """Forgotten, or no longer a member; its number is not reused."""


class MapSites(msgspec.Struct, kw_only=True):
    """Sites in columns: the same position in each is the same site, and its number."""

    name: list[str] = []
    owner: list[str] = []
    jurisdiction: list[str] = []
    roles: list[int] = []
    """Bits by `MapView.role_names`."""
    state: list[int] = []
    """0 lost, 1 alive, 2 gone permanently."""
    load: list[float] = []
    """Share of its processors in use, in [0, 1]."""
    queue: list[int] = []
    """Visits and verifications accepted and not finished."""
    cordoned: list[bool] = []
    """Whether it gets no new work."""


MapLink = tuple[int, int, float | None, float | None]
"""Numbers of source and target, round-trip time in seconds, throughput in bytes per second."""


class MapView(msgspec.Struct, frozen=True, kw_only=True):
    """All sites and links, to draw. Differences follow as events `map`. Links of a site that is
    gone are gone too."""

    event: str
    """Id of the last event included: continue with it as `Last-Event-ID`."""
    version: int
    """Version of the topology."""
    at_s: float
    role_names: tuple[str, ...]
    """Names of the bits of `roles`, lowest first."""
    sites: MapSites
    links: tuple[MapLink, ...]


class MapChanges(msgspec.Struct, kw_only=True):
    """New values of some sites, in columns."""

    site: list[int] = []
    """Its number."""
    state: list[int] = []
    load: list[float] = []
    queue: list[int] = []
    cordoned: list[bool] = []


class MapDelta(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of the map."""

    version: int
    at_s: float
    added: MapSites
    """New sites, with the numbers that follow."""
    changed: MapChanges
    links: tuple[MapLink, ...]
    """New links, and new values of known ones."""
    cut: tuple[tuple[int, int], ...]
    """Links that are no longer measured."""


class PastKind(enum.StrEnum):
    """What something that happened is about."""

    SITE = "site"
    JOB = "job"
    DEPLOYMENT = "deployment"
    RETIRED = "retired"


class PastEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened."""

    id: str
    kind: str
    """`site`, `job`, `deployment` or `retired`."""
    at_s: float
    """By the control centre's clock, in seconds since the epoch."""
    data: Any
    """As in the event of this kind."""


class SiteNews(msgspec.Struct, frozen=True, kw_only=True):
    """A site came or went, or was taken out of service or brought back."""

    site: str
    state: str
    """`alive`, `lost` or `gone`; `cordoned`, `draining`, or `in service` again."""
    at_s: float
    detail: str = ""
    """Who took it out of service, and why."""
