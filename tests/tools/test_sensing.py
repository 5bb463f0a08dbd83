"""What a site says of its links and of itself, measured through a real fabric."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from daitn.objects.errors import Corrupt, DaitnError, InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import ProbeRequest, Sensed
from daitn.objects.readings import Reading
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.sensing.estimates import PROBE_MOST_BYTES, LinkEstimate
from daitn.tools.sensing.sensing import Sensing
from daitn.topology.network import MOST_LINKS
from tests.scenes.leaping_loop import LeapingLoop
from tests.scenes.waiting import until

from .fabrics import OverZenoh

A, B, C = SiteId("a"), SiteId("b"), SiteId("c")
NOW_S = 1_700_000_000.0


class Clock:
    """Every look at it takes one more `step_s`."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.at_s = NOW_S
        self.step_s = step_s

    def __call__(self) -> float:
        self.at_s += self.step_s
        return self.at_s


class Sites:
    """In-memory sites that sense."""

    def __init__(self, folder: Path) -> None:
        self.network = MemoryNetwork()
        self.folder = folder
        self.clock = Clock()
        self.sensings: list[Sensing] = []
        self.published: list[Sensed] = []
        self.queue = 3

    async def add(
        self,
        site: SiteId,
        *,
        period_s: float = 3600.0,
        peers_per_round: int = 8,
        elapsed_s: Clock | None = None,
    ) -> Sensing:
        fabric = self.network.open(site)
        await fabric.announce(keys.site_alive(site, "1"))
        sensing = Sensing(
            fabric,
            site,
            rng=random.Random(site),
            folder=self.folder,
            queue=lambda: self.queue,
            now_s=self.clock,
            elapsed_s=elapsed_s or Clock(0.001),
            period_s=period_s,
            peers_per_round=peers_per_round,
        )
        self.sensings.append(sensing)
        await sensing.start()
        return sensing

    async def listen(self) -> None:
        async def heard(key: str, payload: bytes) -> None:
            sensed = decode(payload, Sensed)
            assert sensed.site == keys.site_of(key)
            self.published.append(sensed)

        await self.network.open("center").subscribe(keys.ALL_SENSED, heard)

    def linked(self, source: SiteId) -> set[SiteId]:
        """Whom `source` reported on so far."""
        return {link.target for s in self.published if s.site == source for link in s.links}


@pytest.fixture
async def sites(tmp_path: Path) -> AsyncIterator[Sites]:
    made = Sites(tmp_path)
    yield made
    for sensing in made.sensings:
        await sensing.close()


async def test_a_link_reading_has_values_age_and_origin(sites: Sites) -> None:
    a = await sites.add(A, elapsed_s=Clock(0.25))
    await sites.add(B)
    (link,) = (await a.measure([B])).links
    assert (link.source, link.target) == (A, B)
    # Each timed piece of work is one step of the clock: the echo takes 0.25 s, and so does the
    # probe, half of which counts as transfer.
    assert link.rtt_s == Reading(0.25, NOW_S, A)
    assert link.throughput_bps == Reading(256 * 1024 / 0.125, NOW_S, A)
    assert link.loss == Reading(0.0, NOW_S, A)


def test_a_longer_way_takes_longer(tmp_path: Path) -> None:
    async def measured() -> list[float]:
        network, passing = MemoryNetwork(), asyncio.get_running_loop().time
        sensings = {
            site: Sensing(
                network.open(site), site, rng=random.Random(1), folder=tmp_path, elapsed_s=passing
            )
            for site in (A, B, C)
        }
        for sensing in sensings.values():
            await sensing.start()
        network.delay(A, B, 0.02)
        links = [(await sensings[A].measure([site])).links[0] for site in (C, B)]
        for sensing in sensings.values():
            await sensing.close()
        return [link.rtt_s.value for link in links if link.rtt_s]

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        assert runner.run(measured()) == [0.0, pytest.approx(0.04)]


class Crowd:
    """Sites that are only announced, and one that senses."""

    def __init__(self, folder: Path, count: int) -> None:
        self.names = [SiteId(f"site-{number}") for number in range(count)]
        self._folder = folder

    async def probed(self, site: SiteId, *, of_all: bool = False) -> tuple[Sensing, set[SiteId]]:
        """The sites that one would probe in a whole turn."""
        sensing = Sensing(
            MemoryNetwork().open(site),
            site,
            rng=random.Random(1),
            folder=self._folder,
            peers_per_round=len(self.names),
            of_all=of_all,
        )
        for name in self.names:
            await sensing._alive(keys.site_alive(name, "1"), True)
        return sensing, set(sensing.due())


