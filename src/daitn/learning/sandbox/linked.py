"""Models whose parts are links."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["with_links"]


def with_links(folder: str) -> tuple[str, ...]:
    """A folder and the files to which the links in it lead, to be read: a store, and a hub's cache,
    keep theirs elsewhere."""
    found = Path(folder).iterdir() if os.path.isdir(folder) else ()
    return (folder, *(os.path.realpath(path) for path in found if path.is_symlink()))
