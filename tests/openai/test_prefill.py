"""What a client has said of an answer is not said to it again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daitn.openai.prefill import without_beginning


def answer(*texts: Any) -> bytes:
    choices = [{"index": k, "message": {"content": text}} for k, text in enumerate(texts)]
    return json.dumps({"id": "x", "choices": choices}).encode()


def asked(*messages: dict[str, Any]) -> bytes:
    return json.dumps({"model": "m", "messages": messages}).encode()


BEGUN = ({"role": "user", "content": "json?"}, {"role": "assistant", "content": "{"})


def contents(body: bytes) -> list[Any]:
    return [choice["message"]["content"] for choice in json.loads(body)["choices"]]


def test_a_beginning_that_is_said_again_is_left_out() -> None:
    said = without_beginning(answer('{"a": 1}', '"b": 2}', "{ü", None), asked(*BEGUN))
    assert contents(said) == ['"a": 1}', '"b": 2}', "ü", None]


@pytest.mark.parametrize("between", ["", "\n", "\n\n"])
def test_a_beginning_in_parts_is_left_out_however_they_are_joined(between: str) -> None:
    parts = [{"type": "text", "text": text} for text in ("The", "n")]
    begun = asked(BEGUN[0], {"role": "assistant", "content": parts})
    assert contents(without_beginning(answer(f"The{between}n more"), begun)) == [" more"]


@pytest.mark.parametrize(
    "request_",
    [
        asked(BEGUN[0]),
        asked(),
        asked(BEGUN[0], {"role": "assistant", "content": ""}),
        asked(BEGUN[0], {"role": "assistant", "content": None}),
        asked(BEGUN[0], {"role": "assistant", "content": [{"type": "image_url"}]}),
        asked(*BEGUN, {"role": "user", "content": "{"}),
        b'{"messages": 7}',
        b"[]",
    ],
)
def test_other_answers_stay_as_they_are(request_: bytes) -> None:
    body = answer('{"a": 1}')
    assert without_beginning(body, request_) == body
