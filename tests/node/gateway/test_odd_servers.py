"""Odd servers, asked in every way: what is an answer, what is none, and what has broken off."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
import pytest_asyncio

from daitn.node.openai_http import answers as http_answers
from daitn.objects.queries import QueryStatus
from tests.node.gateway.odd_world import BOUND, MODES, Odd, World, ask, opened_world, scene
from tests.node.gateway.scene import DEADLINE_S, client, deadlines_pass
from tests.scenes.raw_server import chunked, event, piece, response, whole
from tests.scenes.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

DONE = b"data: [DONE]\n\n"
ERROR = {"message": "CUDA out of memory", "type": "server_error", "code": 500}
ROLE = piece(role="assistant", delta={"role": "assistant", "content": ""})
STOP = piece(reason="stop")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened_world(tmp_path_factory.mktemp("odd")) as world:
        yield world


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_answers, "LINGER_S", 0.2)


def coded(coding: str, compress: Any) -> Odd:
    stream = piece("odd") + STOP + DONE
    return Odd(
        chunked(compress(stream), content_encoding=coding),
        response(compress(whole("odd")), content_encoding=coding),
        keeps=True,
    )


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


BEGUN = chunked(piece("odd"), ends=False)


def broken(*parts: bytes) -> Odd:
    """A stream that says something, and later this."""
    return Odd((BEGUN, chunked(*parts).partition(b"\r\n\r\n")[2]))


NONE = {
    "error first": Odd(
        chunked(event({"error": ERROR}), DONE), response(b'{"error": {"message": "no"}}')
    ),
    "error beside empty choices": Odd(
        chunked(event({"error": ERROR, "choices": []}), DONE),
        response(json.dumps({"choices": [], "error": "no"}).encode()),
    ),
    "error beside a choice": Odd(
        chunked(event({"error": ERROR, "choices": [{"index": 0, "delta": {"content": "x"}}]})),
        response(whole("x", error=ERROR)),
    ),
    "error as text": Odd(chunked(event({"error": "no"}), DONE), response(b'{"error": "no"}')),
    "error event": Odd(
        chunked(b"event: error\n" + event(ERROR)),
        response(b'{"object": "error", "message": "no", "code": 500}'),
    ),
    "error event of text": Odd(chunked(b"event: error\ndata: it is broken\n\n")),
    "error by its type": Odd(
        chunked(event({"type": "error", "error": ERROR})),
        response(b'{"type": "error", "message": "x"}'),
    ),
    "error field of llama.cpp": Odd(chunked(b"error: " + json.dumps(ERROR).encode() + b"\n\n")),
    "error after the role": Odd(chunked(ROLE, event({"error": ERROR}))),
    "finished by an error": Odd(
        chunked(ROLE, piece(reason="error")),
        response(
            whole(choices=[{"index": 0, "message": {"content": ""}, "finish_reason": "error"}])
        ),
    ),
    "error of a choice": Odd(
        chunked(piece("x", error=ERROR)), response(whole(choices=[{"index": 0, "error": ERROR}]))
    ),
    "only the end": Odd(chunked(DONE), response(whole(choices=[]))),
    "comments, then death": Odd(chunked(b": keep-alive\n\n", ends=False), response(whole())[:-9]),
    "nothing but bookkeeping": Odd(
        chunked(
            b"retry: 3000\n\n",
            b"event: ping\ndata: {}\n\n",
            ROLE,
            event({"choices": []}),
            b"id: 7\n\n",
        )
    ),
    "bookkeeping, then the end": Odd(chunked(ROLE, DONE)),
    "half an event": Odd(chunked(b'data: {"choices": [{"del'), response(b'{"choices": [{"mess')),
    "not UTF-8": Odd(chunked(b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n')),
    "no JSON": Odd(chunked(b"data: hello\n\n"), response(b"<html>hello</html>")),
    "choices as an object": Odd(response(b'{"choices": {"0": {}}}')),
    "choices of nothing": Odd(response(b'{"choices": [null]}')),
    "a choice that says nothing": Odd(response(b'{"choices": [{"finish_reason": "stop"}]}')),
    "a message of nothing": Odd(response(b'{"choices": [{"index": 0, "message": null}]}')),
    "empty": Odd(chunked(), response(b"")),
    "gzip by name only": Odd(
        chunked(piece("odd"), DONE, content_encoding="gzip"),
        response(whole(), content_encoding="gzip"),
    ),
    "gzip cut short": Odd(
        chunked(gzip.compress(piece("odd"))[:-12], content_encoding="gzip"),
        response(gzip.compress(whole())[:-30], content_encoding="gzip"),
    ),
    "an unknown coding": Odd(
        chunked(b"\x0b\x02\x80", content_encoding="br"),
        response(b"\x0b\x02", content_encoding="br"),
    ),
    "a bomb": Odd(response(gzip.compress(b" " * (1 << 25)), content_encoding="gzip")),
    "too long": Odd(chunked(piece("x" * BOUND)), response(whole("x" * BOUND))),
}
"""Nothing of an answer: another deployment is asked."""

BROKEN = {
    "an error in the middle": broken(event({"error": ERROR}), DONE),
    "one of two has no end": broken(piece("two", index=1), STOP, DONE),
    "no end": broken(),
    "half an event later": broken(piece("much more")[:-9]),
    "death": Odd((BEGUN, b"")),
    "a call without its end": broken(
        piece(delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}]}), DONE
    ),
    "no JSON later": broken(b"data: hello\n\n", STOP, DONE),
    "too long in all": broken(*(piece("x" * (BOUND // 3)),) * 4),
}
"""It begins, and does not come to its end."""

GOOD = {
    "ended by every piece": Odd(chunked(piece("o", "stop"), piece("dd", "stop"), DONE)),
    "ended too early": Odd(chunked(STOP, piece("o"), STOP, piece("dd"), STOP, DONE)),
    "no [DONE]": Odd(chunked(piece("odd"), STOP)),
    "no finish_reason": Odd(chunked(piece("odd"), DONE)),
    "no last chunk": Odd(chunked(piece("odd"), STOP, DONE, ends=False)),
    "open after [DONE]": Odd(
        chunked(piece("odd"), STOP, DONE, ends=False), response(whole("odd")), keeps=True
    ),
    "open after the reason": Odd(
        chunked(piece("odd"), STOP, ends=False), response(whole("odd")), keeps=True
    ),
    "no line end after [DONE]": Odd(chunked(piece("odd") + STOP + b"data: [DONE]")),
    "one line end after the last": Odd(chunked(piece("odd"), STOP[:-1])),
    "an error after the end": Odd(chunked(piece("odd"), STOP, event({"error": ERROR}))),
    "a comment first": Odd(chunked(b": hello\n\n", ROLE, piece("odd"), STOP, DONE)),
    "carriage returns": Odd(chunked((piece("odd") + STOP + DONE).replace(b"\n", b"\r"))),
    "mixed line ends": Odd(
        chunked(piece("odd").replace(b"\n", b"\r\n"), STOP[:-1] + b"\r\n", DONE)
    ),
    "several lines of data": Odd(chunked(piece("odd").replace(b", ", b",\ndata: "), STOP, DONE)),
    "a byte order mark": Odd(
        chunked(b"\xef\xbb\xbf" + piece("odd"), STOP, DONE),
        response(b"\xef\xbb\xbf" + whole("odd")),
    ),
    "as text": Odd(chunked(piece("odd"), STOP, DONE, kind="text/plain")),
    "as NDJSON": Odd(chunked(piece("odd"), STOP, DONE, kind="application/x-ndjson")),
    "whole": Odd(response(whole("odd"))),
    "whole, until the connection ends": Odd(b"HTTP/1.1 200 OK\r\n\r\n" + whole("odd")),
    "bytes one by one": Odd(chunked(*(bytes([byte]) for byte in piece("odd") + STOP + DONE))),
    "a whole answer as an event": Odd(chunked(event(json.loads(whole("odd"))), DONE)),
    "a whole answer after its pieces": Odd(
        chunked(piece("odd"), STOP, event(json.loads(whole("odd"))), DONE)
    ),
    "messages as pieces": Odd(
        chunked(*(piece(delta=None, message={"content": part}) for part in "odd"), STOP, DONE)
    ),
    "a delta of null": Odd(chunked(piece("odd"), piece(reason="stop", delta=None), DONE)),
    "no delta": Odd(
        chunked(piece("odd"), event({"choices": [{"index": 0, "finish_reason": "stop"}]}), DONE)
    ),
    "text as in a completion": Odd(
        chunked(event({"choices": [{"index": 0, "text": "odd"}]}), STOP, DONE),
        response(whole(choices=[{"text": "odd", "finish_reason": "stop"}])),
    ),
    "a delta in a whole answer": Odd(response(whole(choices=[{"delta": {"content": "odd"}}]))),
    "pieces in parts": Odd(
        chunked(
            piece(delta={"content": [{"type": "text", "text": "o"}, {"text": "d"}]}),
            piece(delta={"content": ["d"]}),
            STOP,
            DONE,
        ),
        response(whole(None, message={"content": ["o", {"type": "text", "text": "dd"}]})),
    ),
    "numbers that are none": Odd(
        chunked(piece("o", index="0"), piece("d", index=0.0), piece("d", index=None), STOP, DONE),
        response(
            whole(choices=[{"index": "0", "message": {"content": "odd"}, "finish_reason": "stop"}])
        ),
    ),
    "no choices in an event": Odd(
        chunked(piece("odd"), event({"choices": None}), event({"id": "x"}), STOP, DONE)
    ),
    "named events": Odd(
        chunked(b"event: thread.message\n" + piece("odd"), b"event: end\n" + STOP, DONE)
    ),
    "no counts": Odd(
        chunked(piece("odd"), STOP, event({"choices": [], "usage": None}), DONE),
        response(whole("odd", usage={"prompt_tokens": 5, "completion_tokens": None})),
    ),
    "counts as text": Odd(response(whole("odd", usage="none"))),
    "no id": Odd(response(whole("odd", id=None, created=None))),
    "content in parts": Odd(
        response(whole(None, message={"content": [{"type": "text", "text": "odd"}]}))
    ),
    "NaN": Odd(
        chunked(
            piece("odd", logprobs={"content": [{"token": "a", "logprob": float("nan")}]}),
            STOP,
            DONE,
        ),
        response(whole("odd", usage={"prompt_tokens": float("inf")})),
    ),
    "half a surrogate pair": Odd(response(whole("odd", note="\ud83d"))),
    "as long as may be": Odd(response(whole("odd", pad="x" * (BOUND - 400)))),
    "gzip": coded("gzip", gzip.compress),
    "x-gzip in two members": coded(
        "x-gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])
    ),
    "deflate": coded("deflate", zlib.compress),
    "raw deflate": coded("deflate", raw_deflate),
    "gzip twice": coded("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    "identity": coded("identity", lambda data: data),
}
"""Answers, said in odd ways."""


def _each(odds: dict[str, Odd], modes: Iterable[str]) -> list[Any]:
    return [
        pytest.param(odd, mode, id=f"{name}-{mode}") for name, odd in odds.items() for mode in modes
    ]


UNSTREAMED = [mode for mode in MODES if "stream" not in mode]
"""Where what was said can be taken back."""


@pytest.mark.parametrize(("odd", "mode"), [*_each(NONE, MODES), *_each(BROKEN, UNSTREAMED)])
async def test_what_is_no_answer_is_answered_elsewhere(world: World, odd: Odd, mode: str) -> None:
    world.tell(odd)
    asked = await ask(*await scene(world, mode), mode)

    assert asked.status == 200, asked.body
    assert asked.text == "fine"
    assert asked.record.status is QueryStatus.ANSWERED
    if mode not in ("packet", "ensemble", "hedged"):
        assert asked.record.site == "well"
        assert asked.failed == {"odd"}


@pytest.mark.parametrize("mode", ["stream", "relayed stream"])
@pytest.mark.parametrize("odd", BROKEN.values(), ids=BROKEN)
async def test_what_breaks_off_ends_with_an_error(world: World, odd: Odd, mode: str) -> None:
    world.tell(odd)
    asked = await ask(*await scene(world, mode), mode)

    assert asked.status == 200
    assert asked.error["code"] == "broken_off"
    assert b"[DONE]" not in asked.body
    assert b"fine" not in asked.body
    assert (asked.record.status, asked.record.site) == (QueryStatus.FAILED, "odd")
    assert asked.failed == {"odd"}


ALONE = [mode for mode in MODES if mode != "hedged"]
"""A hedge of one is none."""


@pytest.mark.parametrize(("odd", "mode"), _each(GOOD, ALONE))
async def test_an_answer_counts_however_it_is_said(world: World, odd: Odd, mode: str) -> None:
    world.tell(odd)
    asked = await ask(*await scene(world, mode, alone=mode not in ("ensemble", "cascade")), mode)

    assert asked.status == 200, asked.body
    # A cascade needs to know how sure the answer is, and these do not say.
    assert asked.text == ("fine" if mode in ("ensemble", "cascade") else "odd")
    assert asked.record.status is QueryStatus.ANSWERED
    assert not asked.failed


CALLS = [
    {"id": f"call-{at}", "type": "function", "function": {"name": "f", "arguments": '{"model": 1}'}}
    for at in range(2)
]
TOOLS: Any = [{"type": "function", "function": {"name": "f"}}]
HELLO: Any = [{"role": "user", "content": "hi"}]


async def test_a_whole_answer_streams_as_openais_client_reads_it(world: World) -> None:
    said = {"tool_calls": CALLS, "reasoning_content": "so"}
    world.tell(Odd(response(whole(None, message=said))))
    _, gateway = await scene(world, "whole", alone=True)

    async with (
        client(gateway) as asking,
        asking.chat.completions.stream(
            model="m", messages=HELLO, tools=TOOLS, stream_options={"include_usage": True}
        ) as stream,
    ):
        answer = await stream.get_final_completion()

    calls = answer.choices[0].message.tool_calls or []
    assert [(call.id, call.function.arguments) for call in calls] == [
        (call["id"], '{"model": 1}') for call in CALLS
    ]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
    assert answer.model == "m"


def calls_(*calls: dict[str, Any], **delta: Any) -> bytes:
    return piece(delta={"tool_calls": [*calls], **delta})


def begins(id_: Any, name: str | None, arguments: Any = "", **more: Any) -> dict[str, Any]:
    """A piece of a call; what is none is not said."""
    function = {"name": name, "arguments": arguments}
    said = {key: value for key, value in function.items() if value is not None}
    head = {} if id_ is None else {"id": id_, "type": "function"}
    return {**head, "function": said, **more}


def goes_on(arguments: Any, **more: Any) -> dict[str, Any]:
    return begins(None, None, arguments, **more)


ONE, TWO = '{"x": 1}', '{"y": 2}'
ASKED = (("f", ONE), ("g", TWO))
NUMBERED_ODDLY = {
    "no numbers": [calls_(begins("a", "f", ONE)), calls_(begins("b", "g", TWO))],
    "no numbers in one event": [calls_(begins("a", "f", ONE), begins("b", "g", TWO))],
    "no numbers, in pieces": [
        calls_(begins("a", "f")),
        *(calls_(goes_on(part)) for part in ('{"x"', ": 1}")),
        calls_(begins("b", "g", "{")),
        calls_(goes_on('"y": 2}')),
    ],
    "no numbers, pieces together": [
        calls_(begins("a", "f", '{"x"'), begins("b", "g", "{")),
        calls_(goes_on(": 1}"), goes_on('"y": 2}')),
    ],
    "numbers of null": [
        calls_(begins("a", "f", ONE, index=None)),
        calls_(begins("b", "g", TWO, index=None)),
    ],
    "a number at first only": [
        calls_(begins("a", "f", index=0)),
        calls_(goes_on(ONE)),
        calls_(begins("b", "g", TWO)),
    ],
    "a number later only": [
        calls_(begins("a", "f")),
        calls_(goes_on(ONE, index=0)),
        calls_(begins("b", "g", TWO, index=1)),
    ],
    "numbers from 1": [
        calls_(begins("a", "f", '{"x":', index=1)),
        calls_(goes_on("1}", index=1)),
        calls_(begins("b", "g", TWO, index=2)),
    ],
    "numbers as texts": [
        calls_(begins("a", "f", ONE, index="0")),
        calls_(begins("b", "g", index="1")),
        calls_(goes_on(TWO, index="1")),
    ],
    "the second first": [
        calls_(begins("a", "f", ONE, index=1), begins("b", "g", TWO, index=0)),
    ],
    "all numbered 0": [
        calls_(begins("a", "f", '{"x"', index=0)),
        calls_(goes_on(": 1}", index=0)),
        calls_(begins("b", "g", index=0)),
        calls_(goes_on(TWO, index=0)),
    ],
    "all numbered 0, without ids": [
        calls_(begins("", "f", ONE, index=0)),
        calls_(begins("", "g", TWO, index=0)),
    ],
    "all numbered 0, in one event": [
        calls_(begins("a", "f", ONE, index=0), begins("b", "g", TWO, index=0)),
    ],
    "id and name again": [
        calls_(*(begins("a", "f", part, index=0) for part in ('{"x"', ": 1}"))),
        calls_(*(begins("b", "g", part, index=1) for part in ('{"y"', ": 2}"))),
    ],
    "the name again": [
        *(calls_(begins(None, "f", part, index=0)) for part in ("", '{"x"', ": 1}")),
        *(calls_(begins(None, "g", part, index=1)) for part in ("", TWO)),
    ],
    "another id for each piece": [
        calls_(begins("a", "f", index=0)),
        *(calls_({**goes_on(part, index=0), "id": part}) for part in ('{"x"', ": 1}")),
        calls_(begins("b", "g", TWO, index=1)),
    ],
    "one id for all": [
        calls_(begins("c", "f", ONE, index=0)),
        calls_(begins("c", "g", TWO, index=1)),
    ],
    "one id for all, without numbers": [
        calls_(begins("c", "f", ONE)),
        calls_(begins("c", "g")),
        calls_({**goes_on(TWO), "id": "c"}),
    ],
    "one id for all, again and again": [
        calls_(*(begins("c", "f", part, index=0) for part in ('{"x"', ": 1}"))),
        *(calls_(begins("c", "g", part, index=1)) for part in ("", '{"y"', ": 2}")),
    ],
    "all numbered 0, with one id": [
        calls_(begins("c", "f", ONE, index=0)),
        calls_(begins("c", "g", TWO, index=0)),
    ],
    "empty ids and names later": [
        calls_(begins("a", "f", index=0)),
        *(calls_(begins("", "", part, index=0)) for part in ('{"x"', ": 1}")),
        calls_(begins("b", "g", TWO, index=1)),
    ],
    "empty types later": [
        calls_(begins("a", "f", index=0)),
        calls_({**goes_on(ONE, index=0), "type": ""}, role=""),
        calls_(begins("b", "g", TWO, index=1)),
    ],
    "names after ids": [
        calls_({"index": 0, "id": "a", "type": "function"}),
        calls_(begins(None, "f", ONE, index=0)),
        calls_({"index": 1, "id": "b", "type": "function", "function": {"name": ""}}),
        calls_(begins(None, "g", TWO, index=1)),
    ],
    "empty objects at first": [
        calls_(begins("a", "f", {}, index=0)),
        calls_(goes_on(ONE, index=0)),
        calls_(begins("b", "g", "{}", index=1)),
        *(calls_(goes_on(part, index=1)) for part in ('{"y"', ": 2}")),
    ],
    "empty objects at the end": [
        calls_(begins("a", "f", ONE, index=0)),
        calls_(goes_on({}, index=0)),
        calls_(begins("b", "g", TWO, index=1), goes_on("{}", index=1)),
    ],
    "all of it again": [
        calls_(begins("a", "f", ONE, index=0)),
        calls_(begins("b", "g", TWO, index=1)),
        calls_(begins("a", "f", ONE, index=0), begins("b", "g", TWO, index=1)),
    ],
    "arguments as objects": [
        calls_(begins("a", "f", json.loads(ONE), index=0)),
        calls_(begins("b", "g", json.loads(TWO), index=1)),
    ],
    "arguments of null at first": [
        calls_({"index": 0, "id": "a", "function": {"name": "f", "arguments": None}}),
        calls_(goes_on(ONE, index=0)),
        calls_({"index": 1, "id": "b", "function": {"name": "g"}}),
        calls_(goes_on(TWO, index=1)),
    ],
    "a message with calls": [
        piece(delta=None, message={"tool_calls": [begins("a", "f", ONE), begins("b", "g", TWO)]})
    ],
}
"""Two calls, said in streams in odd ways."""


@pytest.mark.parametrize("parts", NUMBERED_ODDLY.values(), ids=NUMBERED_ODDLY)
async def test_calls_are_numbered_for_openais_client(world: World, parts: list[bytes]) -> None:
    world.tell(Odd(chunked(*parts, piece(reason="tool_calls"), DONE), keeps=True))
    _, gateway = await scene(world, "whole", alone=True)

    async with client(gateway) as asking:
        async with asking.chat.completions.stream(model="m", messages=HELLO, tools=TOOLS) as stream:
            streamed: Any = await stream.get_final_completion()
        put_together: Any = await asking.chat.completions.create(model="m", messages=HELLO)
        items = (await asking.responses.create(model="m", input="hi", stream=False)).output
        async with asking.responses.stream(model="m", input="hi") as events:
            items_streamed = (await events.get_final_response()).output

    for answer in (streamed, put_together):
        found = [
            (call.function.name, json.loads(call.function.arguments))
            for call in answer.choices[0].message.tool_calls
        ]
        assert found == [("f", {"x": 1}), ("g", {"y": 2})]
        ids = [call.id for call in answer.choices[0].message.tool_calls]
        assert all(ids)
        assert len({*ids}) == 2
    for output in (items, items_streamed):
        called = [
            (item.name, json.loads(item.arguments))
            for item in output
            if item.type == "function_call"
        ]
        assert called == [("f", {"x": 1}), ("g", {"y": 2})]


ONE_CALL = {
    "the name in pieces": (
        [begins("a", "get_"), begins(None, "wea"), begins("a", "ther", ONE)],
        ("get_weather", ONE),
    ),
    "the name in pieces, and again": (
        [begins("a", "get_"), begins(None, "weather"), begins("a", "get_weather", ONE)],
        ("get_weather", ONE),
    ),
    "the name in pieces of one event": (
        [[begins("a", "get_", index=0), begins(None, "weather", ONE, index=0)]],
        ("get_weather", ONE),
    ),
    "no arguments": ([begins("a", "f", "{}")], ("f", "{}")),
    "no arguments, again": ([begins("a", "f", "{}")] * 2, ("f", "{}")),
    "no arguments, in pieces": ([begins("a", "f", "{"), goes_on("}")], ("f", "{}")),
    "an empty object within": (
        [begins("a", "f", '{"x": '), goes_on("{}"), goes_on("}")],
        ("f", '{"x": {}}'),
    ),
}


@pytest.mark.parametrize("ends", ["at the end", "apart"])
@pytest.mark.parametrize(("parts", "said"), ONE_CALL.values(), ids=ONE_CALL)
async def test_a_call_is_the_same_in_every_api(
    world: World, parts: list[Any], said: tuple[str, str], ends: str
) -> None:
    *first, last = [
        piece(
            delta={"tool_calls": part if isinstance(part, list) else [{**part, "index": 0}]},
            reason="tool_calls" if ends == "at the end" and at == len(parts) else None,
        )
        for at, part in enumerate(parts, 1)
    ]
    rest = [piece(reason="tool_calls")] if ends == "apart" else []
    world.tell(Odd(chunked(*first, last, *rest, DONE), keeps=True))
    _, gateway = await scene(world, "whole", alone=True)

    async with client(gateway) as asking:
        async with asking.chat.completions.stream(model="m", messages=HELLO) as stream:
            streamed: Any = await stream.get_final_completion()
        put_together: Any = await asking.chat.completions.create(model="m", messages=HELLO)
        async with asking.responses.stream(model="m", input="hi") as events:
            (item,) = (await events.get_final_response()).output

    for answer in (streamed, put_together):
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, call.function.arguments) == said
    assert item.type == "function_call"
    assert (item.name, item.arguments) == said


WHOLE_CALLS = {
    "no ids": [{"function": {"name": name, "arguments": said}} for name, said in ASKED],
    "empty ids": [
        {"id": "", "function": {"name": name, "arguments": said}} for name, said in ASKED
    ],
    "arguments as objects": [
        {"id": name, "type": None, "function": {"name": name, "arguments": json.loads(said)}}
        for name, said in ASKED
    ],
    "one id": [{"id": "c", "function": {"name": name, "arguments": said}} for name, said in ASKED],
    "no function around": [
        {"id": name, "name": name, "arguments": json.loads(said)} for name, said in ASKED
    ],
}


@pytest.mark.parametrize("calls", WHOLE_CALLS.values(), ids=WHOLE_CALLS)
async def test_calls_of_whole_answers_are_those_of_openais_client(
    world: World, calls: list[Any]
) -> None:
    world.tell(Odd(response(whole(None, message={"tool_calls": calls})), keeps=True))
    _, gateway = await scene(world, "whole", alone=True)

    async with client(gateway) as asking:
        answered: Any = await asking.chat.completions.create(model="m", messages=HELLO)
        async with asking.chat.completions.stream(model="m", messages=HELLO, tools=TOOLS) as stream:
            streamed: Any = await stream.get_final_completion()
        items = (await asking.responses.create(model="m", input="hi")).output

    for answer in (answered, streamed):
        made = answer.choices[0].message.tool_calls
        found = [(call.function.name, json.loads(call.function.arguments)) for call in made]
        assert found == [("f", {"x": 1}), ("g", {"y": 2})]
        assert len({call.id for call in made if call.id}) == 2
        assert {call.type for call in made} == {"function"}
    assert [item.type for item in items] == ["function_call"] * 2


@pytest.mark.parametrize(
    "parts",
    [
        [piece("a", "stop", index=1), piece("b", "stop", index=0)],
        [piece("a", "stop", index=1), piece("b", "stop", index=2)],
        [
            event(
                {
                    "choices": [
                        {"index": at, "delta": {"content": text}, "finish_reason": "stop"}
                        for at, text in ((1, "a"), (0, "b"))
                    ]
                }
            )
        ],
    ],
    ids=["the second first", "from 1", "turned round in one event"],
)
async def test_choices_are_numbered_for_openais_client(world: World, parts: list[bytes]) -> None:
    world.tell(Odd(chunked(*parts, DONE), keeps=True))
    _, gateway = await scene(world, "whole", alone=True)

    async with (
        client(gateway) as asking,
        asking.chat.completions.stream(model="m", messages=HELLO, n=2) as stream,
    ):
        answer = await stream.get_final_completion()

    assert [choice.message.content for choice in answer.choices] == ["a", "b"]


async def test_other_lists_of_pieces_are_numbered(world: World) -> None:
    notes = [piece(part, delta={"content": part, "annotations": [{"note": part}]}) for part in "ab"]
    world.tell(Odd(chunked(*notes, STOP, DONE)))
    _, gateway = await scene(world, "whole", alone=True)

    async with (
        client(gateway) as asking,
        asking.chat.completions.stream(model="m", messages=HELLO) as stream,
    ):
        answer = await stream.get_final_completion()

    said = answer.choices[0].message.to_dict()
    assert [note["note"] for note in said["annotations"]] == ["a", "b"]  # type: ignore[attr-defined]


def raw_event(json_: str, reason: str = "null") -> bytes:
    """An event of characters that Python would not write."""
    return (
        f'data: {{"choices": [{{"index": 0, "delta": {json_}, "finish_reason": {reason}}}]}}\n\n'
    ).encode()


CUT = {
    "a pair": ([r'{"content": "a\ud83d"}', r'{"content": "\ude00b"}'], "a😀b"),
    "a pair over other events": (
        [r'{"content": "\ud83d"}', "{}", r'{"reasoning": "\ud83c"}', r'{"content": "\ude00"}'],
        "😀",
    ),
    "pairs in a row": ([r'{"content": "\ud83d"}', *[r'{"content": "\ude00\ud83d"}'] * 2], "😀😀�"),
    "half without another": ([r'{"content": "\ud83d"}', '{"content": "a"}'], "�a"),
    "the other half only": ([r'{"content": "a"}', r'{"content": "\ude00"}'], "a�"),
    "half at the end": ([r'{"content": "a"}', r'{"content": "\ud83d"}'], "a�"),
}


@pytest.mark.parametrize("mode", ["stream", "whole", "relayed stream"])
@pytest.mark.parametrize(("deltas", "text"), CUT.values(), ids=CUT)
async def test_a_character_cut_over_two_events_is_joined(
    world: World, deltas: list[str], text: str, mode: str
) -> None:
    world.tell(Odd(chunked(*map(raw_event, deltas), raw_event("{}", '"stop"'), DONE)))

    asked = await ask(*await scene(world, mode, alone=True), mode)

    assert asked.text == text


async def test_characters_cut_in_arguments_are_joined(world: World) -> None:
    function = r'{"name": "f", "arguments": "{\"x\": \"\ud83d"}'
    begun = f'{{"tool_calls": [{{"id": "a", "function": {function}}}]}}'
    ended = r'{"tool_calls": [{"function": {"arguments": "\ude00\"}"}}]}'
    parts = [raw_event(begun), raw_event(ended), raw_event("{}", '"tool_calls"')]
    world.tell(Odd(chunked(*parts, DONE)))

    asked = await ask(*await scene(world, "whole", alone=True), "whole")

    (call,) = json.loads(asked.body)["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"x": "😀"}


async def test_events_have_no_names_of_their_servers(world: World) -> None:
    world.tell(Odd(chunked(b"event: thread.message\n" + piece("odd"), STOP, DONE)))

    asked = await ask(*await scene(world, "stream", alone=True), "stream")

    assert b"event:" not in asked.body


async def test_a_stream_that_was_not_asked_for_is_put_together(world: World) -> None:
    parts = [
        piece(delta={"role": "assistant", "reasoning_content": "s"}),
        piece(
            delta={"reasoning_content": "o"}, logprobs={"content": [{"token": "o", "logprob": -1}]}
        ),
        piece("o", index=1),
        piece("dd", index=1, logprobs={"content": [{"token": "dd", "logprob": -2}]}),
    ]
    for at, call in enumerate(CALLS):
        first = {"index": at, **call, "function": {"name": "f", "arguments": ""}}
        rest = {"index": at, "function": {"arguments": '{"model"'}}
        last = {"index": at, "function": {"arguments": ": 1}"}}
        parts += [piece(delta={"tool_calls": [one]}) for one in (first, rest, last)]
    usage = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}})
    ends = piece(reason="tool_calls"), piece(reason="stop", index=1)
    world.tell(Odd(chunked(*parts, *ends, usage, DONE)))
    _, gateway = await scene(world, "whole", alone=True)

    async with client(gateway) as asking:
        answer = await asking.chat.completions.create(model="m", messages=HELLO, n=2)

    called, told = answer.choices
    assert called.message.to_dict()["tool_calls"] == CALLS
    assert called.message.to_dict()["reasoning_content"] == "so"
    assert (called.finish_reason, told.finish_reason) == ("tool_calls", "stop")
    assert told.message.content == "odd"
    assert told.logprobs is not None
    assert [one.token for one in told.logprobs.content or ()] == ["dd"]
    assert answer.object == "chat.completion"
    assert gateway.queries(1)[0].tokens_out == 9


@pytest.mark.parametrize("wanted", [None, {"include_usage": True}])
@pytest.mark.parametrize("mode", ["stream", "cascade", "ensemble", "packet"])
async def test_a_stream_has_token_counts_only_if_requested(
    world: World, mode: str, wanted: Any
) -> None:
    world.tell(Odd(response(whole("odd"))))
    network, gateway = await scene(world, mode, alone=mode == "stream")

    asked = await ask(network, gateway, mode, stream=True, stream_options=wanted)

    counted = [told["usage"] for told in asked.events if told.get("usage")]
    assert bool(counted) == (wanted is not None)
    if counted:
        assert counted[0]["completion_tokens"] == 2
        assert asked.events[-1]["choices"] == []


@pytest.mark.parametrize("mode", ["whole", "packet", "stream"])
async def test_what_was_counted_is_charged_and_the_rest_estimated(world: World, mode: str) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": None}
    text = "eight letters"
    stream = chunked(piece(text), STOP, event({"choices": [], "usage": usage}), DONE)
    world.tell(Odd(stream, response(whole(text, usage=usage))))

    asked = await ask(*await scene(world, mode, alone=True), mode)

    tokens_out = 1 if mode == "stream" else round(len(text) / 4)
    assert (asked.record.tokens_in, asked.record.tokens_out) == (50, tokens_out)


@pytest.mark.parametrize("stream", [True, False])
async def test_only_the_answers_own_model_is_renamed(world: World, stream: bool) -> None:
    tool = {"model": "inner", "deep": {"model": "up"}}
    said = {"content": json.dumps(tool), "model": "in"}
    world.tell(
        Odd(chunked(piece(delta=said, model="up"), STOP, DONE), response(whole(message=said)))
    )
    network, gateway = await scene(world, "whole", alone=True)

    asked = await ask(network, gateway, "whole", stream=stream)

    told = asked.events[0] if stream else json.loads(asked.body)
    choice = told["choices"][0]
    assert told["model"] == "m"
    assert choice["delta" if stream else "message"]["model"] == "in"
    assert json.loads(choice["delta" if stream else "message"]["content"]) == tool
    assert (told["id"], told["created"]) == ("x", 1)


@pytest.mark.parametrize("mode", ["whole", "stream", "relay"])
async def test_the_bound_of_an_answer_is_named(world: World, mode: str) -> None:
    world.tell(Odd(chunked(piece("x" * BOUND)), response(whole("x" * BOUND))))

    asked = await ask(*await scene(world, mode, alone=True), mode)

    assert asked.status >= 500
    assert f"{BOUND} bytes (facility.max_answer_bytes)" in asked.error["message"]


async def test_a_gateway_has_a_bound_of_its_own(world: World) -> None:
    world.tell(Odd(response(whole("odd"))))
    network, wide = await scene(world, "bounded", alone=True)
    longest = len((await ask(network, wide, "whole")).body)
    gateway = await network.gateway("narrow", max_answer_bytes=longest)
    fits = await ask(network, gateway, "whole")
    world.tell(Odd(response(whole("oddl"))))

    exceeds = await ask(network, gateway, "whole")

    assert fits.text == "odd"
    assert "(gateway.max_answer_bytes)" in exceeds.error["message"]


@pytest.mark.parametrize("mode", ["stream", "relayed stream"])
async def test_a_client_that_stops_at_the_end_of_the_answer_has_got_it(
    world: World, mode: str
) -> None:
    world.tell(Odd(chunked(piece("odd"), STOP, ends=False), keeps=True))
    _, gateway = await scene(world, mode, alone=True)
    before = len(gateway.queries(1 << 20))

    async with client(gateway) as asking:
        stream = await asking.chat.completions.create(model="m", messages=HELLO, stream=True)
        async for chunk in stream:
            if chunk.choices[0].finish_reason:
                break
        await stream.close()
    await until(lambda: len(gateway.queries(1 << 20)) > before)

    record = gateway.queries(1)[0]
    assert (record.status, record.http_status) == (QueryStatus.ANSWERED, 200)
    assert record.tokens_out == 1
    assert len(gateway.queries(1 << 20)) == before + 1


@pytest.mark.parametrize("several", [{"prompt": ["a", "b"]}, {"prompt": "a", "n": 2}])
async def test_several_choices_are_waited_for(world: World, several: Any) -> None:
    """The second begins long after the first has ended."""

    async def behave(head: bytes, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        first, second = (
            event({"choices": [{"index": at, "text": text, "finish_reason": "stop"}]})
            for at, text in enumerate(("one", "two"))
        )
        writer.write(chunked(first, ends=False))
        await asyncio.sleep(2 * http_answers.LINGER_S)
        writer.write(chunked(second, DONE).partition(b"\r\n\r\n")[2])
        return True

    world.servers["odd"].behave = behave
    _, gateway = await scene(world, "stream", alone=True)

    async with client(gateway) as asking:
        stream = await asking.completions.create(model="m", stream=True, **several)
        texts = [chunk.choices[0].text async for chunk in stream]

    assert texts == ["one", "two"]


async def test_a_deadline_after_the_end_of_the_answer_fails_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_answers, "LINGER_S", 600.0)
    world.tell(Odd(chunked(piece("odd"), STOP, ends=False), keeps=True))

    _, gateway = await scene(world, "stream", alone=True)

    async with client(gateway) as asking:
        stream = await asking.chat.completions.create(
            model="m", messages=HELLO, stream=True, extra_body={"daitn": {"deadline_s": DEADLINE_S}}
        )
        parts, text = aiter(stream), ""
        while not (part := (await anext(parts)).choices[0]).finish_reason:
            text += part.delta.content or ""
        deadlines_pass(gateway)
        assert [part async for part in parts] == []
    await until(lambda: gateway.in_progress == 0)

    record = gateway.queries(1)[0]
    assert text == "odd"
    assert (record.status, record.http_status) == (QueryStatus.ANSWERED, 200)


async def test_connections_are_kept_over_streams_that_end_well(world: World) -> None:
    world.tell(Odd(chunked(piece("odd"), STOP, DONE), keeps=True))
    scene_ = await scene(world, "stream", alone=True)
    await ask(*scene_, "stream")
    before = world.servers["odd"].connections

    for _ in range(3):
        await ask(*scene_, "stream")

    assert world.servers["odd"].connections == before


async def test_servers_are_asked_for_answers_that_are_not_compressed(world: World) -> None:
    world.tell(Odd(response(whole("odd"))))
    await ask(*await scene(world, "whole", alone=True), "whole")

    head, _ = world.servers["odd"].requests[-1]

    assert b"\r\naccept-encoding: identity\r\n" in head


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "gzip, deflate", "identity"])
async def test_a_compressed_request_is_read(world: World, coding: str) -> None:
    world.tell(Odd(response(whole("odd"))))

    asked = await ask(*await scene(world, "whole", alone=True), "whole", coding=coding)

    assert asked.text == "odd"
