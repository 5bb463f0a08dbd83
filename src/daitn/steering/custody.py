"""A forwarder's objects: where each goes next, and how it ends. Without I/O.

`daitn.steering.forwarder` describes the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from daitn.objects.errors import DaitnError
from daitn.steering.buckets import Buckets
from daitn.steering.commands import Command, Deliver, Drop, DropCause, Return, Send
from daitn.steering.next_hops import LOCAL
from daitn.steering.paths import answered_by, avoiding, tried
from daitn.steering.pending import Key, PendingEntry, PendingTable, Phase, RoutingStep
from daitn.steering.ranking import NextHopChoice, Ranking
from daitn.steering.ranking_cache import Rankings
from daitn.steering.routes.names import domain_of, site_of
from daitn.steering.routes.table import RouteTable
from daitn.steering.settings import (
    CLOCKS_DIFFER_S,
    DIRECT_HOPS,
    ForwarderSettings,
    end_s,
    is_transient,
    overdue_s,
)
from daitn.steering.statistics import Statistics
from daitn.steering.wire.intent import Capability
from daitn.steering.wire.packet import Action, Packet, PacketKind
from daitn.steering.wire.replies import Reason, Refusal, answer_to, read_refusal, refusal_to

__all__ = ["Custody"]

_FINAL = frozenset((Reason.DENIED, Reason.HOPS, Reason.DEADLINE, Reason.MALFORMED))
"""No other next hop can help with these."""
# A member look-up of an enum takes 70 ns in Python 3.11, and every packet needs several.
_ANSWER, _REFUSAL, _PROBE = PacketKind.ANSWER, PacketKind.REFUSAL, PacketKind.PROBE
_FORWARDED, _DELIVERED = Action.FORWARDED, Action.DELIVERED
_UNDER_WAY, _ANSWERED, _REFUSED = Phase.UNDER_WAY, Phase.ANSWERED, Phase.REFUSED
_NONE_TAKEN: Mapping[str, str] = MappingProxyType({})


class Custody:
    """All objects that are pending here, or were until recently."""

    def __init__(self, routes: RouteTable, settings: ForwarderSettings) -> None:
        self.site = routes.site
        self.settings = settings
        self.routes = routes
        self.statistics = Statistics()
        self.closed = ""
        """Why this site takes no objects of others, in words; empty if it does."""
        self.rankings = Rankings(routes, self.statistics)
        self.pending = PendingTable(settings.most_objects, settings.most_bytes)
        self._buckets = Buckets(
            settings.owner_per_s, settings.owner_burst, settings.owners_per_neighbour
        )
        self._held: dict[Key, None] = {}
        self._held_version = -1

    def packet(self, sender: str, packet: Packet, now_s: float, out: list[Command]) -> None:
        """See `Forwarder.packet`."""
        try:
            if packet.kind is _ANSWER:
                self._answer(sender, packet, now_s, out)
            elif packet.kind is _REFUSAL:
                self._refusal(sender, packet, now_s, out)
            else:
                self._object(sender, packet, now_s, out)
        except DaitnError as error:
            out.append(Drop(packet, DropCause.MALFORMED, str(error)))

    def neighbour_lost(self, neighbour: str, now_s: float, out: list[Command]) -> None:
        """A link went down: pending objects that went through it get another next hop."""
        for key in self.pending.through(neighbour):
            entry = self.pending.get(key)
            if entry is not None:
                self.statistics.abandoned(entry.via, entry.origin, key)
                self._resteer(key, entry, now_s, out)

    def tick(self, now_s: float, out: list[Command]) -> None:
        """See `Forwarder.tick`."""
        for key, entry in self.pending.due(now_s):
            try:
                self._timer_fired(key, entry, now_s, out)
            except DaitnError as error:
                self._give_up(key, entry, DropCause.MALFORMED, str(error), out)
        if self._held and self._held_version != self.routes.version:
            self._held_version = self.routes.version
            for key in [*self._held]:
                held = self.pending.get(key)
                if held is not None:
                    self._resteer(key, held, now_s, out)

    def next_s(self) -> float:
        """When `tick` is due at the latest."""
        if self._held and self._held_version != self.routes.version:
            return float("-inf")
        return self.pending.next_s()

    def _timer_fired(self, key: Key, entry: PendingEntry, now_s: float, out: list[Command]) -> None:
        if entry.phase in (Phase.ANSWERED, Phase.REFUSED):
            self.pending.forget(key)
            return
        late = now_s >= end_s(entry, self.settings)
        here = LOCAL in entry.upstreams
        if late and not here:
            self._give_up(key, entry, DropCause.EXPIRED, "it was not answered in time", out)
        elif late:
            self.statistics.abandoned(entry.via, entry.origin, key)
            self._refuse(key, entry, Refusal(Reason.DEADLINE, "no answer in time"), now_s, out)
        elif entry.phase is Phase.HELD:
            self._refuse(key, entry, Refusal(Reason.NO_WAY, self.site), now_s, out)
        elif entry.phase is Phase.RESTING or entry.packet.attempt + 1 < self.settings.attempts:
            self._retry(key, entry, now_s, out)
        else:
            self.pending.wake(key, entry, end_s(entry, self.settings))

    def _give_up(
        self, key: Key, entry: PendingEntry, cause: DropCause, why: str, out: list[Command]
    ) -> None:
        self.statistics.abandoned(entry.via, entry.origin, key)
        self._held.pop(key, None)
        self.pending.forget(key)
        out.append(Drop(entry.packet, cause, why))

    # Objects

    def _object(self, sender: str, packet: Packet, now_s: float, out: list[Command]) -> None:
        key = packet.object_id, packet.branch
        entry = self.pending.get(key)
        if entry is not None:
            if entry.phase is not Phase.REFUSED or packet.attempt <= entry.packet.attempt:
                self._duplicate(key, entry, sender, packet, now_s, out)
                return
            self.pending.forget(key)
        try:
            ranking = self.rankings.ranking(packet.intent, now_s)
        except DaitnError as error:
            refusal: Refusal | None = Refusal(Reason.MALFORMED, str(error)[:500])
        else:
            owner = self.rankings.intent(packet.intent).owner
            refusal = self._check(sender, owner, packet, now_s)
        if refusal is not None:
            self._reply((sender,), refusal_to(packet, refusal), 0.0, out)
            return
        entry = PendingEntry(packet, packet, (sender,), now_s)
        self.pending.put(key, entry)
        self._steer(key, entry, now_s, out, ranking=ranking)

    def _check(self, sender: str, owner: str, packet: Packet, now_s: float) -> Refusal | None:
        """Why a new object is not admitted; None if it is."""
        if sender != LOCAL:
            packet.check_path()  # Whatever is kept here must be readable later.
        if packet.deadline_ms and self._is_late(sender, packet, now_s):
            return Refusal(Reason.DEADLINE, f"it arrived at {self.site} after its deadline")
        if packet.visited(self.site):
            return Refusal(Reason.LOOP, f"it has visited {self.site} before")
        if self.closed and sender != LOCAL and not self._is_home(packet):
            return Refusal(Reason.NO_WAY, f"{self.site} {self.closed}"[:500])
        wait_s = self._buckets.take(sender, owner, now_s)
        if wait_s:
            return Refusal(Reason.RATE, f"{owner or 'its owner'} sends too much", wait_s)
        if not self.pending.make_room(packet):
            return Refusal(Reason.FULL, f"{self.site} has no room for more objects", 1.0)
        return None

    def _is_late(self, sender: str, packet: Packet, now_s: float) -> bool:
        """Whether the deadline of a new object has passed, by a clock that may be another one."""
        if sender == LOCAL:
            return packet.deadline_ms <= now_s * 1000
        passed_s = now_s - packet.deadline_ms / 1000
        return passed_s >= CLOCKS_DIFFER_S or not packet.budget_s(now_s)

    def _is_home(self, packet: Packet) -> bool:
        """Whether an object returns to its home."""
        intent = self.rankings.intent(packet.intent)
        return intent.capability == Capability.HOME and intent.subject == self.site

    def _duplicate(
        self,
        key: Key,
        entry: PendingEntry,
        sender: str,
        packet: Packet,
        now_s: float,
        out: list[Command],
    ) -> None:
        """A copy of a known object arrived."""
        refusal = None
        if sender == LOCAL:
            out.append(Drop(packet, DropCause.DUPLICATE, "it has set out before"))
            return
        if entry.phase in (Phase.ANSWERED, Phase.REFUSED):
            out.append(Send(sender, entry.packet))
            return
        if packet.visited(self.site):
            refusal = Refusal(Reason.LOOP, f"it has visited {self.site} before")
        elif sender not in entry.upstreams:
            if len(entry.upstreams) >= self.settings.most_upstreams:
                refusal = Refusal(Reason.FULL, f"too many neighbours of {self.site} wait for it")
            else:
                entry.upstreams += (sender,)
        if refusal is not None:
            self._reply((sender,), refusal_to(packet, refusal), 0.0, out)
        elif packet.attempt > entry.packet.attempt and LOCAL not in entry.upstreams:
            self.statistics.answered(entry.via, entry.origin, key, entry.expected_s, now_s)
            self.pending.replace(entry, packet)
            entry.since_s = now_s
            self._resteer(key, entry, now_s, out)

    # Steering

    def _resteer(
        self,
        key: Key,
        entry: PendingEntry,
        now_s: float,
        out: list[Command],
        ranking: Ranking | None = None,
    ) -> None:
        """Steer an object again; drop it if its packet turns out to be corrupt."""
        try:
            self._steer(key, entry, now_s, out, ranking=ranking)
        except DaitnError as error:
            self._give_up(key, entry, DropCause.MALFORMED, str(error), out)

    def _steer(
        self,
        key: Key,
        entry: PendingEntry,
        now_s: float,
        out: list[Command],
        refusal: Refusal | None = None,
        ranking: Ranking | None = None,
    ) -> None:
        """Send an object to its next hop. If there is none, refuse it, or hold it for now.

        `refusal` is the one that brought it back.
        """
        packet = entry.packet
        if entry.steps:
            self.pending.stopped(key, entry)
        taken = self._taken(key) if packet.branch or key[0] in self.pending.copies else _NONE_TAKEN
        if ranking is None:
            ranking = self.rankings.ranking(packet.intent, now_s)
        detour = packet.hop_limit > DIRECT_HOPS
        local = not entry.failed_here
        choice = ranking.choose(packet.advertised_score, packet.visited, local, taken, detour)
        if choice is None and entry.phase is Phase.HELD and entry.steps:
            return
        full = choice is None or packet.kind is _PROBE
        outline = ranking.outline
        known = ranking.decision(self.rankings.intent(packet.intent)) if full else outline
        self.pending.add_step(entry, RoutingStep(now_s, choice, known), outline)
        if self._held:
            self._held.pop(key, None)
        if choice is None:
            # A further copy is not held: its owner has others and need not wait for this one.
            patient = LOCAL in entry.upstreams and not packet.branch
            if refusal is None and (patient or not ranking.choices):
                self._hold(key, entry, now_s)
            elif refusal is None:
                # The only next hops are at sites that it visited: one of those finds another
                # sooner.
                self._refuse(key, entry, Refusal(Reason.NO_WAY, self.site), now_s, out)
            else:
                self._refuse(key, entry, refusal, now_s, out)
        elif choice.via != LOCAL and not packet.hop_limit:
            self._refuse(key, entry, Refusal(Reason.HOPS, self.site), now_s, out)
        else:
            self._forward(key, entry, choice, taken, now_s, out)

    def _forward(
        self,
        key: Key,
        entry: PendingEntry,
        choice: NextHopChoice,
        taken: Mapping[str, str],
        now_s: float,
        out: list[Command],
    ) -> None:
        entry.phase = _UNDER_WAY
        via = entry.via = choice.via
        origin = entry.origin = choice.origin
        entry.expected_s = choice.expected_s
        self.pending.sent(key, entry, overdue_s(entry, self.settings, now_s))
        self.statistics.sent(via, origin, key, now_s)
        if via == LOCAL:
            self._deliver(entry, now_s, out)
            return
        packet = entry.packet
        if taken:
            # That neighbour knows the copies that went to itself.
            unknown = {site for site, by in taken.items() if by != via}
            packet = avoiding(packet, unknown, now_s)
        at_ms = int(now_s * 1000)
        out.append(Send(via, packet.stepped(self.site, at_ms, _FORWARDED, choice.advertised_score)))

    def _deliver(self, entry: PendingEntry, now_s: float, out: list[Command]) -> None:
        packet = entry.packet.stepped(self.site, int(now_s * 1000), Action.DELIVERED, 0)
        if packet.kind is PacketKind.PROBE and not packet.payload:
            self._answer(LOCAL, answer_to(packet, packet.trace), now_s, out)
        else:
            out.append(Deliver(packet))

    def _hold(self, key: Key, entry: PendingEntry, now_s: float) -> None:
        entry.phase = Phase.HELD
        entry.via = entry.origin = ""
        self._held[key] = None
        self.pending.wake(
            key, entry, min(now_s + self.settings.hold_s, end_s(entry, self.settings))
        )

    def _retry(self, key: Key, entry: PendingEntry, now_s: float, out: list[Command]) -> None:
        """Send an object again from its source. An overdue one avoids the sites where it went
        before, if another can serve it; a refused one may go there again.

        If nobody offers to serve an overdue one any more, it is waited for: a site that is about to
        stop offers nothing, and answers what it has.
        """
        attempt = entry.packet.attempt + 1
        fresh = msgspec.structs.replace(entry.first, attempt=attempt)
        ranking = None
        if entry.phase is Phase.UNDER_WAY:
            taken = self._taken(key)
            ranking = self.rankings.ranking(fresh.intent, now_s)
            if ranking.choose(0, fresh.visited, True, taken) is None:
                self.pending.wake(key, entry, overdue_s(entry, self.settings, now_s))
                return
            self.statistics.answered(entry.via, entry.origin, key, entry.expected_s, now_s)
            used = {step.choice.site for step in entry.steps if step.choice is not None}
            other = avoiding(fresh, used - {self.site}, now_s)
            if ranking.choose(0, other.visited, True, taken) is not None:
                fresh = other
        self.pending.pass_on(entry, fresh)
        entry.failed_here = False
        self._resteer(key, entry, now_s, out, ranking)

    def _taken(self, key: Key) -> dict[str, str]:
        """Origins to which this site sent other copies of the object, with the next hops: each copy
        should be answered by a different site. Copies that went into another domain do not count:
        its border site, which knows who answers there, keeps them apart."""
        return {
            other.origin: other.via
            for other in self.pending.siblings(key)
            if other.origin and domain_of(other.origin) is None
        }

    # Answers and refusals

    def _answer(self, sender: str, packet: Packet, now_s: float, out: list[Command]) -> None:
        key = packet.object_id, packet.branch
        entry = self.pending.get(key)
        if entry is None:
            self._steer_home(packet, now_s, out)
            return
        if entry.phase is _ANSWERED or entry.phase is _REFUSED:
            why = f"the object was {entry.phase.value} before"
            out.append(Drop(packet, DropCause.DUPLICATE, why))
            return
        by = self.site
        if sender == LOCAL:
            others = max(0, len(self.statistics.load(self.site).waiting) - 1)
            packet = packet.stepped(by, int(now_s * 1000), _DELIVERED, others)
        elif by := answered_by(packet):
            self.statistics.load_reported(by, packet.advertised_score, now_s)
        # An answer from an unexpected site says nothing about this next hop. A domain's origin
        # stands for all sites in it.
        as_expected = by == entry.origin or entry.origin != site_of(entry.origin) or not by
        if sender == entry.via and entry.phase is _UNDER_WAY and as_expected:
            self.statistics.answered(entry.via, entry.origin, key, entry.expected_s, now_s)
        else:
            self.statistics.abandoned(entry.via, entry.origin, key)
        self._settle(key, entry, _ANSWERED, packet, now_s)
        if not self._reply(entry.upstreams, packet, now_s - entry.since_s, out):
            self._steer_home(packet, now_s, out)

    def _refusal(self, sender: str, packet: Packet, now_s: float, out: list[Command]) -> None:
        key = packet.object_id, packet.branch
        entry = self.pending.get(key)
        if (
            entry is None
            or entry.phase is not Phase.UNDER_WAY
            or entry.via != sender
            or packet.attempt < entry.packet.attempt
        ):
            why = "this refusal is no longer awaited"
            out.append(Drop(packet, DropCause.UNWANTED, why))
            return
        refusal = read_refusal(packet)
        marked = entry.packet if sender == LOCAL else tried(entry.packet, packet, sender, self.site)
        self.statistics.refused(entry.via, entry.origin, key, now_s)
        if refusal.reason in _FINAL or marked is None:
            self._refuse(key, entry, refusal, now_s, out)
            return
        self.pending.pass_on(entry, marked)
        entry.failed_here |= sender == LOCAL
        self._steer(key, entry, now_s, out, refusal)

    def _refuse(
        self, key: Key, entry: PendingEntry, refusal: Refusal, now_s: float, out: list[Command]
    ) -> None:
        """An object has no next hop: retry it if this is its source, else pass a refusal back."""
        if LOCAL in entry.upstreams and self._worth_retrying(entry, refusal, now_s):
            self._held.pop(key, None)
            self.pending.stopped(key, entry)
            entry.phase = Phase.RESTING
            rest_s = self.settings.rest_s * 2.0 ** min(entry.packet.attempt, 10)
            self.pending.wake(key, entry, min(now_s + rest_s, end_s(entry, self.settings)))
            return
        reply = refusal_to(entry.packet, refusal)
        self._settle(key, entry, Phase.REFUSED, reply, now_s)
        self._reply(entry.upstreams, reply, now_s - entry.since_s, out)

    def _worth_retrying(self, entry: PendingEntry, refusal: Refusal, now_s: float) -> bool:
        """Whether a refused object is sent again from its source, here. A further copy is not, so
        that its owner can continue with the others."""
        first = entry.first
        return (
            first.kind is not PacketKind.PROBE
            and not first.branch
            and is_transient(first, refusal)
            and entry.packet.attempt + 1 < self.settings.attempts
            and self.rankings.ranking(first.intent, now_s).choose(0, first.visited, True)
            is not None
        )

    def _settle(
        self, key: Key, entry: PendingEntry, phase: Phase, reply: Packet, now_s: float
    ) -> None:
        """Finish an object, and store its reply for a while."""
        if self._held:
            self._held.pop(key, None)
        entry.phase = phase
        self.pending.settle(key, entry, reply, now_s + self.settings.kept_s)

    def _reply(
        self, upstreams: Sequence[str], reply: Packet, taken_s: float, out: list[Command]
    ) -> bool:
        """Send a reply to all that await it; False if one of them is unreachable."""
        reached = True
        for upstream in upstreams:
            if upstream == LOCAL:
                out.append(Return(reply, taken_s))
            elif self.routes.reaches(upstream):
                out.append(Send(upstream, reply))
            else:
                reached = False
        return reached

    def _steer_home(self, packet: Packet, now_s: float, out: list[Command]) -> None:
        """Steer an answer to its object's source, since the path back is broken."""
        ranking = self.rankings.ranking(packet.intent, now_s)
        choice = ranking.choose(0, packet.visited, True)
        if choice is None:
            why = "the path back is broken, and there is no other route home"
            out.append(Drop(packet, DropCause.NO_ROUTE, why))
        elif choice.via == LOCAL:
            out.append(Return(packet, 0.0))
        else:
            at_ms = int(now_s * 1000)
            out.append(Send(choice.via, packet.stepped(self.site, at_ms, Action.FORWARDED, 0)))
