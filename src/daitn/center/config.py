"""The control centre's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

from daitn.files.state_folder import CenterState, ProcessState
from daitn.objects.default_addresses import CENTER
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import CENTER_SITE, SiteId, checked_name
from daitn.objects.wire import checked
from daitn.tools.fabric.settings import check_endpoints
from daitn.tools.fabric.turns import PER_MINUTE
from daitn.tools.http import check_served
from daitn.tools.monitoring.config import MetricsConfig, TracesConfig

__all__ = ["LIVE", "ApiConfig", "CenterConfig", "OidcConfig", "check_center_config"]

LIVE: Final = frozenset({"open_jobs", "requests_per_minute", "stored_bytes", "certificate_hours"})
"""Fields of its file that take effect in a running control centre."""


class OidcConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sign-in by a provider of OpenID Connect. Paths are relative to the control centre's file."""

    issuer: str
    """The provider's issuer URL: `https://accounts.example.org`."""
    client_id: str
    """This control centre's client id at the provider."""
    client_secret: str = ""
    """File with the client secret from the provider; empty means none."""
    scopes: tuple[str, ...] = ("email",)
    """Scopes requested in addition to `openid`."""
    claim: str = "email"
    """The claim that names an account. An `email` counts only if it is verified."""
    people: dict[str, str] = {}
    """For each account, the file with a token of `daitn token create --center-api`: the account's
    holder may do what the token allows."""


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A control centre's HTTP API and dashboard."""

    listen: str | None = None
    """Address (`127.0.0.1:7448`), or `https://` and one; port 0 picks a free one. Empty means none.
    By default {objects.default_addresses.API}, or a free port if that one is taken; `api-address`
    in `state` keeps it across restarts."""
    advertise: str = ""
    """URL at which others reach it, if it differs from `listen`."""
    requests_per_s: Annotated[float, msgspec.Meta(gt=0.0)] = 50.0
    """Average requests per member; four seconds' worth may come at once."""
    oidc: OidcConfig | None = None
    """Sign-in with OpenID Connect, see below; none means with tokens only."""


class CenterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One control centre. Paths are relative to this file."""

    name: str = CENTER_SITE
    """Its name in the roster; each control centre of a network has its own."""
    listen: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = (CENTER,)
    """Endpoints at which nodes and owners reach it."""
    state: str = "daitn-center"
    """Folder for the key, the roster, jobs, and start weights of owners."""
    roster: str = ""
    """File in which the operator puts new rosters, such as `roster.json` in the folder of `daitn
    network init`; it is reread when it changes. Empty means the one that `daitn network join` put
    into `state`, and newer ones from other members."""
    insecure: bool = False
    """Run without a roster: anyone who reaches the process may do anything. Only for experiments on
    one machine: all addresses must be local to this machine."""
    root: tuple[str, ...] = ()
    """For a domain's control centre: endpoints of the root control centre, whose advice to
    forwarders applies unless its own operator has set some."""
    verifiers: tuple[SiteId, ...] = ()
    """Verifiers whose measurements count, for models in training and deployed ones; empty means all
    sites to which the roster grants that role."""
    open_jobs: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Maximum number of open jobs per owner."""
    requests_per_minute: Annotated[int, msgspec.Meta(ge=1)] = PER_MINUTE
    """Costly requests per member: assessments, analyses, certificates and names count as one,
    submissions and deployments as three. A minute's worth may come at once."""
    stored_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 << 30
    """Start weights that one owner may store; each blob counts as 16 KiB more than its size.
    Weights that nothing needs are deleted after a day."""
    database: str = ""
    """SQLAlchemy URL of the journal, which holds the jobs' events; empty means SQLite in the state
    folder."""
    replica: str = ""
    """Name of this one among control centres that share a PostgreSQL `database` and a key: one
    leads, and another takes over when it falls silent. Empty means that it is alone."""
    api: ApiConfig = ApiConfig()
    """The HTTP API and dashboard, see below."""
    certificate_hours: Annotated[float, msgspec.Meta(gt=0.0)] = 24.0
    """Validity of the certificates that it issues to members; they are renewed halfway."""
    metrics: MetricsConfig = MetricsConfig()
    """The address of its metrics, as for a node."""
    traces: TracesConfig = TracesConfig()
    """The destination of traces of jobs, as for a node."""

    @property
    def tls(self) -> str:
        """Folder of its certificates; none without a roster."""
        return "" if self.insecure else str(Path(self.state, ProcessState.TLS))

    @property
    def database_url(self) -> str:
        """URL of the database of its jobs."""
        return self.database or f"sqlite:///{Path(self.state, CenterState.DATABASE)}"

    @property
    def listen_addresses(self) -> tuple[tuple[str, str], ...]:
        """Addresses at which it listens as its file says, each with its field."""
        servers = (("metrics", self.metrics), ("api", self.api))
        return (
            *(("listen", endpoint) for endpoint in self.listen),
            *((f"{field}.listen", part.listen) for field, part in servers if part.listen),
        )


def check_center_config(plain: object, folder: Path) -> CenterConfig:
    """Check plain data from a file. Raises `InvalidInput` naming the field."""
    if isinstance(plain, dict) and plain.get("insecure") is True:
        plain = {"listen": [CENTER.replace("tls/", "tcp/")], **plain}
    config = checked({} if plain is None else plain, CenterConfig, "center")
    checked_name(config.name, "name")
    if config.replica:
        checked_name(config.replica, "replica")
        _check_shared(config)
    for position, site in enumerate(config.verifiers):
        checked_name(site, f"verifiers[{position}]")
    _check_addresses(config)
    return msgspec.structs.replace(
        config,
        state=str((folder / config.state).resolve()),
        roster=str((folder / config.roster).resolve()) if config.roster else "",
        api=msgspec.structs.replace(config.api, oidc=_placed(config.api.oidc, folder)),
    )


def _check_addresses(config: CenterConfig) -> None:
    """Check what it listens at and connects to, as it will when it starts."""
    check_endpoints("listen", listen=config.listen, tls=config.tls)
    check_endpoints("root", connect=config.root, tls=config.tls)
    if config.api.listen:
        check_served("api.listen", config.api.listen, config.api.advertise, tls=config.tls)
    if config.metrics.listen:
        check_served("metrics.listen", config.metrics.listen, tls=config.tls)


def _check_shared(config: CenterConfig) -> None:
    """Raise `InvalidInput` for settings that several control centres cannot share."""
    if config.insecure:
        raise InvalidInput(
            "control centres that take turns sign their messages, but this one has no roster",
            field="replica",
            fix="leave insecure out, or replica",
        )
    if not config.database.startswith("postgresql"):
        raise InvalidInput(
            "control centres that take turns share a database of PostgreSQL",
            field="database",
            fix="name it at each: postgresql+psycopg://USER@HOST/NAME; or leave replica out",
        )


def _placed(oidc: OidcConfig | None, folder: Path) -> OidcConfig | None:
    """The configuration with absolute paths."""
    if oidc is None:
        return None
    secret = oidc.client_secret
    return msgspec.structs.replace(
        oidc,
        client_secret=str((folder / secret).resolve()) if secret else "",
        people={name: str((folder / file).resolve()) for name, file in oidc.people.items()},
    )
