"""Which recipes a site has: entry points in the group `daitn.recipes`.

Listing reads package metadata only and runs nobody's code. `daitn.learning.registry` does, and is
for the processes beside the node.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

__all__ = ["GROUP", "entries", "installed"]

GROUP = "daitn.recipes"
"""Entry point group; each entry names a class that is a `Recipe` and takes no arguments."""


def installed() -> tuple[str, ...]:
    """Names of the recipes installed here, in alphabetical order."""
    return tuple(sorted(entries()))


def entries() -> dict[str, EntryPoint]:
    """By name."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}
