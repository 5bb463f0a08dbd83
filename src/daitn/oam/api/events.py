"""Events as server-sent events: a bounded log with any number of readers.

A reader is a place in the log and nothing else: a slow one holds nobody up and has nothing
kept for it. An event's id is the log's own random name and a number, so a browser that comes back
with `Last-Event-ID` goes on where it was. Where the log does not reach back so far, or is another
process's, the reader gets `reset`, and reads anew what it shows. The field `at` of an event is its
time; browsers' own readers ignore it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from daitn.oam.api.answers import PastEvent
from daitn.oam.api.asking import SignedIn
from daitn.oam.api.problems import HttpProblem
from daitn.tools import clock
from daitn.tools.http import Request, Stream

__all__ = ["EVENT_ID", "EVENT_KINDS", "START", "EventLog", "Readers"]

EVENT_KINDS: Final = {
    "map": "`MapDelta`: changes to the map, at most once a second.",
    "site": "`SiteNews`: a site came or went, or was taken out of service or brought back.",
    "job": "`JobSummary`: something happened to a job.",
    "deployment": "`DeploymentView`: a deployment is new or has changed.",
    "retired": "`{name}`: a deployment was retired.",
    "reset": "nothing: events are missing here; reload what you show.",
}
"""The content of each kind of event."""

EVENT_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9]{1,20}")
"""The form of an event's id: the log's name and a number."""
START: Final = "start"
"""In place of an id: all events that are remembered."""
_MOST_EVENTS: Final = 8192
_MOST_BYTES: Final = 32 << 20
_BATCH_BYTES: Final = 1 << 18
_HEARTBEAT_S: Final = 5.0
_RETRY_MS: Final = 2000
_MOST_READERS: Final = 512
_MOST_OF_ONE: Final = 32


class _Event(NamedTuple):
    number: int
    kind: str
    at_s: float
    owner: str | None
    """Who may see it besides operators; none means everybody."""
    data: bytes
    """As JSON."""
    text: bytes
    """The form in which it is sent."""


class EventLog:
    """The latest events, oldest first."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(4)
        self._events: deque[_Event] = deque()
        self._bytes = 0
        self._last = 0
        self._news = asyncio.Event()

    @property
    def last(self) -> str:
        """Id of the last event."""
        return self.id(self._last)

    def id(self, place: int) -> str:
        """Id of the event at a position."""
        return f"{self.name}-{place}"

    @property
    def count(self) -> int:
        """Number of events so far."""
        return self._last

    def put(self, kind: str, data: object, owner: str | None = None) -> None:
        """Add an event. `owner`: who may see it besides operators; none means everybody."""
        self._last += 1
        at_s = clock.now_s()
        encoded = msgspec.json.encode(data)  # JSON has no line breaks of its own.
        head = f"event: {kind}\nid: {self.last}\nat: {at_s!r}\ndata: "
        text = head.encode() + encoded + b"\n\n"
        self._events.append(_Event(self._last, kind, at_s, owner, encoded, text))
        self._bytes += len(text)
        while len(self._events) > _MOST_EVENTS or self._bytes > _MOST_BYTES:
            self._bytes -= len(self._events.popleft().text)
        self._news.set()
        self._news = asyncio.Event()

    def forget(self) -> None:
        """Start over: all readers must reload what they show."""
        self.name = secrets.token_hex(4)
        self._events.clear()
        self._bytes = 0
        self._last += 2  # No reader is at the end any more.
        self._news.set()
        self._news = asyncio.Event()

    def place(self, id_: str | None) -> int | None:
        """The position after events up to this id; without an id, the end; for `START`, the
        beginning. None if events since then are missing."""
        if not id_:
            return self._last
        if id_ == START:
            return self._first - 1
        name, _, number = id_.partition("-")
        if name != self.name or not (number.isascii() and number.isdecimal()):
            return None
        place = int(number[:20])
        return place if self._first - 1 <= place <= self._last else None

    def after(self, place: int, sees: Callable[[str | None], bool]) -> tuple[bytes, int] | None:
        """Some visible events after a position, and the position after them. None if events since
        then are missing."""
        if place < self._first - 1:
            return None
        parts, size = [], 0
        start = place - self._first + 1
        for at in range(start, len(self._events)):
            event = self._events[at]
            place = event.number
            if sees(event.owner):
                parts.append(event.text)
                size += len(event.text)
                if size >= _BATCH_BYTES:
                    break
        return b"".join(parts), place

    def past(
        self,
        limit: int,
        before: int | None,
        sees: Callable[[str | None], bool],
        kind: str | None = None,
    ) -> list[PastEvent]:
        """The latest visible events before a position, newest first; `kind`: only those. Changes of
        the map are left out: they are meaningless by themselves."""
        found: list[PastEvent] = []
        for event in reversed(self._events):
            if len(found) == limit:
                break
            wanted = event.kind == kind if kind else event.kind != "map"
            asked = wanted and (before is None or event.number < before)
            if asked and sees(event.owner):
                id_, data = self.id(event.number), msgspec.Raw(event.data)
                found.append(PastEvent(id=id_, kind=event.kind, at_s=event.at_s, data=data))
        return found

    async def changed(self, place: int, timeout_s: float) -> None:
        """Wait for an event after a position, or for this long."""
        news = self._news
        if place < self._last:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await news.wait()

    @property
    def _first(self) -> int:
        """Number of the oldest stored event, or of the next one."""
        return self._events[0].number if self._events else self._last + 1


