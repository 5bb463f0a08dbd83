"""The reduction and the outer step that merge a round's models."""

from __future__ import annotations

from daitn.learning.aggregation.bulyan import Bulyan
from daitn.learning.aggregation.krum import Krum
from daitn.learning.aggregation.mean import Mean
from daitn.learning.aggregation.median import Median
from daitn.learning.aggregation.outer import Adam, Momentum, Outer, Plain, Yogi
from daitn.learning.aggregation.reduction import Reduction
from daitn.learning.aggregation.trimmed_mean import TrimmedMean
from daitn.objects.errors import InvalidInput
from daitn.objects.merging import TOLERANT, MergeRule, OuterStep, Reduces

__all__ = ["outer_of", "reduction_of"]


def reduction_of(rule: MergeRule, models: int, seed: int) -> Reduction:
    """The reduction of `models` models. Raises `InvalidInput` for fewer than it needs to
    tolerate liars."""
    _check(rule, models)
    match rule.reduction:
        case Reduces.MEAN | Reduces.MEETING:
            return Mean()
        case Reduces.MEDIAN:
            return Median()
        case Reduces.TRIMMED_MEAN:
            return TrimmedMean(rule.tolerates)
        case Reduces.KRUM:
            return Krum(rule.tolerates)
        case Reduces.BULYAN:
            return Bulyan(rule.tolerates)
        case Reduces.TIES:
            from daitn.learning.aggregation.ties import Ties

            return Ties(rule.density)
        case Reduces.DARE:
            from daitn.learning.aggregation.dare import Dare

            return Dare(rule.density, seed)


def _check(rule: MergeRule, models: int) -> None:
    liars, reduction = rule.tolerates, rule.reduction
    if liars == 0:
        return
    needed = rule.least_models
    if needed is None:
        raise InvalidInput(
            f"{reduction} tolerates no malicious models",
            field="training.merging.tolerates",
            fix=f"take {', '.join(TOLERANT)}",
        )
    if models < needed:
        raise InvalidInput(
            f"{reduction} of {models} models cannot tolerate {liars} malicious ones",
            field="training.merging.tolerates",
            fix=f"merge at least {needed} models, or tolerate fewer",
        )


def outer_of(rule: MergeRule) -> Outer:
    """The outer step."""
    match rule.outer:
        case OuterStep.PLAIN:
            return Plain(rule.rate)
        case OuterStep.MOMENTUM:
            return Momentum(rule.rate, rule.momentum)
        case OuterStep.ADAM:
            return Adam(rule.rate, rule.momentum, rule.second_momentum, rule.least)
        case OuterStep.YOGI:
            return Yogi(rule.rate, rule.momentum, rule.second_momentum, rule.least)
