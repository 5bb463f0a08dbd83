"""A small server that speaks OpenAI's HTTP API, as good or as bad as it is told to be.

    python -m tests.scenes.openai_server '{"first_token_s": 0.01}'

It prints one line of JSON with its port when it listens. `POST /control` changes its settings,
`GET /control` tells what it saw.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import urllib.request
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from daitn.objects.choices import LETTERS, read_question
from tests.scenes.waiting import PATIENCE_S

__all__ = ["OpenAiServer", "Settings"]


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """How the server behaves; all of it can be changed while it runs."""

    port: int = 0
    model: str = "upstream-model"
    first_token_s: float = 0.0
    per_token_s: float = 0.0
    slots: int = 1000
    """Answers at the same time; further ones wait."""
    fail: float = 0.0
    """Share of requests answered 500."""
    chokes_on: str = ""
    """Requests in which this text is are answered 500; empty: none."""
    hang: bool = False
    """Take requests and say nothing."""
    reset: bool = False
    """Take requests and close the connection."""
    cut_after: int = -1
    """Close the connection after so many pieces; below 0: never."""
    pauses_after: int = -1
    """Say no more after so many pieces, as long as it is so."""
    garbage: bool = False
    """Answer what is no JSON."""
    huge: bool = False
    """A stream that does not end."""
    accuracy: float = 1.0
    """Share of multiple-choice questions answered rightly; for those in `answers`."""
    answers: str = ""
    """File of `multiple-choice/1` records whose right answers it knows."""
    text: str = "The quick brown fox jumps over the lazy dog."
    """Said where no multiple-choice question is asked; one piece per word."""
    logprob: float = -0.1
    key: str = ""
    """The API key that it wants; empty: none."""
    seed: int = 0


class Server:
    """The process's one server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rng = random.Random(settings.seed)
        self.right: dict[str, str] = {}
        self.requests = 0
        self.in_flight = 0
        self.serving = 0
        self.most_in_flight = 0
        self.cancelled = 0
        self.last: deque[dict[str, Any]] = deque(maxlen=20)
        self.turn = asyncio.Condition()
        self.load()

    def load(self) -> None:
        if self.settings.answers:
            for line in Path(self.settings.answers).read_text().splitlines():
                item = json.loads(line)
                question = " ".join(item["question"].split())
                self.right[question] = " ".join(item["options"][item["answer"]].split())

    async def control(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            changes = json.loads(await request.read())
            plain = {**msgspec.to_builtins(self.settings), **changes}
            self.settings = msgspec.convert(plain, Settings)
            self.load()
            async with self.turn:
                self.turn.notify_all()
        seen = {
            "requests": self.requests,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "cancelled": self.cancelled,
            "last": list(self.last),
        }
        return web.json_response(seen)

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [{"id": self.settings.model, "object": "model"}]}
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        body = json.loads(await request.read())
        self.last.append({"path": request.path, "body": body, "headers": dict(request.headers)})
        settings = self.settings
        if settings.key and request.headers.get("authorization") != f"Bearer {settings.key}":
            return _error(401, "wrong key", "invalid_api_key")
        if settings.reset:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        chokes = settings.chokes_on and settings.chokes_on in json.dumps(body)
        if chokes or self.rng.random() < settings.fail:
            return _error(500, "told to fail", "told_to_fail")
        self.in_flight += 1
        try:
            async with self.turn:
                await self.turn.wait_for(lambda: self.serving < self.settings.slots)
                self.serving += 1
            try:
                return await self._served(request, body)
            finally:
                self.serving -= 1
                async with self.turn:
                    self.turn.notify_all()
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1

    async def _served(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        self.most_in_flight = max(self.most_in_flight, self.serving)
        if self.settings.hang:
            await asyncio.sleep(3600)
        if self.settings.garbage:
            return web.Response(text="<html>no JSON</html>", content_type="application/json")
        if request.path.endswith("/embeddings"):
            await asyncio.sleep(self.settings.first_token_s)
            return web.json_response(_embeddings(body))
        if request.path.endswith("/rerank"):
            return web.json_response(_ranking(body))
        chat = request.path.endswith("/chat/completions")
        text = self._text(body, chat)
        if not body.get("stream"):
            return await self._whole(request, body, text, chat)
        return await self._streamed(request, body, text, chat)

    def _text(self, body: dict[str, Any], chat: bool) -> str:
        asked = body["messages"][-1]["content"] if chat else body.get("prompt", "")
        found = read_question(asked) if isinstance(asked, str) else None
        if found is None:
            return self.settings.text
        question, options = found
        right = self.right.get(question)
        knows = right in options and self.rng.random() < self.settings.accuracy
        if knows:
            return LETTERS[options.index(right)]
        wrong = [LETTERS[n] for n, option in enumerate(options) if option != right]
        return self.rng.choice(wrong)

    async def _whole(
        self, request: web.Request, body: dict[str, Any], text: str, chat: bool
    ) -> web.StreamResponse:
        pieces = _pieces(text)
        await asyncio.sleep(self.settings.first_token_s + self.settings.per_token_s * len(pieces))
        if self.settings.cut_after >= 0:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice: dict[str, Any] = {"index": 0, **said, "finish_reason": "stop", "logprobs": None}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [self._logprob(piece) for piece in pieces]}
        usage = _usage(len(pieces))
        return web.json_response({**_head(body, chat), "choices": [choice], "usage": usage})

    async def _streamed(
        self, request: web.Request, body: dict[str, Any], text: str, chat: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await asyncio.sleep(self.settings.first_token_s)
        await response.prepare(request)
        head, number = _head(body, chat, chunk=True), 0
        async for piece in self._said(text):
            if number == self.settings.cut_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            delta = {"delta": {"content": piece}} if chat else {"text": piece}
            choice: dict[str, Any] = {"index": 0, **delta, "finish_reason": None}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [self._logprob(piece)]}
            await response.write(_event({**head, "choices": [choice]}))
            number += 1
            await self._goes_on(number)
        done: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        await response.write(
            _event({**head, "choices": [{"index": 0, **done, "finish_reason": "stop"}]})
        )
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(_event({**head, "choices": [], "usage": _usage(number)}))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _goes_on(self, number: int) -> None:
        async with self.turn:
            await self.turn.wait_for(lambda: self.settings.pauses_after != number)

    async def _said(self, text: str) -> AsyncIterator[str]:
        pieces = _pieces(text)
        while True:
            for number, piece in enumerate(pieces):
                if number:
                    await asyncio.sleep(self.settings.per_token_s)
                yield piece
            if not self.settings.huge:
                return

    def _logprob(self, piece: str) -> dict[str, Any]:
        return {"token": piece, "logprob": self.settings.logprob, "top_logprobs": []}


