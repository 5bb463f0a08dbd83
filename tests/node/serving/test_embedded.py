"""What can be asked of a placed model, and how it says what it cannot read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daitn.node.serving.request import read_query
from daitn.objects.deployments import Api
from daitn.openai.errors import ApiError
from daitn.tools.fabric.memory import MemoryNetwork
from tests.node.serving.scene import CHAT, HEADERS, Holder, Site, chat

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def singer(talker: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A facility with one model, for all tests."""
    folder, network = tmp_path_factory.mktemp("singer"), MemoryNetwork()
    holder = Holder(network, folder)
    await holder.start()
    site = await Site(network, folder).start()
    await site.ready("singer", holder.model("alto"))
    yield site
    await site.close()
    await holder.close()


@pytest.mark.parametrize(
    ("path", "constraints", "param"),
    [
        (CHAT, {"messages": "hi"}, "messages"),
        (CHAT, {"messages": [{"content": "hi"}]}, "messages[0].role"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "  "}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "refuse"}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 0}, "max_tokens"),
        (CHAT, {"messages": [{"role": "user", "content": "hi"}], "n": 2}, "n"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": "hi"}], "temperature": "hot"},
            "temperature",
        ),
        (CHAT, {"messages": [{"role": "user", "content": "hi"}], "seed": -1}, "seed"),
        (CHAT, {"messages": [{"role": "user", "content": "hi"}], "stop": [""]}, "stop[0]"),
        (CHAT, {"messages": [{"role": "user", "content": "hi"}], "stop": ["x"] * 5}, "stop"),
        (CHAT, {"messages": [{"role": "user", "content": "hi"}], "top_p": 0}, "top_p"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": "hi"}], "tools": [{}]},
            "tools[0].function",
        ),
        (
            CHAT,
            {
                "messages": [{"role": "user", "content": "hi"}],
                "response_format": {"type": "json_object"},
            },
            "response_format",
        ),
        ("/v1/completions", {"prompt": ["a", "b"]}, "prompt"),
        ("/v1/completions", {"prompt": [1, 2]}, "prompt[0]"),
        ("/v1/completions", {}, "prompt"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": ["a", " "]}, "input"),
        ("/v1/embeddings", {"input": ["a"] * 3000}, "input"),
    ],
)
async def test_what_a_model_cannot_read_is_told_by_its_field(
    singer: Site, path: str, constraints: dict[str, Any], param: str
) -> None:
    status, said, _ = await singer.post(
        path, json.dumps({"model": "singer", **constraints}).encode()
    )
    error = json.loads(said)["error"]
    assert (status, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert await singer.ask("singer") == "alto heard hi"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_ends_before_a_text_that_its_asker_names(
    singer: Site, stream: bool
) -> None:
    body = chat("singer", "hi", stop=[" heard", "never"], stream=stream)
    status, said, _ = await singer.post(CHAT, body)
    assert status == 200
    assert b"alto" in said
    assert b"heard" not in said
    assert b'"finish_reason":"stop"' in said


async def test_an_api_that_no_recipe_answers_is_told(singer: Site) -> None:
    backend = singer.facility._backends()["singer"]
    body = json.dumps({"model": "singer", "query": "a", "documents": ["b"]}).encode()
    request: Any = None
    with pytest.raises(ApiError, match="does not answer rerank") as refused:
        await backend.answer(request, read_query(Api.RERANK, body, {}), 0.0)
    assert (refused.value.status, refused.value.code) == (400, "unsupported")


async def test_a_question_too_long_for_the_worker_is_told(singer: Site) -> None:
    status, said, _ = await singer.post(CHAT, chat("singer", "x" * (17 << 20)))
    assert (status, json.loads(said)["error"]["code"]) == (400, "unsupported")


async def test_a_recipe_says_what_can_be_asked_of_its_models(singer: Site) -> None:
    deployed = singer.deployed("singer")
    assert deployed is not None
    assert deployed.apis == (Api.CHAT, Api.COMPLETIONS, Api.EMBEDDINGS)
    assert singer.facility.descriptor().recipes == ("talker", "causal-lm")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "messages", "prompt", "input", "max_tokens", "temperature", "seed", "logprobs", "n", "stop",
    "top_p", "tools", "response_format",
)  # fmt: skip
BODIES = st.fixed_dictionaries(
    {"model": st.just("singer")},
    optional={
        **dict.fromkeys((*FIELDS, "stream", "stream_options"), JSON),
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.just("user"), "content": JSON}), max_size=2
        ),
    },
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=BODIES, path=st.sampled_from([CHAT, "/v1/completions", "/v1/embeddings"]))
async def test_whatever_is_asked_is_answered_or_told_to_be_wrong(
    singer: Site, body: dict[str, Any], path: str
) -> None:
    status, said, headers = await singer.post(path, json.dumps(body).encode())
    if status != 200:
        assert status == 400
        assert json.loads(said)["error"]["param"]
    elif headers["content-type"] == "text/event-stream":
        assert said.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(said)["model"] == "singer"


@given(st.binary(max_size=200) | JSON.map(lambda plain: json.dumps(plain).encode()))
async def test_any_bytes_are_a_query_or_told_to_be_none(body: bytes) -> None:
    try:
        query = read_query(Api.CHAT, body, {})
    except ApiError as error:
        assert error.status == 400
        assert error.param
    else:
        assert query.model


@pytest.mark.parametrize("told", ["", "soon", "nan", "-1", "inf", "1e300"])
async def test_a_time_that_is_none_does_no_harm(singer: Site, told: str) -> None:
    headers = {**HEADERS, "daitn-asked-at": told}
    status, said, _ = await singer.post(CHAT, chat("singer", "hi"), headers)
    assert status == 200
    assert json.loads(said)["created"] > 1_600_000_000
