"""xgboost, as imported by this recipe: without scikit-learn.

xgboost imports scikit-learn, and with it pandas and pyarrow, wherever they are installed, and needs
none of them here. They take seconds (5.7 instead of 0.5, measured), and pyarrow starts a thread, of
which no process may have one that visits are copies of.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from daitn.objects.errors import NotFound

__all__ = ["PACKAGE", "xgboost"]

PACKAGE = "xgboost"
_HIDDEN = "sklearn"


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """A package that was not imported so far must not be imported later."""
    hide = package not in sys.modules
    if hide:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hide:
            del sys.modules[package]


try:
    with _without(_HIDDEN):
        import xgboost
except ModuleNotFoundError as error:
    raise NotFound(
        f"boosted trees are grown by {PACKAGE}, which is not installed here",
        field="model.recipe",
        fix="pip install 'daitn[trees]'",
    ) from error
