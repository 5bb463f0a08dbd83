"""What measured visits say of the value model, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.route.posterior import (
    Belief,
    Taught,
    believed,
    drawn,
    hopeful,
    parents,
    taught,
    untaught,
)
from daitn.control.route.priors import SHAPE, prior
from daitn.control.route.question import PastVisit
from daitn.control.route.value_model import Draws, setting, values
from daitn.topology.arrays import Floats

from .route_draws import NAMES
from .route_jobs import seen_by_a_ring
from .route_world import healthcare, topology

KNOWN = setting(topology(healthcare()), NAMES)
PRIOR = prior(KNOWN, {})
UNTAUGHT = believed(KNOWN, PRIOR, (), None)
TAU, FADING = SHAPE.index("tau"), SHAPE.index("fading")


def made(site: str, examples: int, before: Floats, after: Floats, error: float = 0.01) -> PastVisit:
    return PastVisit(
        option_id=f"{site}/pairs",
        examples=examples,
        seconds=1.0,
        before=dict(zip(NAMES, before.tolist(), strict=True)),
        after=dict(zip(NAMES, after.tolist(), strict=True)),
        standard_error=dict.fromkeys(NAMES, error),
    )


def history(*steps: tuple[str, int, float, float], error: float = 0.01) -> list[PastVisit]:
    """Visits one after the other, with what was measured after each."""
    last, visits = np.array([0.25, 0.25]), []
    for site, examples, broad, expert in steps:
        now = np.array([broad, expert])
        visits.append(made(site, examples, last, now, error))
        last = now
    return visits


def found(visits: Sequence[PastVisit]) -> Belief:
    return believed(KNOWN, PRIOR, visits, None)


def variances(belief: Belief) -> Floats:
    every: Floats = (belief.root**2).sum(axis=1)
    return every


def level(belief: Belief, site: str) -> float:
    """The mode of how good a site's data are."""
    return float(drawn(belief, 1).level[0, KNOWN.index()[f"{site}/pairs"]])


def expected(belief: Belief, *visits: tuple[str, int]) -> Floats:
    """Values (O,) after these visits, under the mode."""
    mode = drawn(belief, 1)
    model: Taught = untaught(KNOWN, mode, None)
    for site, examples in visits:
        model = model.after(KNOWN, mode, KNOWN.index()[f"{site}/pairs"], float(examples))
    whole: Floats = (values(KNOWN, mode, model.skills) * KNOWN.shares).sum(axis=2)[0]
    return whole


def test_without_visits_it_is_the_prior() -> None:
    np.testing.assert_array_equal(UNTAUGHT.mode, UNTAUGHT.mean)
    np.testing.assert_allclose(variances(UNTAUGHT), UNTAUGHT.sd**2)
    assert UNTAUGHT.misfit == 1.0
    gone = found([made("elsewhere", 500, np.array([0.25, 0.25]), np.array([0.9, 0.9]))])
    np.testing.assert_array_equal(gone.mode, UNTAUGHT.mode)


@pytest.mark.parametrize(
    "belief",
    [UNTAUGHT, found(history(("ghr", 2_000, 0.5, 0.35), ("ninds", 900, 0.55, 0.7)))],
    ids=["prior", "posterior"],
)
def test_draws_scatter_around_the_mode(belief: Belief) -> None:
    draws, mode = drawn(belief, 49), drawn(belief, 1)
    for name in SHAPE[:5]:
        mean = np.log(getattr(draws, name)).mean()
        assert mean == pytest.approx(float(np.log(getattr(mode, name)[0])), abs=1e-9)
    many = np.log(drawn(belief, 4_001).tau)
    assert many.std() == pytest.approx(variances(belief)[TAU] ** 0.5, rel=0.1)


def test_the_same_measurements_give_the_same_draws() -> None:
    visits = history(("ghr", 2_000, 0.5, 0.35))
    one, other = drawn(found(visits), 48), drawn(found(visits), 48)
    for name in Draws.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ghr", "ninds", "cdc"]),
            st.integers(1, 20_000),
            st.floats(0.0, 1.0),
            st.floats(0.0, 1.0),
        ),
        max_size=8,
    )
)
def test_whatever_was_measured_the_belief_is_usable_and_no_wider(
    seen: list[tuple[str, int, float, float]],
) -> None:
    belief = found(history(*seen))
    assert (variances(belief) <= belief.sd**2 * (1.0 + 1e-6)).all()
    for draws in (drawn(belief, 48), hopeful(belief, 2.0)):
        for name in Draws.__dataclass_fields__:
            assert np.isfinite(getattr(draws, name)).all()
        for name in ("tau", "warm", "ripe", "repeats", "fading"):
            assert (getattr(draws, name) > 0.0).all()
        for name in ("labelled", "averaged", "ceiling", "teaches", "level"):
            assert ((getattr(draws, name) >= 0.0) & (getattr(draws, name) <= 1.0)).all()


def test_visits_narrow_it_and_more_visits_narrow_it_more() -> None:
    steps = (("ghr", 2_000, 0.5, 0.35), ("ninds", 900, 0.55, 0.7), ("ghr", 2_000, 0.65, 0.6))
    before = variances(UNTAUGHT)[: len(SHAPE)]
    for count in (1, 2, 3):
        now = variances(found(history(*steps[:count])))[: len(SHAPE)]
        assert now.sum() < before.sum()
        before = now
    assert before[TAU] < 0.6 * variances(UNTAUGHT)[TAU]


