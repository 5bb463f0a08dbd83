"""What RFC 9112 asks of a server; clients that send all, or read nothing; a server that stops."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from daitn.tools.http import HttpServer, Reply, Request, Response, server_connection
from tests.scenes.passing_time import PassingTime
from tests.scenes.waiting import PATIENCE_S, until
from tests.tools.http.scene import exchange, server
from tests.tools.http.test_client import (
    test_a_server_that_leaves_as_it_is_connected_to_lets_nobody_wait as _leaves,
)
from tests.tools.http.test_server import GET, LAST, POST, bodies, connections, echo, streaming


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: a", 400),
        (b"GET / HTTP/1.0\r\nhost: a\r\nhost: b", 400),
        (b"GET / HTTP/1.1\r\nhost:", 400),
        (b"GET / HTTP/1.1\r\nhost: a b", 400),
        (b"GET / HTTP/1.1\r\nhost: a/b", 400),
        (b"GET / HTTP/1.1\r\nhost: http://a", 400),
        (b"GET / HTTP/1.1\r\nhost: u@a", 400),
        (b"GET / HTTP/1.1\r\nhost: a:b", 400),
        (b"GET / HTTP/1.1\r\nhost: a, b", 400),
        (b"GET http://a/ HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nhost: [::1]:80", 200),
        (b"GET / HTTP/1.1\r\nhost: x.example:80", 200),
        (b"GET / HTTP/1.0", 200),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked", 501),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\nTransfer-Encoding: chunked",
            501,
        ),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity", 400),
        (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked", 200),
        (b"GET / HTTP/1.1\r\nhost: a\r\nexpect: 200-ok", 417),
        (b"GET / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue, more", 417),
        (b"GET / HTTP/1.0\r\nexpect: 200-ok", 200),
    ],
)
async def test_a_head_is_as_rfc_9112_wants_it(head: bytes, status: int) -> None:
    sent = head + b"\r\nconnection: close\r\n\r\n0\r\n\r\n"
    async with server(echo) as http:
        said = await exchange(http, sent)
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert said.count(b"HTTP/1.1 ") == 1
        assert b"connection: close\r\n" in said


async def test_a_client_of_http_1_0_is_told_neither_to_go_on_nor_in_chunks() -> None:
    waits = b"POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    upgrade = b"GET / HTTP/1.0\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"
    async with server(echo) as http:
        said = await exchange(http, waits, b"hi", pause_s=0.02)
        assert said.startswith(b"HTTP/1.1 200 ")
    async with server(streaming) as http:
        said = await exchange(http, upgrade)
        assert said.endswith(b"\r\n\r\none two")
        assert b"transfer-encoding" not in said


async def sent_all(http: HttpServer, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """What comes for these bytes and the end of all input."""
    port = int(http.endpoint.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(pause_s)
    writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        said = await reader.read()
    writer.close()
    return said


async def slowly(request: Request) -> Reply:
    body = await request.body(99)
    await asyncio.sleep(0.3)
    if request.path != "/stream":
        return Response(b"%b" % request.path.encode() + body)
    stream = request.stream({})
    for piece in (b"one ", b"two"):
        await stream.write(piece)
        await asyncio.sleep(0.1)
    return stream


@pytest.mark.parametrize("handler", [slowly, echo])
async def test_a_client_that_closed_its_sending_side_is_answered(
    handler: server_connection.Handler,
) -> None:
    async with server(handler) as http:
        said = await sent_all(http, GET)
        assert said.startswith(b"HTTP/1.1 200 OK\r\n")
        assert bodies(said)[0].strip().endswith(b"/a")
        assert b"connection: close" in said or handler is echo
        said = await sent_all(http, POST + b"content-length: 2\r\n\r\nhi")
        assert bodies(said)[0].endswith(b"hi")
        said = await sent_all(http, GET + GET.replace(b"/a", b"/b"))
        assert [body.strip()[-2:] for body in bodies(said)] == [b"/a", b"/b"]
        assert await sent_all(http, GET[:9]) == b""
        assert await sent_all(http) == b""
        said = await sent_all(http, POST + b"content-length: 2\r\n\r\nh")
        assert said.startswith(b"HTTP/1.1 400 ")


async def test_a_client_that_closed_its_sending_side_gets_the_whole_stream() -> None:
    stream = GET.replace(b"/a", b"/stream")
    for pause_s in (0.0, 0.35):  # Before it begins, and within.
        async with server(slowly) as http:
            said = await sent_all(http, stream, pause_s=pause_s)
            assert said.startswith(b"HTTP/1.1 200 OK\r\n")
            sizes = said.partition(b"\r\n\r\n")[2].split(b"\r\n")[0::2]
            assert [int(size, 16) for size in sizes[:3]] == [4, 3, 0]
            old = await sent_all(http, stream.replace(b"1.1", b"1.0"))
            assert old.endswith(b"\r\n\r\none two")


async def test_a_request_is_cancelled_when_its_half_closed_client_disconnects() -> None:
    gone = asyncio.Event()

    async def patient(request: Request) -> Reply:
        try:
            await asyncio.sleep(3600.0)
        finally:
            gone.set()
        return Response()

    async with server(patient) as http:
        port = int(http.endpoint.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        writer.write_eof()
        await until(lambda: connections(http) and connections(http)[0]._task)
        writer.close()
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()


async def deaf(http: HttpServer, sent: bytes) -> socket.socket:
    """A client that sends this and reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", int(http.endpoint.rpartition(":")[2])))
    client.sendall(sent)
    return client


