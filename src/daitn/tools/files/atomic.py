"""Small files that are whole or as they were, whenever the power goes: see `identity.files`."""

from __future__ import annotations

from daitn.identity.files import PARTIAL, make_folder, put_in_place, replace_file, sync

__all__ = ["PARTIAL", "make_folder", "put_in_place", "replace_file", "sync"]
