"""Nodes that are told to stop while they answer, through real processes."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.scenes.clinic import facility, gateway
from tests.scenes.forwarders import Mesh
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.ports import free_port
from tests.scenes.waiting import wait_until

from .conftest import Network, build

pytestmark = pytest.mark.processes

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TEXT = "one two three"
LONG_S = 600.0
"""Longer than any test looks on."""
MODELS = {"east": "surgeon", "west": "doctor"}


class Scene:
    """A gateway and two facilities, which are forwarders too."""

    def __init__(self, folder: Path, servers: dict[str, OpenAiServer]) -> None:
        mesh, door = Mesh(), gateway("gate") | {"drain_s": LONG_S}
        self.servers = servers
        self.urls = {"gate": f"http://{door['gateway']['listen']}"}
        nodes = [mesh.node("gate", {site: mesh.port(site) for site in servers}, entry=door)]
        for site, server in servers.items():
            listen = f"127.0.0.1:{free_port()}"
            self.urls[site] = f"http://{listen}"
            upstream = {"name": MODELS[site], "url": server.url, "apis": ["chat"]}
            entry = facility(site, upstream, facility={"listen": listen}, drain_s=LONG_S)
            nodes.append(mesh.node(site, {}, "gate", entry=entry))
        self.network: Network = build(folder, nodes)
        client = openai.OpenAI(base_url=f"{self.urls['gate']}/v1", api_key="none", max_retries=0)
        self.ask = client.chat.completions.create

    def whole(self, model: str, **constraints: Any) -> str:
        answer = self.ask(model=model, messages=HELLO, extra_body={"daitn": constraints})
        return answer.choices[0].message.content or ""

    def stream(self, model: str) -> str:
        stream = self.ask(model=model, messages=HELLO, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    def answers(self, ask: Callable[[], str]) -> bool:
        try:
            return ask() == TEXT
        except openai.APIStatusError:
            return False

    def unavailable(self, model: str) -> bool:
        """Whether the gateway asks it no more; as long as it does, the server does not answer."""
        try:
            self.whole(model, deadline_s=0.5)
        except openai.APIStatusError as error:
            return error.status_code == 503
        return False

    def problems(self, site: str, path: str) -> list[str]:
        try:
            with urllib.request.urlopen(self.urls[site] + path) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            assert error.code == 503
            body = error.read()
        found: list[str] = json.loads(body)["problems"]
        return found

    def tell(self, site: str) -> None:
        """Ask a node to stop, as systemd does."""
        os.kill(self.network.processes.pid(site), signal.SIGTERM)

    def ended(self, site: str) -> int:
        """Wait for a node that was told to stop; its exit status."""
        return self.network.processes._processes.pop(site).wait(120)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        servers = {site: stack.enter_context(OpenAiServer(text=TEXT)) for site in MODELS}
        scene = Scene(tmp_path_factory.mktemp("stopping"), servers)
        stack.callback(scene.network.processes.stop)
        for autonomous in (False, True):
            for model in MODELS.values():
                ask = partial(scene.whole, model, autonomous=autonomous)
                wait_until(partial(scene.answers, ask))
        yield scene


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def test_a_facility_that_is_told_to_stop_answers_first(
    scene: Scene, threads: ThreadPoolExecutor
) -> None:
    server = scene.servers["east"]
    server.control(slots=0)
    asked: list[Future[str]] = [
        threads.submit(scene.whole, "surgeon"),
        threads.submit(scene.stream, "surgeon"),
        threads.submit(scene.whole, "surgeon", autonomous=True),
    ]
    wait_until(lambda: server.control()["in_flight"] == 3)
    scene.tell("east")
    wait_until(lambda: scene.problems("east", "/readyz"))
    # Gateways hear of it, and ask it no more.
    wait_until(lambda: scene.unavailable("surgeon@east"))
    # Those with which the test tried are given up, at some moment.
    wait_until(lambda: server.control()["in_flight"] <= 3)
    assert server.control()["in_flight"] == 3
    assert not any(query.done() for query in asked)
    server.control(slots=9)
    assert [query.result() for query in asked] == [TEXT] * 3
    assert scene.ended("east") == 0


def test_a_gateway_that_is_told_to_stop_twice_tells_its_clients(
    scene: Scene, threads: ThreadPoolExecutor
) -> None:
    assert scene.problems("gate", "/readyz") == []
    server = scene.servers["west"]
    server.control(slots=0)
    query = threads.submit(scene.stream, "doctor")
    wait_until(lambda: server.control()["in_flight"] == 1)
    scene.tell("gate")
    wait_until(lambda: scene.problems("gate", "/readyz") == ["the gateway is stopping"])
    with pytest.raises(openai.InternalServerError, match="stopping"):
        scene.whole("doctor")
    assert not query.done()
    scene.tell("gate")
    with pytest.raises(openai.InternalServerError, match="stopping"):
        query.result()
    assert scene.ended("gate") == 0
