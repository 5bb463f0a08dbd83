"""How much each site of a round trains, and how long the round waits for it.

All are to end at about the same time: a site that is slower than usual trains on fewer of its
records, and counts for all of them ("partial work": Li et al. 2020, "Federated optimization in
heterogeneous networks", arXiv:1812.06127, section 3.2). If it counted by those that it trained on,
it would count less twice, since its update is smaller, too (Wang et al. 2020, arXiv:2007.07481):
digits, two classes at each of five sites, one of which does a tenth of the work: 0.78 after 16
rounds instead of 0.92. Scaling the small update up, as FedNova does, makes more noise than it helps
there: 0.42 instead of 0.71 after four rounds, and no better after 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from daitn.control.route.costs import NEVER_S, Costs

__all__ = ["bounded", "evened", "within_s"]

_SLOWER = 1.5
"""Multiple of the usual time from which a site trains less: expectations have errors of this
size."""
_LEAST_SAVED_S = 1.0
"""Seconds by which less work must end sooner to be worth it: what a short visit takes depends on
what else its machine does, and a site that trains less for it teaches less in every round."""
_LEAST_PART = 0.1
"""Minimum share of its records that a site trains on, however slow it is: less is not worth the
transfer."""
_MARGIN = 2.0
"""Multiple of the cautiously expected time of its slowest site that a round may take: other work
may begin at a site meanwhile."""


def bounded(examples: Sequence[float], times: float) -> list[float]:
    """These, but none more than so many times those of a typical site (the lower median)."""
    most = times * usual(examples)
    return [min(n, most) for n in examples]


def usual(examples: Sequence[float]) -> float:
    """Those of a typical site that has any; 0 if none has."""
    return median_low([n for n in examples if n > 0.0] or [0.0])


def evened(wanted: Sequence[float], priced: Costs) -> list[float]:
    """The examples of each site, such that none takes much longer than the largest at usual
    speed. A site that is late for another reason than its training trains on all."""
    fixed_s = _fixed_s(priced)
    usual_s = [median_low(fixed_s), median_low([float(each) for each in priced.example_s])]
    ends_s = usual_s[0] + usual_s[1] * max(wanted)
    found = []
    for n, fixed, each in zip(wanted, fixed_s, priced.example_s, strict=True):
        train_s = float(each) * n
        less_s = max(ends_s - fixed, _LEAST_PART * train_s)
        saved_s, whole_s = train_s - less_s, fixed + train_s
        pays = saved_s > max(_LEAST_SAVED_S, (1.0 - 1.0 / _SLOWER) * whole_s)
        found.append(n * less_s / train_s if pays and whole_s > _SLOWER * ends_s else n)
    return found


def within_s(examples: Sequence[int], *guesses: Costs) -> float:
    """Seconds after which a round no longer waits, by the most cautious estimate for each site."""
    ends = [
        fixed + float(each) * n
        for priced in guesses
        for n, fixed, each in zip(examples, _fixed_s(priced), priced.example_s, strict=True)
    ]
    return min(_MARGIN * max(ends), NEVER_S)


def _fixed_s(priced: Costs) -> list[float]:
    """For each site, the time until it has the model, plus everything but training and waiting for
    its data."""
    return [float(seconds) for seconds in priced.start_s[0] + priced.visit_s + priced.wait_s]
