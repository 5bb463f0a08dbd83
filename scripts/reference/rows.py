"""What a table is made of."""

from __future__ import annotations

__all__ = ["NoTable", "Row"]

Row = tuple[str, ...]
"""The cells of a line."""


class NoTable(LookupError):
    """A page marks a table that there is not."""
