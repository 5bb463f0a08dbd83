"""Sends spans to an OpenTelemetry collector, by OTLP over HTTP
(https://opentelemetry.io/docs/specs/otlp/#otlphttp). Needs the extra `traces`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import ssl
from collections import deque
from typing import Final
from urllib.parse import unquote

import aiohttp
from yarl import URL

from daitn.oam.monitoring.otlp import SpanEncoder
from daitn.objects.errors import InvalidInput
from daitn.tools.monitoring.tracing import Span
from daitn.tools.tasks import Tasks

__all__ = ["SpanSender"]

log = logging.getLogger(__name__)

SEND_TIMEOUT_S: Final = 5.0
EVERY_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
"""Between attempts at a collector that does not answer."""
MOST_WAITING: Final = 8192
"""Spans that end while so many wait are lost."""
_BATCH: Final = 256
"""Spans of a request; encoding them holds the event loop up for about two milliseconds."""
_PATH: Final = "/v1/traces"
"""Path at collectors, below the endpoint."""
_LATER: Final = frozenset({429, 502, 503, 504})
"""Statuses after which OTLP has a client try again."""
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.1."""
_OWN_HEADERS: Final = frozenset({"content-type", "content-length", "transfer-encoding"})
"""They follow from the body."""


class SpanSender:
    """Sends in batches, on the event loop. A collector that is down costs only spans."""

    def __init__(self, endpoint: str, encoder: SpanEncoder) -> None:
        """Raises `InvalidInput` for an address, headers or a file of certificates that cannot be
        used."""
        self._address = _address(endpoint)
        self._shown = self._address.with_user(None)
        """The address for logs: without a password."""
        self._encoder = encoder
        self._waiting = deque[Span]()
        self._problem = ""
        """Of the last attempt; empty if it succeeded."""
        self._pause_s = EVERY_S
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_trusted()),
            headers={"content-type": "application/x-protobuf", **_headers()},
            timeout=aiohttp.ClientTimeout(SEND_TIMEOUT_S),
            trust_env=True,
        )
        self._tasks = Tasks()
        self._tasks.repeat(self._round, "spans")

    def send(self, span: Span) -> None:
        """Add a finished span to the next batch, on any thread."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(span)

    async def close(self) -> None:
        """Send the rest, unless the collector does not answer."""
        await self._tasks.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._send_waiting(), SEND_TIMEOUT_S)
        await self._session.close()

    async def _round(self) -> None:
        await asyncio.sleep(self._pause_s)
        answered = await self._send_waiting()
        self._pause_s = EVERY_S if answered else min(2 * self._pause_s, LONGEST_PAUSE_S)

    async def _send_waiting(self) -> bool:
        """Send what waits; returns whether the collector took it, or refused it for good."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            settled = False
            try:
                settled = await self._send_batch(batch)
            finally:
                if not settled:
                    self._waiting.extendleft(reversed(batch))
            if not settled:
                return False
        return True

    async def _send_batch(self, batch: list[Span]) -> bool:
        """Returns whether there is nothing to try again."""
        status, problem = await self._post(self._encoder.request(batch))
        self._note(problem)
        return not problem or (status != 0 and status not in _LATER)

    async def _post(self, body: bytes) -> tuple[int, str]:
        """The collector's status, 0 without one, and what is wrong; empty if nothing is."""
        try:
            # Clients follow most redirects with a GET, and take the spans nowhere.
            async with self._session.post(
                self._address, data=body, allow_redirects=False
            ) as answer:
                return answer.status, "" if answer.status < 300 else _refusal(answer)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # `TimeoutError` is an OSError.
            return 0, str(error) or "it does not answer"

    def _note(self, problem: str) -> None:
        """Log what changes."""
        if problem and problem != self._problem:
            log.warning("the collector %s takes no spans: %s", self._shown, problem)
        elif self._problem and not problem:
            log.info("the collector %s takes spans again", self._shown)
        self._problem = problem


def _trusted() -> ssl.SSLContext:
    """Trusts the system's certificate authorities, or those in the file that the environment
    names."""
    name = "OTEL_EXPORTER_OTLP_CERTIFICATE"
    path = os.environ.get(name) or None
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # An `SSLError` is one.
        raise InvalidInput(
            f"{path} has no certificates that can be read: {error}",
            field=name,
            fix="name a file with the certificates of the collector's authority, in PEM",
        ) from None


def _headers() -> dict[str, str]:
    """Headers that the collector requires: `name=value,name=value`, percent-encoded
    (https://opentelemetry.io/docs/specs/otel/protocol/exporter/)."""
    variable = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
    if not os.environ.get(variable):
        variable = "OTEL_EXPORTER_OTLP_HEADERS"
    pairs = (pair.partition("=") for pair in os.environ.get(variable, "").split(",") if "=" in pair)
    stated = {unquote(name.strip()): unquote(value.strip()) for name, _, value in pairs}
    for name, value in stated.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise InvalidInput(
                f"{name!r} cannot be the name of a header for the collector",
                field=variable,
                fix="state `name=value,name=value`, percent-encoded",
            )
        if not value.isprintable():  # Keys belong into no log, hence without the value.
            raise InvalidInput(
                f"the value of {name} has a line end or another control character",
                field=variable,
                fix="state it in one line, percent-encoded",
            )
    return stated


def _address(endpoint: str) -> URL:
    try:
        address = URL(endpoint.rstrip("/").removesuffix(_PATH) + _PATH)
        if not address.raw_host:
            raise ValueError("it names no host")
        address.raw_host.encode("idna")
    except ValueError as error:  # A `UnicodeError` is one.
        raise InvalidInput(
            f"it is not the address of a collector: {error}",
            field="traces.endpoint",
            fix="state its URL, for instance http://127.0.0.1:4318",
        ) from None
    return address


def _refusal(answer: aiohttp.ClientResponse) -> str:
    if place := answer.headers.get("location"):
        return f"it answers {answer.status} and names {place[:200]!r}"
    return f"it answers {answer.status}"
