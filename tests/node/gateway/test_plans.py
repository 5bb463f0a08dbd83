"""Cascades and ensembles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daitn.node.gateway.voting import vote
from daitn.objects.choices import as_question
from daitn.openai.responses import confidence, text_of
from tests.node.gateway.scene import Network, client, deployment
from tests.scenes.openai_server import OpenAiServer

Servers = tuple[OpenAiServer, ...]
OPTIONS = ["rest", "inhalers", "surgery", "prayer"]
CHOICE: Any = {
    "messages": [{"role": "user", "content": as_question("What helps against asthma?", OPTIONS)}],
    "max_tokens": 5,
}
pytestmark = pytest.mark.processes


@pytest.fixture
def cascade(network: Network, servers: Servers) -> Network:
    servers[0].control(text="cheap words")
    servers[1].control(text="better words")
    network.facility("edge", servers[0].url, deployment("small"))
    network.facility("dc", servers[1].url, deployment("large", price_usd_per_1k_out=10.0))
    network.measured("small", "edge", "medicine", 0.6)
    network.measured("large", "dc", "medicine", 0.95)
    return network


CASCADE: Any = {
    "messages": [{"role": "user", "content": "What helps?"}],
    "max_tokens": 20,
    "extra_body": {
        "daitn": {
            "strategy": "cascade",
            "topic": "medicine",
            "min_accuracy": 0.9,
            "escalate_below": 0.7,
        }
    },
}


@pytest.mark.parametrize(
    ("logprob", "text", "model", "attempts"),
    [(-0.05, "cheap words", "small", "1"), (-2.0, "better words", "large", "2")],
    ids=["sure", "unsure"],
)
async def test_a_cascade_escalates_where_the_cheap_model_is_unsure(
    cascade: Network, servers: Servers, logprob: float, text: str, model: str, attempts: str
) -> None:
    servers[0].control(logprob=logprob)
    gateway = await cascade.gateway()

    raw = await client(gateway).chat.completions.with_raw_response.create(model="auto", **CASCADE)

    answer = raw.parse()
    assert answer.choices[0].message.content == text
    assert answer.choices[0].logprobs is None
    assert (raw.headers["daitn-model"], raw.headers["daitn-strategy"]) == (model, "cascade")
    assert raw.headers["daitn-attempts"] == attempts


async def test_a_cascade_streams_and_tells_logprobs_where_they_are_wished(
    cascade: Network, servers: Servers
) -> None:
    servers[0].control(logprob=-0.05)
    gateway = await cascade.gateway()
    ask = client(gateway).chat.completions

    stream = await ask.create(
        model="auto", stream=True, stream_options={"include_usage": True}, **CASCADE
    )
    chunks = [chunk async for chunk in stream]
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    told = await ask.create(model="auto", logprobs=True, **CASCADE)

    assert pieces == ["cheap words", None]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2
    logprobs = told.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].logprob == -0.05


async def test_a_cascade_goes_on_where_the_cheap_model_fails(
    cascade: Network, servers: Servers
) -> None:
    servers[0].control(fail=1.0)
    gateway = await cascade.gateway()

    answer = await client(gateway).chat.completions.create(model="auto", **CASCADE)

    assert answer.choices[0].message.content == "better words"


@pytest.fixture
def three(network: Network, servers: Servers, tmp_path: Path) -> Network:
    """Three models: the first and the second know the answer, the third is wrong every time."""
    known = tmp_path / "answers.jsonl"
    item = {"question": "What helps against asthma?", "options": OPTIONS, "answer": 1}
    known.write_text(json.dumps(item) + "\n")
    for index, server in enumerate(servers):
        server.control(answers=str(known), accuracy=0.0 if index == 2 else 1.0)
        network.facility(f"mdf-{index}", server.url, deployment(f"model-{index}"))
    return network


WISHES = {"strategy": "ensemble", "topic": "medicine"}
ENSEMBLE: Any = {**CHOICE, "extra_body": {"daitn": WISHES}}
PATIENT: Any = {**CHOICE, "extra_body": {"daitn": {**WISHES, "hedge": False}}}
"""It leaves out nobody who is late."""


async def test_an_ensemble_outvotes_a_liar(three: Network) -> None:
    for index, value in enumerate((0.7, 0.7, 0.75)):
        three.measured(f"model-{index}", f"mdf-{index}", "medicine", value)
    gateway = await three.gateway()

    raw = await client(gateway).chat.completions.with_raw_response.create(model="auto", **PATIENT)

    assert raw.parse().choices[0].message.content == "B"
    assert raw.headers["daitn-model"] in ("model-0", "model-1")
    assert (raw.headers["daitn-strategy"], raw.headers["daitn-attempts"]) == ("ensemble", "3")


async def test_a_member_that_fails_is_replaced(three: Network, servers: Servers) -> None:
    servers[0].control(fail=1.0)
    three.facility("spare", servers[1].url, deployment("model-0"))
    gateway = await three.gateway()

    answer = await client(gateway).chat.completions.create(model="auto", **PATIENT)

    assert answer.choices[0].message.content == "B"
    assert gateway.queries(1)[0].attempts == 4


async def test_an_ensemble_does_not_wait_for_a_member_that_hangs(
    three: Network, servers: Servers
) -> None:
    servers[2].control(hang=True)
    gateway = await three.gateway()

    stream = await client(gateway).chat.completions.create(model="auto", stream=True, **ENSEMBLE)

    assert [chunk.choices[0].delta.content async for chunk in stream] == ["B", None]


def test_votes_weigh_as_much_as_their_accuracy() -> None:
    nan = float("nan")
    assert vote(["A", "B", "B"], [0.95, 0.6, 0.6], 2) == 0
    assert vote(["A", "B", "B"], [0.7, 0.7, 0.7], 2) == 1
    assert vote(["A", "B", "B"], [nan, nan, nan], 4) == 1
    assert vote(["A", "B", "B"], [0.8, nan, nan], 4) == 0
    # Of four options, 0.4 is better than chance: two of them outweigh one of 0.6.
    assert vote(["A", "B", "B"], [0.6, 0.45, 0.45], 4) == 1
    assert vote(["It is C.", "c)", "the answer: D"], [0.5, 0.5, 0.5], 4) == 0
    assert vote(["Yes.  Indeed", "yes. indeed", "no"], [0.65, 0.65, 0.7], 0) == 0


def test_confidence_is_the_geometric_mean_of_the_tokens_probabilities() -> None:
    chat = b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [%s]}}]}'
    tokens = b'{"logprob": -1.0}, {"logprob": -3.0}'
    older = b'{"choices": [{"text": "x", "logprobs": {"token_logprobs": [null, -2.0]}}]}'
    assert confidence(chat % tokens) == pytest.approx(0.1353, abs=1e-4)
    assert confidence(older) == pytest.approx(0.1353, abs=1e-4)
    assert confidence(chat % b"") is None
    assert confidence(b"{}") is None
    assert confidence(b"<html>") is None
    assert text_of(older) == "x"
