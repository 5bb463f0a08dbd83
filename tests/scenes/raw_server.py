"""A server of raw bytes behind a facility: it answers each request with what it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Behave", "RawServer", "chunked", "event", "piece", "ranking", "response", "whole"]

Behave = Callable[[bytes, dict[str, Any], asyncio.StreamWriter], Awaitable[bool]]
"""(head, body, writer) -> whether the connection is kept."""


class RawServer:
    """`behave` may be replaced at any time."""

    def __init__(self, behave: Behave) -> None:
        self.behave = behave
        self.requests: list[tuple[bytes, dict[str, Any]]] = []
        self.connections = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> RawServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def url(self) -> str:
        """The base of its API."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ]
                body = await reader.readexactly(lengths[0] if lengths else 0)
                if head.startswith(b"GET"):
                    writer.write(response(b'{"object": "list", "data": []}'))
                    continue
                self.requests.append((head, json.loads(body)))
                if not await self.behave(head, json.loads(body), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def response(
    body: bytes, status: int = 200, kind: str = "application/json", **headers: str
) -> bytes:
    """A response of a stated length."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} Odd\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}{lines}\r\n".encode() + body


def chunked(
    *parts: bytes, ends: bool = True, kind: str = "text/event-stream", **headers: str
) -> bytes:
    """A chunked response; if it does not end, its last chunk is missing."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n{lines}\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head.encode() + chunks + (b"0\r\n\r\n" if ends else b"")


def event(plain: Any) -> bytes:
    return b"data: " + json.dumps(plain).encode() + b"\n\n"


def piece(text: str | None = None, reason: str | None = None, **choice: Any) -> bytes:
    """A piece of a streamed chat."""
    delta = {} if text is None else {"content": text}
    said = {"index": 0, "delta": delta, "finish_reason": reason, **choice}
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    return event({**head, "choices": [said]})


def ranking(*scores: float | None, **changes: Any) -> bytes:
    """A ranking of documents, in the order of these scores."""
    results = [{"index": at, "relevance_score": score} for at, score in enumerate(scores)]
    plain = {"id": "x", "model": "up", "usage": {"total_tokens": 9}, "results": results}
    return json.dumps({**plain, **changes}).encode()


def whole(text: str | None = "fine", **changes: Any) -> bytes:
    """A whole chat. `message` in `changes` adds to the message."""
    message = {"role": "assistant", "content": text, **changes.pop("message", {})}
    plain = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "up",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
    return json.dumps({**plain, **changes}).encode()
