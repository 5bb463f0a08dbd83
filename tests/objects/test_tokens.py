"""Tokens of texts in any script, by a model's own rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.tokens import (
    BYTES,
    USUAL_RATES,
    Characters,
    Rates,
    characters_of,
    learned_rates,
    measured_rates,
    most_tokens,
    samples,
    tokens_of,
)


@given(st.text())
def test_characters_are_counted_by_their_length(text: str) -> None:
    lengths = [len(character.encode("utf-8", "surrogatepass")) for character in text]
    assert characters_of(text) == tuple(lengths.count(size) for size in BYTES)
    assert most_tokens(characters_of(text)) == sum(lengths)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("The weather in Paris is fine today. " * 100, 700, 1000),
        ("Погода сегодня хорошая. " * 100, 900, 1500),
        ("今天巴黎的天气很好" * 100, 600, 1300),
        ("🌞🌧️" * 100, 400, 800),
        ("", 0, 0),
    ],
)
def test_a_usual_tokenizer_is_met_in_every_script(text: str, least: int, most: int) -> None:
    assert least <= tokens_of(characters_of(text)) <= most


@given(st.tuples(*[st.floats(0.7, 0.95)] * 4))
def test_a_tokenizer_is_measured_with_samples(rates: Rates) -> None:
    counts = [round(100 * tokens_of(characters_of(sample), rates)) for sample in samples()]
    measured = measured_rates([count // 100 for count in counts])
    assert measured == pytest.approx(rates, abs=0.11)


def test_what_cannot_be_measured_is_usual() -> None:
    assert measured_rates((80, 0, 0, 0))[1:] == USUAL_RATES[1:]


def learned(characters: Characters, reported: float, times: int = 60) -> Rates:
    rates = USUAL_RATES
    for _ in range(times):
        rates = learned_rates(rates, characters, reported)
    return rates


def test_rates_come_to_what_a_model_reports() -> None:
    characters = 2000, 0, 1000, 0
    assert tokens_of(characters, learned(characters, 2400)) == pytest.approx(2400, rel=0.01)
    assert tokens_of(characters, learned(characters, 700)) == pytest.approx(700, rel=0.01)


def test_what_english_teaches_does_not_change_what_is_known_of_chinese() -> None:
    rates = learned((4000, 0, 0, 0), 2000)
    assert rates[0] == pytest.approx(0.5, rel=0.01)
    assert rates[1:] == USUAL_RATES[1:]


@given(
    st.tuples(*[st.integers(0, 10**9)] * 4),
    st.floats(allow_nan=True, allow_infinity=True),
)
def test_no_report_makes_rates_impossible(characters: Characters, reported: float) -> None:
    rates = learned(characters, reported, times=5)
    least = (usual / 3.2 for usual in USUAL_RATES)
    assert all(low < rate <= size for low, rate, size in zip(least, rates, BYTES, strict=True))


def test_a_short_prompt_teaches_nothing() -> None:
    assert learned((100, 0, 0, 0), 60) == USUAL_RATES
