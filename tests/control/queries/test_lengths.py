"""How long answers are expected to be."""

from __future__ import annotations

import random
from typing import Any

import pytest

from daitn.control.queries import lengths
from daitn.control.queries.lengths import AnswerLengths, expecting
from daitn.objects.abilities import Need
from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO, QueryIntent


def test_a_limit_is_no_guess_but_bounds_one() -> None:
    known = AnswerLengths()
    assert mean(known, asked(tokens_out=4096)) == 64.0
    assert mean(known, asked(tokens_out=16)) == 16.0
    assert mean(known, asked(tokens_out=16, open_ended=True)) == 64.0
    for _ in range(1000):
        known.learn(asked(tokens_out=4096), 300)
    assert mean(known, asked(tokens_out=4096)) == pytest.approx(300, rel=0.03)
    assert mean(known, asked(tokens_out=100)) == 100.0


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"tokens_out": 600},
        {"open_ended": True},
        {"tokens_in": 1000},
        {"topic": "law"},
        {"needs": (Need.TEXT, Need.JSON)},
        {"api": Api.COMPLETIONS},
    ],
)
def test_kinds_differ_by_all_that_is_known_beforehand(other: dict[str, Any]) -> None:
    known = AnswerLengths()
    for _ in range(100):
        known.learn(asked(), 20)
        known.learn(asked(**other), 200)
    assert mean(known, asked()) == pytest.approx(20, rel=0.5)
    assert mean(known, asked(**other)) == pytest.approx(200, rel=0.5)


def test_a_new_kind_is_like_its_model_and_a_new_model_like_all() -> None:
    known = AnswerLengths()
    for _ in range(200):
        known.learn(asked(model="long"), 400)
        known.learn(asked(model="short"), 10)
    assert mean(known, asked(model="long", topic="new")) == pytest.approx(400, rel=0.1)
    assert mean(known, asked(model="short", topic="new")) < 35
    assert 35 < mean(known, asked(model="new")) < 350
    assert mean(known, asked(api=Api.COMPLETIONS)) == 64.0


def test_one_answer_does_not_settle_it_and_old_ones_are_forgotten() -> None:
    known = AnswerLengths()
    known.learn(asked(), 1000)
    assert mean(known, asked()) < 700
    for tokens in (500, 20):
        for _ in range(300):
            known.learn(asked(), tokens)
    assert mean(known, asked()) == pytest.approx(20, rel=0.2)


def test_nothing_counted_teaches_nothing_and_no_number_is_too_large() -> None:
    known = AnswerLengths()
    known.learn(asked(), 0)
    known.learn(asked(), -5)
    assert mean(known, asked()) == 64.0
    known.learn(asked(open_ended=True), 10**400)
    assert mean(known, asked(open_ended=True)) <= lengths.MOST_TOKENS


def test_no_answer_counts_as_longer_than_its_request_allowed() -> None:
    known = AnswerLengths()
    known.learn(asked(tokens_out=5), 10**6)
    assert mean(known, asked()) <= 64.0
    assert mean(known, asked(model="new", open_ended=True)) <= 64.0


def test_names_from_clients_take_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "MOST_KINDS", 16)
    known = AnswerLengths()
    for number in range(500):
        known.learn(asked(topic="usual"), 300)
        known.learn(asked(model=f"m{number}", topic=f"t{number}"), 5)
    assert len(known._moments) == 16
    assert mean(known, asked(topic="usual")) > 200, "what is asked for often stays"


def test_what_a_query_waits_for_is_of_its_model_whatever_is_asked() -> None:
    known = AnswerLengths()
    for _ in range(200):
        known.learn(asked(tokens_in=10), 10)
        known.learn(asked(tokens_in=2000), 90)
    intent = expecting(asked(tokens_in=10), known)
    assert intent.tokens_expected == pytest.approx(10, rel=0.5)
    assert intent.tokens_usual == pytest.approx(50, rel=0.2)


def test_time_is_reckoned_by_more_where_lengths_vary() -> None:
    known = AnswerLengths()
    for _ in range(200):
        known.learn(asked(topic="steady"), 100)
        known.learn(asked(topic="varied"), 20)
        known.learn(asked(topic="varied"), 180)
    steady, varied = (known.foreseen(asked(topic=topic)) for topic in ("steady", "varied"))
    assert steady.mean == pytest.approx(varied.mean, rel=0.1)
    assert steady.root_mean_square == pytest.approx(100, rel=0.05)
    assert varied.root_mean_square == pytest.approx((20**2 / 2 + 180**2 / 2) ** 0.5, rel=0.05)
    limited = known.foreseen(asked(topic="varied", tokens_out=110))
    assert limited.root_mean_square <= 110
    intent = expecting(asked(topic="varied"), known)
    assert intent.timed_tokens > intent.priced_tokens


def test_embeddings_have_no_length() -> None:
    embedding = asked(tokens_out=0, api=Api.EMBEDDINGS)
    assert expecting(embedding, AnswerLengths()) is embedding
    assert embedding.timed_tokens == 0


def test_learned_lengths_are_closer_than_limits_and_than_the_overall_mean() -> None:
    """Two kinds of requests, ten times apart, and limits that say nothing."""
    rng = random.Random(1)
    known, all_ = AnswerLengths(), lengths.Moments()
    errors = {"known": 0.0, "limit": 0.0, "mean": 0.0}
    for _ in range(2000):
        topic, median = rng.choice((("short", 20), ("long", 200)))
        intent = asked(topic=topic, tokens_out=rng.choice((1024, 4096)))
        tokens = round(median * 2 ** rng.gauss(0.0, 0.7))
        errors["known"] += abs(tokens - mean(known, intent))
        errors["limit"] += abs(tokens - intent.tokens_out)
        errors["mean"] += abs(tokens - all_.given(64.0, 64.0**2)[0])
        known.learn(intent, tokens)
        all_.take(tokens)
    assert errors["known"] < 0.7 * errors["mean"] < errors["limit"]


def mean(known: AnswerLengths, intent: QueryIntent) -> float:
    return known.foreseen(intent).mean


def asked(**said: Any) -> QueryIntent:
    fields: dict[str, Any] = {
        "origin": SiteId("gw"),
        "owner": "",
        "api": Api.CHAT,
        "model": AUTO,
        "tokens_in": 100,
        "tokens_out": 4096,
    }
    return QueryIntent(**{**fields, **said})
