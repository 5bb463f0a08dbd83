"""The configuration of boosted trees."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from daitn.learning.classifier.config import ClassName, name_classes, parse_as
from daitn.learning.recipe import Config, Form
from daitn.objects.text import plain_fields

__all__ = ["FORMS", "MOST_DEPTH", "MOST_TREES", "BoostedTreesConfig", "parse_config"]

FORMS: Final = {
    Form.PARTS: "the parts, with `config.json` and `predict.py`",
    Form.XGBOOST: "`model.json`, which xgboost loads",
}
"""Export formats of boosted trees."""
MOST_DEPTH = 8
MOST_TREES = 50_000


class BoostedTreesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of the recipe `boosted-trees`."""

    classes: Annotated[tuple[ClassName, ...], msgspec.Meta(min_length=2, max_length=1000)]
    """Labels to distinguish, as for `classifier`."""
    label: ClassName = "label"
    """Name of the column with the label, as for `classifier`."""
    depth: Annotated[int, msgspec.Meta(ge=1, le=MOST_DEPTH)] = 4
    """Maximum depth of a tree."""
    learning_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.3
    """Share of its optimal step that a tree takes (shrinkage)."""
    rounds: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    """Boosting rounds per pass over a site's records. A round adds one tree, or one per class if
    there are more than two classes."""
    l2: Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)] = 1.0
    """Penalty on the squares of leaf values (`lambda` of xgboost)."""
    most_trees: Annotated[int, msgspec.Meta(ge=1, le=MOST_TREES)] = 5000
    """Number of trees at which the model stops learning."""

    def __post_init__(self) -> None:
        name_classes(self, self.classes)
        plain_fields(self, "label")

    @property
    def groups(self) -> int:
        """Number of scores, and trees of a round: one distinguishes two classes."""
        return 1 if len(self.classes) == 2 else len(self.classes)


def parse_config(config: Config) -> BoostedTreesConfig:
    """Parse a configuration. Raises `InvalidInput` naming `model.config.<field>`."""
    return parse_as(config, BoostedTreesConfig, "boosted-trees")
