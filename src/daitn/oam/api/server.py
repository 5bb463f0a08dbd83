"""The API's server: checks each request against its route, queries the network, and answers."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from daitn.center.config import ApiConfig
from daitn.oam.api.access_control import AccessControl
from daitn.oam.api.answers import ApiRole, Problem, SessionView
from daitn.oam.api.asking import LARGE_BYTES, Asked, Center, SignedIn
from daitn.oam.api.events import EventLog, Readers
from daitn.oam.api.idempotency import Remembered
from daitn.oam.api.map_watcher import EVERY_S, UNREAD_EVERY_S, MapWatcher
from daitn.oam.api.metrics import ApiMetrics
from daitn.oam.api.news import News
from daitn.oam.api.openapi import document
from daitn.oam.api.problems import HttpProblem, problem_of, problem_response
from daitn.oam.api.reading_requests import read_body, read_query, whole_body
from daitn.oam.api.relaying import Relay
from daitn.oam.api.routes import HTML, ROUTES, ApiRoute, Special, found
from daitn.oam.api.sign_in import SignIn
from daitn.oam.codings import takes
from daitn.oam.report.page import POLICY
from daitn.oam.static import Dashboard
from daitn.objects.errors import DaitnError
from daitn.objects.http_api import JSON, OCTETS, PREFIX
from daitn.objects.jobs import JobView
from daitn.tools import clock
from daitn.tools.http import HttpServer, Reply, Request, Response
from daitn.tools.monitoring.metrics import Sample
from daitn.tools.roster import LiveRoster
from daitn.tools.tasks import Tasks

__all__ = ["ApiService"]

log = logging.getLogger(__name__)

_ZIPPED_FROM: Final = 1 << 10
_LEVEL: Final = 4
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
"""Headers of every answer."""
_PAGE: Final = {
    "content-type": f"{HTML}; charset=utf-8",
    "content-security-policy": f"{POLICY}; frame-ancestors 'none'; sandbox",
}
"""Headers of a page with content from others."""
_MOST_NAME: Final = 200
_UNSAFE: Final = ("POST", "PUT", "PATCH", "DELETE")
_VISITED: Final = (Special.OIDC, Special.OIDC_BACK)
"""Routes to which a person's browser goes: its problems are shown by the dashboard."""
_MOST_SHOWN: Final = 300
_RELAY: Final = next(route for route in ROUTES if route.do is Special.RELAY)


