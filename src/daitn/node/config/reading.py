"""Reads and checks the node file."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from daitn.files.yaml_file import read_yaml
from daitn.node.config.data import DatasetConfig
from daitn.node.config.facility import ModelConfig, UpstreamConfig
from daitn.node.config.forwarder import ForwarderConfig, checked_sealing
from daitn.node.config.node import NodeConfig, ReadNodeConfig
from daitn.node.config.policy import PolicyConfig
from daitn.node.config.verifier import TestSetConfig
from daitn.node.entries import good_entries
from daitn.objects.descriptors import LeftOut, Role
from daitn.objects.errors import DaitnError, InvalidInput
from daitn.objects.identifiers import CENTER_SITE, checked_name
from daitn.objects.wire import checked
from daitn.tools.fabric.settings import check_endpoints
from daitn.tools.http import check_served, read_address

__all__ = ["check_node_config", "read_policy"]

log = logging.getLogger(__name__)

Entry = TypeVar("Entry", DatasetConfig, TestSetConfig)


def read_policy(path: Path) -> PolicyConfig:
    """Read a policy's own file. Raises `NotFound` and `InvalidInput`."""
    return checked(read_yaml(path, "policy"), PolicyConfig, "policy")


def check_node_config(plain: object, folder: Path) -> ReadNodeConfig:
    """Check a node's plain data. Relative paths start from `folder`.

    An invalid data set, test set, upstream server or model is left out: the node works without
    it. Any other fault raises `InvalidInput`.
    """
    rejected: list[LeftOut] = []
    stated = dict(plain) if isinstance(plain, dict) else plain
    if isinstance(stated, dict) and stated.get("insecure") is True:
        stated.setdefault("listen", ["tcp/127.0.0.1:0"])
        if isinstance(stated.get("forwarder"), dict):
            stated["forwarder"] = {"listen": ["tcp/127.0.0.1:0"], **stated["forwarder"]}
    lists = (
        _checked_lists(stated, folder, rejected)
        if isinstance(stated, dict)
        else _Lists({}, {}, {}, {})
    )
    config = checked(stated, NodeConfig, "node")
    _check_names(config)
    _check_roles(config, plain)
    _check_addresses(config)
    _check_forwarding(config)
    forwarder = config.forwarder and checked_sealing(config.forwarder, folder)
    facility = config.facility and msgspec.structs.replace(
        config.facility,
        upstreams=tuple(lists.upstreams.values()),
        models=tuple(lists.models.values()),
    )
    values = {name: getattr(config, name) for name in NodeConfig.__struct_fields__}
    values |= {
        "state": str((folder / config.state).resolve()),
        "roster": str((folder / config.roster).resolve()) if config.roster else "",
        "datasets": tuple(lists.datasets.values()),
        "dataset_positions": tuple(lists.datasets),
        "tests": tuple(lists.tests.values()),
        "test_positions": tuple(lists.tests),
        "facility": facility,
        "forwarder": forwarder,
        "left_out": tuple(rejected),
    }
    return ReadNodeConfig(**values)


@dataclass(frozen=True)
class _Lists:
    """Entries of the node file, by position."""

    datasets: dict[int, DatasetConfig]
    tests: dict[int, TestSetConfig]
    upstreams: dict[int, UpstreamConfig]
    models: dict[int, ModelConfig]


def _checked_lists(stated: dict[str, Any], folder: Path, rejected: list[LeftOut]) -> _Lists:
    """Remove the lists from `stated` and check their entries one by one; invalid ones are appended
    to `rejected`."""

    def dataset(entry: DatasetConfig) -> tuple[str, DatasetConfig]:
        checked_name(entry.name, "name")
        return entry.name, _located(folder, entry)

    def test(entry: TestSetConfig) -> tuple[str, TestSetConfig]:
        return f"{entry.test_schema} on {entry.topic}", _located(folder, entry)

    def upstream(entry: UpstreamConfig) -> tuple[str, UpstreamConfig]:
        try:
            read_address(entry.url)
        except ValueError:
            raise InvalidInput("is not an HTTP address", field="url", fix="correct it") from None
        return checked_name(entry.name, "name"), entry

    def model(entry: ModelConfig) -> tuple[str, ModelConfig]:
        found = _found(folder, entry)
        if any(found.name == other.name for other in upstreams.values()):
            raise InvalidInput(
                "an upstream server has this name", field="name", fix="use another one"
            )
        return found.name, found

    datasets = good_entries(
        stated.pop("datasets", ()), DatasetConfig, "datasets", dataset, rejected
    )
    tests = good_entries(stated.pop("tests", ()), TestSetConfig, "tests", test, rejected)
    facility = stated.get("facility")
    if not isinstance(facility, dict):
        return _Lists(datasets, tests, {}, {})
    stated["facility"] = facility = dict(facility)
    where = "facility.upstreams"
    upstreams = good_entries(
        facility.pop("upstreams", ()), UpstreamConfig, where, upstream, rejected
    )
    models = good_entries(
        facility.pop("models", ()), ModelConfig, "facility.models", model, rejected
    )
    return _Lists(datasets, tests, upstreams, models)


