"""What the API answers where the network has no struct of its own for it."""

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
    "Problem",
    "RelevantSites",
    "SessionView",
    "SiteNews",
    "You",
]

T = TypeVar("T")


class ApiRole(enum.StrEnum):
    """What somebody may do here. Each may do what those before it may."""

    VIEWER = "viewer"
    """Look at what its member may see."""
    OWNER = "owner"
    """Submit, cancel, deploy and retire what is its own."""
    OPERATOR = "operator"
    """See everything, and run the network."""

    def reaches(self, least: ApiRole) -> bool:
        """Whether it may do what `least` may."""
        ranks = list(ApiRole)
        return ranks.index(self) >= ranks.index(least)


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A part of a list."""

    items: tuple[T, ...]
    next: str | None
    """`cursor` of the next part; none: this is the last one."""


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


class You(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks."""

    member: str
    """Name in the roster; empty where there is no roster."""
    kind: Kind | None
    role: ApiRole
    until_s: float | None
    """When the session or token ends, in seconds since the epoch; none: never."""


class NetworkView(NetworkFacts, frozen=True, kw_only=True):
    """A network, the control centre that is asked, and who asks."""

    you: You
    at_s: float
    """The control centre's time, in seconds since the epoch."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """Opens a session."""

    token: Annotated[str, msgspec.Meta(max_length=8192)]
    """As `daitn token create --center-api` or `daitn dashboard` made it."""


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether somebody is signed in, and how one may be."""

    you: You | None
    """None: nobody is signed in."""
    ways: tuple[str, ...]
    """How to sign in: `token`, `oidc`; empty: nobody has to."""
    center: str = ""
    """The control centre for which a token has to be."""


class RelevantSites(msgspec.Struct, frozen=True, kw_only=True):
    """The MS-DRRT of a job: what can serve the model, and why everything else cannot."""

    version: int
    """Of the topology that it was cut from."""
    at_s: float
    options: tuple[DataOption, ...]
    verifiers: dict[ObjectiveName, tuple[VerifierOption, ...]]
    rejections: tuple[Rejection, ...]


class Measuring(msgspec.Struct, frozen=True, kw_only=True):
    """Has the value of a job's data measured."""

    coalitions: Annotated[int, msgspec.Meta(ge=2, le=1000)] = MOST_MEASURED
    """The most to measure."""
    within_s: Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)] = VALUED_WITHIN_S


class Assigned(enum.IntEnum):
    """How a site of the map stands."""

    LOST = 0
    ALIVE = 1
    GONE = 2
    """Forgotten, or no member any more; its number is not used again."""


class MapSites(msgspec.Struct, kw_only=True):
    """Sites as columns: the same place in each is the same site, and its number."""

    name: list[str] = []
    owner: list[str] = []
    jurisdiction: list[str] = []
    roles: list[int] = []
    """Bits by `MapView.role_names`."""
    state: list[int] = []
    """0 lost, 1 alive, 2 gone for good."""
    load: list[float] = []
    """Share of its processors in use, in [0, 1]."""
    queue: list[int] = []
    """Visits and verifications accepted and not finished."""
    cordoned: list[bool] = []
    """Whether it is to get no new work."""


MapLink = tuple[int, int, float | None, float | None]
"""Numbers of source and target, round-trip time in seconds, throughput in bytes per second."""


class MapView(msgspec.Struct, frozen=True, kw_only=True):
    """All sites and links, for a picture. Differences follow as events `map`. Links of a site that
    is gone are gone with it."""

    event: str
    """Id of the last event that is in it: go on with `Last-Event-ID`."""
    version: int
    """Of the topology."""
    at_s: float
    role_names: tuple[str, ...]
    """Names of the bits of `roles`, from the lowest."""
    sites: MapSites
    links: tuple[MapLink, ...]


class MapChanges(msgspec.Struct, kw_only=True):
    """New values of some sites, as columns."""

    site: list[int] = []
    """Its number."""
    state: list[int] = []
    load: list[float] = []
    queue: list[int] = []
    cordoned: list[bool] = []


class MapDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What has changed in the map."""

    version: int
    at_s: float
    added: MapSites
    """New sites, with the numbers that follow."""
    changed: MapChanges
    links: tuple[MapLink, ...]
    """New links, and new values of known ones."""
    cut: tuple[tuple[int, int], ...]
    """Links that are no longer measured."""


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
    """A site came or went."""

    site: str
    state: str
    """`alive`, `lost` or `gone`."""
    at_s: float
