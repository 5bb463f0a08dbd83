"""The HTTP client before servers that behave, dawdle, lie and leave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.identity.certificates import AUTHORITY, MEMBERSHIP
from daitn.objects.errors import InvalidInput
from daitn.tools.http import (
    Address,
    ClientResponse,
    ConnectError,
    ConnectionBroken,
    HttpClient,
    HttpError,
    HttpServer,
    Request,
    Response,
    ServerTimeout,
    client_connection,
    read_address,
)
from daitn.tools.http.framing import HIGH_WATER, MAX_HEAD_BYTES
from tests.scenes.certificates import certified_member
from tests.scenes.passing_time import PassingTime
from tests.scenes.waiting import PATIENCE_S, until
from tests.tools.http.scene import Talk, client, talking

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
ONE = HEAD + b"content-length: 1\r\n\r\nx"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


async def asked(
    http: HttpClient, address: Address, body: bytes = b"hi", silence_timeout_s: float = PATIENCE_S
) -> ClientResponse:
    return await http.request(
        "POST", address, "/say", {"x-a": "b"}, body, silence_timeout_s=silence_timeout_s
    )


async def whole(answer: ClientResponse) -> bytes:
    said = b""
    while piece := await answer.read_chunk():
        said += piece
    return said


async def request(reader: asyncio.StreamReader) -> bytes:
    """A whole request with a body of two bytes."""
    return await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2)


def saying(*parts: bytes, pause_s: float = 0.0, stay: bool = False) -> Talk:
    """Answers every request of a connection so; `stay`: leaves it open after the first answer."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            if not stay:
                return

    return talk