async def test_in_a_large_network_a_site_probes_a_fixed_sample(tmp_path: Path) -> None:
    crowd = Crowd(tmp_path, 2000)
    sensing, one = await crowd.probed(crowd.names[0])
    share = MOST_LINKS // 2000
    assert share - 32 < len(one) <= share
    _, again = await crowd.probed(crowd.names[0])
    assert again == one
    gone = next(iter(one))
    await sensing._alive(keys.site_alive(gone, "1"), False)
    left = set(sensing.due())
    assert gone not in left
    assert len(one - left) == 1, "one that goes changes one place"
    # Both ends of most links measure them, as is needed to tell that one is cut.
    some = sorted(one)[:20]
    back = [name for name in some if crowd.names[0] in (await crowd.probed(name))[1]]
    assert len(back) > 0.7 * len(some)


async def test_a_sample_has_the_sites_from_which_models_came(tmp_path: Path) -> None:
    crowd = Crowd(tmp_path, 2000)
    sensing, sampled = await crowd.probed(crowd.names[0])
    holder = next(name for name in crowd.names[1:] if name not in sampled)
    sensing.learn_transfer(holder, 10**6, 1.0)
    assert holder in sensing.due()
    for name in crowd.names[1:]:
        sensing.learn_transfer(name, 10**6, 1.0)
    assert len(sensing.due()) <= MOST_LINKS // 2000


@pytest.mark.parametrize(("count", "of_all"), [(512, False), (2000, True)])
async def test_a_site_probes_all_others_if_few_or_asked_to(
    tmp_path: Path, count: int, of_all: bool
) -> None:
    crowd = Crowd(tmp_path, count)
    _, probed = await crowd.probed(crowd.names[0], of_all=of_all)
    assert probed == set(crowd.names[1:])


async def test_an_unreachable_site_is_a_loss_and_then_recovers(sites: Sites) -> None:
    a = await sites.add(A)
    await sites.add(B)
    sites.network.cut(A, B)
    (link,) = (await a.measure([B])).links
    assert link.loss
    assert (link.rtt_s, link.throughput_bps, link.loss.value) == (None, None, 1.0)
    sites.network.mend(A, B)
    losses = [1.0]
    for _ in range(10):
        (link,) = (await a.measure([B])).links
        assert link.loss
        losses.append(link.loss.value)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.05
    assert link.throughput_bps


async def test_the_load_is_that_of_this_machine(sites: Sites) -> None:
    a = await sites.add(A)
    load = (await a.measure([])).load
    assert load
    assert load.site == A
    assert load.queue.value == 3
    assert 0.0 <= load.cpu_share.value <= 1.0
    assert load.disk_free_bytes.value > 0
    assert {load.queue.origin, load.cpu_share.origin, load.disk_free_bytes.origin} == {A}


async def test_a_queue_is_known_as_soon_as_it_changes(sites: Sites) -> None:
    await sites.listen()
    a = await sites.add(A)
    await until(lambda: len(sites.published) == 1)
    sites.queue = 0
    a.queue_changed()
    await until(lambda: len(sites.published) == 2)
    first, second = (sensed.load for sensed in sites.published)
    assert first is not None
    assert second is not None
    assert (first.queue.value, second.queue.value) == (3.0, 0.0)
    assert second.disk_free_bytes == first.disk_free_bytes, "nothing else is measured anew"


async def test_a_vanished_folder_leaves_the_links(sites: Sites) -> None:
    a = await sites.add(A)
    await sites.add(B)
    sites.sensings[0]._folder = sites.folder / "gone"
    sensed = await a.measure([B])
    assert sensed.load is None
    assert len(sensed.links) == 1


async def test_sites_find_each_other_and_publish_without_waiting_a_period(sites: Sites) -> None:
    await sites.listen()
    for site in (A, B, C):
        await sites.add(site, period_s=0.5)
    await until(lambda: sites.linked(A) == {B, C})
    await until(lambda: sites.linked(B) == {A, C})
    await until(lambda: sites.linked(C) == {A, B})


async def test_every_site_gets_its_turn_and_a_gone_one_none(sites: Sites) -> None:
    await sites.listen()
    for number in range(10):
        await sites.add(SiteId(f"peer-{number}"))
    await sites.add(A, period_s=0.02, peers_per_round=3)
    others = {SiteId(f"peer-{number}") for number in range(10)}
    await until(lambda: sites.linked(A) == others)
    assert max(len(s.links) for s in sites.published if s.site == A) == 3
    sites.published.clear()
    await until(lambda: sites.linked(A) == others)
    await sites.network.kill("peer-4")
    await until(lambda: SiteId("peer-4") not in sites.sensings[-1]._peers)
    sites.published.clear()
    await until(lambda: len([s for s in sites.published if s.site == A]) > 8)
    rounds = [s for s in sites.published if s.site == A][1:]
    assert SiteId("peer-4") not in {link.target for s in rounds for link in s.links}


async def test_a_new_site_comes_before_its_turn(sites: Sites) -> None:
    a = await sites.add(A, peers_per_round=1)
    await sites.add(B)
    await until(lambda: a.due() == (B,))
    await a.measure([B])
    await sites.add(C)
    await until(lambda: a.due() == (C,))


