"""An owner who deploys a model and asks it, for as long as the run goes."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from daitn.identity.grants import new_token, sign_statement
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.errors import DaitnError
from daitn.objects.grants import DeploymentGrant
from daitn.objects.identifiers import JobId, OwnerId, SiteId
from daitn.objects.placement import DeployIntent, DeploymentList
from daitn.objects.requests import JobQuery, ModelList
from daitn.objects.wire import decode, encode
from daitn.tools.http.client import HttpClient, read_address
from daitn.tools.http.client_connection import HttpError
from tests.faults.answering import answer_to
from tests.faults.virtual import EPOCH_S
from tests.faults.world import NETWORK

if TYPE_CHECKING:
    from tests.faults.run import Run

__all__ = ["PRICES_USD_PER_1K", "Asker", "Query"]

_GATEWAY = "http://127.0.0.1:7480"
_EVERY_S = 2.0
PRICES_USD_PER_1K = 1.0, 2.0
"""Of tokens read, and written."""
_ALL = encode(JobQuery(job=JobId("")))
_REPLICAS = 2


@dataclass
class Query:
    """One that was asked."""

    text: str
    status: int = 0
    heard: str = ""
    """What came of the answer."""
    ended: int = 0
    """How often it was said that the answer is at its end."""
    broken: bool = False
    by_packet: bool = False
    """Whether it finds its own way."""


@dataclass
class Asker:
    """See the module."""

    run: Run
    owner: str
    """Who deploys."""
    client: str
    """Who asks, and pays the owner."""
    rng: random.Random
    queries: list[Query] = field(default_factory=list)
    name: str = ""
    """Of the deployment, once it is wanted."""
    ready_at_end: bool | None = None
    calm_from: int | None = None
    """The first query after which nothing went wrong any more."""

    async def go(self) -> None:
        """Deploy what is trained first, and ask."""
        run = self.run
        key = run.world.key(self.client)
        token = new_token(NETWORK, self.client, (SiteId("gate"),), 2e9, (100.0, 100), key)
        await self._deployed()
        client = HttpClient(connect_timeout_s=3.0, keepalive_s=30.0)
        for number in range(10_000):
            query = Query(f"q{number}")
            self.queries.append(query)
            query.by_packet = bool(run.world.forwarders) and self.rng.random() < 0.5
            asked = self._ask(client, query, token, stream=self.rng.random() < 0.5)
            machine = run.world.machines[self.client]
            run.world.run_as(machine, asked)
            await asyncio.sleep(_EVERY_S * self.rng.uniform(0.2, 1.8))

    async def ready(self) -> bool:
        """Whether the deployment answers at as many places as its owner wants."""
        try:
            given = decode(await self.run._ask("ops", "deployments", _ALL), DeploymentList)
        except DaitnError:
            return False
        mine = (view for view in given.deployments if view.name == self.name)
        return all(view.ready and view.replicas >= _REPLICAS for view in mine)

    async def _deployed(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            try:
                given = await self.run._ask(self.owner, "models", _ALL)
                models = [m for m in decode(given, ModelList).models if not m.untrained]
                if not models:
                    continue
                self.name = models[0].name
                await self.run._ask(self.owner, "deploy", encode(self._intent(models[0])))
                return
            except DaitnError:
                continue

    def _intent(self, model: ModelDescriptor) -> DeployIntent:
        read, written = PRICES_USD_PER_1K
        intent = DeployIntent(
            model=model.name,
            replicas=_REPLICAS,
            price_usd_per_1k_in=read,
            price_usd_per_1k_out=written,
        )
        now_s = EPOCH_S + self.run.loop.time()
        grant = DeploymentGrant(
            network=NETWORK,
            owner=OwnerId(model.owner),
            name=model.name,
            manifest=model.manifest,
            terms=intent.terms(model).digest,
            sites=(),
            issued_at_s=now_s,
            until_s=now_s + 86_400.0,
        )
        signed = sign_statement(grant, self.run.world.key(self.owner))
        return msgspec.structs.replace(intent, grant=signed)

    async def _ask(self, client: HttpClient, query: Query, token: str, *, stream: bool) -> None:
        body: dict[str, Any] = {
            "model": f"{self.owner}/{self.name}",
            "messages": [{"role": "user", "content": query.text}],
            "stream": stream,
        }
        if query.by_packet:
            body["daitn"] = {"autonomous": True}
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        data = b""
        try:
            answer = await client.request(
                "POST", read_address(_GATEWAY), "/v1/chat/completions", headers,
                json.dumps(body).encode(), silence_timeout_s=20.0,
            )  # fmt: skip
            query.status = answer.status
            while chunk := await answer.read_chunk():
                data += chunk
        except HttpError:
            query.broken = True
        if query.status != 200:
            query.heard = data.decode(errors="replace")[:200]
        elif stream:
            _take_events(query, data)
        elif not query.broken:
            query.heard = json.loads(data)["choices"][0]["message"]["content"]
            query.ended = 1


def _take_events(query: Query, data: bytes) -> None:
    for line in data.split(b"\n\n"):
        said = line.removeprefix(b"data: ").strip()
        if said == b"[DONE]":
            query.ended += 1
        elif said.startswith(b"{") and said.endswith(b"}"):
            event = json.loads(said)
            if "error" in event:
                query.broken = True
            for choice in event.get("choices", ()):
                query.heard += choice.get("delta", {}).get("content") or ""


def expected(query: Query) -> str:
    """The whole answer."""
    return "".join(answer_to(query.text))
