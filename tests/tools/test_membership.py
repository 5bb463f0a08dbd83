"""Who is on the network and what each node says of itself, over both fabrics."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from daitn.identity.grants import GrantBook
from daitn.identity.keys import SigningKey, key_mark
from daitn.identity.roster import ROSTER, RosterFile, sign_roster, write_roster
from daitn.identity.signing import sign_advert
from daitn.objects.deployments import FacilityDescriptor
from daitn.objects.descriptors import NodeDescriptor, Role, VerifierDescriptor
from daitn.objects.errors import InvalidInput, StorageFull, Unreachable
from daitn.objects.findings import Finding
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.messages import Advert, Sensed
from daitn.objects.roster import Kind, Member, Roster
from daitn.objects.wire import encode
from daitn.tools import clock
from daitn.tools import membership as directory_module
from daitn.tools.entitled import EntitledNodes
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.membership import FileKeys, Listener, Membership
from daitn.tools.qrrt_feed import QrrtFeed
from daitn.tools.roster import LiveRoster
from tests.scenes.passing_time import PassingTime
from tests.scenes.waiting import until
from tests.topology.qrrt.world import WEIGHTS, deployment

from .fabrics import InMemory, Network, OverZenoh

GHR, NINDS = SiteId("ghr"), SiteId("ninds")
ROOT = SigningKey.generate()
KEYS = {site: SigningKey.generate() for site in (GHR, NINDS)}


@pytest.fixture(params=["memory", pytest.param("zenoh", marks=pytest.mark.processes)])
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    made: Network = InMemory() if request.param == "memory" else OverZenoh()
    yield made
    await made.close()


@pytest.fixture
async def hub(network: Network) -> Fabric:
    """The session on which the directory is."""
    return await network.open("hub")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def listening(hub: Fabric, heard: Heard, tmp_path: Path) -> AsyncIterator[Membership]:
    started = await opened(hub, tmp_path, heard)
    yield started
    await started.close()


class Heard:
    """What a listener was told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, SiteId, int]] = []
        self._versions: dict[SiteId, int] = {}

    def described(self, node: NodeDescriptor) -> None:
        self._versions[node.site] = node.version
        self._tell("described", node.site)

    def came(self, site: SiteId) -> None:
        self._tell("came", site)

    def lost(self, site: SiteId) -> None:
        self._tell("lost", site)

    def removed(self, site: SiteId) -> None:
        self._tell("removed", site)

    def of(self, site: SiteId) -> list[tuple[str, int]]:
        """What was told of a site, with the version that it had."""
        return [(what, version) for what, about, version in self.told if about == site]

    def _tell(self, what: str, site: SiteId) -> None:
        self.told.append((what, site, self._versions.get(site, 0)))


class Node:
    """A node, as far as a directory sees it."""

    def __init__(self, fabric: Fabric, site: SiteId, key: SigningKey | None = None) -> None:
        self.fabric = fabric
        self.key = key or KEYS[site]
        self.descriptor = NodeDescriptor(
            site=site,
            owner=OwnerId("nih"),
            roles=(Role.COMPUTE,),
            jurisdiction="US",
            public_key=self.key.public,
            started_at_s=1.0,
            version=1,
            software="test",
        )
        self.registrations: list[Registration] = []

    def advert(self) -> Advert:
        return sign_advert(self.descriptor, self.key)

    async def start(self) -> Node:
        site = self.descriptor.site

        async def describe(key: str, payload: bytes) -> bytes:
            return encode(self.advert())

        self.registrations = [
            await self.fabric.serve(keys.site_do(site, "describe"), describe),
            await self.fabric.announce(keys.site_alive(site, key_mark(self.key.public))),
        ]
        return self

    async def publish(self) -> None:
        advert = encode(self.advert())
        await self.fabric.publish(keys.site_advert(self.descriptor.site), advert)

    async def stop(self) -> None:
        """As if it died: its token and its answers are gone."""
        for registration in reversed(self.registrations):
            await registration.close()


async def opened(
    fabric: Fabric,
    folder: Path,
    *listeners: Listener,
    verifiers: tuple[SiteId, ...] = (),
    here: SiteId | None = None,
) -> Membership:
    known = FileKeys(folder / "keys")
    opened = Membership(fabric, known, *listeners, verifiers=verifiers, here=here)
    await opened.start()
    return opened


