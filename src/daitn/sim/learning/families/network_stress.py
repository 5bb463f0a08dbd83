"""Families that stress a planner with the network: size, links, prices, time, rules, dynamics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from daitn.sim.learning.families.draft import Draft, drafted, log_uniform
from daitn.sim.learning.families.synthetic import finished
from daitn.sim.learning.world import LearningWorld

__all__ = [
    "deadline",
    "growing",
    "hanging",
    "jurisdictions",
    "large",
    "leaving",
    "plain",
    "prices",
    "slow_links",
    "tiny",
]


def plain(seed: int) -> LearningWorld:
    """Four to fourteen honest sites with free data, over links that hardly matter."""
    return finished(drafted("plain", seed))


def tiny(seed: int) -> LearningWorld:
    """Three sites."""
    return finished(drafted("tiny", seed, sites=(3, 3)))


def large(seed: int) -> LearningWorld:
    """A hundred to a thousand sites, most of them small and far from the topic."""
    count = int(log_uniform(np.random.default_rng((seed, 9)), 100, 1000))
    draft = drafted("large", seed, sites=(count, count))
    for site in draft.sites:
        site.records = max(20, site.records // 4)
    return finished(draft)


def slow_links(seed: int) -> LearningWorld:
    """Large models over links that are mostly slow: a transfer takes as long as many epochs."""
    draft = drafted("slow links", seed)
    rng = draft.rng
    draft.size_bytes = int(log_uniform(rng, 1e8, 1e9))
    for site in draft.sites:
        site.access_bps = log_uniform(rng, 2e5, 2e7)
    draft.verifier_access_bps = log_uniform(rng, 1e7, 1e8)
    return finished(draft)


def prices(seed: int) -> LearningWorld:
    """Sites charge between nothing and 5 USD per 1,000 examples; the budget is tight."""
    draft = drafted("prices", seed, sites=(5, 14))
    for site in draft.sites:
        free = draft.rng.random() < 0.25
        site.price_usd_per_1k = 0.0 if free else round(log_uniform(draft.rng, 0.05, 5.0), 3)
    draft.terms = replace(draft.terms, cheap_first=True)
    draft.terms = replace(draft.terms, usd_slack=(1.05, 1.6))
    return finished(draft)


def deadline(seed: int) -> LearningWorld:
    """Little more time than the fastest fixed route needs, and often a limit on examples."""
    draft = drafted("deadline", seed)
    draft.terms = replace(draft.terms, slack=(1.02, 1.5))
    if draft.rng.random() < 0.5:
        draft.terms = replace(draft.terms, examples_slack=(1.1, 2.0))
    return finished(draft)


def jurisdictions(seed: int) -> LearningWorld:
    """Models trained on data of some places may not go everywhere, so order matters."""
    draft = drafted("jurisdictions", seed, sites=(5, 14))
    rng = draft.rng
    places = ("CA", "DE", "US")
    draft.verifier_places = ("US", "CA") if rng.random() < 0.6 else ("US",)
    home = draft.verifier_places
    for site in draft.sites:
        site.place = str(rng.choice(places))
        kind = rng.random()
        if kind < 0.35:
            site.release_to = tuple(sorted({*home[:1], site.place}))
        elif kind < 0.5:
            site.release_to = tuple(sorted({site.place, str(rng.choice(places))}))
    draft.sites[0].place, draft.sites[0].release_to = "US", ("*",)
    return finished(draft)


def leaving(seed: int) -> LearningWorld:
    """Sites leave, even during visits; most come back after a while, some never do."""
    draft = drafted("leaving", seed, sites=(5, 14))
    rng, span_s = draft.rng, _span_s(draft)
    for site in draft.sites[1:]:
        if rng.random() < 0.6:
            left_s = float(rng.uniform(0.02, 1.0) * span_s)
            back_s = np.inf if rng.random() < 0.3 else left_s + float(rng.exponential(0.4 * span_s))
            site.away = ((left_s, float(back_s)),)
    draft.terms = replace(draft.terms, slack=(2.5, 6.0))
    return finished(draft)


def growing(seed: int) -> LearningWorld:
    """Data sets grow during the job, by factors of up to ten, in up to three steps."""
    draft = drafted("growing", seed)
    rng, span_s = draft.rng, _span_s(draft)
    for site in draft.sites:
        if rng.random() < 0.6:
            site.records = max(20, site.records // 4)
            times = np.sort(rng.uniform(0.0, span_s, int(rng.integers(1, 4))))
            factors = np.cumprod(rng.uniform(1.3, 2.6, len(times)))
            site.grows = tuple(
                (float(at_s), int(site.records * factor))
                for at_s, factor in zip(times, factors, strict=True)
            )
    return finished(draft)


def hanging(seed: int) -> LearningWorld:
    """At one or two sites visits never end; the job gives up on them after a while."""
    draft = drafted("hanging", seed, sites=(5, 14))
    order = draft.rng.permutation(len(draft.sites))
    for number in order[: int(draft.rng.integers(1, 3))]:
        draft.sites[int(number)].hangs = True
    draft.terms = replace(draft.terms, slack=(3.0, 8.0))
    return finished(draft)


def _span_s(draft: Draft) -> float:
    """Approximate duration of two rounds, over which the events are spread."""
    each_s = [site.records * site.example_s + site.overhead_s for site in draft.sites]
    verify_s = draft.item_s * max(sum(items) for items in draft.test_items)
    return 2.0 * (sum(each_s) + len(each_s) * verify_s)
