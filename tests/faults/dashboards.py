"""A dashboard that stays open: it follows the control centre's events, and goes on where it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from daitn.identity.grants import new_center_token
from daitn.identity.keys import SigningKey
from daitn.objects.identifiers import CENTER_SITE
from daitn.tools.http.client import HttpClient, read_address
from daitn.tools.http.client_connection import HttpError
from tests.faults.world import API, NETWORK

__all__ = ["Dashboard"]

_API = read_address(f"http://{API}")
_AGAIN_S = 2.0


@dataclass
class Dashboard:
    """See the module."""

    key: SigningKey
    """An operator's, who sees everything."""
    states: dict[str, str] = field(default_factory=dict)
    """What it shows of each job."""
    wrong: list[str] = field(default_factory=list)
    """Events that came twice, or that are missing."""
    events: int = 0
    _last: str = ""
    _rest: bytes = b""

    async def follow(self) -> None:
        """Read events for ever."""
        token = new_center_token(NETWORK, "ops", center=CENTER_SITE, until_s=2e9, key=self.key)
        client = HttpClient(connect_timeout_s=3.0, keepalive_s=30.0)
        while True:
            with suppress(HttpError):
                await self._read(client, {"authorization": f"Bearer {token}"})
            await asyncio.sleep(_AGAIN_S)

    async def _read(self, client: HttpClient, headers: dict[str, str]) -> None:
        fresh, self._rest = not self._last, b""
        back = {**headers, "last-event-id": self._last} if self._last else headers
        stream = await client.request("GET", _API, "/api/v1/events", back, silence_timeout_s=40.0)
        if stream.status != 200:
            stream.close()
            return
        if fresh:
            await self._read_anew(client, headers)
        while chunk := await stream.read_chunk():
            for kind, id_, data in self._events(chunk):
                self._take_id(kind, id_)
                if kind == "reset":
                    await self._read_anew(client, headers)
                elif kind == "job":
                    job = json.loads(data)
                    self.states[job["job"]] = job["state"]

    def _events(self, chunk: bytes) -> Iterator[tuple[str, str, str]]:
        *whole, self._rest = (self._rest + chunk).split(b"\n\n")
        for text in whole:
            lines = (line.partition(": ") for line in text.decode().splitlines())
            fields = {name: value for name, _, value in lines}
            yield fields.get("event", ""), fields.get("id", ""), fields.get("data", "")

    def _take_id(self, kind: str, id_: str) -> None:
        before, now = self._last.rpartition("-"), id_.rpartition("-")
        self._last = id_ or self._last
        if kind in ("", "reset") or before[0] != now[0]:
            return
        self.events += 1
        if int(now[2]) != int(before[2]) + 1:
            self.wrong.append(f"{id_} came after {'-'.join(before[::2])}")

    async def _read_anew(self, client: HttpClient, headers: dict[str, str]) -> None:
        while True:
            answer = await client.request(
                "GET", _API, "/api/v1/jobs?limit=100", headers, silence_timeout_s=10.0
            )
            data = b""
            while chunk := await answer.read_chunk():
                data += chunk
            if answer.status == 200:
                self.states = {job["job"]: job["state"] for job in json.loads(data)["items"]}
                return
            await asyncio.sleep(_AGAIN_S)
