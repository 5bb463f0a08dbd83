"""Runs the steering core on real links, services and time."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from daitn.node.forwarder.metrics import HOPS
from daitn.objects.errors import DaitnError, InvalidInput
from daitn.objects.identifiers import SiteId
from daitn.objects.text import without_folders
from daitn.steering.commands import Advertise, Command, Deliver, Drop, DropCause, Return, Send
from daitn.steering.forwarder import Forwarder, ForwarderSettings
from daitn.steering.next_hops import LOCAL
from daitn.steering.pending import Key
from daitn.steering.wire.intent import PacketIntent, decode_intent
from daitn.steering.wire.offers import (
    Greeting,
    Offer,
    Summary,
    Update,
    decode_advertised,
    encode_summary,
)
from daitn.steering.wire.packet import (
    MOST_PAYLOAD_BYTES,
    Action,
    Flag,
    Packet,
    decode_packet,
    encode_packet,
)
from daitn.steering.wire.replies import Reason, Refusal, answer_to, refusal_to
from daitn.tools import clock
from daitn.tools.adjacency.protocol import Adjacency
from daitn.tools.monitoring.metrics import Histogram
from daitn.tools.tasks import Tasks
from daitn.tools.throttled import ThrottledLog

__all__ = ["ForwarderRuntime", "NotServed", "PacketService", "new_id"]

log = logging.getLogger(__name__)

COST_EVERY_S = 2.0
"""Minimum interval between updates of a link's delay to the core."""
_PACKET = b"\xda\x17"
"""The first bytes of packets. Summaries are MessagePack arrays, which begin differently."""


