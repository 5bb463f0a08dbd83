"""What a gateway learns of answers' lengths, and what it reckons by them."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.node.gateway.scene import Network, client, deployment
from tests.scenes.openai_server import OpenAiServer

Servers = tuple[OpenAiServer, ...]
ASK: Any = {"model": "doctor", "messages": [{"role": "user", "content": "What helps?"}]}
IN_USD, OUT_USD = 0.007, 0.018
"""The server counts 7 tokens in and 9 out."""
pytestmark = pytest.mark.processes


async def test_a_limit_is_not_what_an_answer_costs(network: Network, servers: Servers) -> None:
    priced = deployment("doctor", price_usd_per_1k_in=1.0, price_usd_per_1k_out=2.0)
    network.facility("mdf", servers[0].url, priced)
    gateway = client(await network.gateway())
    limited: Any = {**ASK, "max_tokens": 2000, "extra_body": {"daitn": {"max_cost_usd": 0.08}}}

    with pytest.raises(openai.BadRequestError, match="cost"):  # Nobody knows yet.
        await gateway.chat.completions.create(**limited)
    for _ in range(20):
        await gateway.chat.completions.create(**ASK, max_tokens=2000)
    answer = await gateway.chat.completions.create(**limited)

    assert answer.usage is not None
    assert answer.usage.completion_tokens == 9


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stream_says_before_its_end_what_it_will_cost(
    network: Network, servers: Servers, stream: bool
) -> None:
    """`stream`: how the answers came from which it knows."""
    priced = deployment("doctor", price_usd_per_1k_in=1.0, price_usd_per_1k_out=2.0)
    network.facility("mdf", servers[0].url, priced)
    gateway = await network.gateway()
    chat: Any = client(gateway).chat.completions
    for _ in range(30):
        answer = await chat.create(**ASK, stream=stream)
        if stream:
            assert [chunk async for chunk in answer]

    async with chat.with_streaming_response.create(**ASK, stream=True) as told:
        expected_usd = float(told.headers["daitn-cost-usd"])

    assert expected_usd < 1.5 * (IN_USD + OUT_USD)
    record = gateway.queries(2)[1]
    assert record.tokens_out == 9
