"""Whether a report matches the given work."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from daitn.control.jobs.job import Outstanding
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
from daitn.objects.privacy import PrivacySpent, PrivacyWish
from daitn.policy.privacy_accounting import NOTHING, fits, spent_by

__all__ = ["mismatch"]

_SIGNED = frozenset({"value", "by_label"})


def mismatch(given: Outstanding, outcome: WorkOutcome) -> str:
    """How a report deviates from the work that its site was given; empty if it does not.

    Sites belong to other people: a report that names another model, another test or more examples
    than ordered must reach neither the lineage nor the bill.
    """
    if outcome.state is not WorkState.DONE:
        return ""
    if outcome.entry is None:
        return "it has no lineage entry"
    fact = outcome.entry.fact
    if not _has_numbers(fact):
        return "it states a number that is none, or a time or count below 0"
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
    if outcome.model.size_bytes <= 0:
        return "its model has no size"
    if isinstance(given.work, MergeWork):
        return _of_merge(given.work, fact, outcome.model.manifest)
    return _of_visit(given.work, fact, outcome.model.manifest)


def _has_numbers(fact: LineageFact) -> bool:
    """Whether all numbers of a fact are finite, and none is negative except measured metrics. The
    loss of a diverged training may be either."""
    plain = msgspec.to_builtins(fact)
    return all(
        math.isfinite(number) and (number >= 0.0 or name in _SIGNED)
        for name, value in plain.items()
        if name != "loss"
        for number in _numbers(value)
    )


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
