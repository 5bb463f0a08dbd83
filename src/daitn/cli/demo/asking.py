"""The demo's second half: deploys the trained models and queries them through a gateway."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from daitn.learning.corpora.records import MultipleChoice, read_choices
from daitn.oam.pictures.queries import StreamServed
from daitn.objects.choices import as_question, chosen
from daitn.objects.errors import Unreachable
from daitn.objects.header_names import AnswerHeader
from daitn.objects.queries import Trust
from daitn.openai.errors import read_error
from daitn.openai.responses import text_of
from daitn.topology.qrrt.served import ServedModels

if TYPE_CHECKING:
    from aiohttp import ClientSession

__all__ = [
    "BASE_ANSWER_WITHIN_S",
    "STREAMS",
    "QueryStream",
    "SampleAnswers",
    "ask_plainly",
    "ask_streams",
    "base_streams",
    "examined",
]

_AT_ONCE = 4
_ANSWER_TOKENS = 4
_PLAIN_TOKENS = 96
_TIMEOUT_S = 60.0
BASE_ANSWER_WITHIN_S = 600.0
"""A large model on a CPU takes minutes for an answer."""
_CHANGES_S = 30.0
"""Time for a deployment to appear at the gateway after its request."""


class QueryStream(msgspec.Struct, frozen=True, kw_only=True):
    """Queries of one kind: questions of one test set, with the same constraints."""

    name: str
    test: str
    """Name of the test set that supplies the questions."""
    questions: int
    constraints: dict[str, Any]
    model: str = "auto"


STREAMS = (
    QueryStream(
        name="broad questions",
        test="broad",
        questions=160,
        constraints={"topic": "medicine", "min_accuracy": 0.75},
    ),
    QueryStream(
        name="expert questions",
        test="expert",
        questions=160,
        constraints={"topic": "medicine/neurology", "min_accuracy": 0.85},
    ),
    QueryStream(
        name="expert questions, topic not told", test="expert", questions=160, constraints={}
    ),
)
"""All to the model `auto`: the network chooses which model answers. The constraints are slightly
below the training targets, because each new examination moves the estimated accuracy."""


def base_streams(models: Mapping[str, str], items: int) -> tuple[QueryStream, ...]:
    """Ask each model, and `auto`, the same number of each test's questions, with their options. A
    constraint on accuracy would exclude models whose accuracy cannot be known beforehand."""
    questions = min(STREAMS[0].questions, items)
    streams = [
        QueryStream(name=f"{test}, {what}", test=test, questions=questions, constraints={}, model=m)
        for test in ("broad", "expert")
        for m, what in models.items()
    ]
    topic = {"topic": "medicine/neurology"}
    chosen = QueryStream(
        name="expert, any model", test="expert", questions=questions, constraints=topic
    )
    return (*streams, chosen)


class SampleAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Models' answers to a question in plain words."""

    question: str
    answers: dict[str, str]
    """By model."""


class _Answer(msgspec.Struct):
    """One answer."""

    right: bool
    headers: dict[str, str]
    seconds: float
    failure: str = ""


async def ask_streams(
    endpoint: str,
    tests: Path,
    models: Sequence[str],
    streams: Sequence[QueryStream] = STREAMS,
    within_s: float = _CHANGES_S,
    answer_within_s: float = _TIMEOUT_S,
) -> tuple[StreamServed, ...]:
    """Ask every stream's questions, once the gateway knows all of these models."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=answer_within_s)
    async with aiohttp.ClientSession(endpoint, timeout=timeout) as session:
        await _known(session, models, within_s)
        return tuple(
            [
                await _served(session, stream, read_choices(tests / f"{stream.test}.jsonl"))
                for stream in streams
            ]
        )


async def ask_plainly(
    endpoint: str, tests: Path, models: Sequence[str]
) -> tuple[SampleAnswers, ...]:
    """Ask the first questions of the tests without options, each model the same; none of their
    diseases is in any training data."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=BASE_ANSWER_WITHIN_S)
    questions = [
        question
        for test, many in (("broad", 2), ("expert", 1))
        for question in _questions(read_choices(tests / f"{test}.jsonl"), many)
    ]
    async with aiohttp.ClientSession(endpoint, timeout=timeout) as session:
        answered = []
        for question in dict.fromkeys(questions):
            answers = {model: await _plain(session, model, question) for model in models}
            answered.append(SampleAnswers(question=question, answers=answers))
    return tuple(answered)


