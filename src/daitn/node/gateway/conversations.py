"""Stored responses at facilities: the id identifies the facility, so gateways need no table."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from daitn.node.gateway.context import Caller
from daitn.node.gateway.errors import unavailable
from daitn.node.gateway.topology import Topology
from daitn.node.gateway.upstream import AttemptFailed, Upstream
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import QueryConstraints
from daitn.openai.conversation import (
    RANDOM_BYTES,
    StoredResponse,
    read_stored,
    response_id,
    site_of,
)
from daitn.openai.errors import ApiError, read_error
from daitn.openai.failures import CANNOT_REACH
from daitn.openai.http import RESPONSES
from daitn.tools.throttled import ThrottledLog
from daitn.topology.qrrt.paths import permitted
from daitn.topology.qrrt.snapshot import Qrrt

__all__ = ["Conversations"]

log = logging.getLogger(__name__)


class Conversations:
    """Finds, stores and deletes responses in their owner's name."""

    def __init__(self, topology: Topology, upstream: Callable[[], Upstream]) -> None:
        """`upstream` queries facilities; it is available once the gateway has started."""
        self._topology = topology
        self._upstream = upstream
        self._problems = ThrottledLog(log)

    def new_id(self, site: str) -> str | None:
        """An id for a response that the facility of this site answers; `None` means it stores
        none."""
        node = self._topology.snapshot().nodes.get(SiteId(site))
        if node is None or node.facility is None or not node.facility.keeps_responses:
            return None
        return response_id(site, secrets.token_bytes(RANDOM_BYTES))

    async def find(
        self, caller: Caller, id_: str, constraints: QueryConstraints
    ) -> StoredResponse | None:
        """A stored response; `None` if there is none with this id for the caller. `constraints`:
        who may see it. Raises `ApiError` if its facility does not answer."""
        status, body = await self._reach(caller, "GET", id_, b"", constraints)
        if status == 404:
            return None
        kept = read_stored(body) if status == 200 else None
        if kept is None:
            raise _untold(id_, status, body)
        return kept

    async def delete(self, caller: Caller, id_: str, constraints: QueryConstraints) -> bool:
        """Delete a response; false if none with this id is stored for the caller. Raises `ApiError`
        if its facility does not answer."""
        status, body = await self._reach(caller, "DELETE", id_, b"", constraints)
        if status not in (200, 404):
            raise _untold(id_, status, body)
        return status == 200

    async def keep(
        self, caller: Caller, id_: str, kept: StoredResponse, constraints: QueryConstraints
    ) -> bool:
        """Have a response stored; false if it is not."""
        try:
            status, body = await self._reach(caller, "PUT", id_, kept.encoded, constraints)
        except ApiError as error:
            status, body = error.status, error.body
        if status != 200:
            refusal = read_error(body)
            why = f"{status} {refusal.message if refusal else ''}"
            self._problems.warning(f"{site_of(id_)}", "a response is not kept: %s", why)
        return status == 200

    async def relay(self, caller: Caller, method: str, id_: str, body: bytes) -> tuple[int, bytes]:
        """The facility's answer for another gateway. Raises `ApiError`."""
        status, answer = await self._reach(caller, method, id_, body, QueryConstraints())
        if status == 404 and not answer:
            raise _away(id_, "the gateway on the way there does not know it")
        return status, answer

    async def _reach(
        self, caller: Caller, method: str, id_: str, body: bytes, constraints: QueryConstraints
    ) -> tuple[int, bytes]:
        """Status and body of the facility's answer; 404 if this site has none. Raises `ApiError` if
        it cannot be reached."""
        site = site_of(id_)
        snapshot = self._topology.snapshot()
        if site is None or not (site in snapshot.nodes or _rows(snapshot, site)):
            return 404, b""
        tried: list[SiteId | None] = []
        while True:
            relay = self._relay(caller, snapshot, site, constraints)
            if relay in tried:
                raise _away(id_, "it cannot be reached")
            tried.append(relay)
            try:
                return await self._upstream().send(
                    caller, snapshot, site, relay, method, f"{RESPONSES}/{id_}", body
                )
            except AttemptFailed as failed:
                if failed.failure is not CANNOT_REACH:
                    raise _away(id_, failed.reason) from None
                self._topology.unreachable(failed.site)

    def _relay(
        self, caller: Caller, snapshot: Qrrt, site: SiteId, constraints: QueryConstraints
    ) -> SiteId | None:
        """The relaying gateway to a facility; `None` means there is none."""
        rows = _rows(snapshot, site)
        if caller.relayed_by is not None or not rows:
            return None
        return permitted(self._topology.paths(snapshot), snapshot, constraints).via(rows[0])


def _rows(snapshot: Qrrt, site: SiteId) -> list[int]:
    return [number for number, row in enumerate(snapshot.rows) if row.site == site]


def _untold(id_: str, status: int, body: bytes) -> ApiError:
    error = read_error(body)
    why = f"{status} {error.code} {error.message[:300]}" if error is not None else str(status)
    return _away(id_, f"it answered {why}")


def _away(id_: str, why: str) -> ApiError:
    return unavailable(
        f"{site_of(id_)} keeps {id_}, but {why}: ask again later, or go on with the whole "
        "conversation as `input`"
    )
