"""Servers of others answer through the network, with a model made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.scenes.waiting import wait_until

from .scene import asking
from .servers import Server, llama_cpp, transformers_serve

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


@pytest.fixture(params=[transformers_serve, llama_cpp])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    made: Server = request.param(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def test_it_answers_through_the_network(tmp_path: Path, server: Server) -> None:
    with asking(tmp_path, server.upstream("llama")) as asker:
        pieces = list(asker.stream(stream_options={"include_usage": True}))
        said = [piece.choices[0] for piece in pieces if piece.choices]
        assert {piece.model for piece in pieces} == {"llama"}, "the server's name for it stays"
        assert said[-1].finish_reason == "length"
        assert pieces[-1].usage is not None
        assert pieces[-1].usage.completion_tokens == 8
        answer = asker.whole()
        assert answer.model == "llama"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8
        text = answer.choices[0].message.content
        assert text
        assert "".join(one.delta.content or "" for one in said) == text

        server.kill()
        with pytest.raises(openai.APIStatusError) as gone:
            asker.whole()
        assert gone.value.status_code in (502, 503)

        server.start()

        def back() -> bool:
            try:
                return asker.says() == text
            except openai.APIStatusError:
                return False

        wait_until(back)
