"""An assistant looks at a running network, by the official SDK's own client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.scenes.breast_cancer import write_intent
from tests.scenes.command_line import daitn

from .conftest import Network

mcp = pytest.importorskip("mcp")
http = pytest.importorskip("mcp.client.streamable_http")

pytestmark = pytest.mark.processes


class Server:
    """`daitn mcp` over HTTP."""

    def __init__(self, network: Network, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daitn", "mcp", "--port", "0", *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DAITN_CENTER": network.processes.endpoint},
        )
        assert self.process.stderr is not None
        lines = [self.process.stderr.readline() for _ in range(2)]
        (self.url,) = re.findall(r"http://\S+", lines[0])
        (self.token,) = re.findall(r"Bearer (\S+)", lines[1])

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        headers = {"authorization": f"Bearer {self.token}"}
        async with http.create_mcp_http_client(headers=headers) as speaks:
            transport = http.streamable_http_client(self.url, http_client=speaks)
            async with mcp.Client(transport) as client:
                yield client

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def server(shared: Network) -> Iterator[Server]:
    started = Server(shared)
    yield started
    started.close()


def told(result: Any) -> Any:
    assert not result.is_error, result
    return json.loads(result.content[0].text)


def problem(result: Any) -> str:
    assert result.is_error
    return str(result.content[0].text)


async def test_an_assistant_sees_sites_jobs_and_why(
    shared: Network, server: Server, tmp_path: Path
) -> None:
    intent = write_intent(tmp_path, name="assisted")
    ended = await asyncio.to_thread(shared.daitn, "train", "-f", str(intent), "--watch", "--json")
    job = json.loads(ended.stdout)
    async with server.client() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert "cancel_job" not in tools
        assert all(tool.annotations.read_only_hint for tool in tools.values())
        sites = told(await client.call_tool("network", {}))
        assert {one["site"] for one in sites["listed"]} >= {"east", "north", "west"}
        listed = told(await client.call_tool("jobs", {}))["listed"]
        assert job["job"] in {one["job"] for one in listed}
        shown = told(await client.call_tool("job", {"job": job["job"]}))
        assert [visit["site"] for visit in shown["route"]] == [v["site"] for v in job["route"]]
        why = told(await client.call_tool("explain_job", {"job": job["job"], "decision": 1}))
        assert why["decision"]["number"] == 1
        assert why["decisions"] >= 1
        models = told(await client.call_tool("models", {}))
        assert job["job"] in {one["name"] for one in models["trained"]}
        # The same job in the ledger: what its plan said, and its measurements.
        used = told(await client.call_tool("accounts", {"account": job["owner"]}))["accounts"]
        assert {one["account"] for one in used} == {f"owner/{job['owner']}"}
        assert used[0]["quantities"]["examples"] >= job["examples"]
        assert used[0]["quantities"]["items"] > 0
        assert "there is no job" in problem(await client.call_tool("job", {"job": "none-1"}))
        assert "fix:" in problem(await client.call_tool("site", {"site": "nowhere"}))
        assert problem(await client.call_tool("cancel_job", {"job": job["job"]}))


def test_nobody_asks_without_the_token_nor_from_a_web_page(server: Server) -> None:
    def status(**headers: str) -> int:
        plain = {"content-type": "application/json", "accept": "application/json"}
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
        request = urllib.request.Request(server.url, body, {**plain, **headers})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status() == 401
    assert status(authorization="Bearer guess") == 401
    shown = f"Bearer {server.token}"
    assert status(authorization=shown, origin="https://evil.example") == 403
    assert status(authorization=shown, host="evil.example") in (403, 421)


async def test_writes_are_there_if_allowed_and_standard_input_serves_as_well(
    shared: Network,
) -> None:
    parameters = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-m", "daitn", "mcp", "--stdio", "--allow-writes"],
        env={**os.environ, "DAITN_CENTER": shared.processes.endpoint},
    )
    async with mcp.Client(parameters) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["cancel_job"].annotations.destructive_hint
        said = problem(await client.call_tool("cancel_job", {"job": "none-1"}))
        assert "there is no job none-1" in said


def test_a_port_that_is_taken_is_named_and_the_usual_one_is_no_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A control centre on the machine has its metrics there."""
    from daitn.cli.mcp import serving  # It needs `mcp`, without which this module is left out.

    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ended = daitn("mcp", "--port", str(taken))
        assert ended.returncode == 2
        assert f"cannot listen on 127.0.0.1:{taken}" in ended.stderr
        monkeypatch.setattr(serving, "MCP_PORT", taken)
        with serving.listening(None) as door:
            assert door.getsockname()[1] not in (0, taken)


def test_who_shows_the_token_may_spell_the_scheme_as_they_like(server: Server) -> None:
    asked = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    kinds = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    for scheme in ("bearer", "BEARER", "Bearer "):
        headers = {**kinds, "authorization": f"{scheme} {server.token}"}
        with urllib.request.urlopen(urllib.request.Request(server.url, asked, headers)) as reply:
            tools = json.load(reply)["result"]["tools"]
        assert "  " not in "".join(tool["description"] for tool in tools)
