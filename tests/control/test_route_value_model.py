"""What a visit is believed to teach: the arrays beside plain loops, and what always holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.control.route.posterior import drawn
from daitn.control.route.value_model import (
    Draws,
    Setting,
    anchored,
    setting,
    start_skills,
    values,
)
from daitn.topology.arrays import Floats

from . import plain_value_model as plain
from .route_draws import NAMES, Case, any_cases, each_own, untaught_belief
from .route_world import BROAD, healthcare, topology

SMALL = 1e-9


def after(case: Case, draws: Draws | None = None, **changed: Any) -> Floats:
    visit = replace(case.visit, **changed)
    return each_own(case.known, draws or case.draws, case.skills, visit)


def good(case: Case, **constant: float) -> Draws:
    """The same draws, every site as good as can be, and other parameters set to a constant."""
    told = {name: np.full(len(case.draws), value) for name, value in constant.items()}
    return replace(case.draws, level=np.ones_like(case.draws.level), **told)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(any_cases)
def test_arrays_are_what_plain_loops_make(case: Case) -> None:
    taught, visit = after(case), case.visit
    found = values(case.known, case.draws, taught)
    for row in range(len(case.draws)):
        told = plain.parameters(case.draws, row)
        expected = plain.after_visit(
            case.known,
            told,
            case.skills[row].tolist(),
            int(visit.site[row]),
            float(visit.examples[row]),
            before=float(visit.before[row]),
            total=float(visit.total[row]),
            exposure=visit.exposure[row].tolist(),
            fresh=bool(visit.fresh[row]),
        )
        # What fades is computed in single precision.
        np.testing.assert_allclose(taught[row], expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            found[row], plain.values(case.known, told, expected), rtol=1e-6, atol=1e-6
        )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(any_cases)
def test_skills_and_values_stay_in_range(case: Case) -> None:
    taught = after(case)
    assert (taught >= 0.0).all()
    assert (taught <= 1.0).all()
    found = values(case.known, case.draws, taught)
    assert (found >= 0.0).all()
    assert (found <= case.draws.ceiling[:, :, None] + SMALL).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(any_cases)
def test_a_visit_without_examples_changes_nothing(case: Case) -> None:
    nothing = np.zeros(len(case.draws))
    np.testing.assert_allclose(after(case, examples=nothing), case.skills, atol=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(any_cases)
def test_a_good_site_lowers_nothing_in_its_field_where_nothing_fades(case: Case) -> None:
    taught = after(case, good(case, fading=0.0))
    rows = np.arange(len(case.draws))
    own = case.known.field[case.visit.site]
    assert (taught[rows, own] >= case.skills[rows, own] - SMALL).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(any_cases)
def test_a_good_site_of_one_label_does_not_lower_it(case: Case) -> None:
    """What it has is rehearsed, however fast the rest fades."""
    known = of_single_labels(case.known)
    taught = each_own(known, good(case), case.skills, case.visit)
    for row, site in enumerate(case.visit.site):
        label = int(known.share[site].argmax())
        field = known.field[site]
        assert taught[row, field, label] >= case.skills[row, field, label] - 1e-4


def of_single_labels(known: Setting) -> Setting:
    count = len(known.labels)
    share = np.eye(count)[np.arange(len(known.options)) % count]
    return replace(known, share=share, rate=share * count)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(any_cases, st.floats(1.01, 50.0))
def test_more_examples_at_a_good_site_never_teach_less(case: Case, times: float) -> None:
    draws = good(case, fading=0.0)
    rows, own = np.arange(len(case.draws)), case.known.field[case.visit.site]
    some = after(case, draws)[rows, own]
    more = after(case, draws, examples=case.visit.examples * times)[rows, own]
    assert (more >= some - SMALL).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(any_cases)
def test_a_better_model_is_better_after_the_same_visit(case: Case) -> None:
    rng = np.random.default_rng(0)
    better = case.skills + rng.random(case.skills.shape) * (1.0 - case.skills)
    ahead = each_own(case.known, case.draws, better, case.visit)
    assert (ahead >= after(case) - SMALL).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(any_cases, st.randoms(use_true_random=False))
def test_the_order_of_options_does_not_matter(case: Case, rng: object) -> None:
    count = len(case.known.options)
    order = np.arange(count)
    rng.shuffle(order)  # type: ignore[attr-defined]
    known = replace(
        case.known,
        options=tuple(case.known.options[k] for k in order),
        field=case.known.field[order],
        records=case.known.records[order],
        share=case.known.share[order],
        rate=case.known.rate[order],
    )
    draws = replace(case.draws, level=case.draws.level[:, order])
    visit = replace(case.visit, site=np.argsort(order)[case.visit.site])
    moved = each_own(known, draws, case.skills, visit)
    np.testing.assert_array_equal(moved, after(case))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(any_cases)
def test_a_visit_fades_the_more_the_less_alike_a_field_is(case: Case) -> None:
    """With the same seen of all fields."""
    alike = np.zeros_like(case.visit.exposure)
    skills = np.ones_like(case.skills)
    taught = each_own(case.known, case.draws, skills, replace(case.visit, exposure=alike))
    for row, site in enumerate(case.visit.site):
        own = case.known.field[site]
        apart = np.delete(case.known.apart[own], own)
        left = np.delete(taught[row, :, 0], own)
        assert (np.diff(left[np.argsort(apart, kind="stable")]) <= SMALL).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(any_cases, st.floats(0.0, 0.5))
def test_coverage_has_diminishing_returns(case: Case, added: float) -> None:
    rng = np.random.default_rng(1)
    some = case.skills * (1.0 - added)
    more = some + rng.random(some.shape) * (1.0 - added - some).clip(0.0)
    raised_some, raised_more = some.copy(), more.copy()
    raised_some[:, 0] += added
    raised_more[:, 0] += added
    gain_some = values(case.known, case.draws, raised_some) - values(case.known, case.draws, some)
    gain_more = values(case.known, case.draws, raised_more) - values(case.known, case.draws, more)
    others = np.arange(len(case.known.fields)) > 0
    assert (gain_more >= -SMALL).all()
    if others.any():
        assert (gain_more <= gain_some + SMALL).all()


@given(*(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2).map(np.array) for _ in range(3)))
def test_predictions_start_from_what_was_measured(
    measured: Floats, believed: Floats, whole: Floats
) -> None:
    off = measured - believed
    np.testing.assert_allclose(
        anchored(believed, believed, off), np.clip(believed + 0.75 * off, 0.0, 1.0), atol=SMALL
    )
    found = anchored(whole, believed, off)
    assert (np.abs(found - whole) <= np.abs(off) + SMALL).all()
    assert ((found >= 0.0) & (found <= 1.0)).all()


class TestStart:
    known = setting(topology(healthcare()), NAMES)
    draws = drawn(untaught_belief(known), 9)

    def test_a_fresh_model_knows_nothing(self) -> None:
        draws = self.draws
        assert (start_skills(self.known, draws, None) == 0.0).all()
        assert (start_skills(self.known, draws, self.known.chance) == 0.0).all()

    def test_what_a_brought_model_was_measured_to_know_is_explained(self) -> None:
        draws = self.draws
        skills = start_skills(self.known, draws, np.array([0.7, 0.25]))
        found = (values(self.known, draws, skills) * self.known.shares).sum(axis=2)
        np.testing.assert_allclose(found[:, 0], 0.7, atol=1e-6)
        assert ((skills >= 0.0) & (skills <= 1.0)).all()


def test_a_setting_has_the_shares_and_rates_of_the_descriptors() -> None:
    known = setting(topology(healthcare()), NAMES)
    site = known.index()["mplus/pairs"]
    label = known.labels.index("information")
    assert known.share[site, label] == 1.0
    assert known.rate[site, label] == len(known.labels)
    assert known.records[site] == 874
    np.testing.assert_allclose(known.share.sum(axis=1).max(), 1.0)
    np.testing.assert_allclose(known.shares.sum(axis=1), 1.0)
    broad = known.labels.index("treatment")
    assert known.shares[0, broad] == pytest.approx(BROAD["treatment"] / sum(BROAD.values()))
    assert (np.diag(known.apart) == 0.0).all()
    neurology = known.fields.index(("medicine/neurology",))
    assert known.fit[neurology, 1] == known.fit[:, 1].max()
