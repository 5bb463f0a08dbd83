"""One site's sensing: it answers probes, probes other sites, and publishes its measurements.

Reachability is measured, not assumed (paper, section III): round-trip time and loss by echoes,
throughput by short transfers and by real model transfers, load by asking the machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil

from daitn.objects.descriptors import Edition
from daitn.objects.errors import DaitnError, InvalidInput, Unreachable
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import ProbeRequest, Sensed
from daitn.objects.readings import LoadReading, Reading
from daitn.objects.wire import decode, encode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric, Registration
from daitn.tools.sensing.estimates import PROBE_MOST_BYTES, LinkEstimate
from daitn.tools.tasks import Newest, Tasks
from daitn.topology.network import fair_share

__all__ = ["Sensing"]

ECHOES = 3
ECHO_BYTES = 16
ECHO_TIMEOUT_S = 1.0
"""An echo that takes longer counts as lost."""
PROBE_TIMEOUT_S = 5.0
SOONER = 0.1
"""After a new site appeared, the next round starts after this share of a period: soon, but not once
for every site of a starting network."""
MOST_HOLDERS = 16
"""Sites from which models came last: they are probed however large the network is."""

_LOG = logging.getLogger(__name__)


class Sensing:
    """Measures for `site` every `period_s`, jittered by a fifth, and publishes `Sensed`; its load
    also when its queue has changed.

    A round probes at most `peers_per_round` sites: new ones first, then the others in turn, so that
    a site's traffic does not grow with the network. In a network of more than 512 sites it probes a
    fixed sample of them, so that readings stay fresh and their number stays within what topologies
    keep; with `of_all`, which is meant for sites that choose among all others, it probes all.
    `queue` counts unfinished accepted work; `edition` tells the site's descriptor; `folder` is
    where models are stored. `now_s` stamps readings (seconds since the Unix epoch), `elapsed_s`
    times probes.
    """

    def __init__(
        self,
        fabric: Fabric,
        site: SiteId,
        *,
        rng: random.Random,
        folder: Path,
        queue: Callable[[], int] = lambda: 0,
        edition: Callable[[], Edition] = lambda: (0.0, 0),
        now_s: Callable[[], float] = clock.now_s,
        elapsed_s: Callable[[], float] = time.perf_counter,
        period_s: float = 5.0,
        peers_per_round: int = 8,
        of_all: bool = False,
    ) -> None:
        self._fabric = fabric
        self._site = site
        self._rng = rng
        self._folder = folder
        self._queue = queue
        self._edition = edition
        self._now_s = now_s
        self._elapsed_s = elapsed_s
        self._period_s = period_s
        self._peers_per_round = peers_per_round
        self._of_all = of_all
        self._peers: dict[SiteId, set[str]] = {}
        """With the key marks of the nodes that show its token."""
        self._sample: tuple[SiteId, ...] | None = None
        """Of the peers; none if it is to be drawn anew."""
        self._holders: dict[SiteId, None] = {}
        """From which models came, latest last."""
        self._links: dict[SiteId, LinkEstimate] = {}
        self._last = SiteId("")
        self._load: LoadReading | None = None
        """The latest."""
        self._news = asyncio.Event()
        self._registrations: list[Registration] = []
        self._tasks = Tasks()
        self._queues = Newest(self._publish_queue, self._tasks)
        # Random, so that links cannot compress it.
        self._filler = rng.randbytes(PROBE_MOST_BYTES)

    async def start(self) -> None:
        """Answer probes, watch for sites, and start measuring."""
        self._registrations = [
            await self._fabric.serve(keys.site_echo(self._site), self._echo),
            await self._fabric.serve(keys.site_stream(self._site), self._stream),
            await self._fabric.watch(keys.ALL_SITES_ALIVE, self._alive),
        ]
        psutil.cpu_percent()  # It measures since the last call; the first one returns 0.
        self._tasks.repeat(self._round, f"sensing {self._site}")

    async def close(self) -> None:
        """Stop. Closing twice is harmless."""
        await self._tasks.close()
        registrations, self._registrations = self._registrations, []
        for registration in registrations:
            await registration.close()

    async def measure(self, peers: Sequence[SiteId]) -> Sensed:
        """Probe these sites and this machine. A site that does not answer has loss, not an error.

        Echoes go to all at once, transfers one by one, so that each has the link to itself.
        """
        links = [self._link(peer) for peer in peers]
        answered = await asyncio.gather(*(self._measure_rtt(link) for link in links))
        for link, reachable in zip(links, answered, strict=True):
            if reachable and link.wants_probe(self._now_s()):
                await self._measure_throughput(link)
        return Sensed(
            site=self._site,
            links=tuple(link.reading() for link in links),
            load=await self._measure_load(),
            edition=self._edition(),
        )

    def queue_changed(self) -> None:
        """Publish the length of the queue now: who plans the site's next work would take a site
        that has just ended some to be busy, and one that has just begun some to be free."""
        self._queues.put("queue", None)

    def learn_transfer(self, source: SiteId, size_bytes: int, seconds: float) -> None:
        """A part of a model arrived from `source`: better evidence of throughput than a probe."""
        self._link(source).learn_transfer(size_bytes, seconds, self._now_s())
        self._holders.pop(source, None)
        self._holders[source] = None
        if len(self._holders) > MOST_HOLDERS:
            del self._holders[next(iter(self._holders))]

    def due(self) -> tuple[SiteId, ...]:
        """The sites that the next round probes: those never measured, then the others in turn."""
        peers = sorted({*self._sampled(), *(self._holders.keys() & self._peers.keys())})
        new = [peer for peer in peers if peer not in self._links]
        known = [peer for peer in peers if peer in self._links]
        in_turn = [peer for peer in known if peer > self._last]
        in_turn += [peer for peer in known if peer <= self._last]
        return tuple([*new, *in_turn][: self._peers_per_round])

    def _sampled(self) -> tuple[SiteId, ...]:
        """The same while the network is, and mostly those that probe this site, too."""
        if self._sample is None:
            count = len(self._peers)
            share = fair_share(count + 1)
            size = count if self._of_all or count <= share else share - MOST_HOLDERS
            self._sample = tuple(heapq.nsmallest(size, self._peers, key=self._rank))
        return self._sample

    def _rank(self, peer: SiteId) -> bytes:
        """Rendezvous hashing: a site that comes or goes changes one place of a sample (Thaler and
        Ravishankar 1998)."""
        pair = "\n".join(sorted((self._site, peer)))
        return hashlib.blake2b(pair.encode(), digest_size=8).digest()

    def _link(self, peer: SiteId) -> LinkEstimate:
        return self._links.setdefault(peer, LinkEstimate(self._site, peer))

    async def _round(self) -> None:
        peers = self.due()
        # Before anything fails, so that the sites after a failing one get their turn.
        self._last = peers[-1] if peers else self._last
        try:
            sensed = await self.measure(peers)
            await self._fabric.publish(keys.site_sensed(self._site), encode(sensed))
        except DaitnError as error:
            _LOG.warning("sensing at %s: %s", self._site, error)
        await self._pause()

    async def _publish_queue(self, _: None) -> None:
        if self._load is None:  # The first round tells.
            return
        queue = Reading(float(self._queue()), self._now_s(), self._site)
        self._load = msgspec.structs.replace(self._load, queue=queue)
        sensed = Sensed(site=self._site, load=self._load, edition=self._edition())
        try:
            await self._fabric.publish(keys.site_sensed(self._site), encode(sensed))
        except DaitnError as error:
            _LOG.debug("the queue of %s was not published: %s", self._site, error)

    async def _pause(self) -> None:
        jitter = self._rng.uniform(0.8, 1.2)
        try:
            async with asyncio.timeout(self._period_s * jitter):
                await self._news.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._period_s * SOONER * jitter)
        self._news.clear()

    async def _measure_rtt(self, link: LinkEstimate) -> bool:
        """Returns whether the other site answered at all."""
        rtts_s = []
        for _ in range(ECHOES):
            sent = self._rng.randbytes(ECHO_BYTES)
            start_s = self._elapsed_s()
            try:
                key = keys.site_echo(link.target)
                got = await self._fabric.request(key, sent, timeout_s=ECHO_TIMEOUT_S)
            except DaitnError:
                continue
            if got == sent:
                rtts_s.append(self._elapsed_s() - start_s)
        link.learn_echoes(rtts_s, ECHOES, self._now_s())
        return bool(rtts_s)

    async def _measure_throughput(self, link: LinkEstimate) -> None:
        size_bytes = link.probe_bytes
        request = encode(ProbeRequest(size_bytes=size_bytes))
        start_s = self._elapsed_s()
        try:
            key = keys.site_stream(link.target)
            got_bytes = await self._fabric.request_bulk(
                key, request, timeout_s=PROBE_TIMEOUT_S, take=len
            )
        except Unreachable:
            link.shrink_probe()
            return
        except DaitnError as error:
            _LOG.warning("%s refused a probe: %s", link.target, error)
            return
        if got_bytes == size_bytes:
            link.learn_probe(size_bytes, self._elapsed_s() - start_s, self._now_s())

    async def _measure_load(self) -> LoadReading | None:
        try:
            disk_free_bytes = (await asyncio.to_thread(psutil.disk_usage, str(self._folder))).free
        except OSError as error:
            _LOG.warning("the load of %s is unknown: %s", self._site, error)
            return None
        now_s = self._now_s()
        self._load = LoadReading(
            site=self._site,
            queue=Reading(float(self._queue()), now_s, self._site),
            cpu_share=Reading(psutil.cpu_percent() / 100, now_s, self._site),
            disk_free_bytes=Reading(float(disk_free_bytes), now_s, self._site),
        )
        return self._load

    async def _alive(self, key: str, alive: bool) -> None:
        peer = keys.site_of(key)
        if peer == self._site:
            return
        self._sample = None
        marks = self._peers.setdefault(peer, set())
        if alive:
            marks.add(keys.mark_of(key))
            self._news.set()
            return
        marks.discard(keys.mark_of(key))
        if not marks:
            del self._peers[peer]
            self._links.pop(peer, None)

    async def _echo(self, key: str, payload: bytes) -> bytes:
        if len(payload) > ECHO_BYTES:
            raise InvalidInput(
                f"an echo carries at most {ECHO_BYTES} bytes, this one {len(payload)}",
                field="payload",
                fix=f"ask {keys.site_stream(self._site)} for larger answers",
            )
        return payload

    async def _stream(self, key: str, payload: bytes) -> bytes:
        size_bytes = decode(payload, ProbeRequest).size_bytes
        if not 0 <= size_bytes <= PROBE_MOST_BYTES:
            raise InvalidInput(
                f"a probe of {size_bytes} bytes is refused",
                field="size_bytes",
                fix=f"ask for at most {PROBE_MOST_BYTES} bytes",
            )
        return self._filler[:size_bytes]
