"""A data owner's policy: in the node file, or in a file of its own."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.learning.recipe import LEAST_RECORDS
from daitn.learning.sandbox.policy import Mechanism
from daitn.objects.access import UsageLimits
from daitn.objects.descriptors import ANY, DataPolicy
from daitn.objects.opening_hours import is_zone
from daitn.objects.text import plain_fields

__all__ = ["ANYBODY", "PolicyConfig", "SandboxDemand"]


class SandboxDemand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Required confinement of a visiting recipe."""

    required: tuple[Mechanism, ...] = ()
    """Mechanisms that the site's sandbox must have. A data set or test set whose policy demands
    more is not offered."""


class PolicyConfig(DataPolicy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a data owner allows. The site enforces it for everybody."""

    limits: UsageLimits = UsageLimits()
    """How much of the data may be used in a day, see below."""
    least_records: Annotated[int, msgspec.Meta(ge=LEAST_RECORDS)] = LEAST_RECORDS
    """Minimum number of records behind any count, mean, measured value or word that leaves the
    site; identical records count once. A file with fewer records is not offered, a visit on fewer
    examples is refused, and a table's records of a label with fewer are not used."""
    sketch: bool = True
    """Whether the descriptor describes the wording of the questions, as hashed counts."""
    label_values: bool = True
    """For a test set: whether measured values per label leave the site, for labels with enough
    items."""
    sandbox: SandboxDemand = SandboxDemand()
    """Required confinement of a visiting recipe, see below."""

    @property
    def published(self) -> DataPolicy:
        """The part that everybody may read."""
        return DataPolicy(**{name: getattr(self, name) for name in DataPolicy.__struct_fields__})

    def __post_init__(self) -> None:
        super().__post_init__()
        plain_fields(self, "recipes", "owners", "purposes", "release_to")
        if not is_zone(self.time_zone):
            raise ValueError(f"time_zone: {self.time_zone} is not a time zone like Europe/Berlin")


ANYBODY = PolicyConfig(recipes=(ANY,))
"""The policy of a test set that states none."""
