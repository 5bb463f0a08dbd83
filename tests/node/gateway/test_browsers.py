"""Scripts of web pages, and addresses that were joined carelessly."""

from __future__ import annotations

import aiohttp
import pytest

from daitn.node.config import GatewayConfig
from daitn.objects.errors import InvalidInput
from daitn.objects.wire import checked
from tests.node.gateway.scene import Network, deployment
from tests.scenes.openai_server import OpenAiServer

Servers = tuple[OpenAiServer, ...]
CHAT = "/v1/chat/completions"
PAGE = "https://app.example.org"
QUERY = {"model": "doctor", "messages": [{"role": "user", "content": "What helps?"}]}
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type, daitn-min-accuracy",
}
pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ((PAGE,), PAGE, PAGE),
        ((PAGE, "null"), "null", "null"),
        (("*",), PAGE, "*"),
        ((PAGE,), "https://evil.example.org", None),
        ((PAGE,), "https://app.example.org.evil.org", None),
        ((PAGE,), None, None),
        (("*",), None, None),
        ((), PAGE, None),
    ],
)
async def test_pages_ask_as_the_file_says(
    network: Network,
    servers: Servers,
    origins: tuple[str, ...],
    origin: str | None,
    allowed: str | None,
) -> None:
    network.facility("mdf", servers[0].url, deployment("doctor"))
    url = (await network.gateway(origins=origins)).descriptor().endpoint
    named = {} if origin is None else {"origin": origin}
    allows = "access-control-allow-origin"
    async with aiohttp.ClientSession() as session:
        async with session.options(url + CHAT, headers={**named, **PREFLIGHT}) as asked:
            assert asked.status == (405 if allowed is None else 204)
            assert asked.headers.get(allows) == allowed
            if allowed is None:
                assert asked.headers["allow"] == "POST"
            else:
                assert "POST" in asked.headers["access-control-allow-methods"]
                wanted = PREFLIGHT["access-control-request-headers"]
                assert asked.headers["access-control-allow-headers"] == wanted
                assert "access-control-allow-credentials" not in asked.headers
        for body in (QUERY, {**QUERY, "stream": True}, {"model": "nobody"}, {}):
            async with session.post(url + CHAT, json=body, headers=named) as answer:
                assert answer.status == (200 if "messages" in body else answer.status)
                assert answer.headers.get(allows) == allowed
                exposed = answer.headers.get("access-control-expose-headers", "")
                assert ("daitn-cost-usd" in exposed) == (allowed is not None)
                varies = bool(origins) and "*" not in origins
                assert ("origin" in answer.headers.get("vary", "")) == varies
        async with session.get(f"{url}/v1/models", headers=named) as models:
            assert (models.status, models.headers.get(allows)) == (200, allowed)


@pytest.mark.parametrize("origin", ["app.example.org", f"{PAGE}/", f"{PAGE}/a", "", "https://"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(InvalidInput, match=r"origins\[0\]"):
        checked({"origins": [origin]}, GatewayConfig, "gateway")


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions/", "//v1/chat/completions", "/v1//chat///completions//"],
)
async def test_slashes_too_many_do_not_matter(
    network: Network, servers: Servers, path: str
) -> None:
    network.facility("mdf", servers[0].url, deployment("doctor"))
    url = (await network.gateway()).descriptor().endpoint
    async with aiohttp.ClientSession() as session:
        async with session.post(url + path, json=QUERY) as answer:
            assert answer.status == 200
        for other in (
            "//healthz",
            "/healthz/",
            "/v1/models/",
            "//v1//models",
            "/v1/models/doctor/",
        ):
            async with session.get(url + other) as found:
                assert found.status == 200
            async with session.head(url + other) as found:
                assert found.status == 200
        for other in ("/", "//", "/v1", "/v1chat/completions"):
            async with session.get(url + other) as found:
                assert found.status == 404
