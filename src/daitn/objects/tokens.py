"""Estimates of a text's tokens without the tokenizer.

Characters are counted by their length in UTF-8, which separates scripts: ASCII has one byte; other
letters of Europe and the Middle East two; those of India and East Asia three; emoji four. A model
has a rate of tokens per character for each length: measured with its own tokenizer, learned from
the counts that it reports, or usual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "BYTES",
    "USUAL_RATES",
    "Characters",
    "Rates",
    "added",
    "characters_of",
    "expected_tokens",
    "learned_rates",
    "measured_rates",
    "most_tokens",
    "samples",
    "tokens_of",
]

Characters = tuple[int, int, int, int]
"""Characters of one, two, three and four bytes in UTF-8."""
Rates = tuple[float, float, float, float]
"""Tokens per character of each length."""

BYTES: Characters = (1, 2, 3, 4)
USUAL_RATES: Rates = (0.25, 0.5, 1.0, 2.0)
"""OpenAI's rule of thumb for English; the others are rounded from vocabularies of 100,000 entries,
in which a Russian letter takes half a token and a Chinese character about one."""
_LEAST_RATES: Rates = (0.08, 0.16, 0.33, 0.66)
"""A third of the usual rates: no vocabulary in use needs fewer tokens. Servers that report only the
uncached tokens cannot lower them further."""
_LEARNS = 0.2
"""Share of an observed difference that is learned from one answer, as for times
(`daitn.topology.qrrt.observation`)."""
_LEAST_LEARNED = 64
"""Tokens of a prompt below which the surrounding words of a chat template weigh too much."""
_CONTINUATION = bytes(range(0x80, 0xC0))
_TWO, _THREE, _FOUR = (bytes(range(*ends)) for ends in ((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0x100)))

_SAMPLES = (
    "The nurse asked whether the pain had started before or after the meal, and wrote down: 2 mg, "
    "twice a day. If it gets worse, call us at once; we are there from 8 to 17 o'clock. "
    '{"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}} '
    "for index, value in enumerate(values): total += value * weights[index]",
    "Врач спросил, когда началась боль и что помогает. Ο γιατρός ρώτησε πότε άρχισε ο πόνος. "
    "سأل الطبيب متى بدأ الألم. הרופא שאל מתי התחיל הכאב. Größe, façade, señor, młody, český",
    "医生问疼痛是什么时候开始的，以及什么能缓解疼痛。患者从昨天晚上开始发烧。"
    "医師はいつ痛みが始まったかを尋ねました。의사는 통증이 언제 시작되었는지 물었다. "
    "डॉक्टर ने पूछा कि दर्द कब शुरू हुआ। แพทย์ถามว่าอาการปวดเริ่มเมื่อใด",
    "😀🎉🚀🔥🌍🧪🩺💊📈🐍",
)
"""Ordinary text of each length of characters, to measure a tokenizer with."""


def characters_of(text: str) -> Characters:
    """Count a text's characters by their length in UTF-8."""
    if text.isascii():
        return len(text), 0, 0, 0
    data = text.encode("utf-8", "surrogatepass").translate(None, _CONTINUATION)
    two, three, four = (
        len(data) - len(data.translate(None, leads)) for leads in (_TWO, _THREE, _FOUR)
    )
    return len(data) - two - three - four, two, three, four


def added(one: Characters, other: Characters) -> Characters:
    """The sum of both."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def tokens_of(characters: Sequence[int], rates: Sequence[float] = USUAL_RATES) -> float:
    """Expected tokens."""
    return sum(count * rate for count, rate in zip(characters, rates, strict=True))


def expected_tokens(text: str) -> int:
    """Expected tokens of a text, with a usual tokenizer."""
    return round(tokens_of(characters_of(text)))


def most_tokens(characters: Characters) -> int:
    """The maximum number of tokens from any tokenizer: one per byte."""
    one, two, three, four = characters
    return one + 2 * two + 3 * three + 4 * four


def learned_rates(rates: Rates, characters: Characters, reported: float) -> Rates:
    """Rates after a prompt whose tokens a model reported. Each rate moves by the share of its
    characters in the prompt: English teaches nothing about Chinese. A short prompt teaches
    nothing."""
    expected = tokens_of(characters, rates)
    if expected < _LEAST_LEARNED or not reported > 0.0:
        return rates
    step = _LEARNS * math.log(min(max(reported / expected, 0.25), 4.0)) / expected
    one, two, three, four = (
        min(max(rate * math.exp(step * count * rate), least), float(size))
        for rate, count, least, size in zip(rates, characters, _LEAST_RATES, BYTES, strict=True)
    )
    return one, two, three, four


def measured_rates(counts: Sequence[int]) -> Rates:
    """Rates of a tokenizer with these token counts for each of `samples()`."""
    rates: list[float] = []
    for sample, count, size, usual in zip(_SAMPLES, counts, BYTES, USUAL_RATES, strict=True):
        characters = characters_of(sample)
        others = sum(rate * characters[at] for at, rate in enumerate(rates))
        here = characters[size - 1]
        measured = (count - others) / here if count > 0 else usual
        rates.append(min(max(measured, _LEAST_RATES[size - 1]), float(size)))
    one, two, three, four = rates
    return one, two, three, four


def samples() -> tuple[str, ...]:
    """Texts for `measured_rates`."""
    return _SAMPLES
