"""Scripted facilities and a deployment service, over the in-memory fabric."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from daitn.center.deployments import DeploymentService
from daitn.center.drrt_feed import JournalKeys
from daitn.center.names import BareNames
from daitn.center.published import PublishedModels
from daitn.identity.grants import GrantBook
from daitn.identity.keys import SigningKey, key_mark
from daitn.identity.signing import sign_advert
from daitn.objects.cordons import Cordon
from daitn.objects.deployments import (
    Api,
    DeploymentDescriptor,
    DeploymentState,
    FacilityDescriptor,
    Runtime,
    config_digest,
)
from daitn.objects.descriptors import ModelDescriptor, NodeDescriptor, Role
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import CENTER_SITE, Digest, OwnerId, SiteId
from daitn.objects.messages import Demand, DemandRate, DeployModel, RetireModel, Sensed, Serving
from daitn.objects.placement import DeploymentView, DesiredDeployment
from daitn.objects.readings import LinkReading, Reading, ServingReading
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryFabric, MemoryNetwork
from daitn.tools.journal.memory import MemoryJournal
from daitn.tools.membership import Membership
from daitn.tools.qrrt_feed import QrrtFeed
from tests.scenes.waiting import until

Seen = Callable[[str, str, str], None]
"""Hears (verb, site, deployment) of each request before it is carried out."""


def trained(name: str, digit: str, size_bytes: int = 100) -> ModelDescriptor:
    return ModelDescriptor(
        name=name,
        owner=OwnerId("me"),
        recipe="classifier",
        manifest=Digest(digit * 64),
        size_bytes=size_bytes,
        measured={},
        holders=(),
        created_at_s=0.0,
    )


class Mdf:
    """A facility that does what a test says. What it hosts outlives its process, as on a disk."""

    def __init__(self, network: MemoryNetwork, site: str, seen: Seen) -> None:
        self.site = SiteId(site)
        self.hosted: dict[str, tuple[Digest, DeploymentState]] = {}
        self.deployed: list[DeployModel] = []
        """All that it was asked to deploy."""
        self.memory_bytes = 1000
        self.loads = True
        """Whether a model that it takes is ready at once; it stays `loading` otherwise."""
        self.fails: DaitnError | None = None
        self.deaf = False
        self.cordon: Cordon | msgspec.UnsetType = msgspec.UNSET
        self._network = network
        self._seen = seen
        self._key = SigningKey.generate()
        self._version = 0
        self.fabric: MemoryFabric | None = None

    async def start(self) -> None:
        self.fabric = self._network.open(self.site)
        for verb, handler in (
            ("describe", self._on_describe),
            ("deploy", self._on_deploy),
            ("retire", self._on_retire),
        ):
            await self.fabric.serve(keys.site_do(self.site, verb), handler)
        await self.fabric.announce(keys.site_alive(self.site, key_mark(self._key.public)))

    async def die(self) -> None:
        self.fabric = None
        await self._network.kill(self.site)

    async def tell(self) -> None:
        self._version += 1
        if self.fabric is not None:
            await self.fabric.publish(keys.site_advert(self.site), self._advert())

    async def load(self, name: str, state: DeploymentState = DeploymentState.READY) -> None:
        self.hosted[name] = self.hosted[name][0], state
        await self.tell()

    def ready(self, name: str) -> Digest | None:
        manifest, state = self.hosted.get(name, (None, None))
        return manifest if state is DeploymentState.READY and self.fabric is not None else None

    def _advert(self) -> bytes:
        asked = {wish.name: wish for wish in self.deployed}
        deployments = tuple(
            DeploymentDescriptor(
                name=name,
                owner=OwnerId("me"),
                runtime=Runtime.EMBEDDED,
                apis=(Api.CHAT,),
                state=state,
                manifest=manifest,
                recipe=asked[name].recipe,
                config=config_digest(asked[name].config),
                policy=asked[name].policy,
                price_usd_per_1k_in=asked[name].price_usd_per_1k_in,
                price_usd_per_1k_out=asked[name].price_usd_per_1k_out,
                grant=asked[name].grant,
                name_grant=asked[name].name_grant,
                place_grant=asked[name].place_grant,
                size_bytes=100,
            )
            for name, (manifest, state) in self.hosted.items()
        )
        node = NodeDescriptor(
            site=self.site,
            owner=OwnerId(self.site),
            roles=(Role.FACILITY,),
            jurisdiction="US",
            public_key=self._key.public,
            started_at_s=0.0,
            version=self._version,
            software="",
            facility=FacilityDescriptor(
                endpoint="http://127.0.0.1:1",
                hosts=True,
                memory_bytes=self.memory_bytes,
                recipes=("classifier",),
                deployments=deployments,
            ),
            cordon=self.cordon,
        )
        return encode(sign_advert(node, self._key))

    async def _on_describe(self, key: str, payload: bytes) -> bytes:
        return self._advert()

    async def _on_deploy(self, key: str, payload: bytes) -> bytes:
        wish = decode(payload, DeployModel)
        self.deployed.append(wish)
        self._seen("deploy", self.site, wish.name)
        if self.deaf:
            await asyncio.Event().wait()
        if self.fails is not None:
            raise self.fails
        state = DeploymentState.READY if self.loads else DeploymentState.LOADING
        self.hosted[wish.name] = wish.model.manifest, state
        await self.tell()
        return b""

    async def _on_retire(self, key: str, payload: bytes) -> bytes:
        name = decode(payload, RetireModel).name
        self._seen("retire", self.site, name)
        self.hosted.pop(name, None)
        await self.tell()
        return b""


class World:
    """Facilities, and a control centre's deployment service that may die at any time."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.journal = MemoryJournal()
        self.asked: list[tuple[str, str, str]] = []
        self.mdfs: dict[str, Mdf] = {}
        self.sacred: set[str] = set()
        """Deployments that answer: some facility has to, at any time."""
        self.broken: list[str] = []
        self.crash_at = 0
        """Number of the request during which the service dies; 0: none."""
        self.crashed = asyncio.Event()
        for number, model in enumerate(("doctor-1", "doctor-2")):
            self.journal.put("model", model, encode(trained(model, "ab"[number])))

    async def add(self, *sites: str) -> None:
        for site in sites:
            self.mdfs[site] = Mdf(self.network, site, self._seen)
            await self.mdfs[site].start()

    async def start(self, grants: GrantBook | None = None, names: BareNames | None = None) -> None:
        self._fabric = self.network.open(CENTER_SITE)
        self._membership = Membership(self._fabric, JournalKeys(self.journal))
        self._qrrt = QrrtFeed(self._fabric, self._membership, CENTER_SITE)
        self.service = DeploymentService(
            self._fabric,
            self.journal,
            PublishedModels(self.journal),
            self._membership,
            self._qrrt,
            grants,
            names,
        )
        await self._membership.start()
        await self._qrrt.start()
        await self.service.start()

    async def stop(self) -> None:
        await self.network.kill(CENTER_SITE)
        await self.service.close()
        await self._qrrt.close()
        await self._membership.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def known(self, *sites: str) -> None:
        await until(lambda: self._membership.alive() >= set(sites))

    async def serve(self, site: str, name: str, first_token_s: float, per_token_s: float) -> None:
        """A facility tells how fast a deployment answers."""
        mdf = self.mdfs[site]
        reading = ServingReading(
            deployment=name,
            in_flight=0,
            waiting=0,
            first_token_s=first_token_s,
            per_token_s=per_token_s,
        )
        serving = Serving(
            site=mdf.site, at_s=time.time(), memory_free_bytes=800, deployments=(reading,)
        )
        assert mdf.fabric is not None
        await mdf.fabric.publish(keys.site_serving(mdf.site), encode(serving))

    async def ask(self, site: str, per_s: dict[str, float], tokens_out: float = 1.0) -> None:
        """A site tells how often it is asked for models, and that all others are far away."""
        gate, now_s = self.mdfs[site].site, time.time()
        rates = tuple(
            DemandRate(topic="", model=model, per_s=rate, shed_per_s=0.0, tokens_out=tokens_out)
            for model, rate in per_s.items()
        )
        links = tuple(
            LinkReading(source=gate, target=mdf.site, rtt_s=Reading(0.5, now_s, gate))
            for mdf in self.mdfs.values()
        )
        demand = Demand(site=gate, at_s=now_s, rates=rates)
        fabric = self.mdfs[site].fabric
        assert fabric is not None
        await fabric.publish(keys.site_sensed(gate), encode(Sensed(site=gate, links=links)))
        await fabric.publish(keys.site_demand(gate), encode(demand))
        await until(lambda: self._qrrt.snapshot().demand)

    def heard(self, site: str, tokens_out: float) -> bool:
        """Whether the last `ask` and `serve` have come in."""
        snapshot = self._qrrt.snapshot()
        asked = {rate.tokens_out for rate in snapshot.demand[self.mdfs[site].site].rates}
        return asked == {tokens_out} and bool((snapshot.columns.measured_at_s > 0).all())

    def view(self, name: str = "doctor-1") -> DeploymentView:
        return self.service.view(name)

    def places(self, name: str = "doctor-1") -> dict[str, str]:
        """Where it is to be, and how far it is."""
        return {place.site: str(place.state) for place in self.view(name).places if place.wanted}

    async def stands(self, site: str, shown: str, name: str = "doctor-1") -> None:
        """Wait until this is shown of it at a place."""
        await until(lambda: (site, shown) in {(p.site, p.standing) for p in self.view(name).places})

    def kept(self, name: str) -> set[str]:
        """Places in the journal."""
        return set(decode(self.journal.get("deployment", name) or b"", DesiredDeployment).places)

    def hosts(self, name: str = "doctor-1") -> set[str]:
        return {site for site, mdf in self.mdfs.items() if name in mdf.hosted}

    def _seen(self, verb: str, site: str, name: str) -> None:
        self.asked.append((verb, site, name))
        others = [m for other, m in self.mdfs.items() if other != site and m.ready(name)]
        if verb == "retire" and name in self.sacred and not others:
            self.broken.append(f"{site} retires {name}, which nobody else answers")
        if len(self.asked) == self.crash_at:
            self.crashed.set()
            raise DaitnError("the asker is gone")