def _usage(written: int) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": written, "total_tokens": 7 + written}


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:]


def _head(body: dict[str, Any], chat: bool, chunk: bool = False) -> dict[str, Any]:
    kind = ("chat.completion" if chat else "text_completion") + (".chunk" if chunk and chat else "")
    return {"id": "up-1", "object": kind, "created": 1, "model": body["model"]}


def _event(plain: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(plain) + b"\n\n"


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [
        {"object": "embedding", "index": n, "embedding": [float(len(str(text))), 1.0]}
        for n, text in enumerate(inputs)
    ]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def _ranking(body: dict[str, Any]) -> dict[str, Any]:
    scores = [(1.0 / (1 + len(str(text))), n) for n, text in enumerate(body["documents"])]
    results = [{"index": n, "relevance_score": score} for score, n in sorted(scores)[::-1]]
    return {"model": body["model"], "usage": {"total_tokens": 3}, "results": results}


def _error(status: int, message: str, code: str) -> web.Response:
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status)


async def serve(settings: Settings) -> None:
    """Serve until standard input ends."""
    server = Server(settings)
    app = web.Application(client_max_size=2**28)
    app.add_routes(
        [
            web.route("*", "/control", server.control),
            web.get("/v1/models", server.models),
            web.post("/v1/{rest:.*}", server.answer),
        ]
    )
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings.port).start()
    sys.stdout.write(json.dumps({"port": runner.addresses[0][1]}) + "\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: None if sys.stdin.read(1) else ended.set())
    await ended.wait()
    await runner.cleanup()


class OpenAiServer:
    """The server as a process of its own."""

    def __init__(self, *, within: str = "", **settings: Any) -> None:
        """`within`: a network namespace, whose loopback address it listens at."""
        self._settings = settings
        self._prefix = ("ip", "netns", "exec", within) if within else ()
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> OpenAiServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base of its API."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it; again at the same port after `stop` or `kill`."""
        settings = {**self._settings, **({"port": self.port} if self.port else {})}
        self._process = subprocess.Popen(
            [
                *self._prefix,
                sys.executable,
                "-m",
                "tests.scenes.openai_server",
                json.dumps(settings),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdout is not None
        self.port = json.loads(self._process.stdout.readline())["port"]

    def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def control(self, **changes: Any) -> dict[str, Any]:
        """Change settings; returns what it saw so far."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/control",
            data=json.dumps(changes).encode() if changes else None,
            method="POST" if changes else "GET",
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            seen: dict[str, Any] = json.load(answer)
            return seen


if __name__ == "__main__":
    asyncio.run(serve(msgspec.json.decode(sys.argv[1] if sys.argv[1:] else "{}", type=Settings)))
