"""Layouts of messages other than MessagePack: fixed fields, big-endian.

The code that packs a message and the page that describes it are made from the same fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["WireField", "packing"]


class WireField(NamedTuple):
    """A field of a message."""

    name: str
    form: str
    """Its `struct` format character; empty if its size varies."""
    meaning: str
    varying: str = ""
    """For a field without a form: its size in bytes, in words."""

    @property
    def size(self) -> int:
        """In bytes; 0 for a field without a form."""
        return struct.calcsize(f"!{self.form}")


def packing(fields: Iterable[WireField]) -> struct.Struct:
    """Packs and unpacks the fields that have a form."""
    return struct.Struct("!" + "".join(field.form for field in fields))
