"""The recipes of a site: entry points in the group `daitn.recipes`.

Listing reads package metadata and runs no recipe's code. `daitn.learning.registry` does run it, in
the processes beside the node.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

__all__ = ["GROUP", "entries", "installed"]

GROUP = "daitn.recipes"
"""Entry point group. Each entry names a class that implements `Recipe` and takes no arguments."""


def installed() -> tuple[str, ...]:
    """The names of the recipes installed here, sorted."""
    return tuple(sorted(entries()))


def entries() -> dict[str, EntryPoint]:
    """The entry points by name."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}
