"""How fast a forwarder decides, in one process: `python -m benchmarks.aats_decisions [--json]`.

A forwarder with 8 neighbours knows 32 origins, each by two of them, and each able to answer 25 of
100 topics. Packets of 256 bytes of payload, which have two hops behind them, come from all
neighbours in turn, each with an id of its own and one of 100 wants. Measured are

- decide: what the core does with a packet that is decoded: where it goes, and remembering it;
- settle: likewise with its answer, which comes back from where it was sent, and forgetting it;
- wire to wire: decode, decide, encode, as the forwarder's shell does.

2,000 packets set out, then their answers come, and so on; the first six such batches of a round
warm up. The core's clock advances by 5 µs per packet, as at the goal of 200,000 per second, so that
its rankings are made anew as often as they would be then. Answers are kept for 0.1 s of that clock,
since memory would be measured else, and rates per owner are lifted. Times are CPU time of this
process, which has one thread: decisions per second of one core. Told are the median of all batches
and, as others may work on the machine, the best of ten (the 10th percentile).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from daitn.steering.commands import Command, Send
from daitn.steering.forwarder import Forwarder, ForwarderSettings
from daitn.steering.wire.intent import Capability, PacketIntent, encode_intent
from daitn.steering.wire.packet import Action, Packet, PacketKind, decode_packet, encode_packet
from daitn.steering.wire.replies import answer_to
from daitn.steering.wire.summaries import Offer, RouteEntry, Update

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
SETTINGS = ForwarderSettings(owner_per_s=1e7, owner_burst=1e7, kept_s=0.1)

Traffic = list[tuple[str, Packet]]
"""Packets, and the neighbours that they come from."""


def told(neighbour: int) -> Update:
    """What a neighbour says that it reaches. Each origin is reached by two neighbours."""
    entries = []
    for i, origin in enumerate(ORIGINS):
        far = (neighbour - i) % len(NEIGHBOURS)
        if far < 2:
            offers = tuple(
                Offer(f"{Capability.ANSWER}:{topic}", 0.6 + i / 100, 2, 0.05, amount=8)
                for j, topic in enumerate(TOPICS)
                if (i + j) % 4 == 0
            )
            entries.append(RouteEntry(origin, 1, 0.01 + 0.002 * far, 1, offers))
    return Update(tuple(entries), whole=True)


def traffic(number: int) -> Traffic:
    """One batch."""
    wants = [encode_intent(PacketIntent(Capability.ANSWER, topic, owner="ana")) for topic in TOPICS]
    made: Traffic = []
    for i in range(number * PACKETS, (number + 1) * PACKETS):
        sender = NEIGHBOURS[i % len(NEIGHBOURS)]
        packet = Packet(PacketKind.QUERY, i.to_bytes(16, "big"), wants[i % len(wants)], PAYLOAD)
        for site in (SOURCE, sender):
            packet = packet.stepped(site, int(BEGAN_S * 1000), Action.FORWARDED, 1 << 30)
        made.append((sender, packet))
    return made


class Measured:
    """A forwarder that all neighbours told all they know, and its clock."""

    def __init__(self) -> None:
        self._now_s = BEGAN_S
        self._core = Forwarder("here", BEGAN_S, SETTINGS)
        for i, neighbour in enumerate(NEIGHBOURS):
            self._core.link_up(neighbour, 0.005, BEGAN_S)
            self._core.heard(neighbour, told(i), BEGAN_S)
        self._core.tick(BEGAN_S)

    def take(self, packets: Traffic) -> tuple[float, list[Send]]:
        """Microseconds of CPU per packet in which the core took all, and what it sent."""
        said: list[Command] = []
        take, now_s = self._core.packet, self._now_s
        began_s = time.process_time()
        for sender, packet in packets:
            now_s += STEP_S
            said += take(sender, packet, now_s)
        self._core.tick(now_s)
        seconds = time.process_time() - began_s
        self._now_s = now_s
        sent = [command for command in said if isinstance(command, Send)]
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


def one_round(batches: list[Traffic]) -> list[dict[str, float]]:
    """What each batch took that was not for warming up, in microseconds per packet."""
    core, wired = Measured(), Measured()
    found = []
    for packets in batches:
        decide_us, sent = core.take(packets)
        settle_us = core.settle(sent)
        wire = [(sender, encode_packet(packet)) for sender, packet in packets]
        wire_us, sent = wired.take_wire(wire)
        wired.settle(sent)
        found.append({"decide": decide_us, "settle": settle_us, "wire_to_wire": wire_us})
    return found[WARM_UP:]


def report(rounds: int) -> dict[str, Any]:
    batches = [traffic(number) for number in range(WARM_UP + BATCHES)]
    found = [batch for _ in range(rounds) for batch in one_round(batches)]
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
    for name in ("decide", "settle", "wire_to_wire"):
        row = found[name]
        rates = f"{row['per_s']:,}", f"{row['best_per_s']:,}"
        table.add_row(name, str(row["us"]), str(row["best_us"]), *rates)
    Console().print(table)
    Console().print(f"goal of decide: >= {GOAL_PER_S:,} per second")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aats_decisions")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    found = report(arguments.rounds)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
