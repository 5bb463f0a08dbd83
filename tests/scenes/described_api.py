"""Requests that schemathesis makes of the API's description, and a control centre to ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import schemathesis
import schemathesis.transport.wsgi  # While Hypothesis runs, it cannot be compiled.
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from daitn.oam.api.openapi import described, document
from daitn.objects.requests import SubmitIntent
from tests.scenes.control_room import Room, intent, room
from tests.scenes.waiting import until

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
ENDLESS = "/api/v1/events"


def schema() -> BaseSchema:
    """What is described, but for what never ends."""
    return schemathesis.openapi.from_dict(described()).exclude(path=ENDLESS)


def tried(case: Any, url: str) -> None:
    """No fault of the server, and no answer of another form."""
    case.call_and_validate(base_url=url, checks=CHECKS)


@contextmanager
def open_room(folder: Path) -> Iterator[str]:
    """A control centre on a thread of its own, where nobody signs in, with two sites and a job."""
    document()  # Made now: Hypothesis, in this process, makes syntax trees meanwhile.
    started: list[str] = []
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with room(folder, insecure=True, requests_per_s=1e6) as made:
            await _filled(made)
            started.append(made.url)
            ready.set()
            await done.wait()

    loop = asyncio.new_event_loop()
    serving = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    serving.start()
    assert ready.wait(60.0)
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        serving.join()
        loop.close()


async def _filled(made: Room) -> None:
    await made.site("east")
    await made.site("west")
    await until(lambda: len(made.center.center.snapshot().alive()) == 2)
    wanted = msgspec.json.encode(SubmitIntent(intent=intent(), insist=True))
    headers = {"content-type": "application/json"}
    async with made.http().post("/api/v1/jobs", data=wanted, headers=headers) as reply:
        assert reply.status == 201
