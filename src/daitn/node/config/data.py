"""Data sets in the node file."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.learning.recipe import Selection
from daitn.node.config.policy import ANYBODY, PolicyConfig
from daitn.node.disclosure import Disclosure
from daitn.objects.text import plain_fields

__all__ = ["DatasetConfig", "TableConfig"]


class TableConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file's policy, and the columns to read if it is a table."""

    policy: PolicyConfig | str = ANYBODY
    """What the owner allows, see below, or the path of a policy file."""
    label: str = ""
    """For a table: the column with the label; empty means the one called `label`."""
    columns: tuple[str, ...] = ()
    """For a table: the columns that models may learn from; empty means all but the label."""
    ignore: tuple[str, ...] = ()
    """For a table: columns that are never read, for instance ids and text. A recipe that cannot
    ignore columns is refused."""

    @property
    def terms(self) -> PolicyConfig:
        """The policy, once its file, if any, has been read."""
        assert isinstance(self.policy, PolicyConfig), "node files are read by check_node_config"
        return self.policy

    @property
    def selection(self) -> Selection:
        return Selection(
            label=self.label,
            columns=self.columns,
            ignore=self.ignore,
            least_records=self.terms.least_records,
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
    policy: PolicyConfig | str
    """What its owner allows, see below, or the path of a policy file."""
    modality: str = "text"
    """`text`, `table` or `image`."""
    price_usd_per_1k: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Price of 1,000 training examples."""
    licence: str = ""
    """Published unchanged."""
    description: str = ""
    """Published unchanged."""

    @property
    def disclosure(self) -> Disclosure:
        return Disclosure(f"data set {self.name}", self.terms.least_records)

    def __post_init__(self) -> None:
        plain_fields(self, "topics", blank=False)
        plain_fields(self, "label", "columns", "ignore")
