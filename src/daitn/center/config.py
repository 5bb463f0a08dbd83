"""The control centre's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

from daitn.objects.identifiers import CENTER_SITE, SiteId, checked_name
from daitn.objects.wire import checked
from daitn.tools.fabric.turns import PER_MINUTE
from daitn.tools.monitoring.config import MetricsConfig, TracesConfig

__all__ = ["LIVE", "ApiConfig", "CenterConfig", "OidcConfig", "check_center_config"]

LIVE: Final = frozenset({"open_jobs", "requests_per_minute", "stored_bytes", "certificate_hours"})
"""What of its file a running control centre takes over."""


class OidcConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sign-in by a provider of OpenID Connect. Paths are relative to the control centre's file."""

    issuer: str
    """The provider, as it calls itself: `https://accounts.example.org`."""
    client_id: str
    """What the provider calls this control centre."""
    client_secret: str = ""
    """File with the secret that the provider gave; empty: it gave none."""
    scopes: tuple[str, ...] = ("email",)
    """What is asked for beside `openid`."""
    claim: str = "email"
    """What of the provider's word names an account. An `email` counts if it is verified."""
    people: dict[str, str] = {}
    """By account, the file with a token of `daitn token create --center-api`: whoever has the
    account may do what the token's member lets it."""


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A control centre's HTTP API and dashboard."""

    listen: str | None = None
    """Address (`127.0.0.1:7448`), or `https://` and one; port 0 picks a free one. Empty: none.
    Not stated: port 7448 of this machine alone, or a free one where that is taken; a restart keeps
    it, as `api-address` in `state` has it."""
    advertise: str = ""
    """URL at which others reach it, if `listen` does not tell it."""
    requests_per_s: Annotated[float, msgspec.Meta(gt=0.0)] = 50.0
    """Requests of one member, on average; four seconds' may come at once."""
    oidc: OidcConfig | None = None
    """Sign-in with accounts elsewhere, see below; none: with tokens only."""


class CenterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One control centre. Paths are relative to this file."""

    name: str = CENTER_SITE
    """What the roster calls it; each control centre of a network has its own."""
    listen: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("tls/127.0.0.1:7447",)
    """Endpoints at which nodes and owners reach it."""
    state: str = "daitn-center"
    """Folder for the key, the roster, jobs, and weights that owners bring."""
    roster: str = ""
    """File in which the operator puts new rosters, such as `roster.json` of the folder that
    `daitn network init` made; it is read again when it changes. Empty: the one in `state`, as
    `daitn network join` put it there, and newer ones that others pass on."""
    insecure: bool = False
    """Runs without a roster: whoever reaches the process may do anything. For trying things out on
    one machine: every address to listen at has to be of this machine alone."""
    root: tuple[str, ...] = ()
    """Endpoints of the root control centre, where this one is of a domain: what its own operator
    did not decide for forwarders, the root's advice decides."""
    verifiers: tuple[SiteId, ...] = ()
    """Verification units whose measurements count, of models on their way and of deployed ones;
    empty: all sites to which the roster grants that role."""
    open_jobs: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Jobs of one owner that may be open at the same time."""
    requests_per_minute: Annotated[int, msgspec.Meta(ge=1)] = PER_MINUTE
    """Costly requests of one member: assessments, analyses, certificates and names, and, as
    three each, submissions and deployments. A minute's may come at once."""
    stored_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 << 30
    """Weights that one owner may bring; each blob counts 16 KiB more than it has. Those that
    nothing needs are deleted after a day."""
    database: str = ""
    """SQLAlchemy URL of the journal, which holds the jobs' events; empty: SQLite in the state
    folder."""
    api: ApiConfig = ApiConfig()
    """Its HTTP API and dashboard, see below."""
    certificate_hours: Annotated[float, msgspec.Meta(gt=0.0)] = 24.0
    """How long the certificates hold that it issues to members; they are renewed half-way."""
    metrics: MetricsConfig = MetricsConfig()
    """Where Prometheus finds its metrics, as at a node."""
    traces: TracesConfig = TracesConfig()
    """Where spans of jobs go, as at a node."""

    @property
    def tls(self) -> str:
        """Folder of its certificates; none without a roster."""
        return "" if self.insecure else str(Path(self.state, "tls"))


def check_center_config(plain: object, folder: Path) -> CenterConfig:
    """Check plain data from a file. Raises `InvalidInput` naming the field."""
    if isinstance(plain, dict) and plain.get("insecure") is True:
        plain = {"listen": ["tcp/127.0.0.1:7447"], **plain}
    config = checked({} if plain is None else plain, CenterConfig, "center")
    checked_name(config.name, "name")
    for position, site in enumerate(config.verifiers):
        checked_name(site, f"verifiers[{position}]")
    return msgspec.structs.replace(
        config,
        state=str((folder / config.state).resolve()),
        roster=str((folder / config.roster).resolve()) if config.roster else "",
        api=msgspec.structs.replace(config.api, oidc=_placed(config.api.oidc, folder)),
    )


def _placed(oidc: OidcConfig | None, folder: Path) -> OidcConfig | None:
    """With paths from anywhere."""
    if oidc is None:
        return None
    secret = oidc.client_secret
    return msgspec.structs.replace(
        oidc,
        client_secret=str((folder / secret).resolve()) if secret else "",
        people={name: str((folder / file).resolve()) for name, file in oidc.people.items()},
    )
