"""Queries as packets between real forwarders: ensembles, seals, signatures.

gate - north - near, clinic, east: near is the best and the nearest, clinic alone is of the class
`clinics`. What crosses north is looked at, and changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.identity.grants import signed_text
from daitn.identity.keys import SigningKey
from daitn.identity.passes import PassBook
from daitn.identity.sealing import ReceiverKey
from daitn.node.config import check_node_config
from daitn.node.forwarder.offers import home
from daitn.node.forwarder.protection import sign_packet
from daitn.node.forwarder.query_client import PacketAnswer, PacketQueryClient
from daitn.node.forwarder.query_service import PacketQuestion, QueryService
from daitn.node.forwarder.runtime import ForwarderRuntime, NotServed
from daitn.node.mandates import Mandates
from daitn.objects.deployments import Api
from daitn.objects.errors import InvalidInput, NotFound
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.queries import QueryConstraints, QueryIntent, Strategy
from daitn.openai.errors import ApiError
from daitn.steering.reports import pending_reports
from daitn.steering.wire.intent import PacketIntent
from daitn.steering.wire.offers import Offer
from daitn.steering.wire.packet import Flag, Packet, PacketKind, decode_packet, encode_packet
from daitn.steering.wire.replies import Reason, Refusal
from daitn.tools.adjacency.memory import MemoryLinks
from tests.scenes.grants import Members
from tests.scenes.openai_server import OpenAiServer
from tests.scenes.waiting import until

pytestmark = pytest.mark.processes

QUESTION = "is it malignant"
ASKED = b'{"messages": [{"role": "user", "content": "is it malignant"}], "model": "auto"}'
Change = Callable[[Packet], Packet]


class Nobody:
    """Serves nothing."""

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        raise NotServed(Refusal(Reason.FAILED, "nothing is served here"))


class Tap(ForwarderRuntime):
    """A forwarder that keeps what crosses it, and may change queries."""

    def __init__(self, site: SiteId) -> None:
        super().__init__(site, Nobody())
        self.crossed: list[Packet] = []
        self.change: Change = lambda packet: packet

    def frames(self, neighbour: SiteId, messages: list[bytes]) -> None:
        super().frames(neighbour, [self._tapped(message) for message in messages])

    def _tapped(self, message: bytes) -> bytes:
        if not message.startswith(b"\xda\x17"):
            return message
        packet = decode_packet(message)
        self.crossed.append(packet)
        return encode_packet(self.change(packet)) if packet.kind is PacketKind.QUERY else message

    def bytes_crossed(self) -> bytes:
        return b"".join(encode_packet(packet) for packet in self.crossed)


@dataclass
class Scene:
    tap: Tap
    runtimes: dict[str, ForwarderRuntime]
    known: dict[SiteId, str]
    """Sites whose public keys facilities know."""
    key: SigningKey
    """Of gate."""
    clinics: ReceiverKey

    async def ask(
        self, seal_to: str = "", owner: str = "ana", mandate: str = "", **constraints: Any
    ) -> tuple[PacketAnswer, ...]:
        classes = {"clinics": self.clinics.public}
        asking = PacketQueryClient(self.runtimes["gate"], self.key, classes, seal_to)
        intent = QueryIntent(
            origin=SiteId("gate"),
            owner=owner,
            api=Api.CHAT,
            model="auto",
            topic="medicine",
            tokens_in=3,
            tokens_out=3,
            constraints=QueryConstraints(**constraints),
        )
        return await asking.ask(intent, PacketQuestion(Api.CHAT, ASKED, "gate:1", mandate=mandate))


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, OpenAiServer]]:
    with OpenAiServer(text="says near") as near, OpenAiServer(text="says clinic") as clinic:
        yield {"near": near, "east": near, "clinic": clinic}


@pytest.fixture
async def scene(servers: dict[str, OpenAiServer]) -> AsyncIterator[Scene]:
    async with built(servers) as scene:
        yield scene


@asynccontextmanager
async def built(
    servers: dict[str, OpenAiServer], mandates: Mandates | None = None
) -> AsyncIterator[Scene]:
    clinics, key, known = ReceiverKey.generate(), SigningKey.generate(), dict[SiteId, str]()
    offers = {
        "near": Offer("answer:medicine", fit=0.9, trust=2, serve_s=0.01),
        "clinic": Offer("answer:medicine", fit=0.7, trust=2, serve_s=0.05),
        "east": Offer("answer:medicine", fit=0.6, trust=2, serve_s=0.05),
    }
    links = MemoryLinks()
    async with AsyncExitStack() as stack:
        tap = Tap(SiteId("north"))
        runtimes: dict[str, ForwarderRuntime] = {
            "north": tap,
            "gate": ForwarderRuntime(SiteId("gate"), Nobody()),
        }
        for site, offer in offers.items():
            service = QueryService(
                SiteId(site),
                SigningKey.generate(),
                lambda site=site: servers[site].url.removesuffix("/v1"),  # type: ignore[misc]
                lambda offer=offer: (("doctor", offer),),  # type: ignore[misc]
                known.get,
                [clinics] if site == "clinic" else [],
                mandates=mandates,
            )
            stack.push_async_callback(service.close)
            runtimes[site] = ForwarderRuntime(SiteId(site), service)
        for site, runtime in runtimes.items():
            own = (offers[site],) if site in offers else ()
            runtime.offer((home(SiteId(site)), *own))
            runtime.join(links.open(SiteId(site), runtime))
            stack.push_async_callback(runtime.close)
        for site, cost_s in {"gate": 0.001, "near": 0.001, "clinic": 0.02, "east": 0.02}.items():
            links.join(SiteId("north"), SiteId(site), cost_s=cost_s)
        for runtime in runtimes.values():
            await until(lambda runtime=runtime: knows(runtime, runtimes, offers))  # type: ignore[misc]
        yield Scene(tap, runtimes, known, key, clinics)


def knows(runtime: ForwarderRuntime, sites: Iterable[str], offers: Collection[str]) -> bool:
    """Whether a forwarder has heard of all others, and of all that is offered."""
    routes = runtime.core.routes
    reached = {*routes.origins(), runtime.core.site}
    return reached >= {*sites} and len(routes.offering("answer:medicine")) == len(offers)


def said(steered: PacketAnswer) -> str:
    answer = msgspec.json.decode(steered.answered.body)
    text: str = answer["choices"][0]["message"]["content"]
    return text


async def test_a_query_is_signed_by_the_site_where_it_sets_out(scene: Scene) -> None:
    scene.known[SiteId("gate")] = scene.key.public
    (answer,) = await scene.ask()
    assert said(answer) == "says near"
    assert QUESTION.encode() in scene.tap.bytes_crossed()
    assert [Flag.SIGNED in packet.flags for packet in scene.tap.crossed] == [True, False]


async def test_a_sealed_query_is_answered_by_one_who_can_open_it_and_read_by_no_other(
    scene: Scene,
) -> None:
    (answer,) = await scene.ask(sealed_to="clinics")
    assert (said(answer), answer.answered.site) == ("says clinic", "clinic")
    assert answer.path == ("gate", "north", "clinic")
    crossed = scene.tap.bytes_crossed()
    for secret in (QUESTION, "says clinic", "doctor", "gate:1"):
        assert secret.encode() not in crossed
    kinds = [(packet.kind, Flag.SEALED in packet.flags) for packet in scene.tap.crossed]
    assert kinds == [
        (PacketKind.QUERY, True),
        (PacketKind.REFUSAL, False),
        (PacketKind.ANSWER, True),
    ]
    assert b"sealed to a class whose key this site does not have" in scene.tap.crossed[1].payload
    for runtime in scene.runtimes.values():
        reports = pending_reports(runtime.core.custody, bytes.fromhex(answer.object_id))
        assert QUESTION.encode() not in msgspec.json.encode(reports)


async def test_a_query_can_override_the_class_to_which_its_gateway_seals(
    scene: Scene,
) -> None:
    (sealed,) = await scene.ask(seal_to="clinics")
    (plain,) = await scene.ask(seal_to="clinics", sealed_to="")
    assert (said(sealed), said(plain)) == ("says clinic", "says near")
    with pytest.raises(ApiError, match="there is no class nurses") as refused:
        await scene.ask(sealed_to="nurses")
    assert refused.value.param == "daitn.sealed_to"


async def test_where_nobody_can_open_it_the_owner_is_told(scene: Scene) -> None:
    scene.clinics = ReceiverKey.generate()
    with pytest.raises(
        ApiError, match="FAILED: sealed to a class whose key this site does not have"
    ):
        await scene.ask(sealed_to="clinics")


def flipped(packet: Packet) -> Packet:
    changed = bytes([*packet.payload[:-1], packet.payload[-1] ^ 1])
    return msgspec.structs.replace(packet, payload=changed)


def unsigned(packet: Packet) -> Packet:
    return msgspec.structs.replace(packet, flags=packet.flags & ~Flag.SIGNED, seal=b"")


@pytest.mark.parametrize("sealed_to", ["", "clinics"])
async def test_a_query_that_was_changed_on_its_way_is_denied(scene: Scene, sealed_to: str) -> None:
    scene.tap.change = flipped
    with pytest.raises(ApiError, match=r"DENIED: .*signature") as refused:
        await scene.ask(sealed_to=sealed_to)
    assert refused.value.status == 400


async def test_a_sealed_query_is_protected_by_its_seal_too(scene: Scene) -> None:
    scene.tap.change = lambda packet: flipped(unsigned(packet))
    with pytest.raises(ApiError, match=r"DENIED: .*cannot be opened"):
        await scene.ask(sealed_to="clinics")


async def test_a_key_that_is_not_the_source_sites_is_denied(scene: Scene) -> None:
    scene.known[SiteId("gate")] = SigningKey.generate().public
    with pytest.raises(ApiError, match="not signed with the key of gate"):
        await scene.ask()


async def test_in_a_network_with_a_roster_a_query_needs_its_gateways_signature(
    scene: Scene,
) -> None:
    """Whoever took the signature away made it a query that nobody signed, which was served."""
    gateways = {scene.key.public: SiteId("gate")}
    for site in ("near", "clinic", "east"):
        service = scene.runtimes[site]._service
        assert isinstance(service, QueryService)
        service._gateway_of = gateways.get
    (answer,) = await scene.ask()
    assert said(answer) == "says near"
    scene.tap.change = unsigned
    with pytest.raises(ApiError, match=r"DENIED: .*not signed"):
        await scene.ask()
    scene.tap.change = lambda packet: sign_packet(unsigned(packet), SigningKey.generate())
    with pytest.raises(ApiError, match="not a gateway of this network"):
        await scene.ask()


async def test_a_sealed_query_tells_nothing_by_its_refusal(
    scene: Scene, servers: dict[str, OpenAiServer]
) -> None:
    servers["clinic"].control(fail=1.0)
    try:
        with pytest.raises(ApiError, match="FAILED"):
            await scene.ask(sealed_to="clinics")
        assert b"the facility answered 500" in scene.tap.bytes_crossed()
        assert b"told" not in scene.tap.bytes_crossed()
    finally:
        servers["clinic"].control(fail=0.0)


async def test_an_answer_that_is_not_sealed_to_the_question_is_none(scene: Scene) -> None:
    async def forge(packet: Packet, intent: PacketIntent) -> bytes:
        return bytes(200)

    scene.runtimes["near"]._service.serve = forge  # type: ignore[method-assign]
    with pytest.raises(ApiError, match="the answer cannot be read"):
        await scene.ask(sealed_to="clinics")


async def test_an_ensemble_is_answered_by_different_sites(scene: Scene) -> None:
    answers = await scene.ask(strategy=Strategy.ENSEMBLE, members=4, hedge=False)
    assert sorted(answer.answered.site for answer in answers) == ["clinic", "east", "near"]
    assert len({answer.object_id for answer in answers}) == 1
    sealed = await scene.ask(strategy=Strategy.ENSEMBLE, members=3, sealed_to="clinics")
    assert [said(answer) for answer in sealed] == ["says clinic"]


async def test_an_ensemble_waits_for_one_that_is_late_only_where_it_is_told_to(
    scene: Scene, servers: dict[str, OpenAiServer]
) -> None:
    servers["clinic"].control(first_token_s=60.0)
    ensemble: dict[str, Any] = {"strategy": Strategy.ENSEMBLE, "members": 3}
    try:
        answers = await scene.ask(**ensemble)
        assert sorted(answer.answered.site for answer in answers) == ["east", "near"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(scene.ask(**ensemble, hedge=False), 1.0)
    finally:
        servers["clinic"].control(first_token_s=0.0)


async def test_a_cascade_cannot_find_its_own_way(scene: Scene) -> None:
    with pytest.raises(ApiError, match="one model or an ensemble") as refused:
        await scene.ask(strategy=Strategy.CASCADE)
    assert refused.value.param == "daitn.strategy"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seal_to": "clinics"}, "forwarder.seal_to"),
        ({"classes": {"clinics": "no key"}}, "forwarder.classes.clinics"),
        # A point of low order: whatever is sealed to it can be opened by all.
        ({"classes": {"clinics": 43 * "A" + "="}}, "forwarder.classes.clinics"),
        ({"receives": ["nowhere.key"]}, "forwarder.receives[0]"),
    ],
)
def test_a_nodes_file_says_what_is_wrong_with_its_classes(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    plain = {"site": "gate", "owner": "ana", "jurisdiction": "US", "state": "state"}
    with pytest.raises((InvalidInput, NotFound)) as wrong:
        check_node_config({**plain, "roles": ["forwarder"], "forwarder": changes}, tmp_path)
    assert wrong.value.field == field


async def test_a_packet_asks_in_no_owners_name_without_a_mandate(
    servers: dict[str, OpenAiServer],
) -> None:
    """Any gateway, and whoever took its signature away, could name any owner."""
    members, gate = Members(), SiteId("gate")
    passes = PassBook(SiteId("near"), lambda site: None)
    mandates = Mandates(SiteId("near"), members.book(), passes, {gate: "host"}.get)
    acmes = signed_text(members.mandate())
    others = signed_text(members.mandate(gateways=(SiteId("door"),)))
    rivals = signed_text(members.mandate("rival", owner=OwnerId("rival")))
    async with built(servers, mandates) as scene:
        for name in ("acme", "host"):
            with pytest.raises(ApiError, match="nobody known here signed"):
                await scene.ask(owner=name, mandate=acmes)
        scene.known[gate] = scene.key.public
        for mandate in ("", others, rivals, "rubbish"):
            for seal_to in ("", "clinics"):
                with pytest.raises(ApiError, match="mandate"):
                    await scene.ask(seal_to, owner="acme", mandate=mandate)
        for owner, mandate in (("acme", acmes), ("host", ""), ("", "")):
            (answer,) = await scene.ask(owner=owner, mandate=mandate)
            assert said(answer) == "says near"
        scene.tap.change = unsigned
        with pytest.raises(ApiError, match="nobody known here signed"):
            await scene.ask(owner="acme", mandate=acmes)
