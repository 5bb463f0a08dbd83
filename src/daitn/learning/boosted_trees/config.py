"""The configuration of boosted trees."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.learning.classifier.config import ClassName, name_classes, parse_as
from daitn.learning.recipe import Config
from daitn.objects.text import plain_fields

__all__ = ["MOST_DEPTH", "MOST_TREES", "BoostedTreesConfig", "parse_config"]

MOST_DEPTH = 8
MOST_TREES = 50_000


class BoostedTreesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of the recipe `boosted-trees`."""

    classes: Annotated[tuple[ClassName, ...], msgspec.Meta(min_length=2, max_length=1000)]
    """The labels that it distinguishes, as for `classifier`."""
    label: ClassName = "label"
    """Name of the column with the label, as for `classifier`."""
    depth: Annotated[int, msgspec.Meta(ge=1, le=MOST_DEPTH)] = 4
    """Most decisions on the way to a leaf."""
    learning_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.3
    """What part of its best step a tree takes."""
    rounds: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    """Boosting rounds for each pass over a site's records. A round adds a tree; with more than two
    classes, one for each."""
    l2: Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)] = 1.0
    """Penalty on the squares of leaf values (`lambda` of xgboost)."""
    most_trees: Annotated[int, msgspec.Meta(ge=1, le=MOST_TREES)] = 5000
    """Trees of the model, at which it learns no more."""

    def __post_init__(self) -> None:
        name_classes(self, self.classes)
        plain_fields(self, "label")

    @property
    def groups(self) -> int:
        """Scores that the trees add up to, and trees of a round: one tells two classes apart."""
        return 1 if len(self.classes) == 2 else len(self.classes)


def parse_config(config: Config) -> BoostedTreesConfig:
    """Parse a configuration. Raises `InvalidInput` naming `model.config.<field>`."""
    return parse_as(config, BoostedTreesConfig, "boosted-trees")
