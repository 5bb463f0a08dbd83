"""The one pipeline behind every decision: propose, filter, score, pick."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.decisions import Decision, Rejection, Scored
from daitn.objects.errors import InvalidInput
from daitn.objects.intents import Preference
from daitn.objects.randomness import Rng
from daitn.objects.wire import decode, encode
from daitn.policy.pipeline import Policy


@dataclass(frozen=True)
class Site:
    name: str
    near: float
    cheap: float
    full: bool


@dataclass(frozen=True)
class Choice:
    sites: tuple[Site, ...]
    preferences: tuple[Preference, ...] = ()
    snapshot_version: int = 3
    now_s: float = 12.0


def has_room(context: Choice, site: Site) -> Rejection | None:
    if not site.full:
        return None
    return Rejection(candidate=site.name, filter="room", reason="is full", field="")


def affordable(context: Choice, site: Site) -> Rejection | None:
    if site.cheap > 0.2:
        return None
    return Rejection(candidate=site.name, filter="price", reason="costs too much", field="budget")


POLICY: Policy[Choice, Site] = Policy(
    name="nearest",
    propose=lambda context: context.sites,
    identify=lambda site: site.name,
    filters=(has_room, affordable),
    scorers={"near": lambda _, site: site.near, "cheap": lambda _, site: site.cheap},
    weights={"near": 2.0, "cheap": 1.0},
)
shares = st.floats(0.0, 1.0)
many_sites = st.lists(
    st.builds(Site, st.text("abcdef", min_size=1, max_size=4), shares, shares, st.booleans()),
    unique_by=lambda site: site.name,
    max_size=30,
).map(tuple)
rngs = st.integers(0, 9).map(random.Random)


@given(many_sites, rngs, st.randoms(use_true_random=False))
def test_the_order_of_proposals_does_not_matter(
    sites: tuple[Site, ...], rng: random.Random, shuffler: random.Random
) -> None:
    shuffled = list(sites)
    shuffler.shuffle(shuffled)
    decided = POLICY.decide(Choice(sites), rng)
    assert POLICY.decide(Choice(tuple(shuffled)), rng) == decided
    assert decode(encode(decided), Decision) == decided


@given(many_sites, rngs)
def test_every_candidate_is_ranked_or_told_why_not(
    sites: tuple[Site, ...], rng: random.Random
) -> None:
    decision = POLICY.decide(Choice(sites), rng)
    rejected = {rejection.candidate for rejection in decision.rejections}
    passing = [site for site in sites if not site.full and site.cheap > 0.2]
    assert rejected == {site.name for site in sites} - {site.name for site in passing}
    assert len(decision.ranking) == min(20, len(passing))
    assert not rejected & {scored.candidate for scored in decision.ranking}
    if passing:
        top = max((2 * site.near + site.cheap) / 3 for site in passing)
        assert decision.ranking[0].score == pytest.approx(top)
        assert decision.chosen == decision.ranking[0].candidate
    else:
        assert decision.chosen is None


def test_all_filters_run_on_a_candidate_that_the_first_rejects() -> None:
    decision = POLICY.decide(Choice((Site("a", 1.0, 0.1, full=True),)), random.Random(0))
    assert [rejection.filter for rejection in decision.rejections] == ["room", "price"]
    assert (decision.snapshot_version, decision.at_s) == (3, 12.0)


def test_preferences_replace_the_profiles_weights() -> None:
    sites = (Site("near", 1.0, 0.3, full=False), Site("cheap", 0.1, 1.0, full=False))
    rng = random.Random(0)
    assert POLICY.decide(Choice(sites), rng).chosen == "near"
    thrift = (Preference(scorer="cheap", weight=9.0),)
    assert POLICY.decide(Choice(sites, thrift), rng).chosen == "cheap"


def test_ties_go_to_the_first_id() -> None:
    sites = tuple(Site(name, 0.5, 0.5, full=False) for name in ("c", "a", "b"))
    assert POLICY.decide(Choice(sites), random.Random(0)).chosen == "a"


@pytest.mark.parametrize("term", [-0.01, 1.01, float("nan")])
def test_a_score_out_of_range_is_an_error_and_never_clamped(term: float) -> None:
    with pytest.raises(ValueError, match="near"):
        POLICY.decide(Choice((Site("a", term, 0.5, full=False),)), random.Random(0))


def test_two_candidates_of_one_name_are_an_error() -> None:
    site = Site("a", 0.5, 0.5, full=False)
    with pytest.raises(ValueError, match="'a'"):
        POLICY.decide(Choice((site, site)), random.Random(0))


def test_a_preference_for_an_unknown_scorer_names_its_field() -> None:
    wanted = (Preference(scorer="near", weight=1.0), Preference(scorer="green", weight=1.0))
    with pytest.raises(InvalidInput) as raised:
        POLICY.decide(Choice((), wanted), random.Random(0))
    assert raised.value.field == "preferences[1].scorer"
    assert "near" in raised.value.fix


def test_a_picker_that_draws_is_replayed_by_its_seed() -> None:
    def drawn(ranking: Sequence[Scored], rng: Rng) -> str:
        return ranking[int(rng.random() * len(ranking))].candidate

    policy: Policy[Choice, Site] = Policy(
        name="spread",
        propose=POLICY.propose,
        identify=POLICY.identify,
        scorers=POLICY.scorers,
        weights=POLICY.weights,
        pick=drawn,
    )
    sites = Choice(tuple(Site(name, 0.5, 0.5, full=False) for name in "abcdefgh"))
    chosen = [policy.decide(sites, random.Random(seed)).chosen for seed in range(20)]
    assert chosen == [policy.decide(sites, random.Random(seed)).chosen for seed in range(20)]
    assert len(set(chosen)) > 3
