"""Conversations that facilities keep: gone on with, read and deleted by OpenAI's own client."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from daitn.node.config import KeyConfig
from daitn.objects.identifiers import SiteId
from daitn.openai.conversation import response_id, site_of
from daitn.openai.errors import ApiError
from daitn.tools import clock
from tests.node.gateway.odd_world import MODES, Odd, World, opened_world, scene
from tests.node.gateway.scene import Network, client, deployment
from tests.node.gateway.test_messages_api import CALLS, says
from tests.scenes.raw_server import chunked, piece, response

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

DOWN = Odd(response(b'{"error": {"message": "down"}}', status=500))
FINE = says({"content": "fine"})
ALONE: Any = {"extra_body": {"daitn": {"hedge": False}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened_world(tmp_path_factory.mktemp("kept"), keeps=True) as world:
        yield world


def heard(world: World) -> list[list[tuple[str, Any]]]:
    """The chats that servers were asked since this was called last."""
    chats = [body["messages"] for one in world.servers.values() for _, body in one.requests]
    for server in world.servers.values():
        server.requests.clear()
    return [[(said["role"], said["content"]) for said in chat] for chat in chats]


async def alone(world: World, odd: Odd = FINE) -> tuple[Network, openai.AsyncOpenAI]:
    """A client of a gateway that knows the site `odd` only."""
    world.tell(odd)
    network, gateway = await scene(world, "whole", alone=True)
    heard(world)
    return network, client(gateway)


def asked_in(mode: str) -> dict[str, Any]:
    wishes: dict[str, Any] = {"hedge": mode == "hedged"}
    model = "auto" if mode in ("cascade", "ensemble") else "m"
    if mode in ("cascade", "ensemble"):
        wishes |= {"strategy": mode, "topic": "medicine"}
    if mode == "cascade":
        wishes |= {"min_accuracy": 0.9, "escalate_below": 0.0}
    if mode == "packet":
        wishes |= {"autonomous": True, "deadline_s": 60.0}
    return {"model": model, "extra_body": {"daitn": wishes}}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("odd", [DOWN, says({"content": "fine"})], ids=["retried", "at once"])
async def test_a_conversation_goes_on_in_every_way(world: World, mode: str, odd: Odd) -> None:
    world.tell(odd)
    _, gateway = await scene(world, mode)
    ask, how = client(gateway).responses, asked_in(mode)
    heard(world)

    last: str | None = None
    for turn in ("one", "two", "three"):
        if "stream" in mode:
            async with ask.stream(input=turn, previous_response_id=last or "", **how) as stream:
                answer: Any = await stream.get_final_response()
        else:
            answer = await ask.create(input=turn, previous_response_id=last, **how)
        assert answer.output_text == "fine"
        assert (answer.status, answer.store, answer.previous_response_id) == (
            "completed",
            True,
            last,
        )
        last = answer.id

    said = [("user", "one"), ("assistant", "fine"), ("user", "two"), ("assistant", "fine")]
    asked = heard(world)
    assert {len(chat) for chat in asked} == {1, 3, 5}
    parts = [("user", [{"type": "text", "text": text}]) for text in ("one", "two")]
    expected = [parts[0], said[1], parts[1], said[3]]
    for chat in asked:
        assert chat[:-1] == expected[: len(chat) - 1]


async def test_what_is_kept_can_be_read_and_deleted(world: World) -> None:
    _, asking = await alone(world)
    kept = await asking.responses.create(
        model="m", input="one", instructions="Be brief.", metadata={"a": "b"}, **ALONE
    )
    after = await asking.responses.create(
        model="m",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "two"}]}],
        previous_response_id=kept.id,
        **ALONE,
    )

    read = await asking.responses.retrieve(kept.id)
    assert read == kept
    assert (read.instructions, read.metadata) == ("Be brief.", {"a": "b"})
    items: Any = [item async for item in asking.responses.input_items.list(after.id, order="asc")]
    assert [item.type for item in items] == ["message"] * 3
    assert [item.content[0].text for item in items] == ["one", "fine", "two"]
    pages = [item async for item in asking.responses.input_items.list(after.id, limit=1)]
    assert [item.id for item in pages] == [item.id for item in reversed(items)]
    # What was instructed before is not carried over.
    assert heard(world)[-1][0][0] == "user"

    await asking.responses.delete(kept.id)
    for gone in (asking.responses.retrieve, asking.responses.delete):
        with pytest.raises(openai.NotFoundError):
            await gone(kept.id)
    with pytest.raises(openai.BadRequestError) as refused:
        await asking.responses.create(model="m", input="x", previous_response_id=kept.id)
    assert (refused.value.code, refused.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    assert (await asking.responses.retrieve(after.id)).output_text == "fine"


async def test_another_gateway_finds_the_facility_by_the_id(world: World) -> None:
    network, asking = await alone(world)
    first = await asking.responses.create(model="m", input="one", **ALONE)
    other = client(await network.gateway("other"))

    assert site_of(first.id) == "odd"
    second = await other.responses.create(
        model="m", input="two", previous_response_id=first.id, **ALONE
    )
    assert len(heard(world)[-1]) == 3
    assert (await asking.responses.retrieve(second.id)).output_text == "fine"


async def test_an_owner_finds_its_own_only(world: World) -> None:
    keys = {"ada-1": "ada", "ada-2": "ada", "eve": "eve"}
    network, _ = await alone(world)
    gateway = await network.gateway(
        "keyed",
        keys=tuple(
            KeyConfig(owner=owner, sha256=hashlib.sha256(key.encode()).hexdigest())
            for key, owner in keys.items()
        ),
    )
    mine, also_mine, eve = (client(gateway, key).responses for key in keys)
    kept = await mine.create(model="m", input="one", **ALONE)

    assert (await also_mine.retrieve(kept.id)).id == kept.id
    for ask in (eve.retrieve, eve.delete, eve.input_items.list):
        with pytest.raises(openai.NotFoundError):
            await ask(kept.id)
    with pytest.raises(openai.BadRequestError) as refused:
        await eve.create(model="m", input="x", previous_response_id=kept.id)
    assert refused.value.code == "previous_response_not_found"
    with pytest.raises(openai.AuthenticationError):
        await client(gateway).responses.retrieve(kept.id)
    assert (await mine.retrieve(kept.id)).id == kept.id


async def test_another_model_can_continue_a_stored_response(world: World) -> None:
    network, asking = await alone(world)
    network.facility("well", f"{world.sites['well'].url}/v1", deployment("of-well"), keeps=True)
    first = await asking.responses.create(model="m", input="one", **ALONE)
    second = await asking.responses.create(
        model="of-well", input="two", previous_response_id=first.id, **ALONE
    )
    assert (first.model, second.model) == ("m", "of-well")
    assert (site_of(first.id), site_of(second.id)) == ("odd", "well")
    assert len(heard(world)[-1]) == 3


async def test_a_conversation_goes_on_where_its_beginning_is_cached(world: World) -> None:
    network, asking = await alone(world)
    for site in ("odd", "well"):
        network.facility(site, f"{world.sites[site].url}/v1", deployment("m"), keeps=True)
    other = client(await network.gateway("cold"))
    for site in ("odd", "well"):
        first = await asking.responses.create(model=f"m@{site}", input="one", **ALONE)
        second = await other.responses.create(
            model="m", input="two", previous_response_id=first.id, **ALONE
        )
        assert (site_of(first.id), site_of(second.id)) == (site, site)


async def test_calls_of_tools_go_on(world: World) -> None:
    said = says({"content": "See.", "tool_calls": CALLS}, "tool_calls")
    _, asking = await alone(world, said)
    first = await asking.responses.create(model="m", input="Weather?", **ALONE)
    world.tell(FINE)
    results: Any = [{"type": "function_call_output", "call_id": CALLS[0]["id"], "output": "mild"}]
    await asking.responses.create(model="m", input=results, previous_response_id=first.id, **ALONE)
    assert [role for role, _ in heard(world)[-1]] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "sent back"])
@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
async def test_what_a_model_thought_is_not_said_again(
    world: World, streams: bool, keeps: bool
) -> None:
    _, asking = await alone(world, says({"content": "42", "reasoning_content": "hm"}))
    talk: list[Any] = []
    last: Any = None
    for turn in ("one", "two", "three"):
        talk.append({"role": "user", "content": turn})
        given: dict[str, Any] = {"input": talk, "store": False}
        if keeps:
            given = {"input": turn, "previous_response_id": last and last.id}
        if streams:
            events = await asking.responses.create(model="m", **given, **ALONE, stream=True)
            last = [event async for event in events][-1].response
        else:
            last = await asking.responses.create(model="m", **given, **ALONE)
        assert [item.type for item in last.output] == ["reasoning", "message"]
        talk += [item.to_dict() for item in last.output]
    said = ["user", "assistant", "user", "assistant", "user"]
    assert [role for role, _ in heard(world)[-1]] == said


@pytest.mark.parametrize(
    ("odd", "status", "kept"),
    [
        (says({"content": "fi"}, "length"), "incomplete", True),
        (Odd(chunked(piece("One "), ends=False)), "failed", False),
    ],
)
async def test_a_stream_is_kept_once_it_is_complete(
    world: World, odd: Odd, status: str, kept: bool
) -> None:
    _, asking = await alone(world, odd)
    stream = await asking.responses.create(model="m", input="hi", stream=True, **ALONE)
    events: Any = [event async for event in stream]

    assert events[-1].type == f"response.{status}"
    assert {event.response.id for event in events if hasattr(event, "response")} == {
        events[0].response.id
    }
    try:
        read = await asking.responses.retrieve(events[0].response.id)
        assert kept
        assert read == events[-1].response
    except openai.NotFoundError:
        assert not kept


async def test_who_asks_or_keeps_may_want_nothing_kept(world: World) -> None:
    network, asking = await alone(world)
    unstored = await asking.responses.create(model="m", input="one", store=False, **ALONE)
    network.facility("odd", f"{world.sites['odd'].url}/v1", deployment("m"))
    unkept = await asking.responses.create(model="m", input="one", store=True, **ALONE)
    for answer in (unstored, unkept):
        assert answer.store is False
        with pytest.raises(openai.BadRequestError, match="whole conversation") as refused:
            await asking.responses.create(model="m", input="x", previous_response_id=answer.id)
        assert refused.value.code == "previous_response_not_found"


async def test_a_private_query_goes_where_nothing_is_kept(world: World) -> None:
    network, asking = await alone(world)
    network.facility("well", f"{world.sites['well'].url}/v1", deployment("m"))
    private: Any = {"extra_body": {"daitn": {"privacy": "unkept"}}}
    answer = await asking.responses.with_raw_response.create(model="m", input="one", **private)
    assert answer.headers["daitn-facility"] == "well"
    assert answer.parse().store is False


async def test_an_answer_that_cannot_be_kept_says_so(world: World) -> None:
    _, asking = await alone(world)
    keeper = world.sites["odd"].facility._responses
    most, keeper._most_bytes = keeper._most_bytes, 10
    try:
        for stream in (False, True):
            answer: Any = await asking.responses.create(
                model="m", input="one", stream=stream, **ALONE
            )
            if stream:
                answer = [event async for event in answer][-1].response
            assert (answer.status, answer.output_text, answer.store) == ("completed", "fine", False)
    finally:
        keeper._most_bytes = most


async def test_a_facility_that_is_away_is_no_end_of_the_conversation(world: World) -> None:
    network, asking = await alone(world)
    kept = await asking.responses.create(model="m", input="one", **ALONE)
    well = f"{world.sites['well'].url}/v1"
    network.facility("well", well, deployment("m"))
    network.facility("odd", "http://127.0.0.1:9/v1", deployment("m"), keeps=True)
    for ask in (
        lambda: asking.responses.create(model="m", input="x", previous_response_id=kept.id),
        lambda: asking.responses.retrieve(kept.id),
        lambda: asking.responses.delete(kept.id),
    ):
        with pytest.raises(openai.InternalServerError, match="whole conversation") as away:
            await ask()
        assert (away.value.code, away.value.status_code) == ("unavailable", 503)
        assert away.value.response.headers["retry-after"]
    network.state.lost(SiteId("odd"), time.time())
    with pytest.raises(openai.InternalServerError, match="odd"):
        await asking.responses.retrieve(kept.id)
    network.state.removed(SiteId("odd"), time.time())
    with pytest.raises(openai.NotFoundError):
        await asking.responses.retrieve(kept.id)


async def test_a_gateway_on_the_way_passes_on_what_the_facility_says(world: World) -> None:
    world.tell(FINE)
    network, gateway = await scene(world, "relay", alone=True)
    ask = client(gateway).responses
    kept = await ask.create(model="m", input="one", **ALONE)
    unknown = response_id("odd", bytes(16))

    # Nothing leads from here to the facility: the address is the gateway's in between.
    network.facility("odd", "http://127.0.0.1:9/v1", deployment("m"), keeps=True)
    inside = Network()
    inside.facility("odd", f"{world.sites['odd'].url}/v1", deployment("m"), keeps=True)
    network.views["hub"].state = inside.state
    assert (await ask.retrieve(kept.id)).id == kept.id
    assert len([item async for item in ask.input_items.list(kept.id)]) == 1
    with pytest.raises(openai.NotFoundError):
        await ask.retrieve(unknown)
    network.views["hub"].state = Network().state
    with pytest.raises(openai.InternalServerError, match="does not know it"):
        await ask.retrieve(kept.id)
    network.views["hub"].state = inside.state
    await ask.delete(kept.id)
    with pytest.raises(openai.NotFoundError):
        await ask.retrieve(kept.id)


async def test_old_responses_are_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, asking = await alone(world)
    kept = await asking.responses.create(model="m", input="one", **ALONE)
    now_s = time.time()
    keeper = world.sites["odd"].facility._responses
    assert await keeper.get("", kept.id)
    monkeypatch.setattr(clock, "wall_s", lambda: now_s + 31 * 86400.0)
    with pytest.raises(ApiError, match="no response"):
        await keeper.get("", kept.id)
    monkeypatch.setattr("daitn.node.serving.kept_responses.EXPIRY_INTERVAL_S", 0.0)
    await keeper.expire()
    assert not keeper._store.names()


async def test_a_retried_request_makes_no_second_turn(world: World) -> None:
    """A client that lost an answer asks again: both go on from the same response."""
    _, asking = await alone(world)
    first = await asking.responses.create(model="m", input="one", **ALONE)
    twice = await asyncio.gather(
        *(
            asking.responses.create(model="m", input="two", previous_response_id=first.id, **ALONE)
            for _ in range(2)
        )
    )
    heard(world)
    await asking.responses.create(
        model="m", input="three", previous_response_id=twice[1].id, **ALONE
    )
    assert len(heard(world)[-1]) == 5


async def test_ids_that_nobody_gave_out_find_nothing(world: World) -> None:
    _, asking = await alone(world)
    kept = await asking.responses.create(model="m", input="one", **ALONE)
    for forged in (
        response_id("odd", bytes(16)),
        response_id("well", bytes(16)),
        response_id("nowhere", bytes(16)),
        kept.id[:-1],
        kept.id + "A",
        kept.id.swapcase(),
        "resp_",
        "resp_1",
        "x",
        "%2e%2e%2fmodels",
    ):
        with pytest.raises(openai.NotFoundError):
            await asking.responses.retrieve(forged)
        with pytest.raises(openai.BadRequestError) as refused:
            await asking.responses.create(model="m", input="x", previous_response_id=forged)
        assert refused.value.code == "previous_response_not_found"
    assert not heard(world)[1:]


async def test_only_gateways_have_responses_kept(world: World) -> None:
    _, asking = await alone(world)
    kept = await asking.responses.create(model="m", input="one", **ALONE)
    for ask in (asking.put, asking.patch, asking.post):
        with pytest.raises(openai.APIStatusError) as refused:
            await ask(f"/responses/{kept.id}", cast_to=object, body={})
        assert refused.value.status_code == 405
    for path in (f"/responses/{kept.id}/cancel", f"/responses/{kept.id}/input_items/x"):
        with pytest.raises(openai.NotFoundError):
            await asking.get(path, cast_to=object)
    for query in ("limit=0", "limit=x", "limit=101", "order=up"):
        with pytest.raises(openai.BadRequestError):
            await asking.get(f"/responses/{kept.id}/input_items?{query}", cast_to=object)
