"""Every route of the API, in one table."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from daitn.oam.api import commanding, reading
from daitn.oam.api.answers import (
    ApiRole,
    MapView,
    Measuring,
    NetworkView,
    Opening,
    Page,
    PastEvent,
    PastKind,
    RelevantSites,
    SessionView,
)
from daitn.oam.api.asking import Asked
from daitn.objects.accounts import AccountView, LedgerLine
from daitn.objects.audit import CountersignedHead
from daitn.objects.cordons import CordonQuestion, CordonReport
from daitn.objects.decisions import Assessment
from daitn.objects.descriptors import ModelDescriptor, Role
from daitn.objects.http_api import OCTETS
from daitn.objects.identifiers import Word
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import Decided, JobState, JobSummary, JobView
from daitn.objects.moments import Moment
from daitn.objects.placement import DeployIntent, DeploymentView, PlacementView
from daitn.objects.queries import QueryRecord
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
from daitn.topology.analysis import Analysis
from daitn.topology.export import TopologyView
from daitn.topology.qrrt.export import QrrtView, QueryCut
from daitn.topology.qrrt.served import ServedModel
from daitn.topology.snapshot import SiteState

__all__ = [
    "CALLBACK",
    "HTML",
    "ROUTES",
    "ApiRoute",
    "Parameter",
    "Special",
    "found",
]

HTML: Final = "text/html"
CALLBACK: Final = "/session/oidc/callback"
"""Path to which a provider of OpenID Connect redirects browsers."""

Do = Callable[[Asked], Awaitable[Any]]


@dataclass(frozen=True)
class Parameter:
    """A parameter in a query string."""

    name: str
    kind: Any
    """Its type, with bounds."""
    text: str
    default: Any = None
    """`NODEFAULT` if it has to be stated."""


class Special(enum.Enum):
    """An answer of the server itself, with its description."""

    MAP = "map", "All sites and links in a compact form, for a picture."
    EVENTS = "events", "New events, as server-sent events."
    RELAY = (
        "relay",
        "Forward a fabric request as signed by the signed-in member; an unsigned request is made "
        "in that member's name. Commands with `--center URL` use this.",
    )
    SESSION = "session", "Whether the caller is signed in, and how to sign in."
    OPEN = "sign_in", "Sign in: exchange a token for a cookie."
    CLOSE = "sign_out", "Sign out."
    OIDC = "oidc_begin", "Sign in with OpenID Connect: redirects a browser to the provider."
    OIDC_BACK = "oidc_end", "The redirect URI for the provider."
    OPENAPI = "openapi", "This description, as OpenAPI 3.1."


@dataclass(frozen=True)
class ApiRoute:
    """One operation of the API."""

    method: str
    path: str
    """Below `PREFIX`; `{name}` is any one segment."""
    do: Do | Special
    """Its handler: a function, or the server itself."""
    answer: Any
    """Type of the answer's body; none if it has none."""
    least: ApiRole | None = ApiRole.VIEWER
    """Who may call it; none means anybody."""
    body: type[msgspec.Struct | bytes] | None = None
    """Its JSON type; `bytes` means the body is not JSON."""
    query: Sequence[Parameter] = ()
    status: int = 200
    media: str = "application/json"
    cost: int = 1
    """Number of requests that it counts as: one that queries many sites counts as several."""

    @property
    def id(self) -> str:
        """Its name in descriptions and clients."""
        return self.do.value[0] if isinstance(self.do, Special) else self.do.__name__

    @property
    def summary(self) -> str:
        """What it does, in a sentence or two."""
        if isinstance(self.do, Special):
            return self.do.value[1]
        return inspect.cleandoc(self.do.__doc__ or "").split("\n\n")[0].replace("\n", " ")

    @property
    def names(self) -> list[str]:
        """Names in the path."""
        return re.findall(r"{(\w+)}", self.path)


_Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Text = Annotated[str, msgspec.Meta(max_length=1024)]
_Timeout = Annotated[float, msgspec.Meta(gt=0.0, le=600.0)]


def _listed(default: int = 100) -> tuple[Parameter, ...]:
    return (
        Parameter("limit", _Limit, "Maximum number.", default),
        Parameter("cursor", _Text | None, "`next` of the previous page; none for the first page."),
    )


_OWNER: Final = Parameter("owner", Word | None, "Only this owner's.")
_ACCOUNT: Final = (
    Parameter("account", Word | None, "Only this account, or all accounts of this owner or site."),
    Parameter("from_s", Moment, "Start, in seconds since the epoch.", 0.0),
    Parameter("to_s", Moment, "Before this moment.", 1e13),
)