async def test_real_transfers_replace_probes(sites: Sites) -> None:
    a = await sites.add(A)
    await sites.add(B)
    a.learn_transfer(B, 10_000_000, 2.0)
    (link,) = (await a.measure([B])).links
    assert link.throughput_bps
    assert link.throughput_bps.value == 5_000_000
    sites.clock.at_s += 3600
    (link,) = (await a.measure([B])).links
    assert link.throughput_bps
    assert link.throughput_bps.value > 5_000_000
    assert link.throughput_bps.at_s == NOW_S + 3600


@pytest.mark.parametrize(
    ("key", "payload", "kind"),
    [
        (keys.site_echo(A), bytes(17), InvalidInput),
        (keys.site_stream(A), encode(ProbeRequest(size_bytes=PROBE_MOST_BYTES + 1)), InvalidInput),
        (keys.site_stream(A), encode(ProbeRequest(size_bytes=-1)), InvalidInput),
        (keys.site_stream(A), b"\xff", Corrupt),
    ],
)
async def test_nobody_can_ask_for_too_much(
    sites: Sites, key: str, payload: bytes, kind: type[DaitnError]
) -> None:
    await sites.add(A)
    asker = sites.network.open("asker")
    with pytest.raises(kind):
        await asker.request(key, payload, timeout_s=5)


async def test_a_closed_sensing_answers_nobody_and_says_nothing(sites: Sites) -> None:
    await sites.listen()
    a = await sites.add(A, period_s=0.02)
    await until(lambda: sites.published)
    await a.close()
    await a.close()
    with pytest.raises(DaitnError, match="nobody serves"):
        await sites.network.open("asker").request(keys.site_echo(A), b"", timeout_s=5)


def test_probes_grow_while_they_are_short_and_shrink_when_they_are_long() -> None:
    link = LinkEstimate(A, B)
    sizes = []
    for seconds in (0.01, 0.01, 0.01, 2.0, 2.0, 0.3, *[9.0] * 10):
        link.learn_probe(link.probe_bytes, seconds, NOW_S)
        sizes.append(link.probe_bytes // 1024)
    assert sizes[:6] == [512, 1024, 1024, 512, 256, 256]
    assert sizes[-1] == 16


def test_a_link_that_stays_as_it_is_is_probed_less_and_less_often() -> None:
    link, now_s, waited = LinkEstimate(A, B), NOW_S, []
    for seconds in (0.2, 0.21, 0.19, 0.2, 0.2, 2.0, 0.2, 0.2, 0.2):
        before_s = now_s
        while not link.wants_probe(now_s):
            now_s += 1.0
        waited.append(round(now_s - before_s, -1))
        link.learn_probe(256 * 1024, seconds, now_s)
    assert waited == [0, 60, 120, 240, 240, 240, 60, 120, 240]


def test_throughput_follows_a_change_without_believing_one_sample() -> None:
    link = LinkEstimate(A, B)
    link.learn_transfer(10_000_000, 1.0, NOW_S)
    link.learn_transfer(1_000_000, 1.0, NOW_S)
    assert link.throughput_bps
    assert 5e6 < link.throughput_bps.value < 1e7
    for _ in range(20):
        link.learn_transfer(1_000_000, 1.0, NOW_S + 1)
    assert link.throughput_bps.value == pytest.approx(1e6, rel=0.01)
    assert link.throughput_bps.at_s == NOW_S + 1
    link.learn_transfer(100, 1.0, NOW_S + 2)
    assert link.throughput_bps.at_s == NOW_S + 1


@pytest.mark.processes
async def test_over_zenoh_loopback_is_fast_and_lossless(tmp_path: Path) -> None:
    network = OverZenoh()
    heard: list[Sensed] = []
    center = await network.open("center")

    async def listen(key: str, payload: bytes) -> None:
        heard.append(decode(payload, Sensed))

    await center.subscribe(keys.ALL_SENSED, listen)
    sensings = []
    for site in (A, B):
        fabric = await network.open(site)
        await fabric.announce(keys.site_alive(site, "1"))
        sensings.append(
            Sensing(fabric, site, rng=random.Random(site), folder=tmp_path, period_s=0.3)
        )
        await sensings[-1].start()

    def fast(site: SiteId) -> bool:
        """Whether it measured that once: at other times, others may have the processors."""
        links = [link for sensed in heard if sensed.site == site for link in sensed.links]
        soon = any(link.rtt_s and link.rtt_s.value < 0.5 for link in links)
        return soon and any(
            link.throughput_bps and link.throughput_bps.value > 1e6 for link in links
        )

    for site in (A, B):
        await until(partial(fast, site))
    for sensing in sensings:
        await sensing.close()
    await network.close()
