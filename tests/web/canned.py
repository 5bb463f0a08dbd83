"""A control centre that answers what a test lays down, with the real dashboard and real events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from daitn.oam.api.answers import ApiRole, SessionView, You
from daitn.oam.api.asking import SignedIn
from daitn.oam.api.events import EventLog, Readers
from daitn.oam.static import Dashboard
from daitn.objects.cordons import Cordon
from daitn.objects.deployments import (
    Api,
    DeploymentDescriptor,
    DeploymentState,
    FacilityDescriptor,
    Runtime,
)
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.identifiers import JobId, OwnerId, SiteId
from daitn.objects.jobs import JobState, JobView, WorkNeeds
from daitn.objects.roster import Kind
from daitn.tools.http import HttpServer, Reply, Request, Response
from daitn.topology.snapshot import SiteState

__all__ = ["REFUSED", "Canned", "canned", "facility", "job", "page"]

REFUSED = "expired"
"""A token that signs nobody in."""
_PREFIX = "/api/v1"
_READER = SignedIn(member=None, role=ApiRole.OPERATOR)


class Canned:
    """It answers `answers`, by path below the API's; nothing else exists."""

    def __init__(self, answers: dict[str, object]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        """Requests of the API, as `GET /sites`."""
        self.you: You | None = None
        self.ways: tuple[str, ...] = ()
        """With any, a token is the name of its owner."""
        self._held: dict[str, asyncio.Event] = {}
        self._loop = asyncio.new_event_loop()
        self._dashboard = Dashboard()
        self._server = HttpServer("127.0.0.1:0", "listen", self._answer)
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return self._server.endpoint

    @property
    def streams(self) -> int:
        """How many streams of events are open."""
        return len(self._readers)

    def happens(self, kind: str, data: object) -> None:
        """An event, which everybody may see."""
        self._do(self._put(kind, data))

    def hold(self, asked: str) -> None:
        """These requests are not answered before `release`."""
        self._held[asked] = asyncio.Event()

    def release(self) -> None:
        """Answer everything."""
        held, self._held = self._held, {}
        for event in held.values():
            self._loop.call_soon_threadsafe(event.set)

    def start(self) -> None:
        self._thread.start()
        self._do(self._start())

    def stop(self) -> None:
        self.release()
        self._do(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self) -> None:
        self._log = EventLog()
        self._readers = Readers(self._log, lambda by: bool(self.you or not self.ways))
        await self._server.start()

    async def _put(self, kind: str, data: object) -> None:
        self._log.put(kind, data)

    async def _answer(self, request: Request) -> Reply:
        if not request.path.startswith(_PREFIX):
            return self._dashboard.answer(request)
        path = request.path.removeprefix(_PREFIX)
        asked = f"{request.method} {path}"
        self.asked.append(asked)
        if held := self._held.get(asked):
            await held.wait()
        if path == "/session":
            return await self._session(request)
        if self.ways and not self.you:
            return _json({"detail": "you are not signed in"}, 401)
        if path == "/events":
            return await self._readers.serve(request, _READER, request.headers.get("last-event-id"))
        if path not in self.answers:
            return _json({"detail": f"{path} is not canned"}, 404)
        return _json(self.answers[path])

    async def _session(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.you = None
        elif request.method == "POST":
            name = msgspec.json.decode(await request.body(1000))["token"]
            if name == REFUSED:
                return _json({"detail": "the token has expired", "fix": "get another"}, 401)
            self.you = You(member=name, kind=Kind.OWNER, role=ApiRole.OWNER, until_s=None)
        return _json(SessionView(you=self.you, ways=self.ways))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@contextmanager
def canned(answers: dict[str, object]) -> Iterator[Canned]:
    """A control centre that answers these, served."""
    made = Canned(answers)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def page(*items: object) -> dict[str, object]:
    """A whole list."""
    return {"items": items, "next": None}


def facility(site: str, *, alive: bool = True, cordon: Cordon | None = None) -> SiteState:
    """A site that serves the model `doctor`."""
    deployed = DeploymentDescriptor(
        name="doctor",
        owner=OwnerId("acme"),
        runtime=Runtime.EMBEDDED,
        apis=(Api.CHAT,),
        state=DeploymentState.READY,
    )
    descriptor = NodeDescriptor(
        site=SiteId(site),
        owner=OwnerId("acme"),
        roles=(Role.FACILITY,),
        jurisdiction="US",
        public_key="k",
        started_at_s=1.0,
        version=1,
        software="test",
        facility=FacilityDescriptor(
            endpoint="http://127.0.0.1:1", hosts=True, memory_bytes=1, deployments=(deployed,)
        ),
        cordon=cordon or msgspec.UNSET,
    )
    return SiteState(descriptor=descriptor, alive=alive, changed_at_s=1.0)


def job(name: str, state: JobState) -> JobView:
    """A job that has done nothing yet."""
    return JobView(
        job=JobId(name),
        name=name,
        owner="acme",
        recipe="classifier",
        config={},
        state=state,
        sentence="it is so",
        detail="",
        algorithm="sequential",
        objectives=(),
        route=(),
        planned=None,
        working=(),
        excluded=(),
        untrained={},
        seconds=1.0,
        bytes_moved=0,
        cost_usd=0.0,
        examples=0,
        model=None,
        assessment=None,
        decision=None,
        error=None,
        submitted_at_s=1.0,
        ended_at_s=2.0 if state.final else None,
        needs=WorkNeeds(
            data_schema="d/1",
            test_schema="t/1",
            parameters=1,
            flops_per_example=1.0,
            memory_bytes=1,
            size_bytes=1,
        ),
    )


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, {"content-type": "application/json"})
