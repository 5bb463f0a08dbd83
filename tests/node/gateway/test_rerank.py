"""Documents are ranked: by servers in order and odd ones, in every way in which one is asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from daitn.objects.abilities import Abilities, Says
from daitn.objects.deployments import Api
from daitn.objects.queries import QueryStatus
from tests.node.gateway.odd_world import BOUND, Odd, World, ask, opened_world, scene
from tests.node.gateway.scene import client, deployment
from tests.scenes.raw_server import chunked, piece, ranking, response, whole

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

MODES = ("whole", "hedged", "packet", "relay")
"""Rankings do not stream, and are compared with no other model's."""
STOP = piece(reason="stop")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened_world(tmp_path_factory.mktemp("rerank")) as world:
        yield world


def results(*found: Any, **changes: Any) -> Odd:
    return Odd(response(ranking(results=[*found], **changes)))


def scored(index: Any, score: Any) -> dict[str, Any]:
    return {"index": index, "relevance_score": score}


NONE = {
    "an error": Odd(response(b'{"error": {"message": "down"}}', status=500)),
    "an error in a 200": Odd(response(b'{"error": {"message": "no"}, "results": []}')),
    "an error beside results": Odd(response(ranking(0.1, 0.2, error="no"))),
    "no results": results(),
    "results of nothing": results(None),
    "results as an object": Odd(response(b'{"results": {"0": 0.5}}')),
    "results as null": Odd(response(ranking(results=None))),
    "no index": results({"relevance_score": 0.5}),
    "no score": results({"index": 0}),
    "a score of null": results(scored(0, None)),
    "a score that is no number": results(scored(0, float("nan"))),
    "a score as text": results(scored(0, "0.5")),
    "a document that was not sent": results(scored(2, 0.5)),
    "a document before the first": results(scored(-1, 0.5)),
    "half a document": results(scored(0.5, 0.5)),
    "a document twice": results(scored(1, 0.5), scored(1, 0.4)),
    "another kind of answer": Odd(response(whole("odd"))),
    "a stream": Odd(chunked(piece("odd"), STOP)),
    "a list": Odd(response(b'[{"index": 0, "score": 0.5}]')),
    "cut short": Odd(response(ranking(0.1, 0.2))[:-9]),
    "too long": Odd(response(ranking(0.1, 0.2, pad="x" * BOUND))),
    "no such path": Odd(response(b"<html>404</html>", status=404, kind="text/html")),
    "not started for it": Odd(
        response(b'{"error": {"message": "Start it with `--reranking`"}}', status=501)
    ),
}
"""Nothing of a ranking: another deployment is asked."""

GOOD = {
    "in order": Odd(response(ranking(0.75, 0.25))),
    "the best only": results(scored(1, 0.75)),
    "whole numbers": results(scored(1, 3), scored(0, -2)),
    "as Cohere": results(scored(0, 0.75), meta={"billed_units": {"search_units": 1}}, usage=None),
    "as Jina": results({**scored(0, 0.75), "document": {"text": "Tin is a metal."}}, object="list"),
    "no model": Odd(response(json.dumps({"results": [scored(0, 0.75)]}).encode())),
    "a byte order mark": Odd(response(b"\xef\xbb\xbf" + ranking(0.75, 0.25))),
}
"""Rankings, said in odd ways."""


def each(odds: dict[str, Odd]) -> list[Any]:
    return [
        pytest.param(odd, mode, id=f"{name}-{mode}") for name, odd in odds.items() for mode in MODES
    ]


@pytest.mark.parametrize(("odd", "mode"), each(NONE))
async def test_what_is_no_ranking_is_made_elsewhere(world: World, odd: Odd, mode: str) -> None:
    world.tell(odd)
    asked = await ask(*await scene(world, mode), mode, Api.RERANK)

    assert asked.status == 200, asked.body
    assert [found["relevance_score"] for found in json.loads(asked.body)["results"]] == [0.5, 0.5]
    assert asked.record.status is QueryStatus.ANSWERED
    if mode in ("whole", "relay"):
        assert asked.record.site == "well"


