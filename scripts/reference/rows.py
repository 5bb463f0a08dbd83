"""What a table is made of."""

from __future__ import annotations

__all__ = ["Row"]

Row = tuple[str, ...]
"""The cells of a line."""
