"""Sends a request of the API, and reads the answer to it."""

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
)
from daitn.tools.http import (
    ClientResponse,
    ConnectError,
    HttpClient,
    HttpError,
    ServerTimeout,
    read_address,
)

__all__ = ["PREFIX", "NotSignedIn", "Token", "Transport", "segment"]

T = TypeVar("T")

Token = str | Callable[[], str]
"""A token, or what gives one for each request; empty: none."""

PREFIX: Final = "/api/v1"
_CONNECT_TIMEOUT_S: Final = 10.0
_SILENCE_TIMEOUT_S: Final = 90.0
_KEEPALIVE_S: Final = 60.0
_MOST_BYTES: Final = 256 << 20
_MOST_WAIT_S: Final = 5.0
_MOST_WAITS: Final = 20
"""A control centre that is asked too often says how long to wait: that and so often is waited."""
_JSON: Final = "application/json"
_OCTETS: Final = "application/octet-stream"
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
    503: Unreachable,
}
"""Errors that the network has no name for."""


class NotSignedIn(Refused):
    """The control centre does not take the token, or wants one."""


class Transport:
    """Speaks HTTP with one control centre."""

    def __init__(self, url: str, token: Token, tls: str) -> None:
        """Raises `InvalidInput` for what is no URL, and for a folder without certificates."""
        try:
            self._address = read_address(url)
        except ValueError as error:
            raise InvalidInput(
                str(error), field="url", fix="take the address that `daitn dashboard` prints"
            ) from None
        self._token = token
        self._http = HttpClient(
            connect_timeout_s=_CONNECT_TIMEOUT_S, keepalive_s=_KEEPALIVE_S, tls=tls
        )

    def close(self) -> None:
        self._http.close()

    async def get(self, answer: type[T], path: str, **query: object) -> T:
        """What is at a path. Parameters that are none are not sent."""
        return await self._done(answer, "GET", path, query)

    async def post(self, answer: type[T], path: str, body: msgspec.Struct | None = None) -> T:
        return await self._done(answer, "POST", path, {}, body)

    async def delete(self, answer: type[T], path: str, **query: object) -> T:
        return await self._done(answer, "DELETE", path, query)

    async def octets(
        self, path: str, body: bytes, *, silence_timeout_s: float, **query: object
    ) -> bytes:
        """What a path answers to bytes. It is sent once: it may be signed, and then nobody takes it
        twice."""
        headers = {"content-type": _OCTETS, "accept": _OCTETS}
        try:
            status, told = await self._once(
                "POST", _target(path, query), headers, body, silence_timeout_s
            )
        except HttpError as error:
            raise _unreachable(error) from None
        if status >= 400:
            raise _error(status, told)
        return told

    async def lines(self, path: str, **headers: str) -> AsyncIterator[str]:
        """The lines of an answer that goes on, as they arrive. Raises as the others do."""
        reply = await self._sent("GET", path, {"accept": "text/event-stream", **headers}, b"")
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
        text = b"" if body is None else msgspec.json.encode(body)
        if text:
            headers["content-type"] = _JSON
        try:
            status, told = await self._once(method, target, headers, text)
        except ConnectError as error:
            raise _unreachable(error) from None
        except HttpError:
            # It is not known whether it was done: sent again, it is done once.
            try:
                status, told = await self._once(method, target, headers, text)
            except HttpError as error:
                raise _unreachable(error) from None
        if status >= 400:
            raise _error(status, told)
        try:
            return msgspec.json.decode(told, type=answer)
        except (msgspec.DecodeError, ValueError) as error:
            raise DaitnError(
                f"the answer of {path} is not understood: {error}",
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
        """Status and body, once the control centre does not say that it is asked too often."""
        for waits_left in reversed(range(_MOST_WAITS + 1)):
            reply = await self._sent(method, target, headers, body, silence_timeout_s)
            told, wait_s = await _whole(reply), _wait_s(reply)
            if wait_s is None or not waits_left:
                break
            await asyncio.sleep(wait_s)
        return reply.status, told

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
            {"accept": _JSON, **signed, **headers},
            body,
            silence_timeout_s=silence_timeout_s,
        )


def segment(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _target(path: str, query: Mapping[str, object]) -> str:
    said = {name: _text(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(said)}" if said else path


def _wait_s(reply: ClientResponse) -> float | None:
    """Seconds after which to ask again; none: it is answered, or not worth waiting."""
    said = reply.headers.get("retry-after", "")
    if reply.status != 429 or not said.isdecimal() or float(said) > _MOST_WAIT_S:
        return None
    return float(said)


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


def _error(status: int, told: bytes) -> DaitnError:
    """The error that a problem is about."""
    try:
        problem: Any = msgspec.json.decode(told, type=Problem)
    except (msgspec.DecodeError, ValueError):
        kind = _BY_STATUS.get(status, DaitnError)
        return kind(f"HTTP {status}", fix="see the control centre's log")
    code = problem.type.removeprefix(_URN)
    named = {kind.__name__: kind for kind in (*KINDS, NotSignedIn)}
    kind = named.get(code) or _BY_STATUS.get(status, DaitnError)
    return kind(problem.detail, field=problem.field, fix=problem.fix)


def _unreachable(error: HttpError) -> Unreachable:
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        return Unreachable(
            f"whoever answers is not known to be the control centre: {error}",
            field="url",
            fix="name it as its certificate does, and the network's folder, whose authority made "
            "that: `tls` of a client, DAITN_NETWORK of commands",
        )
    late = isinstance(error, ServerTimeout)
    return Unreachable(
        "the control centre does not answer in time" if late else f"no control centre: {error}",
        field="url",
        fix="check that it runs, and the address that `daitn dashboard` prints",
    )