async def test_a_server_that_leaves_as_it_is_connected_to_lets_nobody_wait() -> None:
    """Not on the loop that nodes use, either."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pass

    async with talking(leave) as address, client() as http:
        connection = await http._connect(address)
        await until(lambda: not connection.usable)
        await asyncio.sleep(0.05)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ConnectionBroken):
                await connection.send(b"GET / HTTP/1.1\r\n\r\n", silence_timeout_s=60.0)


async def test_a_request_is_sent_as_it_was_given() -> None:
    seen: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request(reader))
        writer.write(HEAD + b"X-Two: 1\r\nx-two: 2\r\ncontent-length: 2\r\n\r\nok")

    async with talking(talk) as address, client() as http:
        at = read_address(f"http://127.0.0.1:{address.port}/base/")
        answer = await asked(http, at)
        assert await whole(answer) == b"ok"
        assert (answer.status, answer.headers["content-type"]) == (200, "text/plain")
        assert answer.headers["x-two"] == "1"
    assert seen == [
        b"POST /base/say HTTP/1.1\r\nhost: 127.0.0.1:%d\r\naccept-encoding: identity\r\n"
        b"content-length: 2\r\nx-a: b\r\n\r\nhi" % address.port
    ]


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ([HEAD + b"content-length: 5\r\n\r\n", b"he", b"llo"], b"hello"),
        ([CHUNKED + b"2\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n"], b"hello"),
        ([CHUNKED + b"5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n"], b"hello"),
        ([HEAD + b"\r\nhe", b"llo"], b"hello"),
        ([b"HTTP/1.0 200 OK\r\n\r\nhello"], b"hello"),
        ([b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ONE], b"x"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", ONE], b"x"),
        ([HEAD + b"content-length: 0\r\n\r\n"], b""),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
        ([bytes([byte]) for byte in HEAD + b"content-length: 2\r\n\r\nhi"], b"hi"),
    ],
)
async def test_an_answer_is_read_however_its_end_is_told(parts: list[bytes], body: bytes) -> None:
    async with talking(saying(*parts, pause_s=0.001)) as address, client() as http:
        assert await whole(await asked(http, address)) == body


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200",
        b"<html>",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (2 * MAX_HEAD_BYTES),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    ],
)
async def test_what_is_no_whole_answer_has_broken_off(said: bytes) -> None:
    async with talking(saying(said)) as address, client() as http:
        with pytest.raises(ConnectionBroken):
            await whole(await asked(http, address))


async def test_padding_without_end_is_not_read() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(CHUNKED)
        while True:
            writer.write(b"1;" + b"x" * 5000 + b"\r\ny\r\n")
            await writer.drain()

    async with talking(talk) as address, client() as http:
        with pytest.raises(ConnectionBroken, match="padding"):
            await whole(await asked(http, address))


async def test_a_connection_is_used_again_unless_it_should_not_be() -> None:
    connections = 0

    def counting(talk: Talk) -> Talk:
        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await talk(reader, writer)

        return counted

    kept = HEAD + b"content-length: 2\r\n\r\nok"
    async with talking(counting(saying(kept, stay=True))) as address, client() as http:
        for _ in range(5):
            assert await whole(await asked(http, address)) == b"ok"
        assert connections == 1
        await asyncio.gather(*(asked(http, address) for _ in range(3)))
        assert connections == 3
    closing = HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\nok"
    async with talking(counting(saying(closing, stay=True))) as address, client() as http:
        for _ in range(2):
            assert await whole(await asked(http, address)) == b"ok"
        assert connections == 5
    async with talking(counting(saying(kept))) as address, client() as http:
        for _ in range(2):  # It closes without saying so.
            assert await whole(await asked(http, address)) == b"ok"
            await asyncio.sleep(0.05)
        assert connections == 7
    unasked = kept + kept
    async with talking(counting(saying(unasked, stay=True))) as address, client() as http:
        for _ in range(2):
            assert await whole(await asked(http, address)) == b"ok"
            await asyncio.sleep(0.01)
        assert connections == 9


@pytest.mark.parametrize("word", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_a_kept_connection_that_ends_without_a_word_is_replaced(word: bytes) -> None:
    kept = HEAD + b"content-length: 2\r\n\r\nok"
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await request(reader)
        writer.write(kept)
        await request(reader)
        writer.write(word)

    async with talking(talk) as address, client() as http:
        assert await whole(await asked(http, address)) == b"ok"
        if word:
            with pytest.raises(ConnectionBroken):
                await asked(http, address)
        else:
            assert await whole(await asked(http, address)) == b"ok"
        assert connections == (1 if word else 2)


@pytest.mark.parametrize("closing", [b"", b"connection: close\r\n"])
async def test_a_kept_connection_that_timed_out_is_replaced_once(closing: bytes) -> None:
    kept = HEAD + b"content-length: 2\r\n\r\nok"
    late = b"HTTP/1.1 408 Request Timeout\r\n" + closing + b"content-length: 4\r\n\r\nlate"
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await request(reader)
        writer.write(kept if connections == 1 else late)
        await request(reader)
        writer.write(late)
        await reader.read()

    async with talking(talk) as address, client() as http:
        assert await whole(await asked(http, address)) == b"ok"
        answer = await asked(http, address)
        assert (answer.status, await whole(answer)) == (408, b"late")
        assert connections == 2


async def test_a_new_connection_that_ends_without_a_word_is_not_replaced() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await request(reader)

    async with talking(talk) as address, client() as http:
        with pytest.raises(ConnectionBroken):
            await asked(http, address)
    assert connections == 1


async def test_who_takes_nothing_of_a_request_has_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "WRITE_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = read_address(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        async with client() as http:
            with pytest.raises(ServerTimeout, match="takes nothing"):
                await asked(http, address, bytes(64 << 20), silence_timeout_s=600.0)


async def test_who_takes_a_request_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "WRITE_TIMEOUT_S", 1000.0)
    size, time_ = 32 << 20, PassingTime()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(32):
            await reader.readexactly(1 << 20)
            time_.passes(100.0)  # Kernels hold less by far than what is taken within the limit.
            await asyncio.sleep(0.01)
        writer.write(ONE)

    async with talking(talk) as address, client() as http:
        assert await whole(await asked(http, address, bytes(size), silence_timeout_s=1e6)) == b"x"


async def test_an_unused_connection_is_not_kept_for_ever() -> None:
    closed, time_ = asyncio.Event(), PassingTime()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(HEAD + b"content-length: 2\r\n\r\nok")
        assert await reader.read() == b""
        closed.set()

    async with talking(talk) as address, client(keepalive_s=1000.0) as http:
        await whole(await asked(http, address, silence_timeout_s=1000.0))
        time_.passes(1000.0)
        async with asyncio.timeout(PATIENCE_S):
            await closed.wait()


async def test_silence_is_told_before_and_during_an_answer() -> None:
    time_ = PassingTime()
    async with talking(saying(b"", pause_s=3600.0)) as address, client() as http:
        began_s = time.monotonic()
        with pytest.raises(ServerTimeout):
            await asked(http, address, silence_timeout_s=0.1)
        assert 0.09 < time.monotonic() - began_s < PATIENCE_S
    begun = HEAD + b"content-length: 9\r\n\r\nhello"
    async with talking(saying(begun, pause_s=3600.0)) as address, client() as http:
        answer = await asked(http, address, silence_timeout_s=1000.0)
        assert await answer.read_chunk() == b"hello"
        time_.passes(1000.0)
        with pytest.raises(ServerTimeout):
            await answer.read_chunk()


async def test_who_says_something_now_and_then_is_not_silent() -> None:
    """By a clock that goes on from one part of the answer to the next."""
    next_part, time_ = asyncio.Semaphore(0), PassingTime()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(HEAD + b"content-length: 8\r\n\r\n")
        for _ in range(8):
            await next_part.acquire()
            writer.write(b"x")

    async with talking(talk) as address, client() as http:
        answer = await asked(http, address, silence_timeout_s=1000.0)
        for _ in range(8):
            time_.passes(400.0)
            next_part.release()
            assert await answer.read_chunk() == b"x"
        assert await answer.read_chunk() == b""


async def test_a_head_that_trickles_is_silence() -> None:
    parts = [bytes([byte]) for byte in HEAD + b"content-length: 1\r\n\r\nx"]
    async with talking(saying(*parts, pause_s=0.04)) as address, client() as http:
        with pytest.raises(ServerTimeout):
            await asked(http, address, silence_timeout_s=0.2)


async def test_an_answer_that_trickles_without_end_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_connection, "ANSWER_TIMEOUT_S", 3000.0)
    next_part, time_ = asyncio.Semaphore(0), PassingTime()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(HEAD + b"content-length: 900\r\n\r\n")
        for _ in range(100):
            await next_part.acquire()
            writer.write(b"x")

    async def trickles(answer: ClientResponse) -> None:
        for _ in range(100):
            time_.passes(400.0)
            next_part.release()
            await answer.read_chunk()

    async with talking(talk) as address, client() as http:
        answer = await asked(http, address, silence_timeout_s=1000.0)
        with pytest.raises(ServerTimeout, match="took too long"):
            await trickles(answer)


async def test_a_shorter_patience_holds_on_a_connection_that_is_used_again() -> None:
    kept = HEAD + b"content-length: 2\r\n\r\nok"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(kept)
        await asyncio.sleep(3600.0)

    async with talking(talk) as address, client() as http:
        await whole(await asked(http, address, silence_timeout_s=3600.0))
        with pytest.raises(ServerTimeout):
            async with asyncio.timeout(PATIENCE_S):
                await asked(http, address, silence_timeout_s=0.05)


async def test_nobody_there_is_told_apart_from_silence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with client() as http:
        with pytest.raises(ConnectError) as nobody:
            await asked(http, read_address(f"http://127.0.0.1:{port}"))
        assert nobody.value.refused
        with pytest.raises(ConnectError) as nowhere:
            await asked(http, read_address("http://[100::1]:9"))
        assert not nowhere.value.refused
        with pytest.raises(ConnectError) as unknown:
            await asked(http, read_address("http://no-such-host.invalid"))
        assert not unknown.value.refused
        address = read_address(f"http://127.0.0.1:{port}")
        with pytest.raises(ValueError, match="line end"):
            await http.request("GET", address, "/", {"a": "b\r\nc: d"}, silence_timeout_s=1.0)


async def test_a_connection_that_is_not_made_in_time_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        at = deaf.getsockname()
        held = [socket.socket() for _ in range(3)]
        for waiting in held:  # The queue of connections is full then.
            waiting.setblocking(False)
            waiting.connect_ex(at)
        http = HttpClient(connect_timeout_s=0.2, keepalive_s=1.0)
        with pytest.raises(HttpError):
            await asked(http, read_address(f"http://127.0.0.1:{at[1]}"), silence_timeout_s=0.2)
        http.close()
        for waiting in held:
            waiting.close()


@pytest.mark.parametrize("begun", [b"", HEAD + b"content-length: 9\r\n\r\nhello"])
async def test_whoever_is_cancelled_closes_the_connection(begun: bytes) -> None:
    there, gone = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(begun)
        there.set()
        assert await reader.read() == b""
        gone.set()

    async def read(http: HttpClient, address: Address) -> None:
        await whole(await asked(http, address))

    async with talking(talk) as address, client() as http:
        reading = asyncio.create_task(read(http, address))
        await there.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()


async def test_whoever_is_cancelled_when_all_is_there_does_no_harm_to_the_next() -> None:
    kept = HEAD + b"content-length: 2\r\n\r\nok"
    async with talking(saying(kept, stay=True)) as address, client() as http:
        for _ in range(20):
            first = asyncio.create_task(asked(http, address))
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            second = asyncio.create_task(asked(http, address))
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            assert await whole(await second) == b"ok"


async def test_what_nobody_takes_is_not_sent() -> None:
    sent, time_ = 0, PassingTime()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request(reader)
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % (64 << 20))
        while sent < 64 << 20:
            writer.write(b"x" * (1 << 16))
            await writer.drain()
            sent += 1 << 16
        await reader.read()

    async with talking(talk) as address, client() as http:
        # Who asks is slow, not who answers: that is no silence.
        answer = await asked(http, address, silence_timeout_s=1000.0)
        await until(lambda: not answer._connection._reading)
        time_.passes(1000.0)
        await asyncio.sleep(0.5)
        assert sent < 32 << 20
        held = len(await answer.read_chunk())
        assert HIGH_WATER < held < 32 << 20
        assert held + len(await whole(answer)) == 64 << 20


async def test_closing_the_client_breaks_answers_off() -> None:
    begun = HEAD + b"content-length: 9\r\n\r\nhello"
    async with talking(saying(begun, pause_s=3600.0)) as address, client() as http:
        answer = await asked(http, address)
        assert await answer.read_chunk() == b"hello"
        http.close()
        with pytest.raises(ConnectionBroken):
            await answer.read_chunk()
        answer.close()


async def test_https_is_spoken_and_certificates_are_checked(tmp_path: Path) -> None:
    for site, hosts in (("ours", ["localhost"]), ("elsewhere", ["elsewhere.example"])):
        certified_member(tmp_path / site, tmp_path / "authority", hosts)
    certified_member(tmp_path / "stranger", tmp_path / "other-authority", ["localhost"])
    big = bytes(1 << 20)

    async def handle(request: Request) -> Response:
        return Response(await request.body(1 << 21) or b"nothing")

    async def asked_with(tls: str, shown: str, body: bytes = b"") -> bytes:
        listening = HttpServer("https://localhost:0", "listen", handle, str(tmp_path / shown))
        await listening.start()
        try:
            assert listening.endpoint.startswith("https://localhost:")
            address = read_address(listening.endpoint)
            async with client(tls=tls and str(tmp_path / tls)) as http:
                answer = await http.request("POST", address, "/", {}, body, silence_timeout_s=5.0)
                return await whole(answer)
        finally:
            await listening.close()

    assert await asked_with("elsewhere", "ours") == b"nothing"
    assert await asked_with("ours", "ours", big) == big
    for tls, shown in (("", "ours"), ("stranger", "ours"), ("ours", "elsewhere")):
        with pytest.raises(ConnectError, match="certificate"):
            await asked_with(tls, shown)


async def test_certificates_that_are_none_are_named(tmp_path: Path) -> None:
    certified_member(tmp_path / "site", tmp_path / "authority", ["localhost"])
    (tmp_path / "site" / MEMBERSHIP).write_text("nothing")
    (tmp_path / "site" / AUTHORITY).write_text("nothing")
    for folder, problem in (("site", "cannot be used"), ("nowhere", "is missing")):
        tls = str(tmp_path / folder)
        with pytest.raises(InvalidInput, match=problem) as refused:
            await HttpServer("https://localhost:0", "gateway.listen", _never, tls).start()
        assert refused.value.field == "tls"
    with pytest.raises(InvalidInput, match="cannot be used"):
        HttpClient(connect_timeout_s=1.0, keepalive_s=1.0, tls=str(tmp_path / "site"))


async def _never(request: Request) -> Response:
    raise AssertionError("nobody asks")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://a", Address("a", 80, False, "a", "")),
        ("https://a.b/", Address("a.b", 443, True, "a.b", "")),
        ("http://me:key@a:81/v1/", Address("a", 81, False, "a:81", "/v1")),
        ("http://[::1]:9", Address("::1", 9, False, "[::1]:9", "")),
    ],
)
def test_addresses_are_read(url: str, address: Address) -> None:
    assert read_address(url) == address


@pytest.mark.parametrize(
    "url", ["", "a:80", "ftp://a", "http://", "http://a:x", "http://a:99999", "http://a/\r\nb", "http://ä"]
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"address|port|Port"):
        read_address(url)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.booleans())
async def test_any_bytes_are_an_answer_or_none(said: bytes, headed: bool) -> None:
    async with talking(saying(HEAD + said if headed else said)) as address, client() as http:
        with contextlib.suppress(HttpError):
            await whole(await asked(http, address))
