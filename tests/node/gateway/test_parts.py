"""Formats and bookkeeping of a gateway, over all inputs."""

from __future__ import annotations

import contextlib
import json
import time
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.control.queries.context import QueryContext
from daitn.control.queries.engine import Qirce
from daitn.node.gateway.affinity import Affinity
from daitn.node.gateway.continuation import Continuation
from daitn.node.gateway.demand import TIME_CONSTANT_S, DemandEstimator
from daitn.node.gateway.query_log import MAX_DECISIONS, MAX_RECORDS, QueryLog
from daitn.node.gateway.request import read_request
from daitn.objects.deployments import Api
from daitn.objects.errors import NotFound
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryConstraints, QueryIntent, QueryRecord, QueryStatus, Strategy
from daitn.openai.answers import StreamReader, read_whole
from daitn.openai.errors import ApiError
from daitn.openai.events import AnswerBroken, EventCutter, read_event
from daitn.openai.folding import as_events, folded
from daitn.openai.http import DONE, as_event
from daitn.openai.responses import NotJson, Usage, read_usage, without_logprobs
from daitn.topology.qrrt.load import GatewayLoad
from daitn.topology.qrrt.paths import paths_from
from tests.node.gateway.scene import Network, deployment

lines = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20)
streams = st.lists(lines, min_size=1, max_size=8).map(
    lambda said: (
        b"".join(
            as_event(
                msgspec.json.encode(
                    {
                        "object": "chat.completion.chunk",
                        "choices": [{"index": 0, "delta": {"content": line or "."}}],
                    }
                )
            )
            for line in said
        )
        + DONE
    )
)
cuts = st.lists(st.integers(min_value=0, max_value=500), max_size=10)
BOUND = 1 << 20


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in at), len(data)]
    return [data[a:b] for a, b in pairwise(places) if b > a]


@given(streams, cuts)
def test_events_come_out_whole_and_unchanged(stream: bytes, at: list[int]) -> None:
    events = StreamReader(BOUND, "bound")
    given_out = [events.feed(piece) for piece in pieces(stream, at)]

    assert all(part == b"" or part.endswith(b"\n\n") for part in given_out)
    assert b"".join(given_out) + events.end() == stream


@given(streams, cuts, st.sampled_from([b"\r\n", b"\r", b"\n"]), st.booleans())
def test_events_are_found_whatever_ends_their_lines(
    stream: bytes, at: list[int], line_end: bytes, marked: bool
) -> None:
    told = (b"\xef\xbb\xbf" if marked else b"") + stream.replace(b"\n", line_end)
    cutter = EventCutter()

    blocks = [block for piece in pieces(told, at) for block in cutter.feed(piece)]

    assert [read_event(block) for block in blocks] == [
        read_event(block) for block in EventCutter().feed(stream)
    ]
    assert not cutter.finish().strip()


@given(streams, cuts, cuts, st.integers(min_value=0))
def test_an_answer_that_is_begun_again_goes_on_where_it_broke_off(
    stream: bytes, at: list[int], again: list[int], broke: int
) -> None:
    first, sent = StreamReader(BOUND, "bound"), Continuation()
    given_out = [
        sent.take(first.feed(piece)) for piece in pieces(stream[: broke % len(stream)], at)
    ]

    second = StreamReader(BOUND, "bound")
    sent.restart()
    given_out += [sent.take(second.feed(piece)) for piece in pieces(stream, again)]
    given_out.append(sent.take(second.end()))
    sent.end()

    assert b"".join(given_out) == stream


@given(streams, streams, cuts)
def test_another_answer_is_never_mixed_in(first: bytes, other: bytes, at: list[int]) -> None:
    sent = Continuation()
    told = sent.take(StreamReader(BOUND, "bound").feed(first))
    sent.restart()
    events = StreamReader(BOUND, "bound")
    try:
        for piece in pieces(other, at):
            told += sent.take(events.feed(piece))
        told += sent.take(events.end())
        sent.end()
    except AnswerBroken:
        assert not other.startswith(first)
    else:
        assert told == other


fields = st.fixed_dictionaries(
    {},
    optional={
        "topic": st.text("abc/", min_size=1, max_size=10),
        "min_accuracy": st.floats(min_value=0, max_value=1),
        "trust": st.sampled_from(["claimed", "weights", "asked"]),
        "deadline_s": st.floats(min_value=1e-3, max_value=1e6),
        "jurisdictions": st.lists(st.sampled_from(["US", "DE", "FR"]), min_size=1, max_size=3),
        "privacy": st.sampled_from(["any", "unkept", "site"]),
        "members": st.integers(min_value=2, max_value=7),
        "hedge": st.booleans(),
        "prefer": st.dictionaries(
            st.sampled_from(["cost", "latency"]), st.floats(min_value=0, max_value=9), min_size=1
        ),
    },
)


