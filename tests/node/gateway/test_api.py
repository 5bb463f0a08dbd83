"""OpenAI's API as its own client and plain HTTP see it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from typing import Any

import aiohttp
import openai
import pytest

from daitn.node.config import KeyConfig
from daitn.node.gateway import Gateway
from daitn.node.gateway.api import SERVED
from daitn.objects.deployments import Api
from daitn.objects.messages import Demand
from daitn.objects.queries import QueryStatus
from daitn.objects.requests import QueryList
from daitn.objects.wire import decode, encode
from tests.node.gateway.scene import Network, client, deployment
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import PATIENCE_S, until

Servers = tuple[OpenAiServer, ...]
ASK: Any = {"messages": [{"role": "user", "content": "What helps?"}], "max_tokens": 20}
TEXT = "The quick brown fox jumps over the lazy dog."
pytestmark = pytest.mark.processes


async def post(
    gateway: Gateway, body: bytes, path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of a plain request."""
    url = gateway.descriptor().endpoint + path
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=named) as answer,
    ):
        return answer.status, json.loads(await answer.read()), dict(answer.headers)


async def test_chat_is_answered_and_says_how(network: Network, servers: Servers) -> None:
    priced = deployment("doctor", price_usd_per_1k_in=1.0, price_usd_per_1k_out=2.0)
    network.facility("mdf", servers[0].url, priced)
    gateway = await network.gateway()

    raw = await client(gateway).chat.completions.with_raw_response.create(model="doctor", **ASK)

    answer = raw.parse()
    assert answer.choices[0].message.content == TEXT
    told = raw.headers
    assert told["daitn-model"] == "doctor"
    assert told["daitn-facility"] == "mdf"
    assert told["daitn-path"] == "gw,mdf"
    assert told["daitn-strategy"] == "single"
    assert told["daitn-attempts"] == "1"
    # The server counts 7 tokens in and 9 words out.
    assert float(told["daitn-cost-usd"]) == pytest.approx(0.007 + 0.018)
    assert 0 < float(told["daitn-overhead-ms"]) < 1000
    explained = gateway.explain(told["daitn-decision"])
    record = explained.query
    assert (record.status, record.tokens_in, record.tokens_out) == (QueryStatus.ANSWERED, 7, 9)
    assert explained.decision.chosen == "doctor@mdf"
    assert not explained.undecided


async def test_chat_streams(network: Network, servers: Servers) -> None:
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway()

    stream = await client(gateway).chat.completions.create(model="doctor", stream=True, **ASK)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert "".join(pieces) == TEXT
    assert len(pieces) == 10
    assert gateway.queries(1)[0].tokens_out == 9


async def test_pieces_come_as_they_are_made(network: Network, servers: Servers) -> None:
    servers[0].control(text="one two", per_token_s=3600)
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway()

    stream = await client(gateway).chat.completions.create(model="doctor", stream=True, **ASK)

    first = await asyncio.wait_for(anext(aiter(stream)), PATIENCE_S)
    assert first.choices[0].delta.content == "one "
    await stream.close()


async def test_completions_embeddings_and_models(network: Network, servers: Servers) -> None:
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway()
    ask = client(gateway)

    completion = await ask.completions.create(model="doctor", prompt="Once", max_tokens=20)
    vectors = await ask.embeddings.create(
        model="doctor", input=["a", "bcd"], encoding_format="float"
    )
    models = [model.id async for model in await ask.models.list()]
    one = await ask.models.retrieve("doctor")

    assert completion.choices[0].text == TEXT
    assert [item.embedding[0] for item in vectors.data] == [1.0, 3.0]
    assert models == ["auto", "doctor"]
    assert one.owned_by == "university"


async def test_a_model_may_be_asked_for_in_four_ways(network: Network, servers: Servers) -> None:
    network.facility("near", servers[0].url, deployment("doctor"), deployment("lawyer"))
    network.facility("far", servers[1].url, deployment("doctor"))
    network.measured("doctor", "near", "medicine", 0.9)
    network.measured("lawyer", "near", "law", 0.9)
    gateway = await network.gateway(topic=("law", 0.9))

    async def asked(model: str) -> tuple[str, str, str | None]:
        raw = await client(gateway).chat.completions.with_raw_response.create(
            model=model, extra_body={"daitn": {"hedge": False}}, **ASK
        )
        told = raw.headers
        return told["daitn-model"], told["daitn-facility"], told.get("daitn-topic")

    assert (await asked("doctor"))[0] == "doctor"
    assert await asked("doctor@far") == ("doctor", "far", None)
    assert await asked("auto:medicine/neurology") == ("doctor", "near", "medicine/neurology")
    assert await asked("auto") == ("lawyer", "near", "law")


