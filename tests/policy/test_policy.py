"""The pipeline over arrays gives what the scalar one gives."""

from __future__ import annotations

import random
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from daitn.objects.decisions import Decision, Rejection
from daitn.objects.errors import InvalidInput
from daitn.objects.intents import Preference
from daitn.objects.wire import decode, encode
from daitn.policy.pipeline import MOST_WEIGHT, OUT, Policy, best_first
from tests.policy.plain import PlainPolicy

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """Candidates are the numbers of the places; places are full, near and cheap."""

    full: tuple[bool, ...]
    near: tuple[float, ...]
    cheap: tuple[float, ...]
    preferences: tuple[Preference, ...] = ()
    snapshot_version: int = 1
    now_s: float = 2.0


SCALAR: PlainPolicy[Choice, int] = PlainPolicy(
    name="nearest",
    propose=lambda choice: range(len(choice.near)),
    identify=lambda place: f"{place:03}",
    filters=(
        lambda choice, place: (
            Rejection(candidate=f"{place:03}", filter="room", reason="is full", field="")
            if choice.full[place]
            else None
        ),
    ),
    scorers={
        "near": lambda choice, place: choice.near[place],
        "cheap": lambda choice, place: choice.cheap[place],
        "open": lambda choice, place: 1.0,
    },
    weights={"near": 2.0, "cheap": 1.0, "open": 0.5},
)
ARRAYS: Policy[Choice] = Policy(
    name="nearest",
    scorers={
        "near": lambda choice, passes: np.array(choice.near, np.float64),
        "cheap": lambda choice, passes: np.array(choice.cheap, np.float64),
        "open": lambda choice, passes: 1.0,
    },
    weights={"near": 2.0, "cheap": 1.0, "open": 0.5},
)
shares = st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0])
preferences = st.dictionaries(
    st.sampled_from(["near", "cheap", "open"]), st.sampled_from([0.0, 1e-9, 1.0, 7.5])
).map(lambda weights: tuple(Preference(scorer=s, weight=w) for s, w in weights.items()))


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    places = draw(st.lists(st.tuples(st.booleans(), shares, shares), max_size=15))
    full, near, cheap = zip(*places, strict=True) if places else ((), (), ())
    return Choice(full, near, cheap, draw(preferences))


@given(choices())
def test_scores_order_and_terms_are_those_of_the_scalar_pipeline(choice: Choice) -> None:
    passes = ~np.array(choice.full, np.bool_)
    scalar = SCALAR.decide(choice, random.Random(0))
    scores = ARRAYS.scores(choice, passes, choice.preferences)
    order = best_first(scores, len(scores), 0.0, random.Random(0))
    assert [f"{place:03}" for place in order] == [scored.candidate for scored in scalar.ranking]
    decision = ARRAYS.decision(
        choice,
        scores,
        lambda place: f"{place:03}",
        chosen=scalar.chosen,
        rejections=scalar.rejections,
        snapshot_version=choice.snapshot_version,
        now_s=choice.now_s,
    )
    assert decode(encode(decision), Decision) == decision
    assert len(decision.ranking) == len(scalar.ranking)
    for told, scored in zip(decision.ranking, scalar.ranking, strict=True):
        assert (told.candidate, told.terms) == (scored.candidate, scored.terms)
        assert told.score == pytest.approx(scored.score)
    assert msgspec.structs.replace(decision, ranking=scalar.ranking) == scalar


@given(choices(), st.integers(1, 5), st.sampled_from([0.0, 0.02, 0.5]), st.integers(0, 99))
def test_the_first_is_drawn_among_equals_and_the_others_follow_by_score(
    choice: Choice, most: int, near: float, seed: int
) -> None:
    passes = ~np.array(choice.full, np.bool_)
    scores = ARRAYS.scores(choice, passes, choice.preferences)
    before = scores.copy()
    taken = best_first(scores, most, near, random.Random(seed))
    assert (scores == before).all()
    assert len(taken) == len(set(taken)) == min(most, int(passes.sum()))
    assert all(passes[place] for place in taken)
    if taken:
        left = sorted((place for place in np.flatnonzero(passes) if place != taken[0]),
                      key=lambda place: (-scores[place], place))  # fmt: skip
        assert scores[taken[0]] >= scores.max() - near
        assert taken[1:] == left[: len(taken) - 1]


def test_of_equals_each_is_drawn_about_as_often() -> None:
    scores = np.array([0.5, 0.495, 0.3, OUT])
    rng = random.Random(7)
    first = [best_first(scores, 1, 0.02, rng)[0] for _ in range(1000)]
    assert set(first) == {0, 1}
    assert 400 < first.count(0) < 600


def test_a_weight_of_nothing_leaves_a_scorer_out() -> None:
    choice = Choice((False, False), (1.0, 0.0), (0.0, 0.7))
    thrift = tuple(Preference(scorer=name, weight=0.0) for name in ("near", "open"))
    passes = np.ones(2, np.bool_)
    assert ARRAYS.scores(choice, passes, thrift).tolist() == [0.0, 0.7]
    nothing = (*thrift, Preference(scorer="cheap", weight=0.0))
    assert ARRAYS.scores(choice, passes, nothing).tolist() == [0.0, 0.0]


def test_the_heaviest_weights_are_finite_together() -> None:
    choice = Choice((False,), (1.0,), (0.0,))
    heavy = tuple(Preference(scorer=name, weight=MOST_WEIGHT) for name in ("near", "cheap"))
    (score,) = ARRAYS.scores(choice, np.ones(1, np.bool_), heavy)
    assert score == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("weight", [-1e-9, float("nan"), float("inf"), 1.1 * MOST_WEIGHT])
def test_a_weight_that_is_none_names_its_field(weight: float) -> None:
    with pytest.raises(InvalidInput) as raised:
        ARRAYS.weighted((Preference(scorer="near", weight=weight),))
    assert raised.value.field == "prefer.near"
    assert "number" in raised.value.fix


def test_a_scorer_that_is_none_names_those_that_are() -> None:
    with pytest.raises(InvalidInput, match="green") as raised:
        ARRAYS.weighted((Preference(scorer="green", weight=1.0),))
    assert raised.value.field == "prefer.green"
    assert "cheap, near, open" in raised.value.fix
