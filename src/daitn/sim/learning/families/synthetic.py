"""Turns a draft into a world."""

from __future__ import annotations

from daitn.sim.learning.families.draft import FLOPS_PER_EXAMPLE, ROOT, Draft
from daitn.sim.learning.families.nodes import needs
from daitn.sim.learning.families.targets import provisional, settled
from daitn.sim.learning.world import LearningWorld

__all__ = ["finished"]


def finished(draft: Draft) -> LearningWorld:
    """The world of a draft, with its intent."""
    ground, tests = draft.ground(), draft.tests()
    world = LearningWorld(
        family=draft.family,
        seed=draft.seed,
        intent=provisional(tests, ROOT),
        needs=needs(FLOPS_PER_EXAMPLE, draft.size_bytes),
        sites=ground,
        verifiers=draft.verifiers(),
        tests=tests,
        learner=draft.learner(),
        link_factor=draft.link_factor,
        honest=frozenset(
            site.name for site, of in zip(ground, draft.sites, strict=True) if not of.lies
        ),
    )
    return settled(world, draft.terms)