def _questions(items: Sequence[MultipleChoice], many: int) -> list[str]:
    """Questions of different types."""
    by_label = {item.label: item.question for item in reversed(items)}
    return list(reversed(by_label.values()))[:many]


async def _plain(session: ClientSession, model: str, question: str) -> str:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": _PLAIN_TOKENS,
    }
    async with session.post("/v1/chat/completions", json=body) as answer:
        given = await answer.read()
    if (error := read_error(given)) is not None:
        return f"({error.message})"
    return (text_of(given) or "").strip()


async def examined(
    look: Callable[[], Awaitable[ServedModels]],
    models: Sequence[str],
    topics: Sequence[str],
    within_s: float,
) -> dict[str, dict[str, float]]:
    """Verifiers' results from querying each model, by topic, once all are known or `within_s` is
    over."""
    until_s = time.monotonic() + within_s
    while True:
        found: dict[str, dict[str, float]] = {model: {} for model in models}
        for served in (await look()).models:
            for known in served.accuracy if served.name in found else ():
                if known.trust is Trust.ASKED:
                    found[served.name][known.topic] = known.value
        missing = any(set(topics) - known.keys() for known in found.values())
        if not missing or time.monotonic() > until_s:
            return found
        await asyncio.sleep(1.0)


async def _known(session: ClientSession, models: Sequence[str], within_s: float) -> None:
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        async with session.get("/v1/models") as answer:
            listed = {model["id"] for model in (await answer.json())["data"]}
        if listed.issuperset(models):
            return
        await asyncio.sleep(0.1)
    raise Unreachable(
        f"the gateway does not know {', '.join(sorted(set(models) - listed))} yet",
        fix="see the logs of the facilities",
    )


async def _served(
    session: ClientSession, stream: QueryStream, items: Sequence[MultipleChoice]
) -> StreamServed:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(item: MultipleChoice) -> _Answer:
        async with turns:
            return await _ask(session, item, stream)

    answers = await asyncio.gather(*(ask(item) for item in items[: stream.questions]))
    good = [answer for answer in answers if not answer.failure]
    right = sum(answer.right for answer in answers) / len(answers)
    seconds = [answer.seconds for answer in good] or [0.0]
    return StreamServed(
        name=stream.name,
        constraints=stream.constraints,
        queries=len(answers),
        answered=len(good),
        accuracy=right,
        standard_error=math.sqrt(right * (1 - right) / len(answers)),
        where=_counted(
            f"{a.headers[AnswerHeader.MODEL]}@{a.headers[AnswerHeader.FACILITY]}" for a in good
        ),
        topics=_counted(answer.headers.get(AnswerHeader.TOPIC, "") for answer in good),
        p50_ms=1e3 * statistics.median(seconds),
        overhead_p50_ms=statistics.median(_numbers(good, AnswerHeader.OVERHEAD_MS) or [0.0]),
        cost_usd=sum(_numbers(good, AnswerHeader.COST_USD)),
        decision=good[-1].headers.get(AnswerHeader.DECISION, "") if good else "",
        failures=tuple(sorted({answer.failure for answer in answers if answer.failure})),
    )


async def _ask(session: ClientSession, item: MultipleChoice, stream: QueryStream) -> _Answer:
    body = {
        "model": stream.model,
        "messages": [{"role": "user", "content": as_question(item.question, item.options)}],
        "temperature": 0,
        "max_tokens": _ANSWER_TOKENS,
        "daitn": stream.constraints,
    }
    began_s = time.perf_counter()
    async with session.post("/v1/chat/completions", json=body) as answer:
        given = await answer.read()
        seconds = time.perf_counter() - began_s
        headers = {name.lower(): value for name, value in answer.headers.items()}
    if (error := read_error(given)) is not None:
        return _Answer(False, headers, seconds, error.message)
    text = text_of(given) or ""
    return _Answer(chosen(text, len(item.options)) == item.answer, headers, seconds)


def _counted(names: Any) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _numbers(answers: Sequence[_Answer], header: str) -> list[float]:
    return [float(answer.headers[header]) for answer in answers if header in answer.headers]
