"""The node file: what a site has, and whom it lets in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from daitn.identity.sealing import seal
from daitn.learning.pulse import STALL_S
from daitn.learning.recipe import Selection
from daitn.node.entries import good_entries
from daitn.node.http import read_address
from daitn.objects.deployments import Api, ModelPolicy
from daitn.objects.descriptors import DataPolicy, LeftOut, Role
from daitn.objects.errors import InvalidInput, NotFound
from daitn.objects.identifiers import CENTER_SITE, OwnerId, SiteId, checked_name
from daitn.objects.steering import ControlMode
from daitn.objects.text import plain, plain_fields, plain_words
from daitn.objects.wire import checked

__all__ = [
    "AskingConfig",
    "DatasetConfig",
    "FacilityConfig",
    "ForwarderConfig",
    "GatewayConfig",
    "KeyConfig",
    "NodeConfig",
    "ReadNodeConfig",
    "TestSetConfig",
    "UpstreamConfig",
    "check_node_config",
    "read_yaml",
]

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class _ReadConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which columns of a file are read, where it is a table."""

    label: str = ""
    """Of a table: the column that holds the label; empty: the one called `label`. No column is
    taken for it unless it is called so or named here."""
    columns: tuple[str, ...] = ()
    """Of a table: the columns that models may learn from; empty: all but the label."""
    ignore: tuple[str, ...] = ()
    """Of a table: columns that nobody reads, ids and text for instance. A recipe that cannot leave
    columns out is refused."""

    @property
    def selection(self) -> Selection:
        return Selection(label=self.label, columns=self.columns, ignore=self.ignore)


class DatasetConfig(_ReadConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set of the site. The file stays here; only its description is published."""

    name: str
    """The data set is called `<site>/<name>`."""
    path: str
    """The file, which stays here."""
    data_schema: str
    """What a record looks like: a schema that an allowed recipe reads."""
    topics: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """What it is about."""
    policy: DataPolicy
    """What its owner allows, see below."""
    modality: str = "text"
    """`text`, `table` or `image`."""
    price_usd_per_1k: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Price of 1,000 training examples."""
    licence: str = ""
    """Published as it is."""
    description: str = ""
    """Published as it is."""
    sketch: bool = True
    """Whether the descriptor tells, as hashed counts, how the questions in it are worded."""

    def __post_init__(self) -> None:
        plain_fields(self, "topics", blank=False)
        plain_fields(self, "label", "columns", "ignore")
        owners = plain_words(self.policy.owners)
        policy = msgspec.structs.replace(self.policy, owners=owners)
        msgspec.structs.force_setattr(self, "policy", policy)


class TestSetConfig(_ReadConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A private test set of a verification unit."""

    topic: str
    """What the test set examines; one test set per topic and schema."""
    path: str
    """The file, which stays here."""
    test_schema: str
    """What an item looks like: a schema that an allowed recipe reads."""
    chance: Share = 0.0
    """What guessing reaches."""

    def __post_init__(self) -> None:
        plain_fields(self, "topic", blank=False)
        plain_fields(self, "label", "columns", "ignore")


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server that speaks OpenAI's HTTP API, offered to the network as one deployment."""

    name: str
    """By which queries ask for it."""
    url: str
    """Base of its API, for instance `http://127.0.0.1:8000/v1`. Stays here."""
    model: str = ""
    """What the server calls the model; empty: the same as `name`. Stays here."""
    apis: tuple[Api, ...] = (Api.CHAT,)
    """What the server answers."""
    key_env: str = ""
    """Environment variable with the server's API key. The key stays here."""
    context_tokens: Annotated[int, msgspec.Meta(ge=1)] = 4096
    """Tokens of question and answer together."""
    slots: Annotated[int, msgspec.Meta(ge=1)] = 8
    """Queries that it answers at the same time."""
    queue: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Queries that may wait; further ones are turned away."""
    price_usd_per_1k_in: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Price of 1,000 tokens of questions."""
    price_usd_per_1k_out: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Price of 1,000 tokens of answers."""
    claimed: dict[str, Share] = {}
    """Topic to accuracy, as you think. People see it; routing uses what verifiers measure."""
    policy: ModelPolicy = ModelPolicy()
    """Who may ask it, and where, see below; by default everybody, everywhere."""

    def __post_init__(self) -> None:
        claimed = {plain(topic): share for topic, share in self.claimed.items()}
        msgspec.structs.force_setattr(self, "claimed", claimed)


class FacilityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site that hosts models for queries."""

    listen: str = "127.0.0.1:0"
    """`host:port` at which the facility's API listens; port 0: a free one. `https://host:port`:
    with the certificate in `tls`."""
    advertise: str = ""
    """URL at which gateways reach it, for instance `http://mdf.example.org:7490`; empty: as it
    listens."""
    hosts: bool = True
    """Whether the control centre may place models here."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 2**31
    """For weights of models that are placed here."""
    slots: Annotated[int, msgspec.Meta(ge=1)] = 4
    """Queries that one placed model answers at the same time."""
    queue: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Queries that may wait for one placed model."""
    price_usd_per_hour: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Of hosting one model."""
    keeps_queries: bool = False
    """Whether what is asked here is kept, by the upstream servers for instance."""
    upstreams: tuple[UpstreamConfig, ...] = ()
    """Servers that speak OpenAI's API, see below."""


class KeyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query owner that a gateway knows."""

    owner: str
    """Who shows the key."""
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """Of the API key, so that the file holds no secret: `printf %s KEY | sha256sum`."""
    per_s: Annotated[float, msgspec.Meta(gt=0.0)] = 100.0
    """Queries per second in the long run."""
    burst: Annotated[int, msgspec.Meta(ge=1)] = 200
    """Queries at once."""


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry for queries."""

    listen: str = "127.0.0.1:7480"
    """`host:port` at which OpenAI's API is served; port 0: a free one. `https://host:port`: with
    the certificate in `tls`."""
    advertise: str = ""
    """URL at which others reach it, for instance `https://ai.example.org`; empty: as it listens."""
    keys: tuple[KeyConfig, ...] = ()
    """Who may ask, see below; empty: everybody who reaches it."""
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=2**28)] = 2**22
    """Longest request."""
    autonomous: bool = False
    """Whether queries find their own way as packets, where they do not say otherwise; the node must
    be a forwarder too."""
    max_in_flight: Annotated[int, msgspec.Meta(ge=1)] = 2000
    """Queries under way here; further ones are turned away."""


class ForwarderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site that passes AI objects on, and lets its own set out."""

    listen: tuple[str, ...] = ("tcp/127.0.0.1:0",)
    """Endpoints at which neighbours connect, for instance `tcp/[::]:7449`; port 0: a free one. Not
    the node's own `listen`."""
    neighbours: dict[SiteId, tuple[str, ...]] = {}
    """Who is next to this site, and where that one listens; an empty list for one that connects
    here. The other end names this site likewise."""
    anybody: bool = False
    """Whether whoever connects becomes a neighbour, under the name that it gives itself."""
    scout: str = ""
    """Multicast group and port, for instance `224.0.0.225:7448`. Forwarders of a local network that
    name the same group find each other and become neighbours."""
    mode: ControlMode = ControlMode.NON_STANDALONE
    """Who has a say, until a control centre or an operator says otherwise."""
    domain: str = ""
    """The domain of the site, while its mode is `hierarchical`."""
    owner_per_s: Annotated[float, msgspec.Meta(gt=0.0)] = 1000.0
    """Objects of one owner that one neighbour may bring per second, in the long run; all owners
    together 16 times that."""
    owner_burst: Annotated[float, msgspec.Meta(ge=1.0)] = 2000.0
    """Likewise, at once."""
    receives: tuple[str, ...] = ()
    """Files with private keys, made by `daitn key`, of the classes of receivers of which the site
    is: it can read what is sealed to them."""
    classes: dict[str, str] = {}
    """Names of classes of receivers, with their public keys, to which queries of this site's
    gateway may be sealed."""
    seal_to: str = ""
    """The class to which queries are sealed that do not say otherwise; empty: none."""


class AskingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a verification unit examines deployed models by asking them."""

    every_s: Annotated[float, msgspec.Meta(gt=0.0)] = 60.0
    """Between two rounds over all deployments."""
    items: Annotated[int, msgspec.Meta(ge=4, le=10_000)] = 24
    """Test items per round, deployment and topic."""
    window: Annotated[int, msgspec.Meta(ge=4, le=100_000)] = 240
    """Latest items that a finding rests on."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node. Paths are relative to the file in which they stand."""

    site: SiteId
    """Name of the site; `center` is taken."""
    owner: OwnerId
    """Who answers for it."""
    jurisdiction: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$")]
    """ISO 3166-1 alpha-2 code of the law that applies."""
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1)]
    """What the node does. `data` goes with `datasets`, `verifier` with `tests`, the last three with
    a part of their name."""
    center: tuple[str, ...] = ()
    """Endpoints of the control centre, for instance `tcp/10.0.0.1:7447`. A forwarder may name
    another node's `listen`, or none; every other node needs one."""
    listen: tuple[str, ...] = ("tcp/127.0.0.1:0",)
    """Endpoints at which other sites reach this one; port 0: a free one. Empty: nobody can connect
    to it, and the control centre relays all that it says, models too."""
    tls: str = ""
    """Folder that `daitn certificate` made, for endpoints that begin with `tls/` and addresses that
    begin with `https://`."""
    state: str
    """Folder for the key, the models and the work log."""
    threads: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Processor threads for training."""
    stall_s: Annotated[float, msgspec.Meta(gt=0.0)] = STALL_S
    """Training or measuring that for so long neither reports progress nor uses a processor is ended
    and has failed; so has what uses a processor and reports nothing for an hour."""
    recipes: tuple[str, ...] = ()
    """Installed recipes that may run here; empty: all that are installed. One that is not
    installed, or fails when it is asked what it is, is left out."""
    datasets: tuple[DatasetConfig, ...] = ()
    """Data sets of the site, see below."""
    tests: tuple[TestSetConfig, ...] = ()
    """Private test sets of a verifier, see below."""
    asking: AskingConfig = AskingConfig()
    """How a verifier asks deployed models, see below."""
    verifiers: tuple[SiteId, ...] = ()
    """Verification units whose findings count at this gateway, facility or forwarder; empty: all
    sites that call themselves so."""
    facility: FacilityConfig | None = None
    """What a facility hosts, see below."""
    gateway: GatewayConfig | None = None
    """How a gateway lets queries in, see below."""
    forwarder: ForwarderConfig | None = None
    """Who is next to a forwarder, see below."""


class ReadNodeConfig(NodeConfig, frozen=True, kw_only=True):
    """A node as it was read from its file: with what can be used, and a word on what cannot."""

    left_out: tuple[LeftOut, ...] = ()
    dataset_positions: tuple[int, ...] = ()
    """In the file, of each data set."""
    test_positions: tuple[int, ...] = ()


def read_yaml(path: Path, what: str) -> object:
    """Read a YAML file as plain data, executing nothing."""
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise NotFound(
            f"there is no {what} {path}", field=str(path), fix="check the path"
        ) from None
    except OSError as error:
        raise InvalidInput(
            f"the {what} {path} cannot be read: {error.strerror}", fix="check the path"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"the {what} {path} is no YAML: {error}", fix="correct the line that it names"
        ) from None


def check_node_config(plain: object, folder: Path) -> ReadNodeConfig:
    """Check a node's plain data; `folder` is what its relative paths start from.

    A data set, test set or upstream server whose entry is wrong is left out: the node can do
    without it. Whatever else is wrong raises `InvalidInput`.
    """
    apart: list[LeftOut] = []
    stated = dict(plain) if isinstance(plain, dict) else plain
    lists = _taken_apart(stated, folder, apart) if isinstance(stated, dict) else _Lists({}, {}, {})
    config = checked(stated, NodeConfig, "node")
    checked_name(config.site, "site")
    if config.site == CENTER_SITE:
        raise InvalidInput(
            f"{CENTER_SITE} is the control centre's own name", field="site", fix="use another name"
        )
    _check_roles(config, plain)
    if config.forwarder is not None and config.forwarder.domain:
        checked_name(config.forwarder.domain, "forwarder.domain")
    forwarder = config.forwarder and _checked_sealing(config.forwarder, folder)
    if config.gateway is not None and config.gateway.autonomous and config.forwarder is None:
        raise InvalidInput(
            "a gateway whose queries find their own way needs a forwarder",
            field="gateway.autonomous",
            fix="make the node a forwarder too, or leave autonomous out",
        )
    if not config.center and Role.FORWARDER not in config.roles:
        raise InvalidInput(
            "the node knows no control centre",
            field="center",
            fix="name its endpoints, or make the node a forwarder, which needs none",
        )
    for position, site in enumerate(config.verifiers):
        checked_name(site, f"verifiers[{position}]")
    _check_tls(config)
    facility = config.facility and msgspec.structs.replace(
        config.facility, upstreams=tuple(lists.upstreams.values())
    )
    whole = {name: getattr(config, name) for name in NodeConfig.__struct_fields__}
    whole |= {
        "state": str((folder / config.state).resolve()),
        "tls": str((folder / config.tls).resolve()) if config.tls else "",
        "datasets": tuple(lists.datasets.values()),
        "dataset_positions": tuple(lists.datasets),
        "tests": tuple(lists.tests.values()),
        "test_positions": tuple(lists.tests),
        "facility": facility,
        "forwarder": forwarder,
        "left_out": tuple(apart),
    }
    return ReadNodeConfig(**whole)


@dataclass(frozen=True)
class _Lists:
    """Of a node's file, by position."""

    datasets: dict[int, DatasetConfig]
    tests: dict[int, TestSetConfig]
    upstreams: dict[int, UpstreamConfig]