class Readers:
    """The current readers of the log."""

    def __init__(self, log: EventLog, still: Callable[[SignedIn], bool]) -> None:
        """`still`: whether a caller that signed in before is still admitted."""
        self._log = log
        self._still = still
        self._reading: dict[str, int] = {}
        self._any = asyncio.Event()
        """Set while anybody reads."""

    def __len__(self) -> int:
        return sum(self._reading.values())

    async def wait(self, timeout_s: float) -> None:
        """Wait until anybody reads, or for this long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._any.wait()

    async def serve(self, request: Request, by: SignedIn, last_id: str | None) -> Stream:
        """Send events until the reader leaves, or is no longer admitted. Raises `HttpProblem`."""
        who = by.member.public_key if by.member else ""
        if len(self) >= _MOST_READERS or self._reading.get(who, 0) >= _MOST_OF_ONE:
            raise HttpProblem(
                429,
                "TooMany",
                "too many readers of events at the same time",
                fix="close pages that are not needed",
                headers={"retry-after": "10"},
            )
        self._reading[who] = self._reading.get(who, 0) + 1
        self._any.set()
        try:
            return await self._send(request, by, last_id)
        finally:
            self._reading[who] -= 1
            if not self._reading[who]:
                del self._reading[who]
            if not self._reading:
                self._any.clear()

    async def _send(self, request: Request, by: SignedIn, last_id: str | None) -> Stream:
        stream = request.stream(
            {
                "content-type": "text/event-stream",
                "cache-control": "no-store",
                "x-accel-buffering": "no",
            }
        )
        place = self._log.place(last_id)
        # An id alone is not an event, but a reader that returns can name it.
        at = self._log.last if place is None else self._log.id(place)
        await stream.write(f"retry: {_RETRY_MS}\nid: {at}\n\n".encode())
        sent_s = clock.elapsed_s()
        while self._still(by):
            found = None if place is None else self._log.after(place, by.sees)
            if found is None:
                place = self._log.place(None)
                await stream.write(f"event: reset\nid: {self._log.last}\ndata: {{}}\n\n".encode())
                continue
            text, place = found
            # Events that others see are not a sign of life for this reader.
            left_s = sent_s + _HEARTBEAT_S - clock.elapsed_s()
            if not text and left_s > 0.0:
                await self._log.changed(place, left_s)
                continue
            await stream.write(text or f"id: {self._log.id(place)}\n\n".encode())
            sent_s = clock.elapsed_s()
        return stream
