"""The HTTP server before clients that behave, dawdle, lie and leave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import cast

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.objects.errors import InvalidInput
from daitn.tools.http import (
    BodyTooLarge,
    HttpServer,
    Reply,
    Request,
    Response,
    server_connection,
)
from daitn.tools.http.framing import HIGH_WATER, MAX_HEAD_BYTES
from daitn.tools.http.server_connection import ServerConnection
from tests.scenes.passing_time import PassingTime
from tests.scenes.waiting import PATIENCE_S, until
from tests.tools.http.scene import exchange, server

MOST = 1 << 20
GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def echo(request: Request) -> Reply:
    try:
        body = await request.body(MOST)
    except BodyTooLarge:
        return Response(b"large", 413)
    said = f"{request.method} {request.path} ".encode() + body
    return Response(said, headers={"x-said": request.headers.get("x-say", "")})


def connections(http: HttpServer) -> list[ServerConnection]:
    assert http._server is not None
    return [cast(ServerConnection, one) for one in http._server.server_state.connections]


async def connected(http: HttpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Its only connection, which it knows of."""
    await until(lambda: not connections(http))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(http.endpoint.split(":")[2]))
    await until(lambda: connections(http))
    return reader, writer


def bodies(said: bytes) -> list[bytes]:
    """Of answers that tell their length, one after the other."""
    found = []
    while said:
        head, _, rest = said.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append(rest[:size])
        said = rest[size:]
    return found


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (POST + b"content-length: 2\r\n\r\nhi", b"POST /a hi"),
        (POST + CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", b"POST /a hi"),
        (b"GET /a%20b?c=d HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /a b "),
        (b"GET http://host/a?b HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /a "),
        (b"GET * HTTP/1.1\r\nhost: x\r\n\r\n", b"GET * "),
        (b"DELETE / HTTP/1.1\r\nhost: x\r\n\r\n", b"DELETE / "),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
async def test_requests_are_read_however_they_come(sent: bytes, said: bytes, cut: bool) -> None:
    parts = [bytes([byte]) for byte in sent] if cut else [sent]
    async with server(echo) as http:
        assert bodies(await exchange(http, *parts, LAST)) == [said, b"GET /last "]


async def test_an_answer_says_what_it_must() -> None:
    async with server(echo) as http, aiohttp.ClientSession() as session:
        async with session.post(http.endpoint, data=b"hi", headers={"X-Say": "grüß"}) as answer:
            assert (answer.status, answer.reason) == (200, "OK")
            assert answer.headers["x-said"] == "grüß"
            assert answer.headers["content-length"] == "9"
            assert answer.headers["date"].endswith(" GMT")
        said = await exchange(http, b"HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n", LAST)
        assert said.count(b"HTTP/1.1 200 OK") == 2
        assert b"content-length: 8" in said
        assert b"HEAD /a" not in said


async def test_requests_sent_ahead_are_answered_in_order() -> None:
    going = 0

    async def one_by_one(request: Request) -> Reply:
        nonlocal going
        going += 1
        assert going == 1
        await asyncio.sleep(0.001)
        going -= 1
        return await echo(request)

    sent = b"".join(
        b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi" % number
        for number in range(50)
    )
    async with server(one_by_one) as http:
        said = bodies(await exchange(http, sent[:700], sent[700:] + LAST, pause_s=0.01))
    assert said == [b"POST /%d hi" % number for number in range(50)] + [b"GET /last "]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nhost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\na : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n", 400),
        (POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
        (POST + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\na", 400),
        (POST + b"content-length: -1\r\n\r\n", 400),
        (POST + b"transfer-encoding: gzip\r\n\r\n", 400),
        (POST + b"transfer-encoding: chunked\r\n\r\nz\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * (8 * MAX_HEAD_BYTES), 431),
        (b"GET /" + b"y" * (8 * MAX_HEAD_BYTES), 431),
        (POST + CHUNKED + b"1;aaaaaaaaaaaa\r\nx\r\n" * 90_000, 400),
    ],
)
async def test_what_is_no_request_is_told_and_ends_the_connection(sent: bytes, status: int) -> None:
    async with server(echo) as http:
        said = await exchange(http, sent)
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close\r\n" in said
        # Those before it are answered.
        said = await exchange(http, GET + sent)
        assert said.startswith(b"HTTP/1.1 200 OK")


async def test_a_body_that_is_too_large_is_refused_and_not_read() -> None:
    async with server(echo) as http:
        said = await exchange(http, POST + b"content-length: 9999999\r\n\r\nx")
        assert said.startswith(b"HTTP/1.1 413 ")
        head = POST + b"transfer-encoding: chunked\r\n\r\n"
        chunk = b"%x\r\n%b\r\n" % (1 << 16, b"x" * (1 << 16))
        said = await exchange(http, head, *[chunk] * 32)
        assert said.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close\r\n" in said


async def test_a_body_that_nobody_reads_is_not_held() -> None:
    go = asyncio.Event()

    async def careless(request: Request) -> Reply:
        await go.wait()
        return Response(b"no", 401)

    async with server(careless) as http:
        port = int(http.endpoint.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        size = 64 << 20
        writer.write(POST + b"content-length: %d\r\n\r\n" % size + b"x" * size)
        await until(lambda: connections(http) and connections(http)[0].cycle)
        await asyncio.sleep(0.2)
        (connection,) = connections(http)
        assert len(connection.cycle.body) < 8 * HIGH_WATER
        go.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.transport.abort()


async def test_who_waits_to_be_told_to_go_on_is_told() -> None:
    head = POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    async with server(echo) as http:
        said = await exchange(http, head, b"hi", LAST, pause_s=0.05)
        assert said.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        large = head.replace(b": 2", b": 9999999")
        assert (await exchange(http, large, pause_s=0.05)).startswith(b"HTTP/1.1 413 ")


async def test_an_upgrade_is_not_made() -> None:
    upgrade = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n"
    async with server(echo) as http:
        for length, body in ((b"", b""), (b"content-length: 2\r\n", b"hi")):
            sent = POST + upgrade + length + b"\r\n" + body
            for parts in ([sent + LAST], [sent[:30], sent[30:], LAST]):
                said = await exchange(http, *parts, pause_s=0.01)
                assert bodies(said) == [b"POST /a " + body, b"GET /last "]
        many = (GET[:-2] + upgrade + b"\r\n") * 2000
        assert len(bodies(await exchange(http, many + LAST))) == 2001
        assert (await exchange(http, b"CONNECT a:1 HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def streaming(request: Request) -> Reply:
    stream = request.stream({"content-type": "text/event-stream"})
    for piece in (b"one ", b"", b"two"):
        await stream.write(piece)
    await stream.end(close=request.path == "/close")
    return stream


async def test_a_stream_is_sent_in_chunks_to_who_reads_them() -> None:
    async with server(streaming) as http:
        said = await exchange(http, GET, LAST)
        assert said.count(b"\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n") == 2
        said = await exchange(http, GET.replace(b"/a", b"/close"), pause_s=0.05)
        assert said.endswith(b"0\r\n\r\n")
        said = await exchange(http, b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        assert said.endswith(b"\r\n\r\none two")
        assert b"connection: close" in said
        assert (await exchange(http, b"HEAD / HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\n")


async def test_a_stream_waits_for_who_reads_slowly() -> None:
    sent = 0

    async def long(request: Request) -> Reply:
        nonlocal sent
        stream = request.stream({})
        for _ in range(1024):
            await stream.write(b"x" * (1 << 16))
            sent += 1 << 16
        return stream

    async with (
        server(long) as http,
        aiohttp.ClientSession() as session,
        session.get(http.endpoint) as answer,
    ):
        await asyncio.sleep(0.3)
        assert sent < 32 << 20
        assert len(await answer.read()) == 64 << 20


@pytest.mark.parametrize("begun", [False, True])
async def test_a_handler_is_cancelled_when_its_client_goes(begun: bool) -> None:
    there, gone = asyncio.Event(), asyncio.Event()

    async def patient(request: Request) -> Reply:
        if begun:
            await request.stream({}).write(b"x")
        there.set()
        try:
            await asyncio.sleep(3600.0)
        except asyncio.CancelledError:
            gone.set()
            raise
        return Response()

    async with server(patient) as http:
        port = int(http.endpoint.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await there.wait()
        writer.close()
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()
        await asyncio.sleep(0.01)
        assert not connections(http)


async def test_who_sent_ahead_and_goes_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    there, gone, began = asyncio.Event(), asyncio.Event(), 0

    async def patient(request: Request) -> Reply:
        nonlocal began
        began += 1
        there.set()
        try:
            await asyncio.sleep(3600.0)
        finally:
            gone.set()
        return Response()

    async with server(patient) as http:
        port = int(http.endpoint.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET * 2)
        await there.wait()
        (connection,) = connections(http)
        connection.flow.resume_reading()  # Else nobody looks whether the client is there.
        writer.transport.abort()
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()
    assert began == 1
    assert not caplog.records


async def test_a_defect_of_a_handler_is_a_500_or_breaks_a_stream_off() -> None:
    async def broken(request: Request) -> Reply:
        if request.path == "/header":
            return Response(b"", headers={"x": "a\r\nset-cookie: b"})
        if request.path == "/stream":
            await request.stream({}).write(b"x")
        raise ValueError("a defect")

    async with server(broken) as http:
        for path in (b"/a", b"/header"):
            said = await exchange(http, GET.replace(b"/a", path), LAST)
            assert said.count(b"HTTP/1.1 500 ") == 2
            assert b"cookie" not in said
        with contextlib.suppress(ConnectionError):
            said = await exchange(http, GET.replace(b"/a", b"/stream"))
            assert not said.endswith(b"0\r\n\r\n")


async def test_an_error_amid_a_stream_breaks_it_off_and_is_no_defect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its client has the head already: nothing can be told any more but that it is incomplete."""

    async def handler(request: Request) -> Reply:
        await request.stream({}).write(b"x")
        return Response(b"the model died", 502)

    async with server(handler) as http:
        with contextlib.suppress(ConnectionError):
            said = await exchange(http, GET)
            assert said.startswith(b"HTTP/1.1 200")
            assert b"model" not in said
            assert not said.endswith(b"0\r\n\r\n")
    assert not caplog.records


async def test_an_idle_connection_and_a_slow_head_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_connection, "KEEPALIVE_S", 1000.0)
    monkeypatch.setattr(server_connection, "HEAD_TIMEOUT_S", 5000.0)
    time_ = PassingTime()
    async with server(echo) as http:
        reader, writer = await connected(http)
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 OK")
        await until(lambda: connections(http)[0]._task is None)
        time_.passes(1000.0)
        assert (await reader.read()).endswith(b"GET /a ")
        writer.close()
        reader, writer = await connected(http)
        for part in (GET[:3], GET[3:9]):
            writer.write(part)
            await asyncio.sleep(0.01)
            time_.passes(500.0)
        assert await reader.read() == b""
        writer.close()


async def test_half_a_head_is_given_up_sooner_than_an_idle_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_connection, "KEEPALIVE_S", 5000.0)
    monkeypatch.setattr(server_connection, "HEAD_TIMEOUT_S", 1000.0)
    time_ = PassingTime()
    async with server(echo) as http:
        reader, writer = await connected(http)
        time_.passes(1000.0)
        assert await reader.read() == b""
        writer.close()
        reader, writer = await connected(http)
        for byte in GET[:10]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
            time_.passes(100.0)
        assert await reader.read() == b""
        writer.close()
        reader, writer = await connected(http)
        writer.write(GET)
        kept = await reader.readuntil(b"GET /a ")
        writer.write(GET[:9])
        await until(lambda: connections(http)[0]._head_since_s is not None)
        time_.passes(1000.0)
        assert bodies(kept + await reader.read()) == [b"GET /a "]
        writer.close()


async def test_half_a_body_is_told_and_its_handler_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_connection, "BODY_TIMEOUT_S", 1000.0)
    time_ = PassingTime()
    async with server(echo) as http:
        reader, writer = await connected(http)
        writer.write(POST + b"content-length: 900\r\n\r\n")
        await until(lambda: connections(http)[0]._receiving_body)
        for _ in range(10):
            writer.write(b"x")
            await asyncio.sleep(0.01)
            time_.passes(100.0)
        said = await reader.read()
        writer.close()
        assert said.startswith(b"HTTP/1.1 408 ")
        assert b"took too long" in said
        assert all(one._task is None for one in connections(http))


async def test_half_heads_in_masses_do_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_connection, "MOST_CONNECTIONS", 8)
    async with server(echo) as http:
        port = int(http.endpoint.rpartition(":")[2])
        writers = []
        for _ in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET[:9])
            writers.append(writer)
        assert bodies(await exchange(http, LAST)) == [b"GET /last "]
        assert len(connections(http)) <= 8
        for writer in writers:
            writer.close()


async def test_closing_ends_what_is_under_way_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daitn.tools.http.server._SHUTDOWN_TIMEOUT_S", 1000)
    began, go, time_ = 0, asyncio.Event(), PassingTime()

    async def slow(request: Request) -> Reply:
        nonlocal began
        began += 1
        await (go.wait() if request.path == "/a" else asyncio.sleep(9000.0))
        return Response(b"done")

    http = HttpServer("127.0.0.1:0", "listen", slow)
    await http.start()
    quick = asyncio.create_task(exchange(http, GET))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(http.endpoint.split(":")[2]))
    writer.write(GET.replace(b"/a", b"/never"))
    idle = asyncio.create_task(exchange(http))
    while began < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    closing = asyncio.create_task(http.close())
    assert await idle == b""
    go.set()
    assert bodies(await quick) == [b"done"]

    def closed() -> bool:
        time_.passes(1000.0)  # Nothing tells when the while begins.
        return closing.done()

    await until(closed)
    async with asyncio.timeout(PATIENCE_S):
        await http.close()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await exchange(http, GET)


@pytest.mark.parametrize(
    "listen", ["", "7480", "127.0.0.1:x", "127.0.0.1:99999", "no-such.invalid:0"]
)
async def test_an_address_that_is_none_is_told_by_its_field(listen: str) -> None:
    with pytest.raises(InvalidInput) as bad:
        await HttpServer(listen, "gateway.listen", echo).start()
    assert bad.value.field == "gateway.listen"


async def test_an_address_that_is_taken_is_told_by_its_field() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InvalidInput, match="cannot listen"):
            await HttpServer(listen, "listen", echo).start()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.booleans())
async def test_any_bytes_are_answered_or_end_the_connection(sent: bytes, headed: bool) -> None:
    async with server(echo) as http:
        with contextlib.suppress(ConnectionError):
            said = await exchange(http, (GET[:-2] if headed else b"") + sent + b"\r\n\r\n", LAST)
            assert said.startswith(b"HTTP/1.1 ")
