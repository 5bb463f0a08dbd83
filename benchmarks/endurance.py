"""Whether a gateway and a forwarder remain stable over very many requests and packets.

    python -m benchmarks.endurance gateway --number 10000000 [--json]
    python -m benchmarks.endurance forwarder --number 100000000 [--json]

Time is virtual, and decisions are made by live code. The run is divided into twenty slices. For
each, the output shows CPU time per request or packet, memory (resident size, and blocks that
Python's allocator has handed out), and the lengths of the tables that grow with what clients and
neighbours send. Tables that are full by half of the run must not grow from then on:
`blocks_per_million` is the slope of a straight line through the second half, `drift` the ratio of
the CPU time in the last quarter to that in the second. For a gateway, CPU time includes the
simulated world.

The gateway has live QRRT, QIRCE, failover, retry budget, lengths of answers, affinity, query log
and demand estimate, in a simulated world of 24 facilities, of which one at a time dies and comes
back. A fifth of the queries name a topic that was never named before, one of fifty a model that
does not exist, and sessions have twenty queries each.

The forwarder has eight neighbours that reach 32 origins. Packets arrive at 10,000 per second; half
are objects, half their answers. One object of a hundred arrives twice, one of two hundred is
refused, and one of a thousand gets no answer; one of a hundred has a want, and one of fifty an
owner, that was never seen before. Neighbours repeat all they know as often as live ones do, each
time with one changed origin, and one of them is lost every ten minutes and comes back.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import msgspec
import numpy as np
import psutil

from benchmarks.aats_decisions import NEIGHBOURS, PAYLOAD, SOURCE, TOPICS, advertised, unrelated
from daitn.control.queries.context import QueryContext, QueryPlan, QueryRefusal
from daitn.control.queries.engine import Qirce
from daitn.node.gateway.affinity import Affinity
from daitn.node.gateway.demand import DemandEstimator
from daitn.node.gateway.query_log import QueryLog
from daitn.objects.identifiers import SiteId
from daitn.objects.queries import AUTO, QueryConstraints, QueryStatus
from daitn.sim.choosing import QirceChooser
from daitn.sim.faults import Dies, Fault
from daitn.sim.load import Arrival
from daitn.sim.network import DeploymentSpec, FacilitySpec, Network
from daitn.sim.world import World
from daitn.steering.commands import Command, Send
from daitn.steering.forwarder import Forwarder
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Update
from daitn.steering.wire.packet import Action, Packet, PacketKind
from daitn.steering.wire.replies import Reason, Refusal, answer_to, refusal_to

SLICES: Final = 20
GATE: Final = SiteId("gate")
MODELS: Final = ("small", "medium", "large")
FACILITIES: Final = 24
QUERIES_PER_S: Final = 100.0
DIES_EVERY_S: Final = 600.0
STEP_S: Final = 1e-4
"""Between two packets."""
SUMMARY_EVERY_S: Final = 30.0
LOST_EVERY_S: Final = 600.0
BEGAN_S: Final = 1.7e9
BATCH: Final = 200
"""Objects that set out before their answers come."""


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a run."""

    done: int
    virtual_s: float
    each_us: float
    resident_mb: float
    blocks: int
    tables: Mapping[str, int]


