"""The node file: what a site has, and whom it lets in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from daitn.objects.descriptors import DataPolicy, Role
from daitn.objects.errors import InvalidInput, NotFound
from daitn.objects.identifiers import CENTER_SITE, OwnerId, SiteId, checked_name
from daitn.objects.wire import checked

__all__ = ["DatasetConfig", "NodeConfig", "TestSetConfig", "check_node_config", "read_yaml"]

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class DatasetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set of the site. The file stays here; only its description is published."""

    name: str
    path: str
    data_schema: str
    topics: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    policy: DataPolicy
    modality: str = "text"
    price_usd_per_1k: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    licence: str = ""
    description: str = ""


class TestSetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A private test set of a verification unit."""

    topic: str
    path: str
    test_schema: str
    chance: Share = 0.0
    """What guessing reaches."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node. Paths are relative to the file in which they stand."""

    site: SiteId
    owner: OwnerId
    jurisdiction: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$")]
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1)]
    center: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Endpoints of the control centre, for instance `tcp/10.0.0.1:7447`."""
    listen: tuple[str, ...] = ("tcp/127.0.0.1:0",)
    """Endpoints at which other sites reach this one directly."""
    state: str
    """Folder for the key, the models and the ledger."""
    threads: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Processor threads for training."""
    recipes: tuple[str, ...] = ()
    """Installed recipes that may run here; empty: all that are installed."""
    datasets: tuple[DatasetConfig, ...] = ()
    tests: tuple[TestSetConfig, ...] = ()


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


def check_node_config(plain: object, folder: Path) -> NodeConfig:
    """Check a node's plain data; `folder` is what its relative paths start from."""
    config = checked(plain, NodeConfig, "node")
    checked_name(config.site, "site")
    if config.site == CENTER_SITE:
        raise InvalidInput(
            f"{CENTER_SITE} is the control centre's own name", field="site", fix="use another name"
        )
    _check_roles(config)
    _check_unique("datasets", [dataset.name for dataset in config.datasets])
    _check_unique("tests", [f"{test.test_schema} on {test.topic}" for test in config.tests])
    resolved_sets = []
    for position, dataset in enumerate(config.datasets):
        field = f"datasets[{position}]"
        checked_name(dataset.name, f"{field}.name")
        resolved = _existing(folder, dataset.path, f"{field}.path")
        resolved_sets.append(msgspec.structs.replace(dataset, path=resolved))
    resolved_tests = [
        msgspec.structs.replace(test, path=_existing(folder, test.path, f"tests[{i}].path"))
        for i, test in enumerate(config.tests)
    ]
    return msgspec.structs.replace(
        config,
        state=str((folder / config.state).resolve()),
        datasets=tuple(resolved_sets),
        tests=tuple(resolved_tests),
    )


def _check_roles(config: NodeConfig) -> None:
    wants = ((Role.DATA, config.datasets, "datasets"), (Role.VERIFIER, config.tests, "tests"))
    for role, given, field in wants:
        if (role in config.roles) != bool(given):
            raise InvalidInput(
                f"the role {role} and the list {field} go together",
                field=field if role in config.roles else "roles",
                fix=f"list at least one under {field}, or remove {role} from roles",
            )


def _check_unique(field: str, names: list[str]) -> None:
    for position, name in enumerate(names):
        if name in names[:position]:
            raise InvalidInput(
                f"{name} is there twice", field=f"{field}[{position}]", fix="give each its own"
            )


def _existing(folder: Path, path: str, field: str) -> str:
    full = (folder / path).resolve()
    if not full.is_file():
        raise NotFound(f"there is no file {full}", field=field, fix="correct the path")
    return str(full)
