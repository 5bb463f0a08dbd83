"""Hypothesis strategies: sets of parameters, models and visits of the value model."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from daitn.control.route.posterior import Belief, believed, drawn
from daitn.control.route.priors import prior
from daitn.control.route.value_model import Draws, Setting, Visits, after_visit, setting
from daitn.objects.identifiers import ObjectiveName
from daitn.topology.arrays import Floats

from .instances import instance

__all__ = ["Case", "any_cases", "each_own", "one_visit", "settings_of", "untaught_belief"]

NAMES = (ObjectiveName("broad"), ObjectiveName("expert"))


def settings_of(seed: int, sites: int) -> Setting:
    """The setting of a random network."""
    return setting(instance(seed, sites).topology, NAMES)


def untaught_belief(known: Setting) -> Belief:
    """What is believed without measurements and experience."""
    return believed(known, prior(known, {}), (), None)


class Case:
    """A random setting with draws from its prior, models, and a visit of each."""

    def __init__(self, seed: int, sites: int, examples: float, fresh: bool) -> None:
        self.known = settings_of(seed, sites)
        self.draws: Draws = drawn(untaught_belief(self.known), 9)
        rng = np.random.default_rng(seed)
        count = len(self.draws)
        shape = (count, len(self.known.fields), len(self.known.labels))
        self.skills: Floats = rng.random(shape) * (rng.random(shape) < 0.8)
        self.visit = Visits(
            site=rng.integers(0, sites, count),
            examples=np.full(count, examples),
            before=rng.choice([0.0, 30.0, 3_000.0], count),
            total=rng.choice([0.0, 500.0, 50_000.0], count),
            exposure=rng.choice([0.0, 20.0, 900.0, 1e5], shape),
            fresh=np.full(count, fresh),
        )


def each_own(known: Setting, draws: Draws, skills: Floats, visit: Visits) -> Floats:
    """Skills (N, D, L) of N models, (N, D, L), that make a visit each, under a draw each."""
    every = np.repeat(skills[..., None], len(draws), axis=3)
    found: Floats = np.einsum("ndln->ndl", after_visit(known, draws, every, visit))
    return found


def one_visit(visit: Visits, **changed: Floats) -> Visits:
    """The same visit but for what is given."""
    fields = {name: getattr(visit, name) for name in Visits.__dataclass_fields__}
    return Visits(**(fields | changed))


any_cases = st.builds(
    Case,
    st.integers(0, 100_000),
    st.integers(1, 6),
    st.floats(1.0, 100_000.0),
    st.booleans(),
)