async def published(node: Node, is_heard: object) -> None:
    """Publish until it is heard: that there is a subscriber takes its time to be known."""
    assert callable(is_heard)

    async def again() -> None:
        while True:
            await node.publish()
            await asyncio.sleep(0.02)

    publishing = asyncio.create_task(again())
    await until(is_heard)
    publishing.cancel()


async def test_a_node_comes_changes_goes_and_comes_back(
    network: Network, listening: Membership, heard: Heard
) -> None:
    node = await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in listening.alive())
    assert heard.of(GHR) == [("described", 1), ("came", 1)]
    assert listening.node(GHR) == node.descriptor
    assert listening.nodes() == (node.descriptor,)
    assert listening.key_of(GHR) == node.key.public

    node.descriptor = msgspec.structs.replace(node.descriptor, version=2, software="newer")
    await published(node, lambda: len(heard.of(GHR)) >= 4)
    assert heard.of(GHR)[2:] == [("described", 2), ("came", 2)]

    await node.stop()
    await until(lambda: len(heard.of(GHR)) == 5)
    assert heard.of(GHR)[4:] == [("lost", 2)]
    assert listening.alive() == frozenset()
    assert listening.nodes() == ()
    assert listening.node(GHR) == node.descriptor

    await node.start()
    await until(lambda: GHR in listening.alive())
    # Listeners may have forgotten it: it is described to them again, though it says the same.
    assert heard.of(GHR)[5:] == [("described", 2), ("came", 2)]


async def test_what_did_not_change_is_not_told_twice(
    network: Network, listening: Membership, heard: Heard
) -> None:
    node = await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in listening.alive())
    for _ in range(20):
        await node.publish()
    node.descriptor = msgspec.structs.replace(node.descriptor, version=2)
    await published(node, lambda: ("came", 2) in heard.of(GHR))
    assert heard.of(GHR) == [("described", 1), ("came", 1), ("described", 2), ("came", 2)]


async def test_an_older_advert_changes_nothing(
    network: Network, listening: Membership, heard: Heard
) -> None:
    node = Node(await network.open("a"), GHR)
    old = node.advert()
    node.descriptor = msgspec.structs.replace(node.descriptor, version=7)
    await node.start()
    await until(lambda: GHR in listening.alive())
    await node.fabric.publish(keys.site_advert(GHR), encode(old))
    node.descriptor = msgspec.structs.replace(node.descriptor, version=8)
    await published(node, lambda: ("came", 8) in heard.of(GHR))
    assert [version for _, version in heard.of(GHR)] == [7, 7, 8, 8]


@pytest.fixture
def long_lost(monkeypatch: pytest.MonkeyPatch) -> float:
    """A pause of this process makes nobody lost."""
    seconds = 1000.0
    monkeypatch.setattr(directory_module, "LOST_AFTER_S", seconds)
    return seconds


async def test_a_token_that_flaps_is_no_loss(
    network: Network, listening: Membership, heard: Heard, long_lost: float
) -> None:
    time = PassingTime()
    node = await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in listening.alive())
    for _ in range(5):
        await node.stop()
        await node.start()
    other = await Node(await network.open("b"), NINDS).start()
    await until(lambda: NINDS in listening.alive())
    assert heard.of(GHR) == [("described", 1), ("came", 1)]
    await other.stop()

    def is_lost() -> bool:
        time.passes(long_lost)
        return ("lost", 1) in heard.of(NINDS)

    await until(is_lost)
    assert GHR in listening.alive(), "what was lost after it is not lost before it"


async def test_a_site_does_not_lose_itself(
    network: Network, hub: Fabric, heard: Heard, tmp_path: Path
) -> None:
    """Once it is cut off from the control centre, no token reaches it, not even its own."""
    opening = await opened(hub, tmp_path, heard, here=GHR)
    own = await Node(hub, GHR).start()
    other = await Node(await network.open("b"), NINDS).start()
    await until(lambda: opening.alive() == {GHR, NINDS})
    await own.stop()
    await other.stop()
    await until(lambda: heard.of(NINDS)[-1:] == [("lost", 1)])
    assert opening.alive() == {GHR}
    assert heard.of(GHR) == [("described", 1), ("came", 1)]
    await opening.close()


