"""Families that stress a planner with data: lies, harm, copies, single classes, conflicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from daitn.sim.learning.families.draft import drafted, log_uniform
from daitn.sim.learning.families.synthetic import finished
from daitn.sim.learning.world import LearningWorld

__all__ = [
    "alike",
    "clients",
    "conflicting",
    "duplicates",
    "inflated",
    "out_of_reach",
    "poisoned",
    "single_class",
    "wrong_topics",
]


def wrong_topics(seed: int) -> LearningWorld:
    """Up to half of the sites advertise a wrong topic, mostly one that is tested."""
    draft = drafted("wrong topics", seed, sites=(5, 14))
    rng = draft.rng
    for number in rng.permutation(len(draft.sites))[: max(1, int(0.4 * len(draft.sites)))]:
        site = draft.sites[int(number)]
        others = [topic for topic in range(len(draft.topics)) if topic != site.topic]
        tested = [topic for topic in draft.objectives if topic != site.topic]
        pick = tested if tested and rng.random() < 0.7 else others
        site.claimed_topic = int(rng.choice(pick))
    return finished(draft)


def inflated(seed: int) -> LearningWorld:
    """Up to a third of the sites advertise three to thirty times the records they have."""
    draft = drafted("inflated", seed, sites=(5, 14))
    rng = draft.rng
    for number in rng.permutation(len(draft.sites))[: max(1, len(draft.sites) // 3)]:
        site = draft.sites[int(number)]
        site.records = max(20, site.records // 3)
        site.claimed_records = int(site.records * log_uniform(rng, 3.0, 30.0))
        site.claimed_shares = rng.dirichlet(np.full(len(draft.labels), 4.0))
    return finished(draft)


def poisoned(seed: int) -> LearningWorld:
    """One site, often the largest, has wrong records: visiting it undoes what was learned."""
    draft = drafted("poisoned", seed, sites=(4, 14))
    rng = draft.rng
    largest = max(range(len(draft.sites)), key=lambda k: draft.sites[k].records)
    bad = largest if rng.random() < 0.6 else int(rng.integers(len(draft.sites)))
    draft.sites[bad].worth = -float(rng.uniform(0.3, 1.5))
    return finished(draft)


def duplicates(seed: int) -> LearningWorld:
    """The largest data sets are copies of each other: the second visit teaches no more."""
    draft = drafted("duplicates", seed, sites=(6, 14))
    rng = draft.rng
    order = sorted(range(len(draft.sites)), key=lambda k: -draft.sites[k].records)
    source = draft.sites[order[0]]
    source.records = int(source.records * rng.uniform(1.0, 3.0))
    for number in order[1 : int(rng.integers(2, 4))]:
        copy = draft.sites[number]
        copy.records, copy.shares, copy.topic = source.records, source.shares, source.topic
        copy.pool, copy.worth = source.pool, source.worth
    return finished(draft)


def single_class(seed: int) -> LearningWorld:
    """Each site has a single class, so a long visit makes a model that knows only that class."""
    draft = drafted("single class", seed, sites=(4, 8))
    rng = draft.rng
    classes = int(rng.integers(2, 5))
    draft.labels = draft.labels[:classes] if len(draft.labels) >= classes else draft.labels
    classes = len(draft.labels)
    draft.objectives = (0,)
    draft.test_items = [tuple([int(rng.integers(60, 150))] * classes)]
    draft.chance = 1.0 / classes
    draft.transfer = np.ones((len(draft.topics), 1))
    draft.ceiling = np.full((1, classes), float(rng.uniform(0.93, 1.0)))
    draft.scale = np.full((1, classes), log_uniform(rng, 20.0, 200.0))
    draft.sites = draft.sites[: max(2, int(rng.integers(1, 3)) * classes)]
    while len(draft.sites) < classes:
        draft.sites.append(replace(draft.sites[0], pool=len(draft.sites)))
    for number, site in enumerate(draft.sites):
        site.topic = 0
        site.shares = np.eye(classes)[number % classes]
        site.records = int(log_uniform(rng, 1000.0, 20_000.0))
    draft.constants |= {
        "starve": float(rng.uniform(0.8, 1.5)),
        "recent_examples": log_uniform(rng, 150.0, 600.0),
        "spill": 0.1,
        "warm_up": float(rng.uniform(0.0, 30.0)),
    }
    draft.terms = replace(draft.terms, reference_examples=(60, 150, 300))
    draft.terms = replace(draft.terms, ease=(0.6, 0.97))
    return finished(draft)


def conflicting(seed: int) -> LearningWorld:
    """What teaches one objective harms another, so each costs some of the other."""
    draft = drafted("conflicting", seed, sites=(5, 12))
    rng = draft.rng
    if len(draft.objectives) < 2:
        first = draft.objectives[0]
        second = next(t for t in range(len(draft.topics)) if t != first)
        draft.objectives = tuple(sorted((first, second)))
        draft.test_items = [draft.test_items[0]] * 2
        draft.transfer = rng.uniform(0.1, 0.4, (len(draft.topics), 2))
        shape = (2, len(draft.labels))
        draft.ceiling = rng.uniform(0.8, 1.0, shape)
        draft.scale = np.broadcast_to(draft.scale[:1], shape).copy()
    topics = draft.objectives
    for column, tested in enumerate(topics):
        for other in topics:
            draft.transfer[other, column] = 1.0 if other == tested else -rng.uniform(0.1, 0.45)
    for number, tested in enumerate(topics):
        draft.sites[number].topic = tested
    return finished(draft)


def clients(seed: int) -> LearningWorld:
    """Fifty to a hundred small sites with one class each, over fast links: in a row, each undoes
    what the others taught."""
    draft = drafted("clients", seed, sites=(50, 100))
    rng = draft.rng
    classes = len(draft.labels)
    draft.objectives = (0,)
    draft.test_items = [tuple([int(rng.integers(60, 150))] * classes)]
    draft.chance = 1.0 / classes
    draft.transfer = np.ones((len(draft.topics), 1))
    draft.ceiling = np.full((1, classes), float(rng.uniform(0.9, 1.0)))
    draft.scale = np.full((1, classes), log_uniform(rng, 5.0, 50.0))
    for number, site in enumerate(draft.sites):
        site.topic, site.shares = 0, np.eye(classes)[number % classes]
        site.records = int(log_uniform(rng, 50.0, 500.0))
        site.access_bps = log_uniform(rng, 3e7, 3e8)
    draft.size_bytes = int(log_uniform(rng, 1e5, 1e7))
    draft.constants |= {
        "starve": float(rng.uniform(0.8, 1.5)),
        "recent_examples": log_uniform(rng, 150.0, 600.0),
        "spill": 0.1,
        "warm_up": 0.0,
    }
    draft.terms = replace(draft.terms, reference_examples=(60,), ease=(0.6, 0.97))
    return finished(draft)


def alike(seed: int) -> LearningWorld:
    """Twenty to sixty alike sites over fast links, at which training takes long."""
    draft = drafted("alike", seed, sites=(20, 60))
    rng = draft.rng
    shares, example_s = draft.sites[0].shares, log_uniform(rng, 1e-2, 1e-1)
    records = log_uniform(rng, 200.0, 2000.0)
    draft.objectives, draft.test_items = (0,), draft.test_items[:1]
    draft.transfer = np.ones((len(draft.topics), 1))
    draft.ceiling, draft.scale = draft.ceiling[:1], draft.scale[:1]
    for site in draft.sites:
        site.topic, site.shares = 0, shares
        site.records = int(records * rng.lognormal(0.0, 0.2))
        site.example_s = example_s * float(rng.lognormal(0.0, 0.2))
        site.access_bps = log_uniform(rng, 3e7, 3e8)
    draft.size_bytes = int(log_uniform(rng, 1e6, 1e8))
    return finished(draft)


def out_of_reach(seed: int) -> LearningWorld:
    """One target exceeds what the data can teach: what counts is how soon a policy notices."""
    draft = drafted("out of reach", seed)
    draft.ceiling *= draft.rng.uniform(0.75, 0.95)
    draft.terms = replace(draft.terms, beyond=True)
    return finished(draft)
