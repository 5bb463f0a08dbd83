"""How fast a forwarder decides, in one process: `python -m benchmarks.aats_decisions [--json]`.

A forwarder with 8 neighbours knows 32 origins. It reaches each through two neighbours, and each
answers 25 of 100 topics. Packets with 256 bytes of payload, which have travelled two hops, arrive
from all neighbours in turn, each with a unique id and one of 100 wants. The benchmark measures

- decide: the core chooses the next hop of a decoded packet and remembers it;
- settle: the core handles its answer, which returns from where the packet went, and forgets it;
- wire to wire: decode, decide, encode, as the forwarder's shell does;
- varied: decide, if no two packets ask for answers of the same length;
- priced: varied, and every origin has a price of its own;
- summary: the core learns that one origin has a longer queue, and decides on a packet of each want;
  per packet. `unrelated` is an origin that offers nothing that is wanted.

Each batch sends 2,000 packets and then their answers; the first six batches of a round warm up. The
core's clock advances by 5 µs per packet, as at the goal of 200,000 per second, so rankings are
rebuilt as often as at that rate. Answers are kept for 0.1 s of that clock, because otherwise the
benchmark would measure memory, and rate limits per owner are off. Times are CPU time of this
process, which has one thread, so results are decisions per second and core. The output shows the
median of all batches and, since others may use the machine, the best of ten (the 10th percentile).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from daitn.steering.commands import Command, Send
from daitn.steering.forwarder import Forwarder, ForwarderSettings
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.offers import Offer, RouteEntry, Update
from daitn.steering.wire.packet import Action, Packet, PacketKind, decode_packet, encode_packet
from daitn.steering.wire.replies import answer_to

GOAL_PER_S = 200_000
ROUNDS = 4
BATCHES = 24
WARM_UP = 6
"""Batches after which as many answers are forgotten as come."""
PACKETS = 2_000
"""Of a batch."""
NEIGHBOURS = tuple(f"neighbour-{i}" for i in range(8))
ORIGINS = tuple(f"origin-{i:02}" for i in range(32))
TOPICS = tuple(f"medicine/topic-{i:02}" for i in range(100))
SOURCE = "source"
PAYLOAD = bytes(256)
STEP_S = 5e-6
BEGAN_S = 1.7e9
MOST_TOKENS = 4096
UNRELATED = "unrelated"
SETTINGS = ForwarderSettings(owner_per_s=1e7, owner_burst=1e7, kept_s=0.1)

ROWS = ("decide", "settle", "wire_to_wire", "varied", "priced", "summary")

Traffic = list[tuple[str, Packet]]
"""Packets, and the neighbours that they come from."""


def advertised(neighbour: int, priced: bool) -> Update:
    """What a neighbour says that it reaches. Each origin is reached by two neighbours."""
    entries = [unrelated(1)]
    for i, origin in enumerate(ORIGINS):
        far = (neighbour - i) % len(NEIGHBOURS)
        if far < 2:
            offers = tuple(
                Offer(
                    f"{Capability.ANSWER}:{topic}",
                    0.6 + i / 100,
                    2,
                    0.05,
                    price_usd=priced * i / 1e4,
                    amount=8,
                )
                for j, topic in enumerate(TOPICS)
                if (i + j) % 4 == 0
            )
            entries.append(RouteEntry(origin, 1, 0.01 + 0.002 * far, 1, offers))
    return Update(tuple(entries), whole=True)


def unrelated(edition: int) -> RouteEntry:
    """What a neighbour says of an origin that no packet wants."""
    offer = Offer("data:elsewhere", 0.5, 2, 0.05, wait_s=float(edition))
    return RouteEntry(UNRELATED, 1, 0.01, edition, (offer,))


def wants(number: int, varied: bool) -> list[bytes]:
    """Enough for a batch, topic by topic."""
    lengths = random.Random(number)
    intents = [
        PacketIntent(
            Capability.ANSWER,
            topic,
            owner="ana",
            tokens_out=lengths.randrange(MOST_TOKENS) if varied else 256,
        )
        for _ in range(PACKETS // len(TOPICS) if varied else 1)
        for topic in TOPICS
    ]
    return [encode_intent(intent) for intent in intents]


def traffic(number: int, varied: bool = False) -> Traffic:
    """One batch."""
    wanted = wants(number, varied)
    made: Traffic = []
    for i in range(number * PACKETS, (number + 1) * PACKETS):
        sender = NEIGHBOURS[i % len(NEIGHBOURS)]
        packet = Packet(PacketKind.QUERY, i.to_bytes(16, "big"), wanted[i % len(wanted)], PAYLOAD)
        for site in (SOURCE, sender):
            packet = packet.stepped(site, int(BEGAN_S * 1000), Action.FORWARDED, 1 << 30)
        made.append((sender, packet))
    return made


class Measured:
    """A forwarder that all neighbours told all they know, and its clock."""

    def __init__(self, priced: bool = False) -> None:
        self._now_s = BEGAN_S
        self._edition = 1
        self._core = Forwarder("here", BEGAN_S, SETTINGS)
        for i, neighbour in enumerate(NEIGHBOURS):
            self._core.link_up(neighbour, 0.005, BEGAN_S)
            self._core.receive_summary(neighbour, advertised(i, priced), BEGAN_S)
        self._core.tick(BEGAN_S)

    def take(self, packets: Traffic) -> tuple[float, list[Send]]:
        """Microseconds of CPU per packet in which the core took all, and what it sent."""
        commands: list[Command] = []
        take, now_s = self._core.packet, self._now_s
        began_s = time.process_time()
        for sender, packet in packets:
            now_s += STEP_S
            commands += take(sender, packet, now_s)
        self._core.tick(now_s)
        seconds = time.process_time() - began_s
        self._now_s = now_s
        sent = [command for command in commands if isinstance(command, Send)]
        assert len(sent) == len(packets), "not every packet was passed on"
        return seconds / len(packets) * 1e6, sent

    def take_wire(self, packets: list[tuple[str, bytes]]) -> tuple[float, list[Send]]:
        """Likewise, with decoding what comes and encoding what goes."""
        sent: list[Send] = []
        take, now_s = self._core.packet, self._now_s
        began_s = time.process_time()
        for sender, wire in packets:
            now_s += STEP_S
            for command in take(sender, decode_packet(wire), now_s):
                if isinstance(command, Send):
                    encode_packet(command.packet)
                    sent.append(command)
        self._core.tick(now_s)
        seconds = time.process_time() - began_s
        self._now_s = now_s
        assert len(sent) == len(packets), "not every packet was passed on"
        return seconds / len(packets) * 1e6, sent

    def settle(self, sent: list[Send]) -> float:
        """Microseconds of CPU per answer to what was sent."""
        answers = [(send.neighbour, answer_to(send.packet, PAYLOAD)) for send in sent]
        return self.take(answers)[0]

    def change(self, packets: Traffic) -> tuple[float, list[Send]]:
        """Likewise, after a summary of an origin that none of the packets wants."""
        self._edition += 1
        began_s = time.process_time()
        self._core.receive_summary(NEIGHBOURS[0], Update((unrelated(self._edition),)), self._now_s)
        heard_us = (time.process_time() - began_s) * 1e6 / len(packets)
        decide_us, sent = self.take(packets)
        return heard_us + decide_us, sent


def one_round(batches: list[Traffic], varied: list[Traffic]) -> list[dict[str, float]]:
    """What each batch took that was not for warming up, in microseconds per packet."""
    core, wired, lengths, priced = Measured(), Measured(), Measured(), Measured(priced=True)
    found = []
    for packets, other in zip(batches, varied, strict=True):
        decide_us, sent = core.take(packets)
        settle_us = core.settle(sent)
        wire = [(sender, encode_packet(packet)) for sender, packet in packets]
        wire_us, sent = wired.take_wire(wire)
        wired.settle(sent)
        row = {"decide": decide_us, "settle": settle_us, "wire_to_wire": wire_us}
        for name, measured in (("varied", lengths), ("priced", priced)):
            row[name], sent = measured.take(other)
            measured.settle(sent)
        row["summary"], sent = core.change(renewed(packets[: len(TOPICS)]))
        core.settle(sent)
        found.append(row)
    return found[WARM_UP:]


def renewed(packets: Traffic) -> Traffic:
    """The same under other ids."""
    return [
        (sender, msgspec.structs.replace(packet, object_id=b"again" + packet.object_id[5:]))
        for sender, packet in packets
    ]


def report(rounds: int) -> dict[str, Any]:
    batches = [traffic(number) for number in range(WARM_UP + BATCHES)]
    varied = [traffic(number, varied=True) for number in range(WARM_UP + BATCHES)]
    found = [batch for _ in range(rounds) for batch in one_round(batches, varied)]
    rows = {}
    for name in found[0]:
        us = sorted(batch[name] for batch in found)
        median_us, best_us = statistics.median(us), us[len(us) // 10]
        rows[name] = {
            "us": round(median_us, 2),
            "best_us": round(best_us, 2),
            "per_s": round(1e6 / median_us),
            "best_per_s": round(1e6 / best_us),
        }
    size = {"neighbours": len(NEIGHBOURS), "origins": len(ORIGINS), "topics": len(TOPICS)}
    return {**size, "batches": len(found), "packets": PACKETS, "goal_per_s": GOAL_PER_S, **rows}


def show(found: dict[str, Any]) -> None:
    table = Table(title=f"A forwarder's decisions, {found['batches']} batches")
    for heading in ("what", "µs", "best µs", "per second and core", "best"):
        table.add_column(heading, justify="right")
    for name in ROWS:
        row = found[name]
        rates = f"{row['per_s']:,}", f"{row['best_per_s']:,}"
        table.add_row(name, str(row["us"]), str(row["best_us"]), *rates)
    Console().print(table)
    Console().print(f"goal of decide: >= {GOAL_PER_S:,} per second")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aats_decisions")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="number of rounds")
    arguments = parser.parse_args()
    found = report(arguments.rounds)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