async def test_all_but_model_and_wishes_goes_on_byte_for_byte(
    network: Network, servers: Servers
) -> None:
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway()
    body = (
        b'{"odd": [1.50, 1e3,  "\\u00e9"], "model": "doctor@mdf", "daitn": {"topic": "x"},'
        b'"messages": [{"role":"user","content":"hi","name":"n"}], "temperature": 0.0}'
    )

    status, _, _ = await post(gateway, body)

    last = servers[0].control()["last"][-1]
    expected = {**json.loads(body), "model": "doctor"}
    del expected["daitn"]
    assert status == 200
    assert last["body"] == expected
    assert last["headers"]["daitn-query"] == "gw:1"
    assert "authorization" not in {name.lower() for name in last["headers"]}


@pytest.mark.parametrize(
    ("body", "param", "status"),
    [
        (b"", "body", 400),
        (b"{", "body", 400),
        (b"[1]", "body", 400),
        (b"\xff\xfe", "body", 400),
        (b"[" * 30_000, "body", 400),
        (b"{}", "model", 400),
        (b'{"model": 7}', "model", 400),
        (b'{"model": "doctor"}', "messages", 400),
        (b'{"model": "doctor", "messages": []}', "messages", 400),
        (b'{"model": "doctor", "messages": [{"role": 1}]}', "messages[0].role", 400),
        (b'{"model": "doctor", "messages": "hi"}', "messages", 400),
        (b'{"model": "doctor", "messages": [{"role": "user"}], "stream": 1}', "stream", 400),
        (
            b'{"model": "doctor", "messages": [{"role": "user"}], "max_tokens": -2}',
            "max_tokens",
            400,
        ),
        (
            b'{"model": "doctor", "messages": [{"role": "user"}], "temperature": "hot"}',
            "temperature",
            400,
        ),
        (
            b'{"model": "doctor", "messages": [{"role": "user"}], "daitn": {"min_acuracy": 1}}',
            "daitn.min_acuracy",
            400,
        ),
        (
            b'{"model": "doctor", "messages": [{"role": "user"}], "daitn": {"min_accuracy": 2}}',
            "daitn.min_accuracy",
            400,
        ),
        (
            b'{"model": "doctor", "messages": [{"role": "user"}], "daitn": {"prefer": {"x": 1}}}',
            "daitn.prefer.x",
            400,
        ),
        (b'{"model": "doctor", "pad": "' + b"x" * 70_000 + b'"}', "body", 413),
        (b'{"model": "surgeon", "messages": [{"role": "user"}]}', "model", 404),
        (b'{"model": "doctor@mars", "messages": [{"role": "user"}]}', "model", 404),
        (b'{"model": "doc\\u001b[2Jtor", "messages": [{"role": "user"}]}', "model", 400),
        (b'{"model": "auto:a\\nb", "messages": [{"role": "user"}]}', "model", 400),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong(
    network: Network, servers: Servers, body: bytes, param: str, status: int
) -> None:
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway(max_body_bytes=65_536)

    got, told, _ = await post(gateway, body)

    assert (got, told["error"]["param"]) == (status, param)
    assert told["error"]["type"] == "invalid_request_error"
    assert told["error"]["message"]


@pytest.mark.parametrize("name", ["doc\x1b[2Jtor", "auto:a\nb", "doctor@\u202ehall"])
@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("completions", {"prompt": "hi"}),
        ("embeddings", {"input": "hi"}),
        ("rerank", {"query": "hi", "documents": ["ho"]}),
        ("messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}),
        ("responses", {"input": "hi"}),
    ],
)
async def test_no_client_puts_in_a_gateway_s_reports_what_nobody_can_read(
    network: Network, servers: Servers, path: str, rest: dict[str, Any], name: str
) -> None:
    """Who reads a list of queries, or the demand, drops it whole for one malformed name."""
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway()

    status, told, _ = await post(
        gateway, json.dumps({"model": name, **rest}).encode(), f"/v1/{path}"
    )

    assert (status, "visible text on one line" in json.dumps(told)) == (400, True)
    queries = QueryList(queries=gateway.queries(10))
    assert decode(encode(queries), QueryList) == queries
    demand = gateway.demand(time.time())
    assert decode(encode(demand), Demand) == demand


async def test_a_body_that_does_not_say_how_long_it_is_is_bounded_too(
    network: Network, servers: Servers
) -> None:
    gateway = await network.gateway(max_body_bytes=65_536)

    async def pieces() -> Any:
        for _ in range(100):
            yield b"x" * 10_000

    url = f"{gateway.descriptor().endpoint}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=pieces()) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]["param"] == "body"


async def test_wishes_come_in_headers_too_and_the_body_counts_more(
    network: Network, servers: Servers
) -> None:
    network.facility("mdf", servers[0].url, deployment("doctor"))
    network.measured("doctor", "mdf", "medicine", 0.8)
    gateway = await network.gateway()
    plain = json.dumps({"model": "doctor", **ASK}).encode()
    modest = json.dumps({"model": "doctor", **ASK, "daitn": {"min_accuracy": 0.7}}).encode()
    wanted = {"daitn_topic": "medicine", "daitn_min_accuracy": "0.9"}

    refused, told, _ = await post(gateway, plain, **wanted)
    answered, _, headers = await post(gateway, modest, **wanted)
    unknown, why, _ = await post(gateway, plain, daitn_min_acuracy="0.9")
    wrong, number, _ = await post(gateway, plain, daitn_min_accuracy="much")

    assert refused == 400
    assert told["error"]["code"] == "infeasible"
    assert told["error"]["param"] == "daitn.min_accuracy"
    relaxation = told["error"]["daitn"]["relaxations"][0]
    assert relaxation["field"] == "daitn.min_accuracy"
    assert 0.79 <= float(relaxation["proposed"]) <= 0.8
    assert told["error"]["daitn"]["reasons"][0]["deployment"] == "doctor@mdf"
    assert answered == 200
    assert headers["daitn-topic"] == "medicine"
    assert (unknown, why["error"]["param"]) == (400, "daitn.min_acuracy")
    assert (wrong, number["error"]["param"]) == (400, "daitn.min_accuracy")


async def test_the_clients_exceptions_come_out_right(network: Network, servers: Servers) -> None:
    network.facility("mdf", servers[0].url, deployment("doctor"))
    known = KeyConfig(
        owner="ada", sha256=hashlib.sha256(b"secret").hexdigest(), per_s=0.001, burst=4
    )
    gateway = await network.gateway(keys=(known,))
    ask = client(gateway, "secret").chat.completions

    with pytest.raises(openai.AuthenticationError):
        await client(gateway, "guess").chat.completions.create(model="doctor", **ASK)
    with pytest.raises(openai.AuthenticationError):
        await client(gateway, "guess").models.list()
    with pytest.raises(openai.NotFoundError) as unknown:
        await ask.create(model="surgeon", **ASK)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as infeasible:
        await ask.create(model="doctor", **ASK, extra_body={"daitn": {"max_first_token_s": 1e-9}})
    assert infeasible.value.code == "infeasible"
    servers[0].control(fail=1.0)
    with pytest.raises(openai.InternalServerError) as failed:
        await ask.create(model="doctor", **ASK)
    assert failed.value.code == "unavailable"
    with pytest.raises(openai.InternalServerError):
        await ask.create(model="doctor", **ASK)
    with pytest.raises(openai.RateLimitError) as often:
        await ask.create(model="doctor", **ASK)
    assert often.value.code == "rate_limited"
    assert int(often.value.response.headers["retry-after"]) >= 1
    assert {record.owner for record in gateway.queries(10)} == {"ada"}


async def test_a_full_gateway_sheds(network: Network, servers: Servers) -> None:
    servers[0].control(hang=True)
    network.facility("mdf", servers[0].url, deployment("doctor"))
    gateway = await network.gateway(max_in_flight=1)
    ask = client(gateway).chat.completions
    held = asyncio.create_task(ask.create(model="doctor", **ASK))
    await until(lambda: servers[0].control()["in_flight"])

    with pytest.raises(openai.InternalServerError) as shed:
        await ask.create(model="doctor", **ASK)

    held.cancel()
    assert shed.value.code == "overloaded"
    assert int(shed.value.response.headers["retry-after"]) >= 1
    record = gateway.queries(1)[0]
    assert record.status is QueryStatus.SHED
    explained = gateway.explain(record.id)
    assert (explained.query, explained.decision.chosen) == (record, None)
    assert "ended before a decision" in explained.undecided
    told = {rate.model: rate for rate in gateway.demand(gateway.queries(1)[0].asked_at_s).rates}
    assert told["doctor"].shed_per_s > 0


async def test_paths_have_the_methods_that_the_reference_says(network: Network) -> None:
    gateway = await network.gateway()
    url = gateway.descriptor().endpoint
    async with aiohttp.ClientSession() as session:
        for served in SERVED:
            path = served.path.replace("ID", "resp_1")
            async with session.patch(f"{url}{path}") as answer:
                assert answer.status == 405, path
                assert answer.headers["allow"].split(", ") == list(served.methods), path


async def test_what_is_no_query(network: Network) -> None:
    gateway = await network.gateway()
    url = gateway.descriptor().endpoint
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/healthz") as health:
            assert health.status == 200
        async with session.get(f"{url}/v1/chat/completions") as wrong:
            assert (wrong.status, (await wrong.json())["error"]["code"]) == (
                405,
                "method_not_allowed",
            )
        async with session.get(f"{url}/v2") as nothing:
            assert (nothing.status, (await nothing.json())["error"]["code"]) == (404, "not_found")
        async with session.get(f"{url}/v1/models/none") as model:
            assert (model.status, (await model.json())["error"]["param"]) == (404, "model")


async def test_an_api_that_a_model_does_not_answer_is_refused(
    network: Network, servers: Servers
) -> None:
    network.facility("mdf", servers[0].url, deployment("doctor", apis=(Api.CHAT,)))
    gateway = await network.gateway()

    with pytest.raises(openai.BadRequestError) as refused:
        await client(gateway).embeddings.create(model="doctor", input="a")

    assert refused.value.param == "model"
