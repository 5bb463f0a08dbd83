"""Whether a report matches the given work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from daitn.control.jobs.job import Outstanding
from daitn.control.privacy_accounting import NOTHING, fits, spent_by
from daitn.objects.compression import Compression
from daitn.objects.lineage import LineageFact, Merge, Origin, Verification, Visit
from daitn.objects.merging import OuterStep
from daitn.objects.messages import (
    MergeWork,
    VerifyWork,
    VisitWork,
    WorkOutcome,
    WorkState,
)
from daitn.objects.models import ModelRef
from daitn.objects.moments import DAY_S
from daitn.objects.privacy import PrivacySpent, PrivacyWish

__all__ = ["mismatch"]

_MOST: Final = 1e14
"""Limit on any number that a site states, be it bytes or seconds: sums of those of 4,096 visits
still fit in 64 bits, in which messages are written."""
_AHEAD_S: Final = DAY_S
"""A fact is dated by its site's clock. Later dates lie outside the site's membership, by which
readers of the lineage check it, or in no calendar at all."""
_SHARES: Final = frozenset({"value", "by_label", "standard_error"})
"""What metrics are: shares, in [0, 1]."""


def mismatch(given: Outstanding, outcome: WorkOutcome, now_s: float) -> str:
    """How a report that came at `now_s` deviates from the work that its site was given; empty if it
    does not.

    Sites belong to other people: a report that names another model, another test or more examples
    than ordered must reach neither the lineage nor the bill. Nor must a number that later sums,
    views or readers of the lineage could not hold.
    """
    if outcome.state is not WorkState.DONE:
        return ""
    if outcome.entry is None:
        return "it has no lineage entry"
    fact = outcome.entry.fact
    if (odd := _odd_number(fact)) is not None:
        return f"it states a number that cannot be: {odd}"
    if fact.at_s > now_s + _AHEAD_S:
        return "its entry is dated on a later day"
    order = given.work.order.digest if given.work.order else ""
    if not isinstance(fact, Verification) and fact.order != order:
        return "its entry is about another order"
    if fact.site != outcome.site:
        return "its entry is another site's"
    if (fact.job, fact.visit) != (given.work.job, given.work.visit):
        return "its entry is about other work"
    if outcome.entry.previous != given.work.previous:
        return "its entry builds on other entries"
    if isinstance(given.work, VerifyWork):
        return _of_verification(given.work, fact)
    if outcome.model is None:
        return "it has no model"
    if isinstance(given.work, MergeWork):
        wrong = _of_merge(given.work, fact, outcome.model.manifest)
    else:
        wrong = _of_visit(given.work, fact, outcome.model.manifest)
    return wrong or _of_model(outcome.model, fact)


def _odd_number(fact: LineageFact) -> str | None:
    """A number of a fact that no honest site states, by its name; none if there is none. NaN is
    within no limit."""
    plain = msgspec.to_builtins(fact)
    for name, value in plain.items():
        most = 1.0 if name in _SHARES else _MOST
        # A seed is the owner's, and compared with the ordered one.
        if name != "seed" and not all(0.0 <= number <= most for number in _numbers(value)):
            return str(name)
    return None


def _of_model(model: ModelRef, fact: LineageFact) -> str:
    if not 0 < model.size_bytes <= _MOST:
        return "its model has no size that a model has"
    if isinstance(fact, Visit | Merge) and model.size_bytes != fact.size_bytes:
        return "its model has another size than its entry names"
    return ""


def _numbers(plain: object) -> Iterator[float]:
    match plain:
        case int() | float():
            yield plain
        case dict():
            for value in plain.values():
                yield from _numbers(value)
        case list() | tuple():
            for value in plain:
                yield from _numbers(value)


def _is_part(examples: int, ordered: int) -> bool:
    return 0 < examples <= ordered or examples == ordered == 0


def _of_verification(work: VerifyWork, fact: LineageFact) -> str:
    if not isinstance(fact, Verification):
        return "it is not a verification"
    if fact.model != work.model.manifest:
        return "it measured another model"
    if (fact.topic, fact.metric) != (work.topic, work.metric):
        return "it measured something else"
    return ""


def _of_merge(work: MergeWork, fact: LineageFact, made: str) -> str:
    if not isinstance(fact, Merge):
        return "it is not a merge"
    if fact.model_out != made:
        return "its model is not the one that its entry names"
    if (fact.base, *fact.models) != tuple(one.manifest for one in (work.base, *work.trained)):
        return "it merged other models"
    starts = tuple(one.manifest for one in work.starts)
    asked = (work.shares, work.rule, work.part, starts, work.behind)
    if (fact.shares, fact.rule, fact.part, fact.starts, fact.behind) != asked:
        return "it merged in another way"
    if bool(fact.summed) != work.secure:
        return "it merged in another way"
    if bool(fact.moments) != (work.rule.outer is not OuterStep.PLAIN) or fact.moments_bytes < 0:
        return "it remembers what the rule has not to remember"
    return ""


def _of_visit(work: VisitWork, fact: LineageFact, made: str) -> str:
    fresh = work.model is None
    if not isinstance(fact, Origin if fresh else Visit):
        return "it is not the ordered kind of visit"
    if isinstance(fact, Origin):
        if (fact.recipe, fact.seed) != (work.recipe, work.seed):
            return "it made another model than was ordered"
        return "" if fact.model == made else "its model is not the one that its entry names"
    if fact.model_out != made:
        return "its model is not the one that its entry names"
    if work.model is None or fact.model_in != work.model.manifest:
        return "it started from another model"
    if fact.dataset != work.dataset or not _is_part(fact.examples, work.examples):
        return "it trained on something else, or on more or less than was ordered"
    if fact.stands_for != work.stands_for:
        return "it counts as more or less than was ordered"
    if fact.compression not in (Compression.NONE, work.compression):
        return "its update is compressed in another way"
    if work.privacy is not None and not _keeps(work.privacy, fact.privacy):
        return "it is not as private as was ordered"
    return ""


def _keeps(wish: PrivacyWish, spent: PrivacySpent | None) -> bool:
    """Whether a visit revealed no more about a record than its model's owner permits. `spent` may
    be at a smaller delta, as the data's owner demands."""
    if spent is None or spent.clip != wish.clip:
        return False
    return fits(NOTHING, spent_by([spent.mechanism]), wish.epsilon, wish.delta)
