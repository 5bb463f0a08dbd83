"""A facility on an in-memory fabric, with a real door, a real store and a real worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import openai

from daitn.identity.grants import GrantBook
from daitn.learning.consultant import Consultant
from daitn.learning.pulse import STALL_S
from daitn.node.config import FacilityConfig, NodeConfig
from daitn.node.serving.facility import Facility
from daitn.node.usage.counts import UsageCounts
from daitn.objects.deployments import DeploymentDescriptor, DeploymentState
from daitn.objects.descriptors import Role
from daitn.objects.errors import Refused
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.messages import DeployModel, RetireModel, Serving
from daitn.objects.models import ModelRef
from daitn.objects.readings import ServingReading
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryFabric, MemoryNetwork
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.server import ChunkServer
from daitn.tools.mobility.transport import ChunkTransport
from tests.scenes.plain_http import plain_http
from tests.scenes.waiting import PATIENCE_S, until

__all__ = ["CHAT", "HEADERS", "PASS", "Holder", "Site", "chat"]

PASS = "the gateway's pass"
HEADERS = {
    "daitn-pass": PASS,
    "daitn-query": "gate:7",
    "daitn-asked-at": "1700000000.9",
    "daitn-owner": "ada",
}
CHAT = "/v1/chat/completions"


def chat(model: str, text: str, **constraints: Any) -> bytes:
    """The body of a chat with one message."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": model, "messages": messages, **constraints}).encode()


class Holder:
    """A site that holds models and gives them out."""

    def __init__(self, network: MemoryNetwork, folder: Path, site: str = "holder") -> None:
        self.site = SiteId(site)
        self._folder = folder
        self._store = DiskBlobStore(folder / "store")
        self._server = ChunkServer(network.open(site), self.site, self._store)

    async def start(self) -> None:
        await self._server.start()

    async def close(self) -> None:
        await self._server.close()

    def model(self, voice: str, size_bytes: int | None = None) -> ModelRef:
        """A model of the recipe `talker`; `size_bytes` is what is said of its size."""
        folder = self._folder / voice
        folder.mkdir(exist_ok=True)
        (folder / "voice").write_text(voice)
        return self.packed("talker", folder, size_bytes)

    def packed(self, recipe: str, folder: Path, size_bytes: int | None = None) -> ModelRef:
        digest, manifest = self._store.pack(recipe, folder)
        told = manifest.size_bytes if size_bytes is None else size_bytes
        return ModelRef(manifest=digest, size_bytes=told, holders=(self.site,))


class Site:
    """A facility, and everybody who asks it."""

    def __init__(
        self,
        network: MemoryNetwork,
        folder: Path,
        site: str = "mdf",
        grants: GrantBook | None = None,
        admit: Callable[[str, float], SiteId] | None = None,
        counts: UsageCounts | None = None,
        **config: Any,
    ) -> None:
        node = {
            key: config.pop(key) for key in ("jurisdiction", "recipes", "stall_s") if key in config
        }
        recipes = node.pop("recipes", ("talker", "causal-lm", "broken"))
        self.config = NodeConfig(
            site=SiteId(site),
            owner=OwnerId("provider"),
            jurisdiction=node.get("jurisdiction", "US"),
            roles=(Role.FACILITY,),
            center=("tcp/127.0.0.1:1",),
            state=str(folder / site),
            threads=1,
            stall_s=node.get("stall_s", STALL_S),
            facility=FacilityConfig(**config),
        )
        self.fabric: MemoryFabric = network.open(site)
        store = DiskBlobStore(folder / site / "models")
        self._transport = ChunkTransport(self.fabric, self.config.site, store, stall_s=PATIENCE_S)
        self.changes = 0
        self._consultant = Consultant(recipes)
        self.facility = Facility(
            self.config,
            self._consultant,
            self.fabric,
            store,
            self._transport,
            admit or _admit,
            self._changed,
            grants=grants,
            counts=counts,
        )
        self.served: list[Serving] = []

    async def start(self) -> Site:
        await self.fabric.subscribe(keys.site_serving(self.config.site), self._heard)
        await self._consultant.start()
        await self.facility.start()
        return self

    async def close(self) -> None:
        await self.facility.close()
        await self._consultant.close()
        await self._transport.close()
        await self.fabric.close()

    @property
    def url(self) -> str:
        return self.facility.descriptor().endpoint

    def client(self, **headers: str) -> openai.AsyncOpenAI:
        """OpenAI's own client, as a gateway would use it."""
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1",
            api_key="none",
            max_retries=0,
            http_client=plain_http(),
            default_headers={**HEADERS, **headers},
        )

    async def ask(self, model: str, text: str = "hi", **constraints: Any) -> str:
        """What it says to a chat message."""
        async with self.client() as client:
            answer = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": text}], **constraints
            )
        return answer.choices[0].message.content or ""

    async def post(
        self, path: str, body: bytes, headers: dict[str, str] = HEADERS
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of a raw request; what is cut off raises."""
        url = f"{self.url}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=body, headers=headers) as answer,
        ):
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, await answer.read(), headers

    def deployed(self, name: str) -> DeploymentDescriptor | None:
        found = (d for d in self.facility.descriptor().deployments if d.name == name)
        return next(found, None)

    def state(self, name: str) -> DeploymentState | None:
        deployed = self.deployed(name)
        return None if deployed is None else deployed.state

    async def deploy(self, name: str, model: ModelRef, **changes: Any) -> None:
        """Ask for a model, as the control centre does."""
        plain = {"owner": "health-ai", "recipe": "talker", "config": {}, **changes}
        wish = DeployModel(name=name, model=model, **plain)
        await self.facility.on_deploy("", encode(wish))

    async def ready(self, name: str, model: ModelRef, **changes: Any) -> None:
        """Deploy a model, and wait until it answers."""
        await self.deploy(name, model, **changes)
        await until(lambda: self.answers(name, model))

    def answers(self, name: str, model: ModelRef) -> bool:
        deployed = self.deployed(name)
        return (
            deployed is not None
            and deployed.state is DeploymentState.READY
            and deployed.manifest == model.manifest
        )

    @property
    def reading(self) -> ServingReading:
        """How its one deployment does, as it told last."""
        told = self.served[-1].deployments if self.served else ()
        return told[0] if told else ServingReading(deployment="", in_flight=0, waiting=0)

    async def told_anew(self) -> ServingReading:
        """How its one deployment does, as it tells from now on."""
        now_s = time.time()
        await until(lambda: self.served and self.served[-1].at_s >= now_s)
        return self.reading

    async def retire(self, name: str) -> None:
        await self.facility.on_retire("", encode(RetireModel(name=name)))

    def _changed(self) -> None:
        self.changes += 1

    async def _heard(self, key: str, payload: bytes) -> None:
        self.served.append(decode(payload, Serving))


def _admit(shown: str, now_s: float) -> SiteId:
    if shown == PASS:
        return SiteId("gate")
    raise Refused("the pass is not good here", field="daitn-pass", fix="ask through a gateway")
