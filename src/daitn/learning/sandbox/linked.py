"""Models whose parts are links."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["with_links"]


def with_links(folder: str) -> tuple[str, ...]:
    """A folder and the targets of the links in it, for reading: a store, and a hub's cache, keep
    files elsewhere."""
    found = Path(folder).iterdir() if os.path.isdir(folder) else ()
    return (folder, *(os.path.realpath(path) for path in found if path.is_symlink()))