async def test_a_node_that_started_anew_in_between_is_told(
    network: Network, listening: Membership, heard: Heard, long_lost: float
) -> None:
    node = await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in listening.alive())
    await node.stop()
    node.descriptor = msgspec.structs.replace(node.descriptor, started_at_s=2.0)
    await node.start()
    await until(lambda: len(heard.of(GHR)) == 4)
    assert heard.of(GHR)[2:] == [("described", 1), ("came", 1)]


async def test_a_token_without_a_node_is_nobody(
    network: Network, listening: Membership, heard: Heard
) -> None:
    fabric = await network.open("a")
    token = await fabric.announce(keys.site_alive(GHR, "1"))
    await Node(fabric, NINDS).start()
    await until(lambda: NINDS in listening.alive())
    await token.close()
    await Node(await network.open("b"), GHR).start()
    await until(lambda: GHR in listening.alive())
    assert heard.of(GHR) == [("described", 1), ("came", 1)]


async def test_another_key_is_refused_also_after_a_restart(
    network: Network, hub: Fabric, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = await opened(hub, tmp_path)
    node = await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in first.alive())
    await node.stop()
    await until(lambda: GHR not in first.alive())
    impostor = await Node(await network.open("b"), GHR, SigningKey.generate()).start()
    await until(lambda: "ghr is not admitted" in caplog.text)
    assert first.node(GHR) == node.descriptor
    await first.close()
    caplog.clear()

    again = await opened(hub, tmp_path)
    await until(lambda: "ghr is not admitted" in caplog.text)
    assert "known with another key" in caplog.text
    assert again.alive() == frozenset()
    assert again.node(GHR) is None
    assert again.key_of(GHR) == node.key.public
    await impostor.stop()
    await node.start()
    await until(lambda: GHR in again.alive())
    await again.close()


