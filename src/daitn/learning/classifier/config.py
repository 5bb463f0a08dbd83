"""The configuration of a classifier."""

from __future__ import annotations

import math
import re
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from daitn.learning.bounded import MOST_BATCH
from daitn.learning.recipe import Config, Form
from daitn.objects.errors import InvalidInput
from daitn.objects.merging import PULL
from daitn.objects.model_needs import MOST_COLUMNS, ColumnsNeeded
from daitn.objects.text import plain, plain_fields

__all__ = [
    "ANY_COLUMN",
    "ASSUMED_COLUMNS",
    "FORMS",
    "LEAST_DEVIATION",
    "METRICS",
    "MOST_DEVIATIONS",
    "REPORTS",
    "ClassName",
    "ClassifierConfig",
    "name_classes",
    "parse_as",
    "parse_config",
]

METRICS = ("accuracy", "balanced_accuracy", "unexposed")
"""Metrics of classifiers; `evaluation` computes the first two, `exposure` the basis of the
third."""

FORMS: Final = {Form.PARTS: "the parts, with `config.json` and `predict.py`"}
"""Export formats of a classifier."""

LEAST_DEVIATION = 1e-3
"""Minimum deviation of a column: one that hardly varies is not magnified beyond this."""
MOST_DEVIATIONS = 5.0
"""Values are clipped here, so that no outlier decides a class."""

ASSUMED_COLUMNS = 64
"""For estimates before any data was seen."""
REPORTS = 20
"""Progress reports per visit."""

ANY_COLUMN = "*"
"""In `ranges`: every column that is not named."""

# The bounds keep a visiting model from exhausting a site.
Count = Annotated[int, msgspec.Meta(ge=1, le=MOST_COLUMNS)]
Width = Annotated[int, msgspec.Meta(ge=1, le=4096)]
ClassName = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Ranges = dict[ClassName, tuple[float, float]]

_NAMED_FIELD = re.compile(r"(?:required|unknown) field `([^`]*)`")


class ClassifierConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of the recipe `classifier`."""

    classes: Annotated[tuple[ClassName, ...], msgspec.Meta(min_length=2, max_length=1000)]
    """Labels to distinguish. Data and test sets that publish other labels are left out; `--dry-run`
    names them. Records of labels that a site does not publish are not used."""
    features: Count | Literal["auto"] = "auto"
    """Number of feature columns; `auto` means that of the first data set."""
    label: ClassName = "label"
    """Name of the column with the label; `label` means the one that each data set's owner names.
    Data whose owner names another column cannot be used."""
    hidden: Annotated[tuple[Width, ...], msgspec.Meta(max_length=8)] = (64,)
    """Sizes of the hidden layers."""
    learning_rate: Annotated[float, msgspec.Meta(gt=0.0, le=0.1)] = 1e-3
    """Learning rate of Adam, whose moments are reset at each visit."""
    proximal: Annotated[float, msgspec.Meta(ge=0.0, le=100.0)] | None = None
    """Pull towards the arriving weights (FedProx, Li et al. 2020), against forgetting; by default
    {objects.merging.PULL} on routes, nothing in rounds.

    Measured on digits, with 97 % of each class at one of three sites, after three rounds: mean
    accuracy over the last four visits 0.90 with it, 0.87 without; no loss at 80 %.
    """
    batch: Annotated[int, msgspec.Meta(ge=1, le=MOST_BATCH)] = 32
    """Examples per step; fewer if a visit would have fewer than eight steps."""
    ranges: Annotated[Ranges, msgspec.Meta(max_length=MOST_COLUMNS)] = {}
    """Usual range of each column, for instance `{age: [0, 100]}`, by which it is scaled; `*` means
    all other columns. By default, columns are scaled by the records, which differential privacy
    does not allow."""

    def __post_init__(self) -> None:
        name_classes(self, self.classes)
        plain_fields(self, "label")
        for column, (low, high) in self.ranges.items():
            if not (math.isfinite(high - low) and low < high):
                raise ValueError(f"ranges: {column} is from {low:g} to {high:g}")

        if isinstance(self.features, int) and not self._scales(self.features):
            raise ValueError(
                f"ranges: there are {len(self.ranges)} for {self.features} features; state "
                f"one for every column, or for all others as {ANY_COLUMN!r}"
            )

    def _scales(self, columns: int) -> bool:
        """Whether `ranges`, if stated, can be of this many columns."""
        return not self.ranges or ANY_COLUMN in self.ranges or columns <= len(self.ranges)

    def columns_needed(self) -> ColumnsNeeded:
        """How many feature columns a table must have."""
        if isinstance(self.features, int):
            return ColumnsNeeded(
                least=self.features,
                most=self.features,
                field="model.config.features",
                fix="state the number of feature columns, or `auto`",
            )
        if self._scales(MOST_COLUMNS):
            return ColumnsNeeded(field="model.config.features")
        return ColumnsNeeded(
            most=len(self.ranges),
            field="model.config.ranges",
            fix=f"state the range of every column, or one for all others as `{ANY_COLUMN}`",
        )

    def pull(self, *, merged: bool) -> float:
        """`proximal`, depending on whether models are merged."""
        return (0.0 if merged else PULL) if self.proximal is None else self.proximal

    def layer_sizes(self, columns: int) -> tuple[int, ...]:
        """Sizes of all layers, inputs first."""
        return (columns, *self.hidden, len(self.classes))


def name_classes(config: msgspec.Struct, names: tuple[str, ...]) -> None:
    """Convert the `classes` of a configuration to their plain form. Raises `ValueError`."""
    classes = tuple(map(plain, names))
    if not all(classes):
        raise ValueError("a class has no name")
    if len(set(classes)) != len(classes):
        raise ValueError("a class is named twice")
    msgspec.structs.force_setattr(config, "classes", classes)


def parse_config(config: Config) -> ClassifierConfig:
    """Parse a configuration. Raises `InvalidInput` naming `model.config.<field>`."""
    return parse_as(config, ClassifierConfig, "classifier")


_Settings = TypeVar("_Settings", bound=msgspec.Struct)


def parse_as(config: Config, kind: type[_Settings], recipe: str) -> _Settings:
    """Parse a configuration of some recipe, like `parse_config`."""
    try:
        return msgspec.convert(dict(config), kind, strict=True)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `")
        named = _NAMED_FIELD.search(problem)
        inner = path.rstrip("`").removeprefix("$").removeprefix(".")
        where = ".".join(filter(None, ["model.config", inner, named.group(1) if named else ""]))
        fields = ", ".join(field.name for field in msgspec.structs.fields(kind))
        raise InvalidInput(
            problem, field=where, fix=f"the recipe {recipe} takes {fields}; correct this one"
        ) from None