def as_header(name: str, value: Any) -> tuple[bytes, bytes]:
    if isinstance(value, list):
        text = ", ".join(value)
    elif isinstance(value, dict):
        text = ",".join(f"{scorer}={weight!r}" for scorer, weight in value.items())
    else:
        text = json.dumps(value) if isinstance(value, bool) else str(value)
    return f"daitn-{name.replace('_', '-')}".encode(), text.encode()


@given(fields, fields)
def test_headers_say_the_same_as_the_body_which_counts_more(
    headers: dict[str, Any], over: dict[str, Any]
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "daitn": over}

    asked = read_request(
        Api.CHAT, json.dumps(body).encode(), [as_header(*wish) for wish in headers.items()]
    )

    assert asked.constraints == msgspec.convert({**headers, **over}, QueryConstraints)


@given(st.binary(max_size=300))
def test_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        read_request(Api.CHAT, body, [])
    except ApiError as error:
        assert error.status == 400
    with contextlib.suppress(NotJson):
        read_usage(body)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=5), values, max_size=5))
def test_fields_that_do_not_matter_here_go_on_byte_for_byte(extra: dict[str, Any]) -> None:
    plain = {**extra, "model": "a@b", "prompt": "p", "daitn": {}}
    body = json.dumps(plain, indent=3).encode()

    sent = read_request(Api.COMPLETIONS, body, []).body("a", {})

    assert json.loads(sent) == {**extra, "model": "a", "prompt": "p"}
    for value in extra.values():
        raw = json.dumps({"f": value}, indent=3).encode()[1:-1].split(b":", 1)[1].strip()
        assert raw in sent


def test_a_header_with_no_number_is_refused() -> None:
    body = b'{"model": "m", "messages": [{"role": "user"}]}'
    for value in (b"nan", b"inf", b"-1", b"1e9", b""):
        with pytest.raises(ApiError) as refused:
            read_request(Api.CHAT, body, [(b"Daitn-Min-Accuracy", value)])
        assert refused.value.param == "daitn.min_accuracy"


