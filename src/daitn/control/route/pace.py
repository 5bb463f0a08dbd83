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

from collections.abc import Mapping, Sequence
from statistics import median_high, median_low

from daitn.control.route.costs import NEVER_S, Costs, by_site
from daitn.objects.identifiers import SiteId

__all__ = ["bounded", "evened", "usual", "within_s"]

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
_MOST_LATE = 10.0
"""Multiple of the usual time for which a round waits for a site, which says itself how fast it is.
What it makes later is merged in a later round."""


def bounded(examples: Sequence[float], sites: Sequence[SiteId], times: float) -> list[float]:
    """These, of data sets at `sites`, but for no site more than so many times those of a typical
    one."""
    totals = _totals(examples, sites)
    most = times * _typical(totals)
    return [
        n * min(1.0, most / totals[site]) if n > 0.0 else n
        for n, site in zip(examples, sites, strict=True)
    ]


def usual(examples: Sequence[float], sites: Sequence[SiteId]) -> float:
    """Those of a typical site that has any (the lower median); 0 if none has."""
    return _typical(_totals(examples, sites))


def _totals(examples: Sequence[float], sites: Sequence[SiteId]) -> dict[SiteId, float]:
    return {site: sum(own) for site, own in by_site(examples, sites).items()}


def _typical(totals: Mapping[SiteId, float]) -> float:
    return median_low([n for n in totals.values() if n > 0.0] or [0.0])


def evened(wanted: Sequence[float], sites: Sequence[SiteId], priced: Costs) -> list[float]:
    """The examples of each site, such that none takes much longer than the largest at usual
    speed. A site that is late for another reason than its training trains on all."""
    fixed_s, each_s = _fixed_s(priced), [float(each) for each in priced.example_s]
    ends_s = _usual_s(fixed_s, sites) + _usual_s(each_s, sites) * max(wanted)
    found = []
    for n, fixed, each in zip(wanted, fixed_s, each_s, strict=True):
        train_s = each * n
        less_s = max(ends_s - fixed, _LEAST_PART * train_s)
        saved_s, whole_s = train_s - less_s, fixed + train_s
        pays = saved_s > max(_LEAST_SAVED_S, (1.0 - 1.0 / _SLOWER) * whole_s)
        found.append(n * less_s / train_s if pays and whole_s > _SLOWER * ends_s else n)
    return found


def within_s(examples: Sequence[int], sites: Sequence[SiteId], *guesses: Costs) -> float:
    """Seconds after which a round no longer waits, by the most cautious estimate for each site, but
    no longer for one that would take many times the usual time."""
    longest_s = 0.0
    for priced in guesses:
        train_s = zip(examples, priced.example_s, strict=True)
        fixed_s = _fixed_s(priced)
        ends_s = [
            fixed + float(each) * n for fixed, (n, each) in zip(fixed_s, train_s, strict=True)
        ]
        longest_s = max(longest_s, min(max(ends_s), _MOST_LATE * _usual_s(ends_s, sites)))
    return min(_MARGIN * longest_s, NEVER_S)


def _usual_s(seconds: Sequence[float], sites: Sequence[SiteId]) -> float:
    """Those at a typical site: the upper median, so that of two sites none makes the other late."""
    return median_high(median_low(own) for own in by_site(seconds, sites).values())


def _fixed_s(priced: Costs) -> list[float]:
    """For each site, the time until it has the model, plus everything but training and waiting for
    its data."""
    return [float(seconds) for seconds in priced.start_s[0] + priced.visit_s + priced.wait_s]
