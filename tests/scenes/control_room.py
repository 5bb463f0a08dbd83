"""A control centre with its API on a real socket, over an in-memory network with a real roster.

Sites are scripted: they describe themselves, say what models need, and answer in their gateways'
place. Everything between a request and them is real.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from daitn.center.config import ApiConfig, CenterConfig
from daitn.center.service import ControlCenter
from daitn.identity.grants import new_center_token
from daitn.identity.keys import SigningKey, key_mark
from daitn.identity.network import NetworkFolder, key_path
from daitn.identity.orders import sign_order
from daitn.identity.signing import sign_advert
from daitn.node.behalf import Behalf
from daitn.oam.operated import Operated
from daitn.objects.deployments import GatewayDescriptor
from daitn.objects.descriptors import (
    ComputeDescriptor,
    DataPolicy,
    DatasetDescriptor,
    NodeDescriptor,
    Role,
    TestSetDescriptor,
    VerifierDescriptor,
)
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.intents import TrainingIntent
from daitn.objects.jobs import WorkNeeds
from daitn.objects.messages import Sensed
from daitn.objects.orders import SignedOrder
from daitn.objects.readings import LinkReading, LoadReading, Reading
from daitn.objects.roster import Kind, Member
from daitn.objects.wire import checked, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.fabric.protocol import Fabric, Handler
from daitn.tools.roster import LiveRoster

__all__ = ["NETWORK", "Room", "Site", "intent", "room"]

NETWORK = "clinics"
_PEOPLE = {"ann": Kind.OWNER, "bob": Kind.OWNER, "root": Kind.OPERATOR}
_LASTS_S = 1e6
_ROLES = (Role.DATA, Role.COMPUTE, Role.VERIFIER)
_NEEDS = WorkNeeds(
    data_schema="table/1",
    test_schema="table/1",
    parameters=10,
    flops_per_example=100.0,
    memory_bytes=1000,
    size_bytes=1000,
)


def intent(name: str = "tumour", owner: str = "ann", **changes: Any) -> TrainingIntent:
    plain = {
        "name": name,
        "owner": owner,
        "model": {"recipe": "classifier", "seed": 1, "config": {"classes": ["no", "yes"]}},
        "objectives": [{"name": "tumours", "topic": "oncology/breast", "at_least": 0.9}],
        "data": {"topics": ["oncology"]},
        "budget": {"duration_s": 3600},
        **changes,
    }
    return checked(plain, TrainingIntent, "intent")


class Site:
    """A scripted site, connected."""

    def __init__(self, name: str, key: SigningKey, fabric: Fabric) -> None:
        self.name = SiteId(name)
        self.fabric = fabric
        self._key = key
        self._later = 0
        self.asked = 0
        """How often it was asked what a model needs."""
        self.answering = asyncio.Event()
        """Cleared: it does not answer that for now."""
        self.answering.set()

    async def join(self, roles: Sequence[Role]) -> None:
        self._first = self._described(roles)
        advert = encode(sign_advert(self._first, self._key))

        async def on_describe(key: str, payload: bytes) -> bytes:
            return advert

        handlers: dict[str, Handler] = {"estimate": self._on_estimate, "describe": on_describe}
        for verb, handler in handlers.items():
            await self.fabric.serve(keys.site_do(self.name, verb), handler)
        await self.fabric.announce(keys.site_alive(self.name, key_mark(self._key.public)))

    async def describes_anew(self, **changes: Any) -> None:
        """Publish a later descriptor, with these fields changed from the first one."""
        self._later += 1
        later = {"version": 1 + self._later, **changes}
        node = msgspec.structs.replace(self._first, **later)
        await self.fabric.publish(keys.site_advert(self.name), encode(sign_advert(node, self._key)))

    async def answers(self, grants: Any, handlers: Mapping[str, Handler]) -> None:
        """Answer these verbs to members who ask through a control centre."""
        behalf = Behalf(self.name, grants, dict(handlers))
        await self.fabric.serve(keys.site_do(self.name, "behalf"), behalf.on_behalf)

    async def senses(self, cpu_share: float, **rtt_s: float) -> None:
        """Publish its load, and the round-trip times of its links."""

        def reading(value: float) -> Reading:
            return Reading(value=value, at_s=clock.now_s(), origin=self.name)

        load = LoadReading(
            site=self.name,
            queue=reading(0),
            cpu_share=reading(cpu_share),
            disk_free_bytes=reading(1e9),
        )
        links = tuple(
            LinkReading(source=self.name, target=SiteId(to), rtt_s=reading(seconds))
            for to, seconds in rtt_s.items()
        )
        sensed = Sensed(site=self.name, links=links, load=load)
        await self.fabric.publish(keys.site_sensed(self.name), encode(sensed))

    async def _on_estimate(self, key: str, payload: bytes) -> bytes:
        self.asked += 1
        await self.answering.wait()
        return encode(_NEEDS)

    def _described(self, roles: Sequence[Role]) -> NodeDescriptor:
        data = DatasetDescriptor(
            name="biopsies",
            site=self.name,
            data_schema="table/1",
            modality="table",
            topics=("oncology/breast",),
            samples=1000,
            labels={"no": 500, "yes": 500},
            quality=1.0,
            fresh_at_s=0.0,
            jurisdiction="US",
            policy=DataPolicy(recipes=("*",)),
        )
        test = TestSetDescriptor(
            topic="oncology/breast",
            test_schema="table/1",
            metrics=("accuracy",),
            items=100,
            chance=0.5,
            labels={"no": 50, "yes": 50},
        )
        compute = ComputeDescriptor(
            device="cpu", memory_bytes=10**9, speed_flops=1e9, recipes=("classifier",)
        )
        return NodeDescriptor(
            site=self.name,
            owner=OwnerId(self.name),
            roles=tuple(roles),
            jurisdiction="US",
            public_key=self._key.public,
            started_at_s=clock.now_s(),
            version=1,
            software="test",
            datasets=(data,) if Role.DATA in roles else (),
            compute=compute if Role.COMPUTE in roles else None,
            verifier=VerifierDescriptor(tests=(test,), recipes=("classifier",))
            if Role.VERIFIER in roles
            else None,
            gateway=GatewayDescriptor(endpoint="http://127.0.0.1:1")
            if Role.GATEWAY in roles
            else None,
        )


class Room:
    """The control centre, whoever asks it, and its sites."""

    def __init__(
        self, folder: Path, *, insecure: bool = False, encrypted: bool = False, **api: Any
    ) -> None:
        self._folder = folder
        self._memory = MemoryNetwork()
        self._keys = {name: SigningKey.generate() for name in (*_PEOPLE, "center")}
        self._api = api
        self._insecure = insecure
        self._http: list[aiohttp.ClientSession] = []
        self.sites: dict[str, Site] = {}
        self._found()
        self.roster = LiveRoster(folder / "center", folder / "network/roster.json")
        if encrypted:
            network = NetworkFolder(folder / "network")
            network.equip(Kind.CENTER, "center", folder / "center/tls")
        self.center: Operated

    async def start(self) -> None:
        """Start the control centre; also again."""
        config = CenterConfig(
            state=str(self._folder / "center"),
            api=ApiConfig(**{"listen": "127.0.0.1:0", **self._api}),
            insecure=self._insecure,
            listen=("tcp/127.0.0.1:0",),
        )
        carrier = self._memory.open("center")
        identity = None if self._insecure else self._identity("center")
        roster = None if self._insecure else self.roster
        served = ControlCenter(
            config, identity.signs(carrier) if identity else carrier, roster, identity
        )
        self.center = Operated(served, config, roster)
        await self.center.start()

    async def close(self) -> None:
        for http in self._http:
            await http.close()
        await self._end()
        for site in self.sites.values():
            await site.fabric.close()

    async def _end(self) -> None:
        await self.center.close()
        await self.center.center.fabric.close()

    async def restart(self) -> None:
        """End the control centre, and start it again at the same address."""
        async with self.away():
            pass

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Meanwhile the control centre is ended; then it starts again at the same address."""
        listen = self.url.removeprefix("http://")
        await self._end()
        yield
        if self._api.get("listen", "") is not None:
            self._api["listen"] = listen
        await self.start()

    @property
    def url(self) -> str:
        return self.center.url

    def readers(self) -> int:
        """Of events, now."""
        api = self.center.api
        return api.readers if api else 0

    def token(self, name: str, **changes: Any) -> str:
        """A token of a person."""
        options = {"center": "center", "until_s": time.time() + 600.0, **changes}
        return new_center_token(
            NETWORK, options.pop("member", name), key=self._keys[name], **options
        )

    def key(self, name: str) -> SigningKey:
        """The key of a person."""
        return self._keys[name]

    def http(self, name: str = "", **headers: str) -> aiohttp.ClientSession:
        """An HTTP client, with a person's token if one is named."""
        if name:
            headers["authorization"] = f"Bearer {self.token(name)}"
        jar = aiohttp.CookieJar(unsafe=True)  # Also of addresses without a name.
        session = aiohttp.ClientSession(base_url=self.url, headers=headers, cookie_jar=jar)
        self._http.append(session)
        return session

    def order(self, wanted: TrainingIntent) -> SignedOrder:
        """As its owner signs it."""
        return sign_order(wanted, NETWORK, time.time() + 3600.0, self._keys[wanted.owner])

    async def site(self, name: str, *roles: Role) -> Site:
        """Let a site join."""
        self._admit(name, Kind.SITE, roles or _ROLES)
        carrier = self._memory.open(name)
        fabric = carrier if self._insecure else self._identity(name).signs(carrier)
        site = self.sites[name] = Site(name, self._keys[name], fabric)
        await site.join(roles or _ROLES)
        return site

    async def lose(self, name: str) -> None:
        """Cut a site off."""
        await self.sites.pop(name).fabric.close()

    def revoke(self, name: str) -> None:
        """Take a person out of the roster."""
        network = NetworkFolder(self._folder / "network")
        network.revoke(_PEOPLE[name], name, time.time())
        self.roster.take(network.file().signed)

    def _found(self) -> None:
        folder = self._folder / "network"
        NetworkFolder.found(folder, NETWORK, "root", time.time())
        self._keys["root"] = SigningKey.at(key_path(folder, Kind.OPERATOR, "root"))
        for name, kind in {**_PEOPLE, "center": Kind.CENTER}.items():
            if name != "root":
                self._admit(name, kind, ())

    def _admit(self, name: str, kind: Kind, roles: Sequence[Role]) -> None:
        key = self._keys.setdefault(name, SigningKey.generate())
        member = Member(
            name=name,
            kind=kind,
            public_key=key.public,
            until_s=time.time() + _LASTS_S,
            roles=tuple(roles),
            owner=name if kind is Kind.SITE else "",
            jurisdiction="US" if kind is Kind.SITE else "",
            hosts=("127.0.0.1",) if kind is Kind.CENTER else (),
        )
        network = NetworkFolder(self._folder / "network")
        network.admit(member, now_s=time.time())
        if hasattr(self, "roster"):
            self.roster.take(network.file().signed)

    def _identity(self, name: str) -> Identity:
        return Identity(self._keys[name], NETWORK, self.roster.members)


@asynccontextmanager
async def room(folder: Path, **options: Any) -> AsyncIterator[Room]:
    """A running one."""
    made = Room(folder, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()
