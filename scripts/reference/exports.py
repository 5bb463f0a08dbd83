"""What each recipe's models are exported as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from daitn.learning.boosted_trees.config import FORMS as OF_TREES
from daitn.learning.causal_lm.settings import FORMS_FROM_SCRATCH, FORMS_IMPORTED
from daitn.learning.classifier.config import FORMS as OF_CLASSIFIERS
from daitn.learning.recipe import Form
from scripts.reference.rows import Row

__all__ = ["exports_table"]

_RECIPES: Final[dict[str, Mapping[Form, str]]] = {
    "`classifier`": OF_CLASSIFIERS,
    "`boosted-trees`": OF_TREES,
    "`causal-lm`, from scratch": FORMS_FROM_SCRATCH,
    "`causal-lm`, imported": FORMS_IMPORTED,
}


def exports_table() -> list[Row]:
    """Every form, and what it is of each recipe's models."""
    rows: list[Row] = [("format", *_RECIPES)]
    for form in Form:
        rows.append((f"`{form}`", *(forms.get(form, "") for forms in _RECIPES.values())))
    return rows
