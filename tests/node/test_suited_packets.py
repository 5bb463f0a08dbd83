"""Queries as packets reach models that read them: real forwarders, offers of a real topology.

gate - clinic, both, dc: clinic has a table's model that is verified; both has one, too, and a model
that talks; dc has one that talks, sees, holds much, and is slow to be reached.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from daitn.identity.keys import SigningKey
from daitn.node.forwarder.offers import home, serving_offers
from daitn.node.forwarder.query_client import PacketAnswer, PacketQueryClient
from daitn.node.forwarder.query_service import PacketQuestion, QueryService
from daitn.node.forwarder.runtime import ForwarderRuntime, NotServed
from daitn.node.gateway.request import read_request
from daitn.objects.abilities import Abilities, Reads, Says
from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId
from daitn.openai.errors import ApiError
from daitn.steering.wire.intent import PacketIntent
from daitn.steering.wire.packet import Packet
from daitn.steering.wire.replies import Reason, Refusal
from daitn.tools.adjacency.memory import MemoryLinks
from tests.node.gateway.scene import Network, deployment
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import until

pytestmark = pytest.mark.processes

TABLE = Abilities(reads=(Reads.TABLE,), says=(Says.CLASS,), tools=False, json_schema=False)
SEES = Abilities(reads=(Reads.TEXT, Reads.IMAGE), tools=True)
TALKS = Abilities(tools=False, languages=("en",))
MODELS = {
    "clinic": (deployment("tumours", abilities=TABLE, apis=(Api.CHAT,)),),
    "both": (
        deployment("tumours", abilities=TABLE, apis=(Api.CHAT,)),
        deployment("talker", abilities=TALKS),
    ),
    "dc": (deployment("seer", abilities=SEES, context_tokens=32768, apis=(Api.CHAT,)),),
}
WEATHER: Any = [{"role": "user", "content": "What will the weather be in Paris?"}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


class Nobody:
    """Serves nothing."""

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        raise NotServed(Refusal(Reason.FAILED, "nothing is served here"))


class Asking:
    """A gateway's queries, sent from its forwarder."""

    def __init__(self, runtime: ForwarderRuntime) -> None:
        self._client = PacketQueryClient(runtime, SigningKey.generate(), {}, "")

    async def ask(self, api: Api = Api.CHAT, **fields: Any) -> tuple[PacketAnswer, ...]:
        text: Any = {"messages": WEATHER} if api is Api.CHAT else {}
        body = json.dumps({"model": "auto", **text, **fields}).encode()
        parsed = read_request(api, body, [])
        intent = parsed.intent(SiteId("gate"), "", parsed.topic, parsed.name)
        return await self._client.ask(intent, PacketQuestion(api, body, "gate:1"))

    async def answered_by(self, api: Api = Api.CHAT, **fields: Any) -> str:
        (answer,) = await self.ask(api, **fields)
        return f"{answer.answered.deployment}@{answer.answered.site}"


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAiServer]:
    with OpenAiServer() as server:
        yield server


@pytest.fixture
async def gate(server: OpenAiServer) -> AsyncIterator[Asking]:
    network = Network()
    for site, models in MODELS.items():
        network.facility(site, server.url, *models)
    for site in ("clinic", "both"):
        network.measured("tumours", site, "medicine", 0.99)
    links, snapshot = MemoryLinks(), network.state.snapshot()
    async with AsyncExitStack() as stack:
        runtimes = {"gate": ForwarderRuntime(SiteId("gate"), Nobody())}
        for site in MODELS:
            service = QueryService(
                SiteId(site),
                SigningKey.generate(),
                lambda: server.url.removesuffix("/v1"),
                lambda site=site: serving_offers(snapshot, SiteId(site)),  # type: ignore[misc]
                lambda site: None,
            )
            stack.push_async_callback(service.close)
            runtimes[site] = ForwarderRuntime(SiteId(site), service)
        for site, runtime in runtimes.items():
            offers = [offer for _, offer in serving_offers(snapshot, SiteId(site))]
            runtime.offer((home(SiteId(site)), *offers))
            runtime.join(links.open(SiteId(site), runtime))
            stack.push_async_callback(runtime.close)
        for site, cost_s in {"clinic": 0.001, "both": 0.005, "dc": 0.05}.items():
            links.join(SiteId("gate"), SiteId(site), cost_s=cost_s)
        routes = runtimes["gate"].core.routes
        await until(lambda: len({origin for origin, _ in routes.offering("answer:")}) == 3)
        yield Asking(runtimes["gate"])


async def test_no_table_is_asked_about_the_weather(gate: Asking) -> None:
    for model in ("auto", "auto:medicine"):
        assert await gate.answered_by(model=model) in {"talker@both", "seer@dc"}
    answers = await gate.ask(daitn={"strategy": "ensemble", "hedge": False})
    assert {answer.answered.deployment for answer in answers} == {"talker", "seer"}


async def test_a_record_is_put_to_the_model_that_is_best_at_it(gate: Asking) -> None:
    record = [{"role": "user", "content": '{"radius": 14.2}'}]
    assert await gate.answered_by(messages=record) in {"tumours@clinic", "tumours@both"}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": [PICTURE]}]},
        {"tools": [{"type": "function", "function": {"name": "weather"}}]},
        {"messages": [{"role": "user", "content": "天" * 6000}]},
        {"daitn": {"language": "fr"}},
    ],
    ids=["picture", "tools", "length", "language"],
)
async def test_what_a_query_needs_decides_where_it_goes(
    gate: Asking, fields: dict[str, Any]
) -> None:
    assert await gate.answered_by(**fields) == "seer@dc"


async def test_a_packet_for_an_api_goes_where_that_is_answered(gate: Asking) -> None:
    assert await gate.answered_by(Api.COMPLETIONS, prompt="The weather is") == "talker@both"
    assert await gate.answered_by(Api.EMBEDDINGS, input="weather") == "talker@both"
    ranking = {"query": "weather?", "documents": ["rain"]}
    assert await gate.answered_by(Api.RERANK, **ranking) == "talker@both"


async def test_texts_that_are_read_one_by_one_need_room_for_the_longest(gate: Asking) -> None:
    many = ["word " * 1000] * 20
    assert await gate.answered_by(Api.EMBEDDINGS, input=many) == "talker@both"
    with pytest.raises(ApiError, match="NO_WAY"):
        await gate.ask(Api.EMBEDDINGS, input=["word " * 4000, "word"])


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "talker", "messages": [{"role": "user", "content": [PICTURE]}]},
        {"model": "tumours"},
        {"messages": [{"role": "user", "content": "天" * 40000}]},
    ],
)
async def test_where_nobody_can_it_goes_nowhere(gate: Asking, fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="NO_WAY"):
        await gate.ask(**fields)
