"""A forwarder in the node file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from daitn.identity.sealing import seal
from daitn.objects.errors import InvalidInput, NotFound
from daitn.objects.identifiers import SiteId
from daitn.objects.steering import ControlMode

__all__ = ["ForwarderConfig", "checked_sealing"]


class ForwarderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site that forwards AI objects, and sends its own."""

    listen: tuple[str, ...] = ("tls/127.0.0.1:0",)
    """Endpoints for neighbours, for instance `tls/[::]:7449`; port 0 picks a free one. They differ
    from the node's own `listen`."""
    neighbours: dict[SiteId, tuple[str, ...]] = {}
    """Neighbours and their endpoints; an empty list for a neighbour that connects here. The
    neighbour's file must also name this site."""
    anybody: bool = False
    """Whether any forwarder that connects becomes a neighbour, under the name that it claims."""
    scout: str = ""
    """Multicast group and port, for instance `224.0.0.225:7448`. Forwarders on a local network with
    the same group find each other and become neighbours."""
    mode: ControlMode = ControlMode.NON_STANDALONE
    """Who decides, until a control centre or an operator changes the mode."""
    domain: str = ""
    """The site's domain, in the mode `hierarchical`."""
    owner_per_s: Annotated[float, msgspec.Meta(gt=0.0)] = 1000.0
    """Objects of one owner that one neighbour may send per second, on average; for all owners
    together, 16 times that."""
    owner_burst: Annotated[float, msgspec.Meta(ge=1.0)] = 2000.0
    """The same in a burst."""
    receives: tuple[str, ...] = ()
    """Private key files, made by `daitn key`, of the receiver classes to which the site belongs: it
    can read what is sealed to them."""
    classes: dict[str, str] = {}
    """Receiver classes and their public keys, to which queries of this site's gateway may be
    sealed."""
    seal_to: str = ""
    """Default receiver class of queries that name none; empty means they are not sealed."""


def checked_sealing(config: ForwarderConfig, folder: Path) -> ForwarderConfig:
    """Check the receiver classes, and resolve key files against `folder`.

    Raises `InvalidInput` and `NotFound`.
    """
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
        _existing_file(folder, path, f"forwarder.receives[{position}]")
        for position, path in enumerate(config.receives)
    )
    return msgspec.structs.replace(config, receives=receives)


def _existing_file(folder: Path, path: str, field: str) -> str:
    resolved = (folder / path).resolve()
    if not resolved.is_file():
        raise NotFound(f"there is no file {resolved}", field=field, fix="correct the path")
    return str(resolved)
