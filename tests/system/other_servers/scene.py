"""Someone who asks servers of others through a facility and a gateway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from tests.scenes.clinic import facility, gateway
from tests.scenes.waiting import wait_until
from tests.system.conftest import build

__all__ = ["HELLO", "Asker", "asking"]

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


class Asker:
    """A client of the gateway. What it asks has always the same answer if nothing is added."""

    def __init__(self, url: str) -> None:
        self.client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)

    def whole(self, **fields: Any) -> ChatCompletion:
        answer: ChatCompletion = self.client.chat.completions.create(**_request(fields))
        return answer

    def stream(self, **fields: Any) -> openai.Stream[Any]:
        stream: openai.Stream[Any] = self.client.chat.completions.create(
            **_request(fields), stream=True
        )
        return stream

    def says(self, **fields: Any) -> str:
        return self.whole(**fields).choices[0].message.content or ""

    def models(self) -> set[str]:
        return {model.id for model in self.client.models.list().data}


@contextlib.contextmanager
def asking(folder: Path, *upstreams: dict[str, Any]) -> Iterator[Asker]:
    """A network whose one facility stands before these servers, once it knows them all."""
    door = gateway("gate")
    network = build(folder, [facility("hall", *upstreams), door])
    try:
        asker = Asker(f"http://{door['gateway']['listen']}/v1")
        wait_until(lambda: asker.models() >= {upstream["name"] for upstream in upstreams})
        yield asker
    finally:
        network.processes.stop()


def _request(fields: dict[str, Any]) -> dict[str, Any]:
    return {"model": "llama", "messages": HELLO, "max_tokens": 8, "temperature": 0, **fields}