def test_a_noisy_measurement_tells_less() -> None:
    steps = (("ghr", 4_000, 0.26, 0.25),)
    sure, unsure = found(history(*steps)), found(history(*steps, error=0.3))
    assert variances(sure)[TAU] < variances(unsure)[TAU]
    hoped = expected(UNTAUGHT, ("ghr", 4_000))
    assert expected(sure, ("ghr", 4_000))[0] < expected(unsure, ("ghr", 4_000))[0] < hoped[0]


def test_slow_learning_is_recognised_and_not_blamed_on_the_data() -> None:
    """Eight times slower than the prior expects, as the model itself would have it."""
    slow = believed(KNOWN, prior(KNOWN, {}), (), None)
    slow.mode[TAU] += np.log(8.0)
    route = (("ghr", 600), ("ninds", 600), ("ghr", 1_200), ("ninds", 600))
    steps = []
    for count, (site, examples) in enumerate(route, 1):
        broad, expert = expected(slow, *route[:count])
        steps.append((site, examples, float(broad), float(expert)))
    belief = found(history(*steps))
    slower = np.exp(belief.mode[TAU] - belief.mean[TAU])
    assert 4.0 < slower < 12.0
    assert level(belief, "ghr") > 0.7
    assert level(belief, "ninds") > 0.7


def test_what_is_forgotten_is_expected_to_be_forgotten_again() -> None:
    belief = found(
        history(("ghr", 8_000, 0.75, 0.4), ("ninds", 8_000, 0.45, 0.85), ("ghr", 4_000, 0.75, 0.5))
    )
    assert belief.mode[FADING] > belief.mean[FADING] + 0.5


def test_a_gain_at_one_site_raises_hope_for_its_like() -> None:
    belief = found(history(("ghr", 400, 0.9, 0.5)))
    assert expected(belief, ("gard", 400))[0] > expected(UNTAUGHT, ("gard", 400))[0]


def test_a_site_that_undoes_what_others_taught_is_found_out() -> None:
    belief = found(
        history(
            ("ghr", 2_000, 0.6, 0.4),
            ("gard", 2_000, 0.3, 0.27),
            ("ghr", 2_000, 0.6, 0.4),
            ("gard", 2_000, 0.3, 0.27),
        )
    )
    assert level(belief, "gard") < 0.6 < level(belief, "ghr")
    assert level(belief, "gard") < level(UNTAUGHT, "gard") - 0.3


def test_poisoned_sites_of_simulated_worlds_are_found_out() -> None:
    """Each world has one site whose records are wrong; a ring visits them all."""
    bad: list[float] = []
    good: list[float] = []
    before: list[float] = []
    for seed in range(1_000, 1_008):
        world, question = seen_by_a_ring("poisoned", seed)
        names = question.intent.objective_names()
        known = setting(question.topology, names)
        belief = believed(known, prior(known, {}), question.history, None)
        levels = drawn(belief, 1).level[0]
        before.append(float(drawn(believed(known, prior(known, {}), (), None), 1).level[0, 0]))
        for column in belief.visited:
            honest = known.options[column].site in world.honest
            (good if honest else bad).append(float(levels[column]))
    assert len(bad) >= 6
    assert np.mean(bad) < 0.75 * np.mean(before)
    assert np.mean(bad) < np.mean(good) - 0.2


def test_measurements_that_no_parameters_explain_widen_it() -> None:
    """The same two visits over and over: what they did is the same each time, or never."""
    alike = found(history(*[("ghr", 1_000, 0.6, 0.4)] * 6))
    torn = found(history(*[("ghr", 1_000, v, 0.65 - v / 2) for v in (0.9, 0.3) * 3]))
    assert torn.misfit > 3.0 > alike.misfit
    assert variances(torn)[: len(SHAPE)].sum() > variances(alike)[: len(SHAPE)].sum()


def test_hope_is_better_than_the_mode_in_everything_that_visits_teach() -> None:
    mode, hope = drawn(UNTAUGHT, 1), hopeful(UNTAUGHT, 1.0)
    for name in ("tau", "warm", "ripe", "fading", "labelled", "averaged"):
        assert getattr(hope, name)[0] < getattr(mode, name)[0]
    for name in ("ceiling", "teaches", "level"):
        assert (getattr(hope, name) >= getattr(mode, name)).all()


def test_visits_are_traced_to_the_model_that_they_received() -> None:
    values = [np.array(pair) for pair in ([0.25, 0.25], [0.5, 0.3], [0.4, 0.5], [0.6, 0.35])]
    visits = [
        made("ghr", 500, values[0], values[1]),
        made("ninds", 500, values[1], values[2]),
        made("gard", 500, values[1], values[3]),
    ]
    assert parents(visits) == (-1, 0, 0)


def test_a_model_is_made_of_the_visits_to_sites_that_are_still_known() -> None:
    mode = drawn(UNTAUGHT, 1)
    stays = history(("ghr", 500, 0.4, 0.3))
    gone = [*stays, made("elsewhere", 500, np.array([0.4, 0.3]), np.array([0.6, 0.6]))]
    one, other = taught(KNOWN, mode, stays, None), taught(KNOWN, mode, gone, None)
    np.testing.assert_array_equal(one.skills, other.skills)
    assert one.seen.sum() == 500
    assert not one.fresh
    assert taught(KNOWN, mode, (), None).fresh
    assert not taught(KNOWN, mode, (), np.array([0.5, 0.5])).fresh