def _taken_apart(stated: dict[str, Any], folder: Path, apart: list[LeftOut]) -> _Lists:
    """Take the lists out of the file's words, so that a wrong entry is wrong alone."""

    def dataset(entry: DatasetConfig) -> tuple[str, DatasetConfig]:
        checked_name(entry.name, "name")
        return entry.name, msgspec.structs.replace(entry, path=_located(folder, entry.path))

    def test(entry: TestSetConfig) -> tuple[str, TestSetConfig]:
        located = msgspec.structs.replace(entry, path=_located(folder, entry.path))
        return f"{entry.test_schema} on {entry.topic}", located

    def upstream(entry: UpstreamConfig) -> tuple[str, UpstreamConfig]:
        try:
            read_address(entry.url)
        except ValueError:
            raise InvalidInput("is no HTTP address", field="url", fix="correct it") from None
        return checked_name(entry.name, "name"), entry

    datasets = good_entries(stated.pop("datasets", ()), DatasetConfig, "datasets", dataset, apart)
    tests = good_entries(stated.pop("tests", ()), TestSetConfig, "tests", test, apart)
    facility = stated.get("facility")
    if not isinstance(facility, dict):
        return _Lists(datasets, tests, {})
    stated["facility"] = facility = dict(facility)
    where = "facility.upstreams"
    upstreams = good_entries(facility.pop("upstreams", ()), UpstreamConfig, where, upstream, apart)
    return _Lists(datasets, tests, upstreams)


def _located(folder: Path, path: str) -> str:
    """Where a file is to be. Whether it is there is seen when it is read."""
    try:
        return os.path.realpath(folder / path)
    except ValueError:
        raise InvalidInput("is no path", field="path", fix="name a file") from None


def _check_tls(config: NodeConfig) -> None:
    doors = {"facility": config.facility, "gateway": config.gateway}
    for field, door in doors.items():
        if door is not None and door.listen.startswith("https://") and not config.tls:
            raise InvalidInput(
                f"there is no certificate for {field}.listen {door.listen}",
                field="tls",
                fix="name a folder as `daitn certificate` makes them, or leave https:// out",
            )


def _check_roles(config: NodeConfig, plain: object) -> None:
    """`plain`: the file's own words, in which what is left out stands too."""
    stated = plain if isinstance(plain, dict) else {}
    wants = (
        (Role.DATA, stated.get("datasets"), "datasets"),
        (Role.VERIFIER, stated.get("tests"), "tests"),
        (Role.FACILITY, config.facility is not None, "facility"),
        (Role.GATEWAY, config.gateway is not None, "gateway"),
        (Role.FORWARDER, config.forwarder is not None, "forwarder"),
    )
    for role, given, field in wants:
        if (role in config.roles) != bool(given):
            raise InvalidInput(
                f"the role {role} and the field {field} go together",
                field=field if role in config.roles else "roles",
                fix=f"state {field}, or remove {role} from roles",
            )


def _checked_sealing(config: ForwarderConfig, folder: Path) -> ForwarderConfig:
    for name, public in config.classes.items():
        try:
            seal(b"", public, b"")
        except InvalidInput as error:
            raise InvalidInput(
                error.problem, field=f"forwarder.classes.{name}", fix=error.fix
            ) from None
    if config.seal_to and config.seal_to not in config.classes:
        raise InvalidInput(
            f"there is no class {config.seal_to}",
            field="forwarder.seal_to",
            fix="name one of forwarder.classes",
        )
    receives = tuple(
        _existing(folder, path, f"forwarder.receives[{i}]")
        for i, path in enumerate(config.receives)
    )
    return msgspec.structs.replace(config, receives=receives)


def _existing(folder: Path, path: str, field: str) -> str:
    full = (folder / path).resolve()
    if not full.is_file():
        raise NotFound(f"there is no file {full}", field=field, fix="correct the path")
    return str(full)
