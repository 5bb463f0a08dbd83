"""How the models of a round are merged."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

__all__ = ["MOST_MERGED", "MergeRule", "OuterStep", "Reduces"]

MOST_MERGED = 256
"""Models in one merge. More sites merge in a tree."""


class Reduces(enum.StrEnum):
    """What makes one update of several."""

    MEAN = "mean"
    MEDIAN = "median"
    TRIMMED_MEAN = "trimmed-mean"
    KRUM = "krum"
    BULYAN = "bulyan"
    TIES = "ties"
    DARE = "dare"


class OuterStep(enum.StrEnum):
    """How the reduced update moves the model."""

    PLAIN = "plain"
    MOMENTUM = "momentum"
    ADAM = "adam"
    YOGI = "yogi"


Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]


class MergeRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reduction and an outer step, with what they are set to."""

    reduction: Reduces = Reduces.MEAN
    """What makes one update of several."""
    tolerates: Annotated[int, msgspec.Meta(ge=0, le=MOST_MERGED // 2)] = 0
    """How many of the models may be wrong on purpose."""
    density: Share = 0.2
    """Part of each update that `ties` and `dare` keep."""
    outer: OuterStep = OuterStep.PLAIN
    """How the reduced update moves the model."""
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=10.0)] = 1.0
    """Of the outer step."""
    momentum: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.9
    """Of the outer step."""
    second_momentum: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.99
    """Of `adam` and `yogi`."""
    least: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1e-3
    """Of `adam` and `yogi`: the least divisor of a step."""
