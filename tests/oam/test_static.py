"""The dashboard's files: each as it was built, the page for every place in it, nothing else."""

from __future__ import annotations

import gzip
from pathlib import Path

import aiohttp
import pytest

from daitn.oam.codings import takes
from daitn.oam.static import Dashboard
from daitn.tools.http import HttpServer, Reply, Request

PAGE, SCRIPT = b"<!doctype html><div id=app></div>", b"console.log(1);" * 100


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_bytes(PAGE)
    (folder / "assets/index-a1B2c3D4.js").write_bytes(SCRIPT)
    (folder / "assets/index-a1B2c3D4.js.gz").write_bytes(gzip.compress(SCRIPT))
    (folder / "private.key").write_bytes(b"no kind of file that a page has")
    (tmp_path / "outside.txt").write_text("outside")
    return folder


async def test_files_are_served_as_they_were_built(built: Path) -> None:
    dashboard = Dashboard(built)

    async def answer(request: Request) -> Reply:
        return dashboard.answer(request)

    server = HttpServer("127.0.0.1:0", "listen", answer)
    await server.start()
    async with aiohttp.ClientSession(server.endpoint, auto_decompress=False) as http:
        for place in (
            "/",
            "/index.html",
            "/jobs/tumour-1",
            "/queries/door/12",
            "/sites/only.one",
            "/jobs/a.b",
            "/jobs/main.js",
            "/queries/door.1/12",
            "/nowhere",
        ):
            async with http.get(place) as reply:
                assert (reply.status, await reply.read()) == (200, PAGE)
                assert "script-src 'self'" in reply.headers["content-security-policy"]
                assert reply.headers["cache-control"] == "no-cache"
                tag = reply.headers["etag"]
        async with http.get("/", headers={"if-none-match": tag}) as reply:
            assert (reply.status, await reply.read()) == (304, b"")
        script = "/assets/index-a1B2c3D4.js"
        async with http.get(script, headers={"accept-encoding": "gzip"}) as reply:
            assert gzip.decompress(await reply.read()) == SCRIPT
            assert reply.headers["content-encoding"] == "gzip"
            assert "immutable" in reply.headers["cache-control"]
            assert reply.headers["content-type"].startswith("text/javascript")
        async with http.get(script, headers={"accept-encoding": "identity"}) as reply:
            assert await reply.read() == SCRIPT
        for place in (
            "/assets/other.js",
            "/assets/index-a1B2c3D4.js.map",
            "/assets/other",
            "/favicon.ico",
            "/robots.txt",
            "/.well-known/security.txt",
            "/private.key",
            "/outside.txt",
            "/..%2foutside.txt",
            "/assets/..%2f..%2foutside.txt",
        ):
            async with http.get(place) as reply:
                assert reply.status == 404, place
                assert b"outside" not in await reply.read()
        async with http.post("/") as reply:
            assert reply.status == 405
    await server.close()


@pytest.mark.parametrize(
    ("accepts", "gzipped"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0, br", False),
        ("identity", False),
        ("", False),
        ("x-gzip", False),
    ],
)
def test_a_coding_is_used_if_the_client_takes_it(accepts: str, gzipped: bool) -> None:
    assert takes(accepts, "gzip") is gzipped