async def test_an_impostor_that_answers_first_does_not_keep_the_true_one_out(
    network: Network, hub: Fabric, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FileKeys(tmp_path / "keys").put(GHR, KEYS[GHR].public)
    known = await opened(hub, tmp_path)
    await Node(await network.open("b"), GHR, SigningKey.generate()).start()
    await until(lambda: "ghr is not admitted" in caplog.text)
    node = await Node(await network.open("a"), GHR).start()
    await published(node, lambda: GHR in known.alive())
    assert known.node(GHR) == node.descriptor
    await known.close()


async def test_a_second_process_under_the_name_does_not_keep_a_site_there(
    network: Network, listening: Membership, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    node = await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in listening.alive())
    impostor = await Node(await network.open("b"), GHR, SigningKey.generate()).start()
    await until(lambda: "ghr is not admitted" in caplog.text)
    await node.stop()
    await until(lambda: ("lost", 1) in heard.of(GHR))
    assert listening.alive() == frozenset()
    await impostor.publish()
    await node.start()
    await published(node, lambda: GHR in listening.alive())
    other = await Node(await network.open("c"), NINDS).start()
    await until(lambda: NINDS in listening.alive())
    await impostor.stop()
    await other.stop()
    await until(lambda: ("lost", 1) in heard.of(NINDS))
    assert GHR in listening.alive(), "what another process does is not the site's"


async def test_what_is_not_ones_own_is_not_believed(
    network: Network, listening: Membership, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    node = await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in listening.alive())
    advert = node.advert()
    richer = msgspec.structs.replace(node.descriptor, version=9, jurisdiction="XX")
    forgeries = (
        (GHR, encode(msgspec.structs.replace(advert, descriptor=richer))),
        (GHR, encode(sign_advert(richer, KEYS[NINDS]))),
        (NINDS, encode(advert)),
        (GHR, b"\xc1 no MessagePack"),
        (GHR, b""),
    )
    for site, payload in forgeries:
        await node.fabric.publish(keys.site_advert(site), payload)
    node.descriptor = msgspec.structs.replace(node.descriptor, version=2)
    await published(node, lambda: ("came", 2) in heard.of(GHR))
    assert [version for _, version in heard.of(GHR)] == [1, 1, 2, 2]
    assert heard.of(NINDS) == []
    assert listening.key_of(NINDS) is None


async def test_a_huge_advert_is_refused(
    network: Network, listening: Membership, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(directory_module, "MOST_BYTES", 10_000)
    node = Node(await network.open("a"), GHR)
    node.descriptor = msgspec.structs.replace(node.descriptor, software="x" * 10_000)
    await node.start()
    await until(lambda: "at most 10000 bytes" in caplog.text)
    assert listening.alive() == frozenset()


async def test_strangers_do_not_fill_the_memory(
    network: Network, listening: Membership, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(directory_module, "MOST_SITES", 1)
    await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in listening.alive())
    await Node(await network.open("b"), NINDS).start()
    await until(lambda: "1 sites are already known" in caplog.text)
    assert listening.alive() == {GHR}


async def test_tokens_of_names_without_end_are_not_looked_at(
    network: Network, listening: Membership, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    known = await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in listening.alive())
    await known.stop()
    await until(lambda: GHR not in listening.alive())
    monkeypatch.setattr(directory_module, "MOST_SITES", 5)
    stranger = await network.open("stranger")
    before = len(asyncio.all_tasks())
    for number in range(40):
        await stranger.announce(keys.site_alive(SiteId(f"no-{number}"), "0123456789abcdef"))
    await until(lambda: "no-39 is ignored: 10 sites are present already" in caplog.text)
    assert len(asyncio.all_tasks()) < before + 20
    # Who was known before comes in all the same.
    await Node(await network.open("b"), GHR).start()
    await until(lambda: GHR in listening.alive())


async def test_adverts_together_do_not_fill_the_memory(
    network: Network, listening: Membership, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(directory_module, "MOST_BYTES_TOGETHER", 10_000)
    first = Node(await network.open("a"), GHR)
    first.descriptor = msgspec.structs.replace(first.descriptor, software="x" * 6000)
    await first.start()
    await until(lambda: GHR in listening.alive())
    second = Node(await network.open("b"), NINDS)
    second.descriptor = msgspec.structs.replace(second.descriptor, software="x" * 6000)
    await second.start()
    await until(lambda: "all sites have at most 10000 bytes" in caplog.text)
    assert listening.alive() == {GHR}
    assert listening.key_of(NINDS) is None
    first.descriptor = msgspec.structs.replace(first.descriptor, version=2, software="x")
    await published(first, lambda: listening.nodes()[0].version == 2)
    await published(second, lambda: NINDS in listening.alive())


async def test_a_listener_that_is_late_hears_of_all(
    network: Network, listening: Membership, heard: Heard
) -> None:
    gone = await Node(await network.open("a"), GHR).start()
    there = await Node(await network.open("b"), NINDS).start()
    await until(lambda: listening.alive() == {GHR, NINDS})
    await gone.stop()
    await until(lambda: listening.alive() == {NINDS})
    late = Heard()
    listening.listen(late)
    assert late.of(GHR) == [("described", 1)]
    assert late.of(NINDS) == [("described", 1), ("came", 1)]
    there.descriptor = msgspec.structs.replace(there.descriptor, version=2)
    await published(there, lambda: ("came", 2) in late.of(NINDS))
    assert heard.of(NINDS) == late.of(NINDS)


async def test_it_learns_of_nodes_that_were_there_before_it(
    network: Network, hub: Fabric, tmp_path: Path
) -> None:
    for name, site in (("a", GHR), ("b", NINDS)):
        await Node(await network.open(name), site).start()
    late = await opened(hub, tmp_path)
    await until(lambda: late.alive() == {GHR, NINDS})
    await late.close()


def test_keys_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for site, key in KEYS.items():
        FileKeys(path).put(site, key.public)
    again = FileKeys(path)
    assert again.sites() == (GHR, NINDS)
    assert {site: again.get(site) for site in KEYS} == {s: k.public for s, k in KEYS.items()}
    assert again.get(SiteId("other")) is None
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa3ghr\x01"])
def test_a_damaged_file_of_keys_is_told_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as raised:
        FileKeys(path)
    assert str(path) in raised.value.problem
    assert "restore the file" in raised.value.fix
    assert path.read_bytes() == content


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="directory") as raised:
        FileKeys(tmp_path)
    assert str(tmp_path) in raised.value.problem


def test_a_disk_that_takes_nothing_is_told_and_no_key_is_half_kept(tmp_path: Path) -> None:
    known = FileKeys(tmp_path / "keys")
    known.put(GHR, "first")
    os.mkdir(tmp_path / "keys.partial")
    with pytest.raises(StorageFull, match="keys cannot be written"):
        known.put(NINDS, "second")
    assert known.get(NINDS) is None
    assert FileKeys(tmp_path / "keys").sites() == (GHR,)


async def test_not_everybody_who_says_so_is_a_verifier(
    network: Network, hub: Fabric, tmp_path: Path
) -> None:
    membership = await opened(hub, tmp_path, verifiers=(GHR,))
    for site in (GHR, NINDS):
        node = Node(await network.open(site), site)
        node.descriptor = msgspec.structs.replace(
            node.descriptor,
            roles=(Role.COMPUTE, Role.VERIFIER),
            verifier=VerifierDescriptor(tests=(), recipes=()),
        )
        await node.start()
    try:
        await until(lambda: membership.alive() == {GHR, NINDS})
        named, other = membership.nodes()
        assert named.roles == (Role.COMPUTE, Role.VERIFIER)
        assert named.verifier is not None
        assert other.roles == (Role.COMPUTE,)
        assert other.verifier is None
    finally:
        await membership.close()


def member(site: SiteId, **changes: object) -> Member:
    plain = Member(
        name=site,
        kind=Kind.SITE,
        public_key=KEYS[site].public,
        until_s=2000.0,
        roles=(Role.COMPUTE,),
        owner="nih",
        jurisdiction="US",
    )
    return msgspec.structs.replace(plain, **changes)


def rostered(version: int, *members: Member) -> RosterFile:
    roster = Roster(
        network="test", version=version, issued_at_s=0.0, until_s=1000.0, members=members
    )
    return RosterFile(root=ROOT.public, signed=sign_roster(roster, ROOT))


class Scene:
    """A membership that a roster governs."""

    def __init__(self, hub: Fabric, folder: Path, *members: Member) -> None:
        write_roster(folder / ROSTER, rostered(1, *members))
        self.now_s = 1.0
        self.roster = LiveRoster(folder, refresh_s=0.02, wall_s=lambda: self.now_s)
        self.heard = Heard()
        self.membership = Membership(hub, FileKeys(folder / "keys"), self.heard, roster=self.roster)

    async def take(self, version: int, *members: Member) -> None:
        self.roster.take(rostered(version, *members).signed)


@pytest.fixture
async def scene(hub: Fabric, tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(hub, tmp_path, member(GHR))
    await made.membership.start()
    yield made
    await made.membership.close()


async def test_who_is_not_in_the_roster_is_nobody(
    network: Network, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = await Node(await network.open("b"), NINDS).start()
    await Node(await network.open("a"), GHR).start()
    await until(lambda: "ninds is not admitted: it is not in the roster" in caplog.text)
    await published(stranger, lambda: "the advert at daitn/site/ninds/advert" in caplog.text)
    await until(lambda: scene.membership.alive() == {GHR})
    assert scene.membership.node(NINDS) is None
    assert scene.membership.key_of(NINDS) is None
    assert scene.heard.of(NINDS) == []
    # Who is admitted later comes in without doing anything again.
    await scene.take(2, member(GHR), member(NINDS))
    await until(lambda: scene.membership.alive() == {GHR, NINDS})


async def test_whoever_comes_first_does_not_take_a_members_name(
    network: Network, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await Node(await network.open("b"), GHR, SigningKey.generate()).start()
    await until(lambda: "ghr is not admitted" in caplog.text)
    assert "in the roster with another key" in caplog.text
    node = await Node(await network.open("a"), GHR).start()
    await published(node, lambda: GHR in scene.membership.alive())
    assert scene.membership.key_of(GHR) == KEYS[GHR].public


@pytest.mark.parametrize(
    ("claims", "lacks"),
    [
        ({"roles": (Role.COMPUTE, Role.VERIFIER)}, "the role verifier"),
        ({"verifier": VerifierDescriptor(tests=(), recipes=())}, "the role verifier"),
        ({"roles": (Role.FACILITY, Role.GATEWAY)}, "the role facility, the role gateway"),
        ({"owner": OwnerId("acme")}, "the owner 'acme'"),
        ({"jurisdiction": "XX"}, "the jurisdiction 'XX'"),
        ({"owner": OwnerId("a b")}, "the owner 'a b'"),
    ],
)
async def test_a_member_that_claims_more_is_refused_and_told_what_it_lacks(
    network: Network,
    scene: Scene,
    caplog: pytest.LogCaptureFixture,
    claims: dict[str, object],
    lacks: str,
) -> None:
    node = Node(await network.open("a"), GHR)
    modest = node.descriptor
    node.descriptor = msgspec.structs.replace(modest, **claims)
    await node.start()
    await until(lambda: "ghr is not admitted" in caplog.text)
    assert f"the roster does not grant it {lacks}" in caplog.text
    assert scene.membership.alive() == frozenset()
    assert scene.heard.told == []
    node.descriptor = msgspec.structs.replace(modest, version=2)
    await until(lambda: scene.membership.alive() == {GHR})


async def test_who_is_revoked_is_removed_at_once(network: Network, scene: Scene) -> None:
    node = await Node(await network.open("a"), GHR).start()
    await until(lambda: scene.membership.alive() == {GHR})
    await scene.take(2)
    assert scene.membership.alive() == frozenset()
    assert scene.membership.node(GHR) is None
    assert scene.membership.key_of(GHR) is None
    assert scene.heard.of(GHR)[-2:] == [("lost", 1), ("removed", 1)]
    other = await Node(await network.open("b"), NINDS).start()
    await scene.take(3, member(NINDS))
    node.descriptor = msgspec.structs.replace(node.descriptor, version=2)
    await node.publish()
    await published(other, lambda: scene.membership.alive() == {NINDS})
    await scene.take(4, member(NINDS), member(GHR))
    await until(lambda: scene.membership.alive() == {GHR, NINDS})


async def test_a_role_that_is_taken_back_removes_who_claims_it(
    network: Network, scene: Scene
) -> None:
    await Node(await network.open("a"), GHR).start()
    await until(lambda: scene.membership.alive() == {GHR})
    await scene.take(2, member(GHR, roles=(Role.DATA,)))
    assert scene.membership.alive() == frozenset()


async def test_nobody_is_a_member_of_an_expired_roster(network: Network, scene: Scene) -> None:
    await Node(await network.open("a"), GHR).start()
    await until(lambda: scene.membership.alive() == {GHR})
    scene.now_s = 1000.0
    assert scene.membership.key_of(GHR) is None
    assert scene.membership.alive() == frozenset()
    assert scene.heard.of(GHR)[-2:] == [("lost", 1), ("removed", 1)]


async def test_a_new_key_of_a_member_replaces_the_old_one(network: Network, scene: Scene) -> None:
    old = await Node(await network.open("a"), GHR).start()
    await until(lambda: scene.membership.alive() == {GHR})
    await old.stop()
    fresh = SigningKey.generate()
    await scene.take(2, member(GHR, public_key=fresh.public))
    await Node(await network.open("b"), GHR, fresh).start()
    await until(lambda: scene.membership.alive() == {GHR})
    assert scene.membership.key_of(GHR) == fresh.public


class AwayKeys(FileKeys):
    """Keys whose store answers no more, for a while."""

    away = False
    asked = 0

    def get(self, site: SiteId) -> str | None:
        if self.away:
            self.asked += 1
            raise Unreachable("the database is away", field="database", fix="start it")
        return super().get(site)


async def test_an_advert_that_cannot_be_stored_is_asked_for_until_it_is(
    network: Network, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it says is known when it changes next: a model that is ready is never seen so."""
    monkeypatch.setattr(directory_module, "LOST_AFTER_S", 0.05)
    known = AwayKeys(tmp_path / "keys")
    listening = Membership(await network.open("hub"), known, heard)
    await listening.start()
    node = await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in listening.alive())
    known.away = True
    node.descriptor = msgspec.structs.replace(node.descriptor, version=2)
    await published(node, lambda: known.asked)
    assert heard.of(GHR) == [("described", 1), ("came", 1)]
    known.away = False
    await until(lambda: ("came", 2) in heard.of(GHR))
    await listening.close()


async def test_a_finding_is_believed_if_its_verifier_signed_what_arrived(
    network: Network, hub: Fabric, listening: Membership
) -> None:
    """Of a verifier of a later release, which says more: when asked, and when it publishes."""
    feed = QrrtFeed(hub, listening, NINDS)
    await feed.start()
    facility, unit = Node(await network.open("b"), NINDS), Node(await network.open("a"), GHR)
    facility.descriptor = msgspec.structs.replace(
        facility.descriptor,
        roles=(Role.FACILITY,),
        facility=FacilityDescriptor(
            endpoint="http://127.0.0.1:1", hosts=False, memory_bytes=0,
            deployments=tuple(map(deployment, ("doctor", "nurse", "porter"))),
        ),
    )  # fmt: skip
    unit.descriptor = msgspec.structs.replace(unit.descriptor, roles=(Role.VERIFIER,))

    def attested(name: str) -> bytes:
        finding = Finding(
            verifier=GHR, site=NINDS, deployment=name, manifest=WEIGHTS, topic="colds",
            metric="accuracy", value=0.5, standard_error=0.1, items=40, at_s=1.0, degraded=True,
        )  # fmt: skip
        plain = {**msgspec.to_builtins(finding), "median_s": 0.5}
        return encode({"finding": plain, "signature": unit.key.sign(encode(plain))})

    async def asked(key: str, payload: bytes) -> bytes:
        return encode((msgspec.Raw(attested("doctor")),))

    def degraded() -> set[str]:
        now = feed.snapshot()
        return {row.name for row, is_ in zip(now.rows, now.columns.degraded, strict=True) if is_}

    serving = await unit.fabric.serve(keys.site_do(GHR, "attested"), asked)
    for node in (facility, unit):
        await node.start()
    await until(lambda: degraded() == {"doctor"})
    changed = attested("porter").replace(b"median_s", b"medium_s")
    for told in (changed, attested("nurse")):
        await unit.fabric.publish(keys.site_attested(GHR), told)
    await until(lambda: degraded() == {"doctor", "nurse"})
    await serving.close()
    await feed.close()


async def test_an_advert_that_got_lost_is_asked_for_once_its_site_is_heard_of(
    network: Network, hub: Fabric, listening: Membership, heard: Heard
) -> None:
    """As one that was refused for a wrong clock: else a ready model is never seen."""
    feed = QrrtFeed(hub, listening, NINDS)
    await feed.start()
    node = await Node(await network.open("a"), GHR).start()
    await until(lambda: GHR in listening.alive())
    node.descriptor = msgspec.structs.replace(node.descriptor, version=2)

    async def heard_of() -> None:
        while True:
            sensed = encode(Sensed(site=GHR, edition=node.descriptor.edition))
            await node.fabric.publish(keys.site_sensed(GHR), sensed)
            await asyncio.sleep(0.02)

    sensing = asyncio.create_task(heard_of())
    await until(lambda: ("came", 2) in heard.of(GHR))
    sensing.cancel()
    await feed.close()
    assert heard.of(GHR) == [("described", 1), ("came", 1), ("described", 2), ("came", 2)]


@pytest.mark.parametrize("set_by_s", [7200.0, -7200.0])
async def test_a_clock_that_was_set_takes_no_deployment_away_for_good(
    hub: Fabric, listening: Membership, monkeypatch: pytest.MonkeyPatch, set_by_s: float
) -> None:
    """What seemed to have expired, or to be signed in the future, is checked again."""
    feed = QrrtFeed(hub, listening, NINDS)
    entitled = EntitledNodes(GrantBook("n", dict, clock.wall_s))
    checked: list[float] = []

    def again() -> tuple[NodeDescriptor, ...]:
        checked.append(ahead_s[0])
        return ()

    monkeypatch.setattr(entitled, "checked_again", again)
    monkeypatch.setattr("daitn.tools.qrrt_feed.LAPSES_WITHIN_S", 0.001)
    ahead_s, wall_s = [0.0], clock.wall_s
    monkeypatch.setattr("daitn.tools.qrrt_feed.clock.wall_s", lambda: wall_s() + ahead_s[0])
    for now_s in (0.0, set_by_s, set_by_s, 0.0, 0.0):
        ahead_s[0] = now_s
        await feed._check_when_due(entitled)
    assert checked == [set_by_s, 0.0]
    await feed.close()
