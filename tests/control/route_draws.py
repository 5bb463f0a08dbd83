"""Hypothesis strategies: sets of parameters, models and visits of the value model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from daitn.control.route.posterior import Belief, believed, drawn
from daitn.control.route.priors import prior
from daitn.control.route.value_model import Draws, Setting, after_visit, setting, visits_to
from daitn.objects.identifiers import ObjectiveName
from daitn.topology.arrays import Flags, Floats, Indices

from .instances import instance

__all__ = ["Case", "Visit", "any_cases", "each_own", "settings_of", "untaught_belief"]

NAMES = (ObjectiveName("broad"), ObjectiveName("expert"))


def settings_of(seed: int, sites: int) -> Setting:
    """The setting of a random network."""
    return setting(instance(seed, sites).topology, NAMES)


def untaught_belief(known: Setting) -> Belief:
    """What is believed without measurements and experience."""
    return believed(known, prior(known, {}), (), None)


@dataclass(frozen=True)
class Visit:
    """A visit of each of N models."""

    site: Indices
    examples: Floats
    before: Floats
    total: Floats
    exposure: Floats
    """(N, D, L)."""
    fresh: Flags


class Case:
    """A random setting with draws from its prior, models, and a visit of each."""

    def __init__(self, seed: int, sites: int, examples: float, fresh: bool) -> None:
        self.known = settings_of(seed, sites)
        self.draws: Draws = drawn(untaught_belief(self.known), 9)
        rng = np.random.default_rng(seed)
        count = len(self.draws)
        shape = (count, len(self.known.fields), len(self.known.labels))
        self.skills: Floats = rng.random(shape) * (rng.random(shape) < 0.8)
        self.visit = Visit(
            site=rng.integers(0, sites, count),
            examples=np.full(count, examples),
            before=rng.choice([0.0, 30.0, 3_000.0], count),
            total=rng.choice([0.0, 500.0, 50_000.0], count),
            exposure=rng.choice([0.0, 20.0, 900.0, 1e5], shape),
            fresh=np.full(count, fresh),
        )


def each_own(known: Setting, draws: Draws, skills: Floats, visit: Visit) -> Floats:
    """Skills (N, D, L) of N models, (N, D, L), that make a visit each, under a draw each."""
    visits = visits_to(
        known,
        visit.site,
        visit.examples,
        before=visit.before,
        total=visit.total,
        exposure=np.moveaxis(visit.exposure, 0, -1),
        fresh=visit.fresh,
    )
    return np.moveaxis(after_visit(draws, np.moveaxis(skills, 0, -1), visits), -1, 0)


any_cases = st.builds(
    Case,
    st.integers(0, 100_000),
    st.integers(1, 6),
    st.floats(1.0, 100_000.0),
    st.booleans(),
)