def test_the_last_message_of_a_user_is_what_is_asked() -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "image_url"}, {"text": "this?"}]
    messages = [
        {"role": "user", "content": "before"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    body = json.dumps({"model": "auto:medicine", "messages": messages, "temperature": 0}).encode()

    asked = read_request(Api.CHAT, body, [])
    intent = asked.intent(SiteId("gw"), "", asked.topic, asked.name)

    assert asked.text == "What is\nthis?"
    assert (intent.model, intent.topic, intent.repeatable) == ("auto", "medicine", True)


def test_demand_follows_what_is_asked() -> None:
    meter = DemandEstimator(SiteId("gw"))
    now_s = 0.0
    while now_s < 10 * TIME_CONSTANT_S:
        meter.count("medicine", "auto", 20, now_s)
        meter.count("", "doctor", None if int(now_s) % 2 else 40, now_s)
        now_s += 0.5
    busy = {rate.model: rate for rate in meter.demand(now_s).rates}
    assert busy["auto"].per_s == pytest.approx(2.0, rel=0.05)
    assert busy["auto"].tokens_out == pytest.approx(20.0)
    assert busy["doctor"].shed_per_s == pytest.approx(1.0, rel=0.1)
    later = meter.demand(now_s + TIME_CONSTANT_S).rates
    assert later[0].per_s == pytest.approx(2.0 * 0.368, rel=0.05)
    assert meter.demand(now_s + 1000 * TIME_CONSTANT_S).rates == ()
    for number in range(10_000):
        meter.count("", f"model-{number}", 1, now_s)
    assert len(meter.demand(now_s).rates) <= 256


def test_load_follows_the_rows_of_the_topology() -> None:
    network, load = Network(), GatewayLoad()
    network.facility("m", "http://m", deployment("b"))
    load.begin("b@m")
    load.begin("b@m")
    assert load.of(network.state.snapshot()).tolist() == [2.0]
    network.facility("a", "http://a", deployment("a"), deployment("c"))
    load.begin("c@a")
    before = load.of(network.state.snapshot())
    assert before.tolist() == [2.0, 0.0, 1.0]
    load.end("b@m")
    assert load.of(network.state.snapshot()).tolist() == [1.0, 0.0, 1.0]
    network.facility("m", "http://m")
    assert [row.id for row in network.state.snapshot().rows] == ["c@a", "a@a"]
    assert load.of(network.state.snapshot()).tolist() == [1.0, 0.0]
    load.end("c@a")
    assert load.of(network.state.snapshot()).tolist() == [0.0, 0.0]
    assert before.tolist() == [2.0, 0.0, 1.0]


def test_sessions_and_prompts_stay_where_they_were_answered() -> None:
    network, affinity = Network(), Affinity()
    network.facility("m", "http://m", deployment("a"), deployment("b"))
    snapshot = network.state.snapshot()

    def intent(owner: str, session: str, prefix: int, model: str = "auto") -> QueryIntent:
        return QueryIntent(
            origin=SiteId("gw"),
            owner=owner,
            api=Api.CHAT,
            model=model,
            tokens_in=1,
            tokens_out=1,
            prefix=prefix,
            constraints=QueryConstraints(session=session),
        )

    affinity.record(intent("ada", "s", 7), "b@m")
    assert affinity.row(intent("ada", "s", 0), snapshot) == 1
    assert affinity.row(intent("bob", "s", 0), snapshot) == -1
    assert affinity.row(intent("bob", "s", 0), snapshot, snapshot.rows[0].id) == 0
    assert affinity.row(intent("bob", "s", 0), snapshot, "gone@away") == -1
    assert affinity.row(intent("bob", "", 7), snapshot) == 1
    for number in range(20_000):
        affinity.record(intent("ada", f"s{number}", 0), "a@m")
    assert affinity.row(intent("ada", "s", 0), snapshot) == -1
    assert affinity.row(intent("ada", "s19999", 0), snapshot) == 0


def test_records_are_a_ring_and_decisions_are_told_again() -> None:
    network, qirce = Network(), Qirce()
    network.facility("m", "http://m", deployment("a"))
    snapshot = network.state.snapshot()
    records = QueryLog(qirce)
    intent = QueryIntent(
        origin=SiteId("m"), owner="", api=Api.CHAT, model="a", tokens_in=1, tokens_out=1
    )
    for number in range(MAX_RECORDS + 10):
        paths = paths_from(snapshot, SiteId("m"), 1.0)
        context = QueryContext(intent, snapshot, paths, np.zeros(1), 1.0)
        records.record_decision(f"m:{number}", context, number)
        records.record_query(
            QueryRecord(
                id=f"m:{number}",
                asked_at_s=time.time(),
                owner=("ada", "", "mpvu")[number % 3],
                api=Api.CHAT,
                model_wanted="a",
                topic="",
                status=QueryStatus.ANSWERED,
                http_status=200,
                strategy=Strategy.SINGLE,
            )
        )

    newest = MAX_RECORDS + 9
    assert [record.id for record in records.latest(2)] == [f"m:{newest}", f"m:{newest - 1}"]
    assert len(records.latest(10**6)) == MAX_RECORDS
    assert {record.owner for record in records.latest(9, "ada")} == {"ada"}
    assert len(records.latest(9, "ada")) == 9
    assert {record.owner for record in records.latest(99, without=("mpvu",))} == {"ada", ""}
    assert records.latest(5, "nobody") == ()
    assert records.explain(f"m:{newest}").decision.chosen == "a@m"
    undecided = records.explain(f"m:{newest - MAX_DECISIONS}")
    assert undecided.query in records.latest(MAX_RECORDS)
    assert (undecided.decision.chosen, undecided.decision.ranking) == (None, ())
    assert "newer decisions" in undecided.undecided
    for forgotten in ("m:0", "elsewhere:1"):
        with pytest.raises(NotFound):
            records.explain(forgotten)


def test_a_whole_answer_becomes_a_stream() -> None:
    whole = {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "B"},
                "logprobs": {"content": []},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
    body = without_logprobs(json.dumps(whole).encode())

    first, last, counts, done, end = as_events(body, Api.CHAT, usage=True).split(b"\n\n")

    piece = json.loads(first.removeprefix(b"data: "))
    assert piece["object"] == "chat.completion.chunk"
    assert piece["choices"][0]["delta"] == {"role": "assistant", "content": "B"}
    assert piece["choices"][0]["finish_reason"] is None
    ended = json.loads(last.removeprefix(b"data: "))["choices"][0]
    assert (ended["delta"], ended["finish_reason"]) == ({}, "stop")
    told = json.loads(counts.removeprefix(b"data: "))
    assert (told["choices"], told["usage"]) == ([], whole["usage"])
    assert b"usage" not in as_events(body, Api.CHAT)
    assert piece["choices"][0]["logprobs"] is None
    assert (done, end) == (b"data: [DONE]", b"")


names = st.sampled_from(
    ["index", "delta", "message", "text", "finish_reason", "error", "content", "tool_calls", "type"]
)
wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
answers_ = st.fixed_dictionaries({"choices": st.lists(wild, max_size=3) | wild}) | wild


@given(
    st.lists(answers_, min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([Api.CHAT, Api.COMPLETIONS]),
)
def test_whatever_a_server_says_is_an_answer_or_none(said: list[Any], done: bool, api: Api) -> None:
    events = [as_event(json.dumps(one).encode()) for one in said]
    reader = StreamReader(BOUND, "bound", api=api, model="m")
    with contextlib.suppress(AnswerBroken):
        given_out = b"".join(map(reader.feed, [*events, DONE] if done else events)) + reader.end()
        assert given_out.endswith(DONE)
        assert StreamReader(BOUND, "bound", api=api).feed(given_out) == given_out
        read_whole(folded(given_out), BOUND, "bound", api=api)
    for one in said:
        with contextlib.suppress(AnswerBroken):
            whole = read_whole(json.dumps(one).encode(), BOUND, "bound", api=api, model="m")
            assert read_whole(whole.body, BOUND, "bound", api=api).body == whole.body
            as_events(whole.body, api, usage=True)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLS = [{**CALL, "id": each, "function": {"name": "f", "arguments": '{"a": 1}'}} for each in "cd"]
LOGPROBS = {"content": [{"token": "B", "logprob": -1.0, "top_logprobs": []}]}


@pytest.mark.parametrize(
    ("api", "choices"),
    [
        (Api.CHAT, [{"message": {"role": "assistant", "content": "B"}, "logprobs": LOGPROBS}]),
        (Api.CHAT, [{"message": {"role": "assistant", "content": text}} for text in "AB"]),
        (
            Api.CHAT,
            [
                {
                    "message": {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": CALLS,
                    }
                }
            ],
        ),
        (Api.CHAT, [{"message": {"role": "assistant", "content": None, "refusal": "no"}}]),
        (
            Api.CHAT,
            [
                {
                    "message": {
                        "role": "assistant",
                        "content": "",
                        "reasoning_content": "so",
                        "audio": {"id": "a", "data": "xx"},
                        "function_call": {"name": "f", "arguments": "{}"},
                    }
                }
            ],
        ),
        (Api.COMPLETIONS, [{"text": text, "logprobs": {"tokens": [text]}} for text in "AB"]),
    ],
)
def test_what_became_a_stream_can_become_whole_again(api: Api, choices: list[Any]) -> None:
    kind = "chat.completion" if api is Api.CHAT else "text_completion"
    whole = {
        "id": "x",
        "object": kind,
        "created": 1,
        "model": "m",
        "choices": [
            {"index": at, "logprobs": None, "finish_reason": "length", **choice}
            for at, choice in enumerate(choices)
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    stream = as_events(json.dumps(whole).encode(), api, usage=True)

    reader = StreamReader(BOUND, "bound", api=api, choices=len(choices))
    assert reader.feed(stream) == stream
    assert reader.done
    assert json.loads(folded(stream)) == whole


@pytest.mark.parametrize(
    "count", ["-1", "10000001", "1e999", "9" * 400, "1.5", '"7"', "null", "[]", "NaN", "true"]
)
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_no_owner_is_charged_by_an_absurd_count(count: str, name: str) -> None:
    usage = b'{"%s": %s}' % (name.encode(), count.encode())
    whole = b'{"choices": [{"text": "yes"}], "usage": %s}' % usage
    assert read_whole(whole, BOUND, "bound").usage is None
    with contextlib.suppress(NotJson):
        assert read_usage(whole) is None
    events = StreamReader(BOUND, "bound")
    events.feed(b'data: {"usage": {"completion_tokens": 3}}\n\n')
    events.feed(b'data: {"usage": {"completion_tokens": 3, %s}}\n\n' % usage[1:-1])
    assert events.usage == Usage(completion_tokens=3)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 5, "completion_tokens": None}, Usage(5, None)),
        ({"prompt_tokens": 5, "completion_tokens": None, "total_tokens": 7}, Usage(5, 2)),
        ({"prompt_tokens": [5], "completion_tokens": 2}, Usage(None, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": "x"}, Usage(5, 2)),
        ([], None),
        ("many", None),
    ],
)
def test_a_bad_count_takes_nothing_from_the_others(usage: Any, counted: Usage | None) -> None:
    whole = json.dumps({"choices": [{"text": "yes"}], "usage": usage}).encode()

    assert read_whole(whole, BOUND, "bound").usage == counted


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
def test_an_answer_that_is_not_utf_8_is_no_answer(bad: bytes) -> None:
    whole = b'{"choices": [{"text": "%s"}], "usage": {"completion_tokens": 3}}' % bad
    with pytest.raises(AnswerBroken, match="UTF-8"):
        read_whole(whole, BOUND, "bound")
    with pytest.raises(NotJson):
        read_usage(whole)
    with pytest.raises(AnswerBroken, match="UTF-8"):
        StreamReader(BOUND, "bound").feed(b"data: " + whole + b"\n\n")
