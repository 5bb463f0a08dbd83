"""Whether a data owner's policy allows a visit. The site enforces it, whoever asks."""

from __future__ import annotations

from daitn.objects.descriptors import ANY, DataPolicy
from daitn.objects.errors import Refused

__all__ = ["allows", "check_visit"]


def allows(listed: tuple[str, ...], name: str) -> bool:
    """Whether a policy's list contains `name` or the wildcard."""
    return ANY in listed or name in listed


def check_visit(policy: DataPolicy, dataset: str, recipe: str, owner: str) -> None:
    """Raise `Refused` unless `owner`'s model may be trained on `dataset` by `recipe`."""
    if not allows(policy.recipes, recipe):
        raise Refused(
            f"the owner of {dataset} does not allow recipe {recipe}",
            field="model.recipe",
            fix=f"use one of: {', '.join(policy.recipes) or 'none'}",
        )
    if not allows(policy.owners, owner):
        raise Refused(
            f"the owner of {dataset} does not admit models of {owner}",
            field="owner",
            fix="ask the data owner for access, or exclude the site",
        )