class Endured(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    what: str
    number: int
    virtual_s: float
    each_us: float
    drift: float
    blocks_per_million: float
    resident_mb_per_million: float
    counts: Mapping[str, int]
    """How often each thing happened."""
    slices: tuple[Slice, ...]


@dataclass
class Watched:
    """Cuts a run into slices."""

    number: int
    tables: Callable[[], Mapping[str, int]]
    spent_s: Callable[[], float] = time.process_time
    slices: list[Slice] = field(default_factory=list)
    _process: psutil.Process = field(default_factory=psutil.Process)
    _began_s: float = 0.0
    _before: int = 0

    def done(self, done: int, virtual_s: float) -> None:
        """So many are done; the first call beyond the end of a slice tells it."""
        if done * SLICES < self.number * (len(self.slices) + 1):
            return
        spent_s = self.spent_s()
        each_us = (spent_s - self._began_s) / (done - self._before) * 1e6
        gc.collect()
        self.slices.append(
            Slice(
                done=done,
                virtual_s=virtual_s,
                each_us=round(each_us, 2),
                resident_mb=round(self._process.memory_info().rss / 1e6, 1),
                blocks=sys.getallocatedblocks(),
                tables=self.tables(),
            )
        )
        print(msgspec.json.encode(self.slices[-1]).decode(), file=sys.stderr, flush=True)
        self._before, self._began_s = done, spent_s

    def ended(self, what: str, counts: Mapping[str, int]) -> Endured:
        """What the run tells."""
        slices = self.slices
        half, quarter = slices[len(slices) // 2 :], len(slices) // 4
        millions = [one.done / 1e6 for one in half]

        def slope(values: list[float]) -> float:
            return round(float(np.polyfit(millions, values, 1)[0]), 3)

        def mean_us(some: list[Slice]) -> float:
            return sum(one.each_us for one in some) / len(some)

        return Endured(
            what=what,
            number=slices[-1].done,
            virtual_s=slices[-1].virtual_s,
            each_us=round(mean_us(slices), 2),
            drift=round(mean_us(slices[-quarter:]) / mean_us(slices[quarter : 2 * quarter]), 3),
            blocks_per_million=slope([float(one.blocks) for one in half]),
            resident_mb_per_million=slope([one.resident_mb for one in half]),
            counts=counts,
            slices=tuple(slices),
        )


def gateway(number: int) -> Endured:
    """A gateway's decisions on so many requests."""
    log, affinity, demand = QueryLog(Qirce()), Affinity(), DemandEstimator(GATE)
    decided = 0

    def heard(context: QueryContext, plan: QueryPlan | QueryRefusal) -> None:
        nonlocal decided
        decided += 1
        log.record_decision(f"{GATE}:{decided}", context, decided)
        affinity.row(context.intent, context.snapshot)
        if isinstance(plan, QueryPlan):
            affinity.record(context.intent, context.snapshot.rows[plan.rows[0]].id)

    until_s = number / QUERIES_PER_S
    faults: list[Fault] = [
        Dies(at_s=at_s, site=SiteId(f"east-{turn % FACILITIES}"), until_s=at_s + 30.0)
        for turn, at_s in enumerate(np.arange(DIES_EVERY_S, until_s, DIES_EVERY_S).tolist())
    ]
    world = World(
        facilities(), lambda world: QirceChooser(heard), faults=faults, looked_every_s=1.0
    )
    counts: dict[str, int] = {status.value: 0 for status in QueryStatus}
    gate = world.gateways[GATE]

    def tables() -> dict[str, int]:
        snapshot = gate.state.snapshot()
        return {
            "affinity": len(affinity._deployments),
            "decisions": len(log._decisions),
            "demand": len(demand._kinds),
            "lengths": len(gate._lengths._moments),  # type: ignore[attr-defined]
            "in flight": len(gate._load._counts),
            "snapshot's cache": len(snapshot.cache),
        }

    watched = Watched(number, tables)
    for done, ended in enumerate(world.stream(queries(number)), 1):
        counts[ended.status.value] += 1
        answered = ended.status is QueryStatus.ANSWERED
        arrival = ended.arrival
        tokens = arrival.tokens_out if answered else None
        demand.count(arrival.topic, arrival.model, tokens, world.clock.now_s)
        if done % 1000 == 0:
            demand.demand(world.clock.now_s)
        watched.done(done, world.clock.now_s)
    return watched.ended("gateway", counts)


def facilities() -> Network:
    """Each with three models."""
    specs = tuple(
        DeploymentSpec(
            name=name,
            slots=8,
            queue=32,
            first_token_s=0.05 * (1 + size),
            per_token_s=0.004 * (1 + size),
            usd_per_1k_in=0.0001 * (1 + size),
            usd_per_1k_out=0.001 * (1 + size),
            accuracy={"medicine": 0.6 + 0.1 * size, "law": 0.8 - 0.1 * size},
        )
        for size, name in enumerate(MODELS)
    )
    sites = [SiteId(f"east-{at}") for at in range(FACILITIES)]
    rtt_s = {(GATE, site): 0.002 * (1 + at) for at, site in enumerate(sites)}
    return Network(
        facilities=tuple(FacilitySpec(site=site, deployments=specs) for site in sites),
        gateways=(GATE,),
        rtt_s=rtt_s | {(GATE, GATE): 0.0},
    )


def queries(number: int) -> Iterator[Arrival]:
    """Poisson, as in the module's docstring."""
    rng, at_s = random.Random(1), 0.0
    for at in range(number):
        at_s += rng.expovariate(QUERIES_PER_S)
        topic = rng.choice(("medicine", "law"))
        yield Arrival(
            number=at,
            at_s=at_s,
            gateway=GATE,
            topic=f"{topic}/case-{at}" if at % 5 == 0 else topic,
            model=f"unheard-of-{at}" if at % 50 == 0 else rng.choice((AUTO, *MODELS)),
            tokens_in=rng.randrange(20, 200),
            tokens_out=max(1, min(512, round(60 * math.exp(rng.gauss(0.0, 0.8))))),
            limit=rng.choice((0, 0, 128, 512)),
            luck=math.exp(rng.gauss(0.0, 0.1)),
            constraints=QueryConstraints(session=f"s-{at // 20}"),
        )


class Packets:
    """A forwarder, what comes to it, and its clock."""

    def __init__(self) -> None:
        self.now_s = BEGAN_S
        self.counts = dict.fromkeys(("objects", "answers", "refusals", "unanswered", "twice"), 0)
        self.core = Forwarder("here", BEGAN_S)
        self._edition = 1
        self._numbers = 0
        self.spent_s = 0.0
        """CPU time in the forwarder."""
        self._usual = [
            self._packet(
                NEIGHBOURS[at % len(NEIGHBOURS)],
                self._want(TOPICS[at % len(TOPICS)], f"owner-{at % 19}"),
            )
            for at in range(len(TOPICS) * len(NEIGHBOURS) * 19)
        ]
        self._lost_at_s, self._said_at_s = BEGAN_S, BEGAN_S
        for neighbour in NEIGHBOURS:
            self.core.link_up(neighbour, 0.005, BEGAN_S)
        self._say()

    @property
    def taken(self) -> int:
        """Packets so far."""
        return sum(self.counts.values()) - self.counts["unanswered"]

    def batch(self) -> None:
        """Objects set out, then what comes of them comes back."""
        coming: list[tuple[str, Packet]] = []
        for number in range(self._numbers, self._numbers + BATCH):
            twice = number % 100 == 0
            coming += [self._object(number)] * (1 + twice)
            self.counts["twice"] += twice
        self._numbers += BATCH
        self.counts["objects"] += BATCH
        sent = {
            (command.neighbour, command.packet.object_id): command
            for command in self._take(coming)
            if isinstance(command, Send) and command.packet.kind is PacketKind.QUERY
        }
        self._take(list(self._replies(list(sent.values()))))
        self._rest()

    def _replies(self, sent: list[Send]) -> Iterator[tuple[str, Packet]]:
        for send in sent:
            number = int.from_bytes(send.packet.object_id, "big")
            if number % 1000 == 7:
                self.counts["unanswered"] += 1
            elif number % 200 == 9:
                self.counts["refusals"] += 1
                yield send.neighbour, refusal_to(send.packet, Refusal(Reason.FULL, "no room"))
            else:
                self.counts["answers"] += 1
                yield send.neighbour, self._answer(send.packet)

    def _answer(self, packet: Packet) -> Packet:
        """With what its origin says of its load."""
        entry = self.core.custody.pending.get((packet.object_id, packet.branch))
        origin = entry.origin if entry else SOURCE
        now_ms = int(self.now_s * 1000)
        return answer_to(packet, PAYLOAD).stepped(origin, now_ms, Action.DELIVERED, 3)

    def _take(self, coming: list[tuple[str, Packet]]) -> list[Command]:
        take, now_s, said = self.core.packet, self.now_s, list[Command]()
        began_s = time.process_time()
        for sender, packet in coming:
            now_s += STEP_S
            said += take(sender, packet, now_s)
        said += self.core.tick(now_s)
        self.spent_s += time.process_time() - began_s
        self.now_s = now_s
        return said

    def _rest(self) -> None:
        if self.now_s >= self._said_at_s + SUMMARY_EVERY_S:
            self._say()
        if self.now_s >= self._lost_at_s + LOST_EVERY_S:
            self._lost_at_s = self.now_s
            lost = NEIGHBOURS[int(self.now_s / LOST_EVERY_S) % len(NEIGHBOURS)]
            self.core.link_down(lost, self.now_s)
            self.core.link_up(lost, 0.005, self.now_s)
            self._say()

    def _say(self) -> None:
        """All neighbours say all they know."""
        self._said_at_s = self.now_s
        self._edition += 1
        for at, neighbour in enumerate(NEIGHBOURS):
            known = advertised(at, priced=False)
            entries = tuple(one for one in known.routes if one.origin != "unrelated")
            changed = Update((*entries, unrelated(self._edition)), whole=True)
            self.core.receive_summary(neighbour, changed, self.now_s)
        self.core.tick(self.now_s)

    def _object(self, number: int) -> tuple[str, Packet]:
        sender = NEIGHBOURS[number % len(NEIGHBOURS)]
        topic = TOPICS[number % len(TOPICS)]
        if number % 100 == 1:
            packet = self._packet(sender, self._want(topic, "owner-0", number))
        elif number % 50 == 2:
            packet = self._packet(sender, self._want(topic, f"stranger-{number}"))
        else:
            packet = self._usual[number % len(self._usual)]
        return sender, msgspec.structs.replace(packet, object_id=number.to_bytes(16, "big"))

    def _packet(self, sender: str, intent: bytes) -> Packet:
        """With two hops behind it."""
        packet = Packet(PacketKind.QUERY, bytes(16), intent, PAYLOAD)
        for site in (SOURCE, sender):
            packet = packet.stepped(site, int(self.now_s * 1000), Action.FORWARDED, 1 << 30)
        return packet

    def _want(self, topic: str, owner: str, tokens: int = 256) -> bytes:
        return encode_intent(
            PacketIntent(Capability.ANSWER, topic, owner=owner, tokens_out=tokens % (1 << 20))
        )

    def tables(self) -> dict[str, int]:
        """How long they are."""
        custody = self.core.custody
        return {
            "pending": len(custody.pending),
            "pending bytes": custody.pending.held_bytes,
            "timers": custody.pending._timers.kept,
            "buckets": len(custody._buckets._buckets),
            "parsed": len(custody.rankings._parsed),
            "statistics": len(custody.statistics._statistics),
        }


def forwarder(number: int) -> Endured:
    """A forwarder's decisions on so many packets."""
    packets = Packets()
    watched = Watched(number, packets.tables, lambda: packets.spent_s)
    while packets.taken < number:
        packets.batch()
        watched.done(packets.taken, packets.now_s - BEGAN_S)
    return watched.ended("forwarder", packets.counts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance")
    parser.add_argument("what", choices=("gateway", "forwarder"))
    parser.add_argument("--number", type=int, default=1_000_000, help="requests or packets")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    found = {"gateway": gateway, "forwarder": forwarder}[asked.what](asked.number)
    if asked.json:
        print(msgspec.json.encode(found).decode())
        return
    for name, value in islice(msgspec.structs.asdict(found).items(), 8):
        print(f"{name:26} {json.dumps(value)}")


if __name__ == "__main__":
    main()
