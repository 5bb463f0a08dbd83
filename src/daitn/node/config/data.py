"""Data sets in the node file."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.learning.recipe import LEAST_RECORDS, Selection
from daitn.node.disclosure import Disclosure
from daitn.objects.descriptors import DataPolicy
from daitn.objects.text import plain_fields, plain_words

__all__ = ["DatasetConfig", "TableConfig"]


class TableConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The columns to read, if a file is a table."""

    label: str = ""
    """Of a table: the column that holds the label; empty: the one called `label`. No other column
    is assumed to be the label."""
    columns: tuple[str, ...] = ()
    """Of a table: the columns that models may learn from; empty: all but the label."""
    ignore: tuple[str, ...] = ()
    """Of a table: columns that are never read, for instance ids and text. A recipe that cannot
    leave columns out is refused."""
    least_records: Annotated[int, msgspec.Meta(ge=LEAST_RECORDS)] = LEAST_RECORDS
    """Minimum number of records behind any count, mean, measured value or word that leaves the
    site. A file with fewer is not offered, and a visit on fewer examples is refused."""

    @property
    def selection(self) -> Selection:
        return Selection(
            label=self.label,
            columns=self.columns,
            ignore=self.ignore,
            least_records=self.least_records,
        )


class DatasetConfig(TableConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set of the site. The file stays here; only its description is published."""

    name: str
    """The data set is called `<site>/<name>`."""
    path: str
    """The file, which stays here."""
    data_schema: str
    """Format of a record: a schema that an allowed recipe reads."""
    topics: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Topics of the data."""
    policy: DataPolicy
    """What its owner permits, see below."""
    modality: str = "text"
    """`text`, `table` or `image`."""
    price_usd_per_1k: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Price of 1,000 training examples."""
    licence: str = ""
    """Published as it is."""
    description: str = ""
    """Published as it is."""
    sketch: bool = True
    """Whether the descriptor describes the wording of the questions, as hashed counts."""

    @property
    def disclosure(self) -> Disclosure:
        return Disclosure(f"data set {self.name}", self.least_records)

    def __post_init__(self) -> None:
        plain_fields(self, "topics", blank=False)
        plain_fields(self, "label", "columns", "ignore")
        owners = plain_words(self.policy.owners)
        policy = msgspec.structs.replace(self.policy, owners=owners)
        msgspec.structs.force_setattr(self, "policy", policy)
