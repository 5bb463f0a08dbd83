"""Whoever has an answer's last byte has an answer that is counted, whoever is killed then."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from daitn.node.usage.counts import UsageCounts
from daitn.objects.identifiers import SiteId
from daitn.objects.usage import Count, UsageSide
from daitn.tools.fabric.memory import MemoryNetwork
from tests.node.gateway.scene import Network, deployment
from tests.node.serving.scene import HEADERS, Holder, Site
from tests.node.serving.test_openai_server import doctor
from tests.scenes.frozen_sender import freeze_senders
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.recipes import installed_talker
from tests.scenes.waiting import until

pytestmark = pytest.mark.processes

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
WHOLE = {**ASK, "max_tokens": 50}
STREAM = {**WHOLE, "stream": True}
COUNTED_STREAM = {**STREAM, "stream_options": {"include_usage": True}}
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
EMBEDDINGS, COMPLETIONS = "/v1/embeddings", "/v1/completions"
DONE = b"[DONE]"
QUERIES = [
    pytest.param(CHAT, STREAM, DONE, id="stream"),
    pytest.param(CHAT, COUNTED_STREAM, DONE, id="stream with token counts"),
    pytest.param(COMPLETIONS, {"prompt": "hello", "stream": True}, DONE, id="completion"),
    pytest.param(CHAT, WHOLE, b"}", id="whole"),
    pytest.param(EMBEDDINGS, {"input": "hello"}, b"}", id="embedding"),
]
SERVERS_COUNT = (7, 9)
"""Tokens of a chat, as the server counts them."""
OF_OTHER_APIS = [
    pytest.param(MESSAGES, STREAM, b'"message_stop"', id="message, stream"),
    pytest.param(MESSAGES, WHOLE, b"}", id="message"),
    pytest.param(
        RESPONSES,
        {"input": "hello", "stream": True},
        b'"response.completed"',
        id="response, stream",
    ),
    pytest.param(RESPONSES, {"input": "hello"}, b"}", id="response"),
]


@pytest.fixture(scope="module")
def server() -> Any:
    with OpenAiServer() as server:
        yield server


@pytest.fixture
async def freeze(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], None]]:
    """Freezes those who answer in this process."""
    thawed = asyncio.Event()
    yield lambda: freeze_senders(monkeypatch, thawed)
    thawed.set()


def counts(folder: Path, side: UsageSide) -> UsageCounts:
    return UsageCounts(folder / "usage", SiteId("here"), side, time.time)


def counted(folder: Path) -> list[Count]:
    """What the next process in the folder knows to be counted."""
    statement, _, _ = counts(folder, UsageSide.GATEWAY).begin_statement()
    return [row.count for row in statement.rows]


async def ask_to_the_end(
    url: str, body: dict[str, Any], end: bytes, headers: dict[str, str] | None = None
) -> None:
    """Ask, and return with the last byte of the answer that matters to a client."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json={"model": "doctor", **body}, headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()
        if not body.get("stream"):
            assert (await answer.read()).endswith(end)
            return
        read = b""
        while end not in read:
            piece = await answer.content.readany()
            assert piece, read
            read += piece


@pytest.mark.parametrize("slow", [False, True], ids=["at once", "piece by piece"])
@pytest.mark.parametrize(("path", "body", "end"), QUERIES + OF_OTHER_APIS)
async def test_at_a_gateway(
    server: OpenAiServer,
    tmp_path: Path,
    freeze: Callable[[], None],
    path: str,
    body: dict[str, Any],
    end: bytes,
    slow: bool,
) -> None:
    server.control(per_token_s=0.01 if slow else 0.0)
    network = Network()
    network.facility("mdf", server.url, deployment("doctor"))
    gateway = await network.gateway(counts=counts(tmp_path, UsageSide.GATEWAY))
    freeze()

    await ask_to_the_end(f"{gateway.descriptor().endpoint}{path}", body, end)

    (count,) = counted(tmp_path)
    assert count.answers == 1
    assert count.tokens_in > 0
    if path in (CHAT, MESSAGES, RESPONSES):
        assert (count.tokens_in, count.tokens_out) == SERVERS_COUNT
    await network.close()


@pytest.mark.parametrize(("path", "body", "end"), QUERIES)
async def test_at_a_facility_before_another_server(
    server: OpenAiServer,
    tmp_path: Path,
    freeze: Callable[[], None],
    path: str,
    body: dict[str, Any],
    end: bytes,
) -> None:
    server.control(per_token_s=0.0)
    config: dict[str, Any] = {"upstreams": (doctor(server.url),), "hosts": False, "recipes": ()}
    kept = counts(tmp_path, UsageSide.FACILITY)
    site = await Site(MemoryNetwork(), tmp_path, counts=kept, **config).start()
    freeze()

    await ask_to_the_end(f"{site.url}{path}", body, end, HEADERS)

    (count,) = counted(tmp_path)
    assert count.answers == 1
    if path == CHAT:
        assert (count.tokens_in, count.tokens_out) == SERVERS_COUNT
    await site.close()


@pytest.mark.parametrize(("path", "body", "end"), [QUERIES[0], QUERIES[3]])
async def test_at_a_facility_with_a_model_of_its_own(
    tmp_path: Path,
    freeze: Callable[[], None],
    path: str,
    body: dict[str, Any],
    end: bytes,
) -> None:
    network = MemoryNetwork()
    with installed_talker(tmp_path / "packages"):
        holder = Holder(network, tmp_path)
        await holder.start()
        site = await Site(network, tmp_path, counts=counts(tmp_path, UsageSide.FACILITY)).start()
        model = holder.model("alto")
        await site.deploy("doctor", model)
        await until(lambda: site.answers("doctor", model))
        freeze()

        await ask_to_the_end(f"{site.url}{path}", body, end, HEADERS)

        (count,) = counted(tmp_path)
        assert count.answers == 1
        await site.close()
        await holder.close()


async def test_a_question_costs_the_same_however_it_is_asked(tmp_path: Path) -> None:
    network = MemoryNetwork()
    with installed_talker(tmp_path / "packages"):
        holder = Holder(network, tmp_path)
        await holder.start()
        kept = counts(tmp_path, UsageSide.FACILITY)
        site = await Site(network, tmp_path, counts=kept).start()
        await site.ready("doctor", holder.model("alto"))
        seen = []
        for body in (WHOLE, STREAM, COUNTED_STREAM):
            before = sum(count.tokens_out for count in counted(tmp_path))
            status, said, _ = await site.post(
                CHAT, json.dumps({"model": "doctor", **body}).encode()
            )
            assert status == 200
            assert (b'"usage"' in said) == (body is not STREAM)
            (count,) = counted(tmp_path)
            seen.append((count.tokens_in, count.tokens_out - before))
        await site.close()
        await holder.close()

    tokens_in, tokens_out = seen[0]
    assert tokens_in > 0
    assert seen == [(tokens_in * asked, tokens_out) for asked in (1, 2, 3)]