@pytest.mark.parametrize(("odd", "mode"), [one for one in each(GOOD) if one.values[1] != "hedged"])
async def test_a_ranking_counts_however_it_is_said(world: World, odd: Odd, mode: str) -> None:
    world.tell(odd)
    asked = await ask(*await scene(world, mode, alone=True), mode, Api.RERANK)

    assert asked.status == 200, asked.body
    best = json.loads(asked.body)["results"][0]
    assert best["relevance_score"] in (0.75, 3)
    assert json.loads(asked.body).get("model", "m") == "m"
    assert (asked.record.api, asked.record.tokens_out) == (Api.RERANK, 0)
    assert asked.record.tokens_in > 0
    assert not asked.failed


async def test_a_server_gets_what_was_asked_and_its_own_name_of_the_model(world: World) -> None:
    world.tell(Odd(response(ranking(0.75, 0.25))))
    network, gateway = await scene(world, "whole", alone=True)

    asked = await ask(
        network, gateway, "whole", Api.RERANK, top_n=1, return_documents=True, stream=True
    )

    head, body = world.servers["odd"].requests[-1]
    assert head.startswith(b"POST /v1/rerank ")
    assert body["documents"] == ["Tin is a metal.", {"text": "Ice"}]
    assert (body["query"], body["top_n"], body["return_documents"]) == ("tin?", 1, True)
    assert "daitn" not in body
    assert asked.record.tokens_in == 9
    assert asked.headers["daitn-facility"] == "odd"


@pytest.mark.parametrize("strategy", ["cascade", "ensemble"])
async def test_no_other_model_is_compared(world: World, strategy: str) -> None:
    network, gateway = await scene(world, "ensemble")
    world.tell(Odd(response(ranking(0.75, 0.25))))
    asked = await ask(network, gateway, "ensemble", Api.RERANK, daitn={"strategy": strategy})
    assert (asked.status, asked.headers["daitn-strategy"]) == (200, "single")
    assert asked.record.attempts == 1


async def test_who_does_not_rank_is_not_asked(world: World) -> None:
    network, gateway = await scene(world, "whole")
    before = len(world.servers["odd"].requests)
    network.facility("odd", f"{world.sites['odd'].url}/v1", deployment("m", apis=(Api.CHAT,)))
    assert (await ask(network, gateway, "whole", Api.RERANK)).headers["daitn-facility"] == "well"
    network.facility("well", f"{world.sites['well'].url}/v1", deployment("m", apis=(Api.CHAT,)))
    asked = await ask(network, gateway, "whole", Api.RERANK)
    assert (asked.status, asked.error["code"]) == (400, "infeasible")
    assert "not rerank" in json.dumps(asked.error)
    assert len(world.servers["odd"].requests) == before


async def test_auto_ranks_and_a_ranker_is_not_asked_to_talk(world: World) -> None:
    network, gateway = await scene(world, "whole")
    ranker = deployment("r", apis=(Api.RERANK,), abilities=Abilities(says=(Says.SCORE,)))
    network.facility("odd", f"{world.sites['odd'].url}/v1", ranker)
    chat = await ask(network, gateway, "whole", model="auto")
    assert (chat.status, chat.text) == (200, "fine")
    network.facility("well", f"{world.sites['well'].url}/v1", ranker)
    assert (await ask(network, gateway, "whole", model="auto")).status == 400


async def test_openais_client_can_ask_for_one(world: World) -> None:
    _, gateway = await scene(world, "whole")
    world.tell(Odd(response(ranking(0.75, 0.25))))
    body = {"model": "auto", "query": "q", "documents": ["a", "b"], "top_n": 1}
    async with client(gateway) as asking:
        answer: Any = await asking.post("/rerank", cast_to=object, body=body)
    assert [found["index"] for found in answer["results"]] == [0, 1]


async def test_documents_are_read_one_by_one(world: World) -> None:
    """100 documents of 250 tokens are ranked by a model that holds 512; one of 1,000 is not."""
    network, gateway = await scene(world, "whole")
    world.tell(Odd(response(ranking(0.75))))
    small = deployment("m", context_tokens=512)
    for site in ("odd", "well"):
        network.facility(site, f"{world.sites[site].url}/v1", small)
    many = await ask(network, gateway, "whole", Api.RERANK, documents=["x" * 1000] * 100)
    assert many.status == 200, many.body
    long = await ask(network, gateway, "whole", Api.RERANK, documents=["a", "x" * 4000])
    assert (long.status, long.error["code"]) == (400, "context_length_exceeded")
    assert "1006 are needed" in json.dumps(long.error)
