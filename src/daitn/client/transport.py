"""Sends a request of the API, and reads its answer."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from daitn.oam.api.answers import Problem
from daitn.objects.errors import (
    KINDS,
    DaitnError,
    InvalidInput,
    NotFound,
    Refused,
    Unreachable,
    narrowed,
)
from daitn.objects.http_api import JSON, OCTETS, PREFIX
from daitn.objects.wire import json_request
from daitn.tools.http import (
    ClientResponse,
    ConnectError,
    HttpClient,
    HttpError,
    ServerTimeout,
    read_address,
)

__all__ = ["NotSignedIn", "Token", "Transport", "segment"]

T = TypeVar("T")

Token = str | Callable[[], str]
"""A token, or a function that returns one for each request; empty means none."""

_CONNECT_TIMEOUT_S: Final = 10.0
_SILENCE_TIMEOUT_S: Final = 90.0
_KEEPALIVE_S: Final = 60.0
_MOST_BYTES: Final = 256 << 20
_MOST_WAIT_S: Final = 5.0
_MOST_WAITS: Final = 20
"""An overloaded control centre says how long to wait: up to this often, the client does."""
_URN: Final = "urn:daitn:problem:"
_BY_STATUS: Final[Mapping[int, type[DaitnError]]] = {
    400: InvalidInput,
    401: Refused,
    403: Refused,
    404: NotFound,
    413: InvalidInput,
    415: InvalidInput,
    421: Refused,
    422: InvalidInput,
    429: Refused,
    502: Unreachable,
    503: Unreachable,
    504: Unreachable,
}
"""Errors without a name in the network. A proxy answers the last three while the control centre
behind it is away."""
_BEHIND_PROXY: Final = "check that it is running, and see the log of the proxy in front of it"


class NotSignedIn(Refused):
    """The control centre rejects the token, or requires one."""


class Transport:
    """Speaks HTTP with one control centre."""

    def __init__(self, url: str, token: Token, tls: str) -> None:
        """Raises `InvalidInput` for an invalid URL, and for a folder without certificates."""
        try:
            self._address = read_address(url)
        except ValueError as error:
            raise InvalidInput(
                str(error), field="url", fix="use the address that `daitn dashboard` prints"
            ) from None
        self._token = token
        self._http = HttpClient(
            connect_timeout_s=_CONNECT_TIMEOUT_S, keepalive_s=_KEEPALIVE_S, tls=tls
        )

    def close(self) -> None:
        self._http.close()

    async def get(self, answer: type[T], path: str, **query: object) -> T:
        """The content at a path. Parameters that are none are not sent."""
        return await self._done(answer, "GET", path, query)

    async def post(self, answer: type[T], path: str, body: msgspec.Struct | None = None) -> T:
        return await self._done(answer, "POST", path, {}, body)

    async def delete(self, answer: type[T], path: str, **query: object) -> T:
        return await self._done(answer, "DELETE", path, query)

    async def text(self, path: str) -> str:
        """The page at a path."""
        try:
            status, content = await self._once("GET", path, {"accept": "text/html"}, b"")
        except HttpError as error:
            raise _unreachable(error) from None
        if status >= 400:
            raise _error(status, content)
        return content.decode()

    async def octets(
        self, path: str, body: bytes, *, silence_timeout_s: float, **query: object
    ) -> bytes:
        """The answer to bytes at a path. They are sent once: they may be signed, and accepted only
        once."""
        headers = {"content-type": OCTETS, "accept": OCTETS}
        try:
            status, content = await self._once(
                "POST", _target(path, query), headers, body, silence_timeout_s
            )
        except HttpError as error:
            raise _unreachable(error) from None
        if status >= 400:
            raise _error(status, content)
        return content

    async def lines(self, path: str, **headers: str) -> AsyncIterator[str]:
        """The lines of a streamed answer, as they arrive. Raises like the others."""
        try:
            reply = await self._sent("GET", path, {"accept": "text/event-stream", **headers}, b"")
        except HttpError as error:
            raise _unreachable(error) from None
        try:
            if reply.status != 200:
                raise _error(reply.status, await _whole(reply))
            rest = b""
            while piece := await reply.read_chunk():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line.decode()
        except HttpError as error:
            raise _unreachable(error) from None
        finally:
            reply.close()

    async def _done(
        self,
        answer: type[T],
        method: str,
        path: str,
        query: Mapping[str, object],
        body: msgspec.Struct | None = None,
    ) -> T:
        target = _target(path, query)
        headers = {}
        if method != "GET":
            headers["idempotency-key"] = secrets.token_urlsafe(16)
        text = b"" if body is None else json_request(body)
        if text:
            headers["content-type"] = JSON
        try:
            status, content = await self._once(method, target, headers, text)
        except ConnectError as error:
            raise _unreachable(error) from None
        except HttpError:
            # It is unknown whether it was done: sent again, it is done once.
            try:
                status, content = await self._once(method, target, headers, text)
            except HttpError as error:
                raise _unreachable(error) from None
        if status >= 400:
            raise _error(status, content)
        try:
            return msgspec.json.decode(content, type=answer)
        except (msgspec.DecodeError, ValueError) as error:
            raise DaitnError(
                f"the answer of {path} cannot be decoded: {error}",
                fix="use the same version of daitn as the control centre",
            ) from None

    async def _once(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        silence_timeout_s: float = _SILENCE_TIMEOUT_S,
    ) -> tuple[int, bytes]:
        """Status and body, once the control centre no longer says that it is overloaded."""
        for waits_left in reversed(range(_MOST_WAITS + 1)):
            reply = await self._sent(method, target, headers, body, silence_timeout_s)
            content, wait_s = await _whole(reply), _wait_s(reply)
            if wait_s is None or not waits_left:
                break
            await asyncio.sleep(wait_s)
        return reply.status, content

    async def _sent(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        silence_timeout_s: float = _SILENCE_TIMEOUT_S,
    ) -> ClientResponse:
        token = self._token if isinstance(self._token, str) else self._token()
        signed = {"authorization": f"Bearer {token}"} if token else {}
        return await self._http.request(
            method,
            self._address,
            PREFIX + target,
            {"accept": JSON, **signed, **headers},
            body,
            silence_timeout_s=silence_timeout_s,
        )


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def _target(path: str, query: Mapping[str, object]) -> str:
    given = {name: _text(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _wait_s(reply: ClientResponse) -> float | None:
    """Seconds until a retry; none if it was answered, or waiting is pointless."""
    hint = reply.headers.get("retry-after", "")
    if reply.status != 429 or not hint.isdecimal() or float(hint) > _MOST_WAIT_S:
        return None
    return float(hint)


async def _whole(reply: ClientResponse) -> bytes:
    pieces, size = [], 0
    try:
        while piece := await reply.read_chunk():
            pieces.append(piece)
            size += len(piece)
            if size > _MOST_BYTES:
                raise DaitnError(f"the answer has more than {_MOST_BYTES} bytes")
    finally:
        reply.close()
    return b"".join(pieces)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _error(status: int, content: bytes) -> DaitnError:
    """The error described by a problem."""
    try:
        problem: Any = msgspec.json.decode(content, type=Problem)
    except (msgspec.DecodeError, ValueError):
        kind = _BY_STATUS.get(status, DaitnError)
        if kind is Unreachable:
            return kind(f"no control centre: HTTP {status}", field="url", fix=_BEHIND_PROXY)
        return kind(f"HTTP {status}", fix="see the control centre's log")
    code = problem.type.removeprefix(_URN)
    named = {kind.__name__: kind for kind in (*KINDS, NotSignedIn)}
    kind = named.get(code) or _BY_STATUS.get(status, DaitnError)
    return narrowed(kind, problem.cause)(problem.detail, field=problem.field, fix=problem.fix)


def _unreachable(error: HttpError) -> Unreachable:
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        return Unreachable(
            f"the server cannot be verified as the control centre: {error}",
            field="url",
            fix="use the name in its certificate, and give the folder of the network whose "
            "authority issued it: `tls` of a client, DAITN_NETWORK for commands",
        )
    late = isinstance(error, ServerTimeout)
    return Unreachable(
        "the control centre does not answer in time" if late else f"no control centre: {error}",
        field="url",
        fix="check that it is running, and that the address is the one that `daitn dashboard` "
        "prints",
    )