class NotServed(Exception):
    """A service refuses an object, or fails to serve it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class PacketService(Protocol):
    """Serves objects that are delivered at a site."""

    async def serve(self, packet: Packet, intent: PacketIntent) -> bytes:
        """The answer's payload, sealed if the object's was. Raises `NotServed`, `DaitnError`."""
        ...


def new_id() -> bytes:
    """A new, unguessable object id."""
    return secrets.token_bytes(16)


class ForwarderRuntime:
    """Moves packets between the links, the core and the site's services.

    Call its methods on the event loop on which it was made.
    """

    def __init__(
        self, site: SiteId, service: PacketService, settings: ForwarderSettings | None = None
    ) -> None:
        self.granted: Callable[[Update], Update] = lambda update: update
        """Reduces an update to its valid part."""
        # Seconds since the epoch, monotonic. They need not continue those of an earlier process:
        # packets have deadlines by the wall clocks of other sites.
        self._epoch_s = clock.wall_s() - clock.elapsed_s()
        self._loop = asyncio.get_running_loop()
        self.core = Forwarder(site, self.now_s(), settings)
        self.counts: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()
        """Dropped packets, by `DropCause`."""
        self.hops = Histogram(HOPS)
        """Number of sites on the paths of objects delivered here."""
        self._service = service
        self._links: Adjacency | None = None
        self._awaited: dict[Key, asyncio.Future[Packet]] = {}
        self._services_running = Tasks()
        self._dropped = ThrottledLog(log)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = float("inf")
        self._costs_s: dict[SiteId, float] = {}
        """Costs of links that are up, before and after their neighbours' greeting."""
        self._cost_passed_at_s: dict[SiteId, float] = {}

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return self._epoch_s + clock.elapsed_s()

    def join(self, links: Adjacency) -> None:
        """Use these links; their opener closes them."""
        self._links = links
        for neighbour in self._costs_s:  # Their links came up before.
            self._greet(neighbour)

    @property
    def busy(self) -> bool:
        """Whether an object is served here, or an object of this site is pending."""
        return self.in_progress > 0

    @property
    def in_progress(self) -> int:
        """Number of objects served here, or sent from here and not yet answered."""
        return len(self._awaited) + len(self._services_running)

    async def close(self) -> None:
        """Stop serving and waiting."""
        if self._timer is not None:
            self._timer.cancel()
        await self._services_running.close()
        for awaited in self._awaited.values():
            awaited.cancel()

    # From the site

    def offer(self, offers: tuple[Offer, ...]) -> None:
        """Set the site's offers from now on."""
        self.core.routes.offer(offers, self.now_s())
        self._schedule()

    async def send(self, packet: Packet) -> Packet:
        """Send an object; returns its answer or its refusal.

        Exactly one arrives, by the deadline or after `ForwarderSettings.pending_s`.
        """
        if len(packet.payload) > MOST_PAYLOAD_BYTES:
            raise InvalidInput(
                f"an object of {len(packet.payload)} bytes is too large for a packet",
                field="payload",
                fix=f"send at most {MOST_PAYLOAD_BYTES} bytes",
            )
        key = packet.object_id, packet.branch
        awaited: asyncio.Future[Packet] = self._loop.create_future()
        self._awaited[key] = awaited
        try:
            self._carry_out(self.core.packet(LOCAL, packet, self.now_s()))
            return await awaited
        finally:
            del self._awaited[key]

    # From the links

    def up(self, neighbour: SiteId, cost_s: float) -> None:
        """A link came up. It is used after the neighbour's greeting, which names the neighbour's
        domain and thus determines what it may learn."""
        log.info("the link to %s is up, %.1f ms", neighbour, 1000 * cost_s)
        self._costs_s[neighbour] = cost_s
        self._greet(neighbour)

    def down(self, neighbour: SiteId) -> None:
        """A link went down."""
        log.info("the link to %s is down", neighbour)
        del self._costs_s[neighbour]
        self._cost_passed_at_s.pop(neighbour, None)
        self._carry_out(self.core.link_down(neighbour, self.now_s()))

    def cost(self, neighbour: SiteId, cost_s: float) -> None:
        """A link was measured again. Delays on a busy machine change all the time, and passing on
        every change would keep it busy."""
        self._costs_s[neighbour] = cost_s
        now_s = self.now_s()
        if now_s >= self._cost_passed_at_s.get(neighbour, 0.0) + COST_EVERY_S:
            self._cost_passed_at_s[neighbour] = now_s
            self.core.link_cost(neighbour, cost_s, now_s)
            self._schedule()

    def set_domain(self, domain: str) -> None:
        """Set the site's domain; empty for none. Raises `InvalidInput`."""
        if domain != self.core.routes.domain:
            self.core.set_domain(domain, self.now_s())
            for neighbour in self._costs_s:
                self._greet(neighbour)
            self._schedule()

    def _greet(self, neighbour: SiteId) -> None:
        self._send_to(neighbour, encode_summary(Greeting(self.core.routes.domain)))

    def _greeted(self, neighbour: SiteId, greeting: Greeting) -> list[Command]:
        if self.core.routes.reaches(neighbour):
            self.core.link_domain(neighbour, greeting.domain)
            return []
        cost_s = self._costs_s[neighbour]
        return self.core.link_up(neighbour, cost_s, self.now_s(), greeting.domain)

    def frames(self, neighbour: SiteId, messages: list[bytes]) -> None:
        """Packets and summaries arrived from a neighbour."""
        now_s = self.now_s()
        commands: list[Command] = []
        for message in messages:
            try:
                if message.startswith(_PACKET):
                    self.counts["received"] += 1
                    commands += self.core.packet(neighbour, decode_packet(message), now_s)
                else:
                    commands += self._advertised(neighbour, decode_advertised(message), now_s)
            except DaitnError as error:
                self.counts["malformed"] += 1
                self.drops[DropCause.MALFORMED] += 1
                self._dropped.warning(
                    neighbour, "a message from %s was dropped: %s", neighbour, error
                )
        self._carry_out(commands)

    def _advertised(
        self, neighbour: SiteId, message: Summary | Greeting, now_s: float
    ) -> list[Command]:
        if isinstance(message, Greeting):
            return self._greeted(neighbour, message)
        summary = self.granted(message) if isinstance(message, Update) else message
        self.core.receive_summary(neighbour, summary, now_s)
        return []

    # From the core

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            # Nearly all commands are these, and a pattern match takes three times as long.
            if isinstance(command, Send):
                self.counts["sent"] += 1
                self._send_to(command.neighbour, encode_packet(command.packet))
            else:
                self._carry_out_locally(command)
        self._schedule()

    def _carry_out_locally(self, command: Deliver | Return | Advertise | Drop) -> None:
        match command:
            case Deliver(packet):
                self.counts["delivered"] += 1
                self.hops.observe(sum(hop.action is not Action.TRIED for hop in packet.hops()))
                self._serve(packet)
            case Return(packet, _):
                self.counts["returned"] += 1
                self._return(packet)
            case Advertise(neighbour, summary):
                self.counts["summaries"] += 1
                self._send_to(neighbour, encode_summary(summary))
            case Drop(packet, cause, reason):
                self.counts["dropped"] += 1
                self.drops[cause] += 1
                log.debug("%s dropped: %s", packet.object_id.hex(), reason)

    def _send_to(self, neighbour: str, message: bytes) -> None:
        if self._links is not None:
            self._links.send(SiteId(neighbour), message)

    def _return(self, packet: Packet) -> None:
        awaited = self._awaited.get((packet.object_id, packet.branch))
        if awaited is not None and not awaited.done():
            awaited.set_result(packet)

    def _serve(self, packet: Packet) -> None:
        self._services_running.spawn(self._answer(packet))

    async def _answer(self, packet: Packet) -> None:
        try:
            payload = await self._service.serve(packet, decode_intent(packet.intent))
            if len(payload) > MOST_PAYLOAD_BYTES:
                too_large = Refusal(Reason.FAILED, "the answer is too large for a packet")
                raise NotServed(too_large)
            reply = answer_to(packet, payload, packet.flags & Flag.SEALED)
        except NotServed as no:
            reply = refusal_to(packet, no.refusal)
        except DaitnError as error:
            reply = refusal_to(packet, Refusal(Reason.FAILED, without_folders(str(error))[:500]))
        except Exception:
            log.exception("serving %s failed", packet.object_id.hex())
            reply = refusal_to(packet, Refusal(Reason.FAILED, "internal error; see the log"))
        self._carry_out(self.core.packet(LOCAL, reply, self.now_s()))

    # Time

    def _schedule(self) -> None:
        """Wake the core when it is due; if it is due now, in the loop's next iteration."""
        due_s = self.core.next_s()
        if self._timer is not None:
            if due_s >= self._timer_s:
                return
            self._timer.cancel()
        self._timer_s = due_s
        if due_s == float("inf"):
            self._timer = None
            return
        self._timer = self._loop.call_later(max(0.0, due_s - self.now_s()), self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_s = None, float("inf")
        try:
            self._carry_out(self.core.tick(self.now_s()))
        except Exception:
            log.exception("the forwarder failed")
            self._schedule()