def _found(folder: Path, entry: ModelConfig) -> ModelConfig:
    """The entry with a name, and with its path relative to `folder`."""
    if bool(entry.gguf) == bool(entry.folder):
        raise InvalidInput(
            "a model is a file or a folder", field="gguf", fix="state one of gguf and folder"
        )
    # Without following links: files of one model lie beside each other, under their own names.
    path = Path(os.path.abspath(folder / (entry.gguf or entry.folder)))
    usual = path.stem if entry.gguf else path.name
    name = checked_name(entry.name or usual.lower(), "name")
    field = "gguf" if entry.gguf else "folder"
    return msgspec.structs.replace(entry, **{field: str(path), "name": name})


def _located(folder: Path, entry: Entry) -> Entry:
    """The entry with the path of its file from `folder`, and its policy read.

    What is wrong with a policy stays in the log, since everybody may read why an entry is left out.
    """
    policy = entry.policy
    if isinstance(policy, str):
        try:
            policy = read_policy(Path(_resolved(folder, policy)))
        except DaitnError as error:
            log.error("%s", error)
            raise InvalidInput("its policy cannot be used", field="policy") from error
    return msgspec.structs.replace(entry, path=_resolved(folder, entry.path), policy=policy)


def _resolved(folder: Path, path: str) -> str:
    """Resolve a path. The file need not exist until it is read."""
    try:
        return os.path.realpath(folder / path)
    except ValueError:
        raise InvalidInput("is not a path", field="path", fix="state the path of a file") from None


def _check_names(config: NodeConfig) -> None:
    checked_name(config.site, "site")
    if config.site == CENTER_SITE:
        raise InvalidInput(
            f"{CENTER_SITE} is reserved for the control centre",
            field="site",
            fix="use another name",
        )
    if config.forwarder is not None and config.forwarder.domain:
        checked_name(config.forwarder.domain, "forwarder.domain")
    for position, site in enumerate(config.verifiers):
        checked_name(site, f"verifiers[{position}]")


def _check_forwarding(config: NodeConfig) -> None:
    """What works only where the node is a forwarder."""
    if config.gateway is not None and config.gateway.autonomous and config.forwarder is None:
        raise InvalidInput(
            "autonomous queries need a forwarder",
            field="gateway.autonomous",
            fix="add the role forwarder, or remove autonomous",
        )
    if not config.center and Role.FORWARDER not in config.roles:
        raise InvalidInput(
            "the node has no control centre",
            field="center",
            fix="state its endpoints, or add the role forwarder, which needs none",
        )


def _check_roles(config: NodeConfig, plain: object) -> None:
    """Check that roles and sections match. `plain`: the file's data, including entries that are
    left out."""
    stated = plain if isinstance(plain, dict) else {}
    required = (
        (Role.DATA, stated.get("datasets"), "datasets"),
        (Role.VERIFIER, stated.get("tests"), "tests"),
        (Role.FACILITY, config.facility is not None, "facility"),
        (Role.GATEWAY, config.gateway is not None, "gateway"),
        (Role.FORWARDER, config.forwarder is not None, "forwarder"),
    )
    for role, given, field in required:
        if (role in config.roles) != bool(given):
            raise InvalidInput(
                f"the role {role} needs the field {field}, and the field needs the role",
                field=field if role in config.roles else "roles",
                fix=f"state {field}, or remove {role} from roles",
            )
    if config.compute.price_usd_per_hour and not {Role.COMPUTE, Role.VERIFIER} & set(config.roles):
        raise InvalidInput(
            "only a site with the role compute or verifier publishes it, so nobody would pay it",
            field="compute.price_usd_per_hour",
            fix="add one of them to roles, or leave the price out",
        )


def _check_addresses(config: NodeConfig) -> None:
    """Check what the node listens at and connects to, as it will when it starts."""
    tls = config.tls
    check_endpoints("listen", listen=config.listen, tls=tls)
    check_endpoints("center", connect=config.center, tls=tls)
    if not (config.listen or config.center):
        raise InvalidInput(
            "it neither listens for other sites nor connects to a control centre",
            field="listen",
            fix="name an endpoint of either, for instance tls/127.0.0.1:0",
        )
    if config.metrics.listen:
        check_served("metrics.listen", config.metrics.listen, tls=tls)
    for name, part in (("facility", config.facility), ("gateway", config.gateway)):
        if part is not None:
            check_served(f"{name}.listen", part.listen, part.advertise, tls=tls)
    if config.forwarder is not None:
        _check_links(config.forwarder, tls)


def _check_links(forwarder: ForwarderConfig, tls: str) -> None:
    """Check where a forwarder listens for neighbours, and connects to them."""
    check_endpoints("forwarder.listen", listen=forwarder.listen, tls=tls)
    check_endpoints("forwarder.scout", scout=forwarder.scout, tls=tls)
    for site, endpoints in forwarder.neighbours.items():
        field = f"forwarder.neighbours.{checked_name(site, 'forwarder.neighbours')}"
        check_endpoints(field, connect=endpoints, tls=tls)
    if not (forwarder.listen or any(forwarder.neighbours.values())):
        raise InvalidInput(
            "it neither listens for neighbours nor connects to any",
            field="forwarder.listen",
            fix="name an endpoint, for instance tls/127.0.0.1:0",
        )