class ApiService:
    """Serves one control centre's API and dashboard."""

    def __init__(
        self,
        center: Center,
        name: str,
        config: ApiConfig,
        roster: LiveRoster | None,
        state: Path,
        tls: str,
        dashboard: Dashboard | None = None,
    ) -> None:
        """`name`: of the control centre in the roster. `roster`: none if everybody may do
        everything. `state`, `tls`: its folders."""
        self._center = center
        self._name = name
        grants = roster.grants() if roster else None
        self._sign_in = SignIn(name, grants, state, center.spent, clock.wall_s)
        self._relay = Relay(center, roster)
        self._access = AccessControl(config, self._sign_in)
        self.log = EventLog()
        """Log of events; others may add to it."""
        self._readers = Readers(self.log, self._sign_in.still)
        self._watcher = MapWatcher(center, self.log)
        self._news = News(center, self.log)
        self._remembered = Remembered()
        self._metrics = ApiMetrics()
        self._dashboard = dashboard or Dashboard()
        self._tasks = Tasks()
        self._server = HttpServer(
            config.listen or "", "api.listen", self._handle, tls, advertise=config.advertise
        )
        self._specials: dict[Special, Callable[[Request, SignedIn | None], Awaitable[Reply]]] = {
            Special.MAP: self._map,
            Special.EVENTS: self._events,
            Special.RELAY: self._relayed,
            Special.SESSION: self._session,
            Special.OPEN: self._open,
            Special.CLOSE: self._close_session,
            Special.OIDC: self._oidc,
            Special.OIDC_BACK: self._oidc_back,
            Special.OPENAPI: self._openapi,
        }

    @property
    def url(self) -> str:
        """URL at which others reach it, once it listens."""
        return self._server.published

    @property
    def address(self) -> str:
        """Host and port of this machine, once it listens."""
        return self._server.endpoint.partition("//")[2]

    @property
    def readers(self) -> int:
        """Number of current readers of events."""
        return len(self._readers)

    def measured(self) -> Iterator[Sample]:
        """See `Measured`."""
        return self._metrics.measured(len(self._readers), self.log.count)

    def job(self, shown: JobView) -> None:
        """Something happened to a job."""
        self._news.job(shown)

    async def start(self) -> None:
        """Listen. Raises `InvalidInput` for an address that it cannot use."""
        await self._server.start()
        self._access.listens_at(self._server.endpoint, self._server.published)
        self._news.start()
        self._tasks.repeat(self._look, "maps of dashboards")

    async def close(self) -> None:
        await self._server.close()
        await self._remembered.close()
        await self._tasks.close()
        self._access.shut()

    async def _look(self) -> None:
        await self._readers.wait(UNREAD_EVERY_S)
        await asyncio.sleep(EVERY_S)
        await self._watcher.look()

    async def _handle(self, request: Request) -> Reply:
        reply = await self._safely(request, self._reply(request))
        if isinstance(reply, Response):
            reply.headers.update(_HEADERS)
        return reply

    async def _safely(self, request: Request, answering: Awaitable[Reply]) -> Reply:
        """The answer, or the problem instead."""
        try:
            return await answering
        except HttpProblem as problem:
            return problem_response(problem)
        except DaitnError as error:
            return problem_response(problem_of(error))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("%s of %r failed", request.method, request.path)
            return problem_response(
                HttpProblem(
                    500, "Internal", "internal error", fix="look at the control centre's log"
                )
            )

    async def _reply(self, request: Request) -> Reply:
        self._access.check_host(request)
        path = request.path
        if path != "/healthz":
            # A refusal, or a page, would keep the requester from the leader.
            self._center.check_leads()
        if path in ("/healthz", "/readyz"):
            return Response(b'{"status":"ok"}', headers={"content-type": JSON})
        if path != "/api" and not path.startswith("/api/"):
            return self._dashboard.answer(request)
        return await self._of_api(request, path)

    async def _of_api(self, request: Request, path: str) -> Reply:
        known = path.startswith(PREFIX + "/") and not request.hides_slash
        routes = found(path.removeprefix(PREFIX)) if known else []
        if not routes:
            raise HttpProblem(
                404, "NotFound", "this path does not exist", fix=f"see {PREFIX}/openapi.json"
            )
        method = "GET" if request.method == "HEAD" else request.method
        for route, names in routes:
            if route.method == method:
                began_s = clock.elapsed_s()
                reply = await self._safely(request, self._of_route(request, route, names))
                self._metrics.answered(route.id, reply.status, clock.elapsed_s() - began_s)
                return _shown(reply) if route.do in _VISITED else reply
        methods = [route.method for route, _ in routes]
        allowed = ", ".join([*methods, "HEAD"] if "GET" in methods else methods)
        raise HttpProblem(
            405,
            "WrongMethod",
            f"this path takes {allowed}",
            fix=f"see {PREFIX}/openapi.json",
            headers={"allow": allowed},
        )

    async def _of_route(self, request: Request, route: ApiRoute, names: dict[str, str]) -> Reply:
        if request.method in _UNSAFE:
            self._access.check_origin(request)
        by = self._access.admitted(request, route)
        if isinstance(route.do, Special):
            if route.do is not Special.OIDC_BACK:  # A provider adds what it likes.
                read_query(route, request)
            return await self._specials[route.do](request, by)
        assert by is not None
        if odd := next((name for name, text in names.items() if not _is_name(text)), None):
            raise HttpProblem(
                404,
                "NotFound",
                "nothing has such a name",
                field=odd,
                fix=f"take a name as a list gives it: up to {_MOST_NAME} visible characters",
            )
        asked = Asked(self._center, self.log, by, names, read_query(route, request))
        if request.method in _UNSAFE:
            asked.body, text = await read_body(route, request)
            if route.least is not ApiRole.VIEWER:
                log.info("%s of %r by %s", request.method, request.path, by.who)
            whole = await self._remembered.once(
                request, by, text, lambda: self._answered(route, asked)
            )
        else:
            whole = await self._answered(route, asked)
        return await _fitting(request, whole)

    async def _answered(self, route: ApiRoute, asked: Asked) -> Response:
        """The answer, uncompressed: another request with its key may not take it otherwise."""
        assert not isinstance(route.do, Special)
        answer = await route.do(asked)
        if asked.large:
            body = await asyncio.to_thread(_encoded, answer)
        else:
            body = _encoded(answer)
        kind = _PAGE if route.media == HTML else {"content-type": JSON}
        return Response(body, route.status, {"cache-control": "no-store"} | kind)

    async def _map(self, request: Request, by: SignedIn | None) -> Reply:
        made = await self._watcher.map()
        tag = f'"{made.event}"'
        headers = {
            "content-type": JSON,
            "cache-control": "private, no-cache",
            "etag": tag,
            "vary": "accept-encoding",
        }
        if tag in request.headers.get("if-none-match", ""):
            return Response(b"", 304, headers)
        if takes(request.headers.get("accept-encoding", ""), "gzip"):
            return Response(made.zipped, 200, headers | {"content-encoding": "gzip"})
        return Response(made.text, 200, headers)

    async def _events(self, request: Request, by: SignedIn | None) -> Reply:
        assert by is not None
        last_id = request.headers.get("last-event-id") or request.query.get("after")
        if request.method == "HEAD":
            return Response(headers={"content-type": "text/event-stream"})
        for name, value in _HEADERS.items():
            request.add_header(name, value)
        return await self._readers.serve(request, by, last_id)

    async def _relayed(self, request: Request, by: SignedIn | None) -> Reply:
        assert by is not None
        query = read_query(_RELAY, request)
        asked = Asked(self._center, self.log, by, {}, query)
        body = await whole_body(request)
        given = await self._relay.passed_on(asked, query["key"], body, query["within_s"])
        return Response(given, 200, {"content-type": OCTETS, "cache-control": "no-store"})

    async def _session(self, request: Request, by: SignedIn | None) -> Reply:
        return self._signed(by)

    async def _open(self, request: Request, by: SignedIn | None) -> Reply:
        return self._signed(await self._access.open(request))

    def _signed(self, by: SignedIn | None) -> Response:
        you = by.you if by else None
        return _json(SessionView(you=you, ways=self._access.ways, center=self._name))

    async def _close_session(self, request: Request, by: SignedIn | None) -> Reply:
        self._access.close(request, by)
        return Response(status=204)

    async def _oidc(self, request: Request, by: SignedIn | None) -> Reply:
        return _see_other(await self._access.begin_elsewhere(request))

    async def _oidc_back(self, request: Request, by: SignedIn | None) -> Reply:
        await self._access.end_elsewhere(request)
        return _see_other("/")

    async def _openapi(self, request: Request, by: SignedIn | None) -> Reply:
        text = await asyncio.to_thread(document)
        tag = f'"{hashlib.sha256(text).hexdigest()[:16]}"'
        headers = {"content-type": JSON, "cache-control": "no-cache", "etag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(b"", 304, headers)
        return Response(text, 200, headers)


def _is_name(text: str) -> bool:
    """Whether it is valid as a name."""
    return len(text) <= _MOST_NAME and text.isprintable()


def _encoded(answer: Any) -> bytes:
    """A page unchanged, anything else as JSON."""
    return answer.encode() if isinstance(answer, str) else msgspec.json.encode(answer)


async def _fitting(request: Request, whole: Response) -> Response:
    """An answer as this client takes it: compressed, if that helps."""
    size = len(whole.body)
    if size < _ZIPPED_FROM or not takes(request.headers.get("accept-encoding", ""), "gzip"):
        return whole
    if size <= LARGE_BYTES:
        body = _zipped(whole.body)
    else:
        body = await asyncio.to_thread(_zipped, whole.body)
    headers = {"content-encoding": "gzip", "vary": "accept-encoding"}
    return Response(body, whole.status, whole.headers | headers)


def _zipped(body: bytes) -> bytes:
    return gzip.compress(body, _LEVEL, mtime=0)


def _shown(reply: Reply) -> Reply:
    """A problem as the dashboard shows it; any other answer as it is."""
    if not isinstance(reply, Response) or reply.status < 400:
        return reply
    problem = msgspec.json.decode(reply.body, type=Problem)
    said = {"problem": problem.detail[:_MOST_SHOWN], "fix": problem.fix[:_MOST_SHOWN]}
    return _see_other(f"/#{urlencode(said, quote_via=quote, safe='')}")


def _see_other(place: str) -> Response:
    return Response(status=303, headers={"location": place, "cache-control": "no-store"})


def _json(answer: msgspec.Struct) -> Response:
    headers = {"content-type": JSON, "cache-control": "no-store"}
    return Response(msgspec.json.encode(answer), 200, headers)
