"""Networks known to this machine, by the endpoints of their processes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from daitn.files.atomic import make_folder
from daitn.identity.roster import ROSTER
from daitn.objects.errors import NotFound

__all__ = ["OPERATOR", "forget", "network_of", "remember"]

OPERATOR: Final = "operator"
"""Default name of a network's operator."""


def network_of(endpoint: str) -> Path:
    """The folder of the network of the process at an endpoint, or of the first known of several:
    the one that `DAITN_NETWORK` names, or that was created on this machine.

    Raises `NotFound` if there is none.
    """
    named = os.environ.get("DAITN_NETWORK")
    folders = [Path(named)] if named else map(_known, endpoint.split(","))
    for folder in folders:
        if (folder / ROSTER).is_file():
            return folder.resolve()
    raise NotFound(
        f"{named} holds no roster" if named else f"no network is known here at {endpoint}",
        field="DAITN_NETWORK",
        fix="name the folder that `daitn network init` or `daitn network join` made",
    )


def remember(endpoints: Iterable[str], folder: Path) -> None:
    """Let commands on this machine find the network in `folder` by the endpoints of its processes,
    except those whose port is not chosen yet."""
    for endpoint in endpoints:
        if not endpoint.endswith(":0"):
            link = _known(endpoint)
            make_folder(link.parent)
            partial = link.with_name(f"{link.name}.{os.getpid()}")
            partial.unlink(missing_ok=True)
            partial.symlink_to(folder.resolve())
            partial.replace(link)


def forget(endpoints: Iterable[str]) -> None:
    """Undo `remember`."""
    for endpoint in endpoints:
        _known(endpoint).unlink(missing_ok=True)


def _known(endpoint: str) -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "daitn" / "networks" / re.sub(r"[^A-Za-z0-9.-]+", "_", endpoint)
