"""A process's live view of the roster, over both fabrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.identity.keys import SigningKey
from daitn.identity.roster import ROSTER, RosterFile, read_roster, sign_roster, write_roster
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, Refused
from daitn.objects.roster import Kind, Member, Roster
from daitn.objects.wire import encode
from daitn.tools.fabric import keys
from daitn.tools.roster import LiveRoster
from tests.scenes.waiting import until

from .fabrics import InMemory, Network, OverZenoh

ROOT = SigningKey.generate()
SITE = Member(name="ghr", kind=Kind.SITE, public_key=SigningKey.generate().public, until_s=900.0)
OTHER = msgspec.structs.replace(SITE, name="ninds", public_key=SigningKey.generate().public)
SOON_S = 0.02


def signed(
    version: int, *members: Member, root: SigningKey = ROOT, until_s: float = 1000.0
) -> RosterFile:
    roster = Roster(
        network="test", version=version, issued_at_s=0.0, until_s=until_s, members=members
    )
    return RosterFile(root=root.public, signed=sign_roster(roster, root))


class Clock:
    def __init__(self) -> None:
        self.now_s = 1.0

    def __call__(self) -> float:
        return self.now_s


def live(state: Path, source: Path | None = None, clock: Clock | None = None) -> LiveRoster:
    return LiveRoster(state, source, refresh_s=SOON_S, wall_s=clock or Clock())


def stated(folder: Path, file: RosterFile) -> Path:
    path = folder / "stated.json"
    write_roster(path, file)
    return path


def names(roster: LiveRoster) -> set[str]:
    return {member.name for member in roster.members().values()}


def test_a_process_starts_with_the_roster_of_its_file_and_keeps_it(tmp_path: Path) -> None:
    first = live(tmp_path / "a", stated(tmp_path, signed(3, SITE)))
    assert (first.network, first.version, names(first)) == ("test", 3, {"ghr"})
    assert first.member(Kind.SITE, "ghr") == SITE
    assert first.member(Kind.OWNER, "ghr") is None
    assert read_roster(tmp_path / "a" / ROSTER) == signed(3, SITE)
    assert live(tmp_path / "a").version == 3


def test_without_a_roster_it_says_how_to_get_one(tmp_path: Path) -> None:
    for source in (None, tmp_path / "nowhere"):
        with pytest.raises(NotFound) as raised:
            live(tmp_path / "a", source)
        assert raised.value.field == "roster"
    with pytest.raises(NotFound) as raised:
        live(tmp_path / "a")
    assert "daitn network join" in raised.value.fix
    assert "daitn network init" in raised.value.fix


async def test_an_older_file_does_not_undo_what_was_seen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older = signed(3, SITE, OTHER)
    path = stated(tmp_path, older)
    roster = live(tmp_path / "a", path)
    assert roster.take(signed(5, OTHER).signed)
    again = live(tmp_path / "a", path)
    assert (again.version, names(again)) == (5, {"ninds"})
    assert "older than 5" in caplog.text
    with pytest.raises(Refused, match="older"):
        again.take(older.signed)
    assert not again.take(signed(5, OTHER).signed)


def test_a_replaced_file_counts_from_the_next_look_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = stated(tmp_path, signed(1, SITE))
    roster = live(tmp_path / "a", path)
    write_roster(path, signed(2, OTHER))
    assert names(roster) == {"ninds"}
    assert live(tmp_path / "a").version == 2, "and is kept"
    path.write_text("{}")
    assert names(roster) == {"ninds"}
    assert caplog.text.count("is not taken") == 1
    path.unlink()
    assert names(roster) == {"ninds"}


def test_a_disk_that_takes_nothing_delays_no_revocation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_roster(tmp_path / ROSTER, signed(1, SITE, OTHER))
    roster = live(tmp_path)
    (tmp_path / f"{ROSTER}.partial").mkdir()
    assert roster.take(signed(2, OTHER).signed)
    assert names(roster) == {"ninds"}
    assert "roster 2 holds until this process ends" in caplog.text
    assert live(tmp_path).version == 1


async def test_another_root_is_not_believed(tmp_path: Path) -> None:
    path = stated(tmp_path, signed(3, SITE))
    roster = live(tmp_path / "a", path)
    stranger = signed(9, OTHER, root=SigningKey.generate())
    with pytest.raises(Corrupt):
        roster.take(stranger.signed)
    write_roster(path, stranger)
    with pytest.raises(InvalidInput, match="different networks"):
        live(tmp_path / "a", path)


@given(st.lists(st.integers(min_value=1, max_value=30), max_size=20))
def test_versions_never_go_back(
    tmp_path_factory: pytest.TempPathFactory, versions: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("versions")
    write_roster(folder / ROSTER, signed(1))

    async def take_all() -> None:
        roster, highest = live(folder), 1
        for number, version in enumerate(versions):
            member = msgspec.structs.replace(SITE, name=f"v{version}")
            try:
                taken = roster.take(signed(version, member).signed)
            except Refused:
                taken = False
            assert taken == (version > highest)
            highest = max(highest, version)
            assert roster.version == highest
            assert names(roster) == ({f"v{highest}"} if highest > 1 else set())
            if number % 3 == 2:
                roster = live(folder)

    asyncio.run(take_all())


def test_who_ends_and_what_ends_is_noticed_without_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    longer = msgspec.structs.replace(OTHER, until_s=2000.0)
    roster = live(tmp_path / "a", stated(tmp_path, signed(1, SITE, longer)), clock)
    heard: list[set[str]] = []
    roster.listen(lambda: heard.append(names(roster)))
    assert names(roster) == {"ghr", "ninds"}
    clock.now_s = 900.0
    assert names(roster) == {"ninds"}
    clock.now_s = 1000.0
    assert names(roster) == set()
    assert roster.member(Kind.SITE, "ninds") is None
    assert heard == [{"ninds"}, set()]
    assert live(tmp_path / "a", clock=clock).members() == {}


async def test_who_was_told_before_it_was_closed_is_told_no_more(tmp_path: Path) -> None:
    """A control centre that leads a second time follows its roster again, as another object."""
    write_roster(tmp_path / ROSTER, signed(1, SITE))
    network, roster = InMemory(), live(tmp_path)
    heard: list[str] = []
    for term in ("first", "second"):
        await roster.start(await network.open(term))
        roster.listen(partial(heard.append, term))
        if term == "first":
            await roster.close()
    roster.take(signed(2, SITE, OTHER).signed)
    assert heard == ["second"]
    await roster.close()


async def test_an_expired_roster_is_followed_by_a_renewed_one(tmp_path: Path) -> None:
    clock = Clock()
    write_roster(tmp_path / ROSTER, signed(1, SITE))
    clock.now_s = 1500.0
    roster = live(tmp_path, clock=clock)
    assert names(roster) == set()
    with pytest.raises(Refused, match="expired"):
        roster.take(signed(2, OTHER).signed)
    longer = msgspec.structs.replace(SITE, until_s=3000.0)
    roster.take(signed(3, longer, until_s=3000.0).signed)
    assert names(roster) == {"ghr"}


@pytest.fixture(params=["memory", pytest.param("zenoh", marks=pytest.mark.processes)])
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    made: Network = InMemory() if request.param == "memory" else OverZenoh()
    yield made
    await made.close()


async def test_a_changed_file_reaches_everybody(network: Network, tmp_path: Path) -> None:
    path = stated(tmp_path, signed(1, SITE, OTHER))
    center = live(tmp_path / "center", path)
    site = live(tmp_path / "site", path)
    site._source = None
    hub, far = await network.open("hub"), await network.open("far")
    await center.start(hub, serves=True)
    await site.start(far)
    write_roster(path, signed(2, OTHER))
    await until(lambda: names(site) == {"ninds"})
    assert live(tmp_path / "site").version == 2
    await site.close()
    # What was published while it was away, it asks for.
    write_roster(path, signed(3, SITE))
    await until(lambda: center.version == 3)
    back = live(tmp_path / "site")
    await back.start(far)
    await until(lambda: names(back) == {"ghr"})
    await back.close()
    await center.close()


async def test_a_site_tells_the_center_what_it_missed(network: Network, tmp_path: Path) -> None:
    for name, version in (("center", 1), ("site", 4)):
        write_roster(tmp_path / name / ROSTER, signed(version, SITE))
    center, site = live(tmp_path / "center"), live(tmp_path / "site")
    await center.start(await network.open("hub"), serves=True)
    await site.start(await network.open("far"))
    await until(lambda: center.version == 4)
    await site.close()
    await center.close()


async def test_a_flood_of_rosters_does_not_fill_the_log(
    network: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_roster(tmp_path / ROSTER, signed(2, SITE))
    roster = live(tmp_path)
    await roster.start(await network.open("hub"))
    stranger = await network.open("stranger")
    rival = SigningKey.generate()
    for version in range(3, 500):
        await stranger.publish(keys.ROSTER, encode(signed(version, OTHER, root=rival).signed))
        await stranger.publish(keys.ROSTER, bytes([version % 256]) * version)
    true = signed(1000, SITE, OTHER)
    await until(lambda: "not taken" in caplog.text)
    while roster.version != 1000:
        await stranger.publish(keys.ROSTER, encode(true.signed))
        await asyncio.sleep(SOON_S)
    assert len([one for one in caplog.messages if "not taken" in one]) <= 8
    await roster.close()


async def test_what_a_stranger_publishes_changes_nothing(
    network: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_roster(tmp_path / ROSTER, signed(2, SITE))
    roster = live(tmp_path)
    await roster.start(await network.open("hub"))
    stranger = await network.open("stranger")
    forgeries = (
        b"",
        b"\xc1",
        encode(signed(9, OTHER, root=SigningKey.generate()).signed),
        encode(signed(1, OTHER).signed),
    )

    async def publish() -> None:
        while True:
            for payload in forgeries:
                await stranger.publish(keys.ROSTER, payload)
            await asyncio.sleep(SOON_S)

    publishing = asyncio.create_task(publish())
    await until(lambda: caplog.text.count("is not taken") >= len(forgeries))
    publishing.cancel()
    assert (roster.version, names(roster)) == (2, {"ghr"})
    await roster.close()


async def test_the_log_says_once_that_the_roster_ends_and_once_that_it_has_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, fabric = Clock(), InMemory()
    write_roster(tmp_path / ROSTER, signed(1, until_s=30 * 86400.0))
    roster, session = live(tmp_path, clock=clock), await fabric.open("a")
    for day, said in (
        (1.0, (0, 0)),
        (25.0, (1, 0)),
        (26.0, (1, 0)),
        (31.0, (1, 1)),
        (32.0, (1, 1)),
    ):
        clock.now_s = day * 86400.0
        await roster.refresh(session, asks=False)
        assert (caplog.text.count("ends in"), caplog.text.count("has expired")) == said
    await fabric.close()
