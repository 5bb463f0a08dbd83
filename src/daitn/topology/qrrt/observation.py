"""What a gateway saw of one deployment while it served one query."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Observation"]


@dataclass(frozen=True, slots=True)
class Observation:
    """Absent figures were not seen."""

    failed: bool
    """It could not be reached, said that it failed, or broke off. Being full is no failure."""
    first_token_s: float | None = None
    """From a slot to the first piece; waiting and the way there are not in it."""
    per_token_s: float | None = None