@pytest.mark.parametrize("kind", ["stream", "whole", "closing", "many"])
async def test_who_reads_nothing_is_dropped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT_S", 0.2)
    ended = asyncio.Event()

    async def much(request: Request) -> Reply:
        if kind != "stream":
            return Response(bytes(64 << 20))
        stream = request.stream({})
        try:
            while True:
                await stream.write(bytes(1 << 16))
        finally:
            ended.set()

    async with server(much) as http:
        sent = {"closing": LAST, "many": GET * 9}.get(kind, GET)
        client = await deaf(http, sent)
        await until(lambda: connections(http))
        await until(lambda: not connections(http))
        if kind == "stream":
            await until(ended.is_set)
        client.close()


async def test_who_reads_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT_S", 1000.0)
    size, time_ = 8 << 20, PassingTime()

    async def much(request: Request) -> Reply:
        return Response(bytes(size))

    async with server(much) as http:
        client = await deaf(http, LAST)
        client.setblocking(False)
        loop, got = asyncio.get_running_loop(), 0
        while piece := await loop.sock_recv(client, 1 << 14):
            got += len(piece)
            if got < 1 << 18:  # Less than the kernel holds by far.
                time_.passes(100.0)
                await asyncio.sleep(0.01)
        assert got > size
        client.close()


async def test_who_trickles_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_connection, "WRITE_TIMEOUT_S", 0.4)

    async def much(request: Request) -> Reply:
        return Response(bytes(64 << 20))

    async with server(much) as http:
        client = await deaf(http, GET)
        client.setblocking(False)
        await until(lambda: connections(http))
        with contextlib.suppress(ConnectionError):
            while connections(http):
                await asyncio.get_running_loop().sock_recv(client, 64)
                await asyncio.sleep(0.02)
        client.close()


async def test_a_draining_server_ends_what_is_under_way_and_each_connection() -> None:
    go = asyncio.Event()

    async def waiting(request: Request) -> Reply:
        if request.path == "/ready":
            return Response(b"no", 503)
        await go.wait()
        return await streaming(request)

    async with server(waiting) as http:
        under_way = asyncio.create_task(exchange(http, GET))
        await until(lambda: connections(http) and connections(http)[0]._task)
        await http.drain(0.05)
        draining = asyncio.create_task(http.drain(9.0))
        said = await exchange(http, GET.replace(b"/a", b"/ready"))
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close\r\n" in said
        assert not draining.done()
        go.set()
        async with asyncio.timeout(PATIENCE_S):
            await draining
            said = await under_way
        assert b"connection: close\r\n" in said
        assert said.endswith(b"0\r\n\r\n")


def test_all_this_holds_on_the_loop_that_nodes_use() -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for handler in (slowly, echo):
            runner.run(test_a_client_that_closed_its_sending_side_is_answered(handler))
        runner.run(test_a_client_that_closed_its_sending_side_gets_the_whole_stream())
        runner.run(test_a_request_is_cancelled_when_its_half_closed_client_disconnects())
        runner.run(test_a_draining_server_ends_what_is_under_way_and_each_connection())
        runner.run(_leaves())
        with pytest.MonkeyPatch.context() as patch:
            for kind in ("stream", "whole", "closing", "many"):
                runner.run(test_who_reads_nothing_is_dropped(kind, patch))
