"""What a visit is expected to teach, and what measurements change about that."""

from __future__ import annotations

import math

import numpy as np
import pytest
from daitn.control.route.beliefs import believed, parents, skills_after
from daitn.control.route.knowledge import Floats, Knowledge, anchored, prior
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.route.question import VisitMade
from daitn.objects.identifiers import ObjectiveName

from .route_world import healthcare, topology

NAMES = (ObjectiveName("broad"), ObjectiveName("expert"))
PRIOR = prior(topology(healthcare()), NAMES, only=range(9))
KNOWS = believed(PRIOR, ())
GHR, NINDS = (PRIOR.index()[f"{site}/pairs"] for site in ("ghr", "ninds"))
skill_sets = st.lists(st.floats(0.0, 1.0), min_size=9, max_size=9).map(lambda s: np.array([s]))


def visited(skills: Floats, option: int, examples: float) -> Floats:
    return KNOWS.after(skills, np.array([option]), np.array([examples]))


def made(site: str, examples: int, before: Floats, after: Floats, error: float = 0.01) -> VisitMade:
    return VisitMade(
        option_id=f"{site}/pairs",
        examples=examples,
        seconds=1.0,
        before=dict(zip(NAMES, before.tolist(), strict=True)),
        after=dict(zip(NAMES, after.tolist(), strict=True)),
        standard_error=dict.fromkeys(NAMES, error),
    )


def gain_of(knowledge: Knowledge, skills: Floats, option: int, examples: float) -> Floats:
    after = knowledge.after(skills[None], np.array([option]), np.array([examples]))
    gain: Floats = (knowledge.values(after) - knowledge.values(skills[None]))[0]
    return gain


@given(skill_sets, st.floats(100, 30_000), st.floats(100, 30_000))
def test_two_visits_teach_what_one_of_their_sum_does(
    skills: Floats, first: float, second: float
) -> None:
    twice = visited(visited(skills, NINDS, first), NINDS, second)
    once = visited(skills, NINDS, first + second)
    assert twice[0, NINDS] == pytest.approx(once[0, NINDS])


@given(skill_sets, skill_sets, st.integers(0, 8), st.floats(0.0, 1.0))
def test_coverage_has_diminishing_returns(
    some: Floats, more: Floats, option: int, added: float
) -> None:
    more = np.maximum(some, more)
    raised_some, raised_more = some.copy(), more.copy()
    raised_some[0, option] = min(1.0, some[0, option] + added)
    raised_more[0, option] = max(more[0, option], raised_some[0, option])
    gain_some = KNOWS.values(raised_some) - KNOWS.values(some)
    gain_more = KNOWS.values(raised_more) - KNOWS.values(more)
    assert (gain_more <= gain_some + 1e-9).all()
    assert (gain_more >= -1e-9).all()


def test_other_skills_fade_the_more_the_less_alike_their_data_is() -> None:
    after = visited(np.ones((1, 9)), NINDS, 8_000.0)[0]
    differs = PRIOR.differs[NINDS]
    assert after[NINDS] == 1.0
    assert (np.diff(after[np.argsort(differs)]) <= 1e-12).all()
    assert 0.6 < after.min() < 0.95


@given(
    st.lists(st.floats(0.25, 1.0), min_size=2, max_size=2).map(np.array),
    st.lists(st.floats(0.25, 1.0), min_size=2, max_size=2).map(np.array),
    st.lists(st.floats(0.25, 1.0), min_size=2, max_size=2).map(np.array),
)
def test_predictions_move_from_what_was_measured(
    measured: Floats, base: Floats, expected: Floats
) -> None:
    chance = np.array([0.25, 0.25])
    value = anchored(measured, base, expected, chance)
    assert (anchored(measured, base, base, chance) == measured).all()
    assert (value >= measured)[expected >= base].all()
    assert (value <= measured)[expected <= base].all()
    assert (np.abs(value - measured) <= np.abs(expected - base) + 1e-9).all()


