"""The API does what its description says, whatever is asked: requests that schemathesis makes of
the description, good and bad ones, find no fault of the server and no answer of another form."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import schemathesis.transport.wsgi  # While Hypothesis runs, it cannot be compiled.
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from daitn.oam.api.openapi import described
from daitn.objects.requests import SubmitIntent
from tests.scenes.control_room import Room, intent, room
from tests.scenes.waiting import until

from .test_api import posted

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
ENDLESS = "/api/v1/events"


def schema() -> BaseSchema:
    return schemathesis.openapi.from_dict(described()).exclude(path=ENDLESS)


quick = schema()
quick.config.phases.coverage.enabled = False
# Its requests take a minute to make: only a run that sends them makes them.
thorough = schemathesis.pytest.from_fixture("all_requests")


@pytest.fixture(scope="module")
def all_requests() -> BaseSchema:
    return schema()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A control centre on a thread of its own, where nobody signs in, with two sites and a job."""
    started: list[str] = []
    ready, done = threading.Event(), asyncio.Event()

    async def serve(folder: Path) -> None:
        async with room(folder, insecure=True, requests_per_s=1e6) as made:
            await _filled(made)
            started.append(made.url)
            ready.set()
            await done.wait()

    loop = asyncio.new_event_loop()
    serving = threading.Thread(
        target=lambda: loop.run_until_complete(serve(tmp_path_factory.mktemp("room")))
    )
    serving.start()
    assert ready.wait(60.0)
    yield started[0]
    loop.call_soon_threadsafe(done.set)
    serving.join()
    loop.close()


async def _filled(made: Room) -> None:
    await made.site("east")
    await made.site("west")
    await until(lambda: len(made.center.center.snapshot().alive()) == 2)
    status, _ = await posted(made.http(), "jobs", SubmitIntent(intent=intent(), insist=True))
    assert status == 201


def tried(case: Any, url: str) -> None:
    case.call_and_validate(base_url=url, checks=CHECKS)


@quick.parametrize()
@settings(max_examples=6, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_request_finds_a_fault(case: Any, url: str) -> None:
    tried(case, url)


@pytest.mark.long
@pytest.mark.timeout(1800)
@thorough.parametrize()
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_no_request_of_very_many_finds_a_fault(case: Any, url: str) -> None:
    tried(case, url)
