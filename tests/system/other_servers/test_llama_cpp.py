"""What llama.cpp can do beyond the common, asked through a facility and a gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.scenes.llama_cpp import TOOL_CALL
from tests.scenes.waiting import wait_until

from .scene import Asker, asking
from .servers import Server, llama_cpp

pytestmark = pytest.mark.processes

ENDLESS_TOKENS = 100_000
ENDLESS: dict[str, Any] = {"max_tokens": ENDLESS_TOKENS, "extra_body": {"ignore_eos": True}}
"""Half a minute and more of it."""
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks something up.",
        "parameters": {
            "type": "object",
            "properties": {"where": {"enum": ["here", "there"]}},
            "required": ["where"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llama.cpp")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    yield from _running(llama_cpp(folder))


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Iterator[Server]:
    yield from _running(llama_cpp(folder, "--embeddings"))


@pytest.fixture(scope="module")
def asker(folder: Path, server: Server, embedder: Server) -> Iterator[Asker]:
    everything = server.upstream("llama", apis=["chat", "completions", "embeddings"])
    vectors = embedder.upstream("vectors", apis=["embeddings"])
    with asking(folder, everything, vectors) as one:
        yield one


def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _busy(server: Server) -> bool:
    return any(slot["is_processing"] for slot in server.get("/slots"))


def _idle_after_silence(server: Server) -> bool:
    """It looks for who waits for a whole answer after a second in which nobody asks anything."""
    time.sleep(2.5)
    return not _busy(server)


def test_what_is_said_of_sampling_is_heeded(asker: Asker) -> None:
    greedy = asker.says(max_tokens=16)
    stop = greedy[6]
    assert asker.says(max_tokens=16, stop=[stop]) == greedy.partition(stop)[0]
    warm: dict[str, Any] = {"temperature": 1.0, "max_tokens": 16}
    assert asker.says(**warm, seed=5) == asker.says(**warm, seed=5)
    assert asker.says(**warm, seed=5) != asker.says(**warm, seed=6)
    assert asker.says(**warm, seed=5, top_p=1e-6) == greedy


def test_logprobs_come_with_the_answer(asker: Asker) -> None:
    choice = asker.whole(logprobs=True, top_logprobs=2).choices[0]
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert "".join(token.token for token in tokens) == choice.message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)


def test_an_answer_has_the_form_that_was_asked_for(asker: Asker) -> None:
    schema = {"name": "grade", "strict": True, "schema": {"enum": ["low", "high"]}}
    wish: dict[str, Any] = {"type": "json_schema", "json_schema": schema}
    assert json.loads(asker.says(max_tokens=32, response_format=wish)) in ("low", "high")
    pieces = asker.stream(max_tokens=32, response_format=wish)
    streamed = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert json.loads(streamed) in ("low", "high")


def test_a_tool_is_called(asker: Asker) -> None:
    choice = asker.whole(
        max_tokens=256,
        tools=[LOOK],
        tool_choice="required",
        # Random weights would not begin the call by themselves.
        logit_bias={str(TOOL_CALL): 100},
    ).choices[0]
    assert choice.message.tool_calls
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "look"
    assert json.loads(call.function.arguments)["where"] in ("here", "there")


def test_completions_and_embeddings(asker: Asker) -> None:
    completion = asker.client.completions.create(model="llama", prompt="hello", max_tokens=4)
    assert completion.model == "llama"
    assert completion.choices[0].text
    answer = asker.client.embeddings.create(model="vectors", input=["hello", "bye", "hello"])
    assert answer.model == "vectors"
    first, other, again = (one.embedding for one in answer.data)
    assert first == pytest.approx(again, abs=1e-5)
    assert len(first) == len(other) == 64
    assert first != pytest.approx(other, abs=1e-2)


@pytest.mark.parametrize("streams", [True, False])
def test_what_nobody_waits_for_is_not_computed(
    asker: Asker, server: Server, *, streams: bool
) -> None:
    if streams:
        stream = asker.stream(**ENDLESS)
        next(iter(stream))
        assert _busy(server)
        stream.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            asker.whole(**ENDLESS, timeout=1.0)
    wait_until(lambda: _idle_after_silence(server))
    (slot,) = server.get("/slots")
    assert slot["n_prompt_tokens"] < ENDLESS_TOKENS, "it was computed to its end"


def test_a_bad_query_harms_nobody_else(asker: Asker) -> None:
    with pytest.raises(openai.BadRequestError, match="grammar"):
        asker.whole(extra_body={"grammar": "root ::= ((("})
    with pytest.raises(openai.BadRequestError, match="context size"):
        asker.whole(messages=[{"role": "user", "content": "xyz " * 60_000}])
    with pytest.raises(openai.BadRequestError, match="embeddings"):  # 501 is what it says.
        asker.client.embeddings.create(model="llama", input="hello")
    assert asker.says()
