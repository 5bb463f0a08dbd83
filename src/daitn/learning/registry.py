"""Which recipes a site has: entry points in the group `daitn.recipes`.

Listing reads package metadata only; a recipe's module is imported when it is loaded.
"""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points

from daitn.learning.recipe import Recipe
from daitn.objects.errors import NotFound, WorkFailed

__all__ = ["GROUP", "installed", "load"]

GROUP = "daitn.recipes"
"""Entry point group; each entry names a class that is a `Recipe` and takes no arguments."""


def installed() -> tuple[str, ...]:
    """Names of the recipes installed here, in alphabetical order."""
    return tuple(sorted(_entries()))


def load(name: str) -> Recipe:
    """Import and make the recipe called `name`.

    Raises `NotFound` if it is not installed, `WorkFailed` if it is but cannot be imported.
    """
    entries = _entries()
    entry = entries.get(name)
    if entry is None:
        raise _not_installed(name, tuple(sorted(entries)))
    try:
        recipe: Recipe = entry.load()()
    except Exception as error:
        kind = (
            "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
        )
        raise WorkFailed(
            f"recipe {name!r} is installed here but cannot be imported: {kind}{error}",
            field="model.recipe",
            fix="install what it needs at this site (`pip install 'daitn[train]'` for PyTorch)",
        ) from error
    return recipe


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _not_installed(name: str, names: tuple[str, ...]) -> NotFound:
    close = difflib.get_close_matches(name, names, n=3)
    installed_here = ", ".join(names) or "none"
    return NotFound(
        f"recipe {name!r} is not installed here; installed: {installed_here}",
        field="model.recipe",
        fix=(
            f"did you mean {' or '.join(close)}?"
            if close
            else f"use an installed recipe, or install one that offers `{GROUP}`"
        ),
    )