ROUTES: Final[tuple[ApiRoute, ...]] = (
    ApiRoute("GET", "/network", reading.network, NetworkView),
    ApiRoute("GET", "/sites", reading.sites, Page[SiteState],
             query=(*_listed(), _OWNER,
                    Parameter("alive", bool | None, "Only those connected, or only others."),
                    Parameter("role", Role | None, "Only those with this role."))),
    ApiRoute("GET", "/sites/{site}", reading.site, SiteState),
    ApiRoute("GET", "/sites/{site}/cordon", reading.occupancy, CordonReport, ApiRole.OWNER),
    ApiRoute("POST", "/sites/{site}/cordon", commanding.cordon, CordonReport, ApiRole.OWNER,
             CordonQuestion),
    ApiRoute("GET", "/map", Special.MAP, MapView),
    ApiRoute("GET", "/topology/training", reading.training, TopologyView),
    ApiRoute("GET", "/topology/serving", reading.serving, QrrtView),
    ApiRoute("GET", "/topology/analysis", reading.analysis, Analysis),
    ApiRoute("GET", "/jobs", reading.jobs, Page[JobSummary],
             query=(*_listed(50), _OWNER,
                    Parameter("state", JobState | None, "Only those in this state."))),
    ApiRoute("POST", "/jobs", commanding.submit, JobView, ApiRole.OWNER, SubmitIntent, status=201),
    ApiRoute("GET", "/jobs/{job}", reading.job, JobView),
    ApiRoute("GET", "/jobs/{job}/intent", reading.intent, TrainingIntent),
    ApiRoute("GET", "/jobs/{job}/decisions", reading.decisions, Page[Decided], query=_listed(50)),
    ApiRoute("GET", "/jobs/{job}/lineage", reading.lineage, TrainedModel),
    ApiRoute("GET", "/jobs/{job}/value", reading.value, ValueOfData),
    ApiRoute("POST", "/jobs/{job}/value", commanding.measure, ValueOfData, ApiRole.OWNER,
             Measuring),
    ApiRoute("GET", "/jobs/{job}/relevant", reading.relevant, RelevantSites),
    ApiRoute("GET", "/jobs/{job}/report", reading.report, str, media=HTML, cost=4),
    ApiRoute("POST", "/jobs/{job}/cancel", commanding.cancel, JobView, ApiRole.OWNER),
    ApiRoute("POST", "/jobs/{job}/resume", commanding.resume, JobView, ApiRole.OWNER),
    ApiRoute("POST", "/assessments", reading.assess, Assessment, body=AssessIntent),
    ApiRoute("GET", "/models", reading.models, Page[ModelDescriptor], query=_listed()),
    ApiRoute("GET", "/served", reading.served, Page[ServedModel], query=_listed()),
    ApiRoute("GET", "/placement", reading.placement, PlacementView),
    ApiRoute("GET", "/deployments", reading.deployments, Page[DeploymentView], query=_listed()),
    ApiRoute("POST", "/deployments", commanding.deploy, DeploymentView, ApiRole.OWNER, DeployIntent,
             status=201),
    ApiRoute("GET", "/deployments/{name}", reading.deployment, DeploymentView),
    ApiRoute("DELETE", "/deployments/{name}", commanding.retire, DeploymentView, ApiRole.OWNER,
             query=(Parameter("site", Word | None, "Only at this facility."),)),
    ApiRoute("GET", "/queries", reading.queries, Page[QueryRecord],
             query=(*_listed(), _OWNER, Parameter("gateway", Word | None, "Only this gateway's.")),
             cost=8),
    ApiRoute("GET", "/queries/{gateway}/{id}", reading.query, QueryExplained),
    ApiRoute("POST", "/gateways/{gateway}/cuts", reading.cut, QueryCut, body=CutQuery),
    ApiRoute("GET", "/forwarders/{site}", reading.forwarder, ForwarderReport),
    ApiRoute("GET", "/traces/{site}/{object}", reading.trace, TraceReport),
    ApiRoute("GET", "/advice", reading.advice, Advice),
    ApiRoute("POST", "/advice", commanding.steer, Advice, ApiRole.OPERATOR, Steer),
    ApiRoute("GET", "/homes/{site}/jobs", reading.travelling, Page[JobView], query=_listed()),
    ApiRoute("GET", "/homes/{site}/jobs/{job}", reading.traveller, JobView),
    ApiRoute("GET", "/homes/{site}/jobs/{job}/report", reading.traveller_report, str, media=HTML,
             cost=4),
    ApiRoute("GET", "/audit", reading.audit, Page[CountersignedHead], query=_listed()),
    ApiRoute("GET", "/accounts", reading.accounts, Page[AccountView],
             query=(*_listed(), *_ACCOUNT)),
    ApiRoute("GET", "/ledger", reading.ledger, Page[LedgerLine], query=(*_listed(), *_ACCOUNT)),
    ApiRoute("GET", "/usage", reading.usage, Page[UsageCompared], query=(*_listed(), _ACCOUNT[0])),
    ApiRoute("GET", "/events", Special.EVENTS, str, media="text/event-stream",
             query=(Parameter("after", _Text | None,
                              "Id of the last event that was seen, as `Last-Event-ID` says; "
                              "`start`: all that are remembered."),)),
    ApiRoute("GET", "/history", reading.history, Page[PastEvent],
             query=(*_listed(), Parameter("kind", PastKind | None, "Only events of this kind."))),
    ApiRoute("POST", "/relay", Special.RELAY, bytes, body=bytes, media=OCTETS,
             query=(Parameter("key", _Text, "Key on the fabric, see wire.md.", msgspec.NODEFAULT),
                    Parameter("within_s", _Timeout, "Maximum wait for the answer.", 60.0))),
    ApiRoute("GET", "/session", Special.SESSION, SessionView, None),
    ApiRoute("POST", "/session", Special.OPEN, SessionView, None, Opening),
    ApiRoute("DELETE", "/session", Special.CLOSE, None, None, status=204),
    ApiRoute("GET", "/session/oidc", Special.OIDC, None, None, status=303),
    ApiRoute("GET", CALLBACK, Special.OIDC_BACK, None, None, status=303),
    ApiRoute("GET", "/openapi.json", Special.OPENAPI, dict[str, Any], None),
)  # fmt: skip

_PATTERNS: Final = tuple(
    (re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.path)), route) for route in ROUTES
)


def found(path: str) -> list[tuple[ApiRoute, dict[str, str]]]:
    """The routes of a path below `PREFIX`, one for each method, with the names in the path."""
    matches = ((pattern.fullmatch(path), route) for pattern, route in _PATTERNS)
    hits = [(route, match.groupdict()) for match, route in matches if match]
    exact = [hit for hit in hits if not hit[1]]
    return exact or hits
