"""What gateways read in a request to rank documents, and in its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.node.gateway.request import read_request
from daitn.objects.abilities import Need
from daitn.objects.deployments import Api
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import Strategy
from daitn.openai.answers import read_whole
from daitn.openai.errors import ApiError
from daitn.openai.events import AnswerBroken
from daitn.openai.responses import Usage
from tests.scenes.raw_server import ranking

BOUND = 1 << 20


def scored(index: Any, score: Any) -> dict[str, Any]:
    return {"index": index, "relevance_score": score}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": 5}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": None}, "documents"),
        ({"documents": "Tin"}, "documents"),
        ({"documents": ["a", 5]}, "documents[1]"),
        ({"documents": [{"text": ["a"]}]}, "documents[0].text"),
        ({"documents": {"a": 1}}, "documents"),
        ({"model": ""}, "model"),
        ({"top_n": 0}, "top_n"),
        ({"tools": "x"}, "tools"),
        ({"functions": [5]}, "functions"),
    ],
)
def test_what_cannot_be_ranked_is_refused_by_name(changes: dict[str, Any], param: str) -> None:
    body = {"model": "m", "query": "q", "documents": ["a"], **changes}
    with pytest.raises(ApiError) as refused:
        read_request(Api.RERANK, json.dumps(body).encode(), [])
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize("given_", ["", [], [""], [[]], ["", []]])
def test_texts_of_nothing_are_no_input(given_: Any) -> None:
    with pytest.raises(ApiError) as refused:
        read_request(Api.EMBEDDINGS, json.dumps({"model": "m", "input": given_}).encode(), [])
    assert (refused.value.status, refused.value.param) == (400, "input")
    assert read_request(Api.EMBEDDINGS, b'{"model": "m", "input": ["", "a"]}', []).choices


def intent(api: Api, **fields: Any) -> Any:
    parsed = read_request(api, json.dumps({"model": "auto", **fields}).encode(), [])
    return parsed.intent(SiteId("gw"), "", "", parsed.name)


def test_a_rerank_request_needs_text_and_for_pictures_image_input() -> None:
    plain = intent(Api.RERANK, query="q", documents=['{"a": 1}'], daitn={"strategy": "ensemble"})
    assert plain.needs == (Need.TEXT,)
    assert (plain.tokens_out, plain.constraints.strategy) == (0, Strategy.SINGLE)
    picture = {"image": "data:image/png;base64,AAAA"}
    parts = {"content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}
    for document in (picture, parts):
        seen = intent(Api.RERANK, query="q", documents=["a", document])
        assert seen.needs == (Need.TEXT, Need.IMAGE)
        assert seen.tokens_in > 1000


def test_texts_of_one_request_are_read_one_by_one() -> None:
    asks: list[tuple[Api, dict[str, Any], float]] = [
        (Api.EMBEDDINGS, {"input": "abc" * 100}, 1.0),
        (Api.EMBEDDINGS, {"input": ["abc" * 100] * 4}, 0.25),
        (Api.EMBEDDINGS, {"input": [[1] * 30, [2] * 10]}, 0.75),
        (Api.EMBEDDINGS, {"input": [1] * 40}, 1.0),
        (Api.CHAT, {"messages": [{"role": "user", "content": "a"}], "input": ["a", "b"]}, 1.0),
        (Api.COMPLETIONS, {"prompt": ["abc" * 100] * 2}, 0.5),
        (Api.RERANK, {"query": "tin?", "documents": ["abc" * 100] * 5}, 0.2),
    ]
    for api, fields, longest_share in asks:
        assert intent(api, **fields).longest_share == pytest.approx(longest_share), fields


def test_a_chat_may_have_fields_of_the_same_names() -> None:
    """vLLM gives `documents` to chat templates."""
    hello = [{"role": "user", "content": "hi"}]
    parsed = read_request(
        Api.CHAT,
        json.dumps({"model": "m", "messages": hello, "documents": [7, 8], "query": 5}).encode(),
        [],
    )
    assert parsed.choices == 1


def test_tokens_of_a_ranking_are_all_read() -> None:
    assert read_whole(ranking(0.5), BOUND, "bound", api=Api.RERANK).usage == Usage(prompt_tokens=9)


@given(
    st.lists(st.integers(-1, 6)),
    st.lists(st.none() | st.floats() | st.text(max_size=2) | st.integers()),
    st.integers(0, 5),
)
def test_a_ranking_names_documents_that_were_sent_once_each(
    places: list[int], scores: list[Any], documents: int
) -> None:
    found = [scored(at, score) for at, score in zip(places, scores, strict=False)]
    body = ranking(results=found)
    try:
        read_whole(body, BOUND, "bound", api=Api.RERANK, choices=documents)
        ranks = True
    except AnswerBroken:
        ranks = False

    indexes = [one["index"] for one in found]
    numbers = [type(score) is int or (isinstance(score, float) and abs(score) < 1e999)
               for score in scores[: len(found)]]  # fmt: skip
    assert ranks == (
        bool(found)
        and all(numbers)
        and len(set(indexes)) == len(indexes)
        and all(0 <= index < documents for index in indexes)
    )
