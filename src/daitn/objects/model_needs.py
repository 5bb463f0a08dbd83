"""What a model's configuration needs of data sets, test sets and sites, as its recipe states it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.identifiers import Word

__all__ = ["MOST_COLUMNS", "ColumnsNeeded", "ModelNeeds"]

MOST_COLUMNS = 100_000
"""Feature columns of a table that a model can learn from."""

_Columns = Annotated[int, msgspec.Meta(ge=1, le=MOST_COLUMNS)]


class ColumnsNeeded(msgspec.Struct, frozen=True, kw_only=True):
    """How many feature columns a table must have for a model that reads the same ones wherever it
    learns or is measured."""

    least: _Columns = 1
    """Minimum number."""
    most: _Columns = MOST_COLUMNS
    """Maximum number."""
    field: str = ""
    """The field of the intent that decides it."""
    fix: str = ""
    """What to change there."""

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{self.least}"
        return f"at most {self.most}" if self.least == 1 else f"{self.least} to {self.most}"

    def fits(self, columns: int) -> bool:
        """Whether a table may have this many."""
        return self.least <= columns <= self.most


class ModelNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What decides which data sets can teach a model, and which test sets can measure it."""

    data_schema: str
    test_schema: str
    memory_bytes: int
    labels: tuple[str, ...] = ()
    """Labels that the model distinguishes; empty means it accepts any."""
    labels_field: str = ""
    """The field of the intent that names them."""
    columns: ColumnsNeeded | None = None
    """Columns of the tables that it reads; absent means any, or unknown."""
    metrics: tuple[Word, ...] = ()
    """Metrics that the recipe computes; empty means unknown."""
    private: bool = False
    """Whether it can be trained with differential privacy."""
    imported: bool = False
    """Whether it must start from a model that its owner imported: none can be made fresh."""
