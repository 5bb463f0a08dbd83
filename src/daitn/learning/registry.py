"""Loading recipes, which runs their code: never in a node's own process."""

from __future__ import annotations

import difflib
import traceback

from daitn.learning.installed import GROUP, entries
from daitn.learning.recipe import Recipe
from daitn.objects.errors import NotFound, WorkFailed

__all__ = ["load"]


def load(name: str) -> Recipe:
    """Import the recipe called `name` and make an instance.

    Raises `NotFound` if it is not installed, `WorkFailed` if it is but cannot be imported.
    """
    here = entries()
    entry = here.get(name)
    if entry is None:
        raise _not_installed(name, tuple(sorted(here)))
    try:
        recipe: Recipe = entry.load()()
    except Exception as error:
        # Everybody gets the reason. Its text may contain the site's settings, and stays in its log.
        traceback.print_exc()
        missing = error.name if isinstance(error, ModuleNotFoundError) else ""
        kind = f"there is no module {missing}" if missing else type(error).__name__
        raise WorkFailed(
            f"recipe {name!r} is installed here but cannot be imported: {kind}",
            field="model.recipe",
            fix="install what it needs at this site (`pip install 'daitn[train]'` for PyTorch)",
        ) from error
    return recipe


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