def test_slow_learning_is_recognised_and_not_blamed_on_the_data() -> None:
    slow = Knowledge.settled(
        PRIOR, log_tau=math.log(6.0), logit_phi=0.0, logit_affinity=np.zeros_like(PRIOR.fit)
    )
    history: list[VisitMade] = []
    skills = np.zeros((1, 9))
    for option, site, examples in ((GHR, "ghr", 4_000), (NINDS, "ninds", 4_000)):
        after = slow.after(skills, np.array([option]), np.array([float(examples)]))
        history.append(made(site, examples, slow.values(skills)[0], slow.values(after)[0]))
        skills = after
    found = believed(PRIOR, history)
    assert 4.0 < found.tau[GHR] / PRIOR.tau[GHR] < 8.0
    everything = np.ones((1, 9))
    assert (found.values(everything) > KNOWS.values(everything) - 0.03).all()


def test_a_site_that_taught_nothing_twice_is_expected_to_teach_little() -> None:
    start = np.array([0.6, 0.6])
    nothing = [made("ninds", 8_000, start, start), made("ninds", 8_000, start, start)]
    found = believed(PRIOR, nothing)
    skills = skills_after(found, nothing)
    hoped = gain_of(KNOWS, np.zeros(9), NINDS, 8_000.0)
    assert (gain_of(found, skills, NINDS, 8_000.0) < 0.35 * hoped).all()


def test_a_noisy_measurement_changes_less() -> None:
    start = np.array([0.6, 0.6])
    sure = believed(PRIOR, [made("ghr", 4_000, start, start, error=0.01)])
    unsure = believed(PRIOR, [made("ghr", 4_000, start, start, error=0.3)])
    hoped = gain_of(KNOWS, np.zeros(9), GHR, 4_000.0)
    after_sure = gain_of(sure, np.zeros(9), GHR, 4_000.0)
    after_unsure = gain_of(unsure, np.zeros(9), GHR, 4_000.0)
    assert (after_sure < after_unsure).all()
    assert (after_unsure < hoped).all()


def test_measured_forgetting_is_expected_again() -> None:
    first = made("ghr", 8_000, np.array([0.25, 0.25]), np.array([0.75, 0.4]))
    forgot = made("ninds", 8_000, np.array([0.75, 0.4]), np.array([0.45, 0.85]))
    found = believed(PRIOR, [first, forgot])
    assert found.fades[NINDS, GHR] > 1.5 * KNOWS.fades[NINDS, GHR]


def test_a_gain_at_one_site_raises_hope_for_its_like() -> None:
    good = made("ghr", 4_000, np.array([0.25, 0.25]), np.array([0.8, 0.75]))
    found = believed(PRIOR, [good])
    gard = PRIOR.index()["gard/pairs"]
    assert (
        gain_of(found, np.zeros(9), gard, 4_000.0) > gain_of(KNOWS, np.zeros(9), gard, 4_000.0)
    ).all()


def test_visits_are_traced_to_the_model_that_they_received() -> None:
    values = [np.array(pair) for pair in ([0.25, 0.25], [0.5, 0.3], [0.4, 0.5], [0.6, 0.35])]
    history = [
        made("ghr", 500, values[0], values[1]),
        made("ninds", 500, values[1], values[2]),
        made("gard", 500, values[1], values[3]),
    ]
    assert parents(history) == (-1, 0, 0)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ghr", "ninds", "cdc"]),
            st.integers(100, 20_000),
            st.floats(0.0, 1.0),
            st.floats(0.0, 1.0),
        ),
        max_size=8,
    )
)
def test_any_experience_gives_a_usable_model(seen: list[tuple[str, int, float, float]]) -> None:
    last, history = np.array([0.25, 0.25]), []
    for site, examples, broad, expert in seen:
        now = np.array([broad, expert])
        history.append(made(site, examples, last, now))
        last = now
    found = believed(PRIOR, history)
    assert np.isfinite(found.tau).all()
    assert (found.tau > 0).all()
    assert ((found.teaches >= 0) & (found.teaches <= 1)).all()
    assert ((found.fades >= 0) & (found.fades <= 1)).all()
