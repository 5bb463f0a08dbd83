"""Test sets in the node file, and how a verifier uses them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.node.config.data import TableConfig
from daitn.node.disclosure import Disclosure
from daitn.objects.bounds import Share
from daitn.objects.text import plain_fields

__all__ = ["AskingConfig", "TestSetConfig"]


class TestSetConfig(TableConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A private test set of a verification unit."""

    topic: str
    """The topic that it tests; one test set per topic and schema."""
    path: str
    """The file, which stays here."""
    test_schema: str
    """Format of an item: a schema that an allowed recipe reads."""
    chance: Share = 0.0
    """Accuracy of a random guess."""

    @property
    def disclosure(self) -> Disclosure:
        return Disclosure(
            f"test set {self.topic}",
            self.terms.least_records,
            self.terms.label_values,
            field="test set",
        )

    def __post_init__(self) -> None:
        plain_fields(self, "topic", blank=False)
        plain_fields(self, "label", "columns", "ignore")


class AskingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a verification unit tests deployed models with queries."""

    every_s: Annotated[float, msgspec.Meta(gt=0.0)] = 60.0
    """Interval between rounds over all deployments."""
    items: Annotated[int, msgspec.Meta(ge=4, le=10_000)] = 24
    """Test items per round, deployment and topic; at least twice `least_records` of the test
    set's policy, because up to half of them may get no answer."""
    window: Annotated[int, msgspec.Meta(ge=4, le=100_000)] = 240
    """Number of most recent items in a result."""
