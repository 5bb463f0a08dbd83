"""How many packets a relay passes on: `python -m benchmarks.aats_relay [--json]`.

Source, relay and sink are processes that communicate over loopback; the relay is written in Python.
The source sends queries, each a distinct object of the network, and the sink answers each. Both
directions lead through the relay, and packets are counted in both. The relay is one of three:

- raw: plain Zenoh, whose subscribers' callbacks put what they get;
- adjacency: the links of forwarders; what arrives on one is sent on the other;
- forwarder: a complete one. It decodes, decides based on the sink's advertisements, keeps each
  query until its answer has passed, and encodes.

All three carry the same bytes, with the same number of outstanding queries, so nothing is lost.
They run in turns. CPU time is that of the relay alone, user and system, per packet; with three
processes on fewer cores, throughput also depends on the load of source and sink. The forwarder has
no rate limit for an owner, and keeps answers for 1 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

GOAL = 0.5
ROUNDS = 4
WINDOW = 4096
WINDOW_BYTES = 4 << 20
"""Less than what a queue of the adjacency holds."""
KINDS = ("raw", "adjacency", "forwarder")


class Process:
    """One of the three; see `aats_relay_process`."""

    def __init__(self, kind: str, role: str, *told: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.aats_relay_process", kind, role, *told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> str:
        """Its last line."""
        said, _ = self._process.communicate(timeout=30)
        return said.strip()


def measure(kind: str, seconds: float, size: int) -> dict[str, float]:
    """Packets per second, the share of queries without an answer, and microseconds of the relay's
    CPU per packet."""
    window = str(min(WINDOW, WINDOW_BYTES // size))
    sink = Process(kind, "sink")
    relay = Process(kind, "relay", sink.line())
    source = Process(kind, "source", window, relay.line(), str(seconds), str(size))
    found = json.loads(source.line())
    source.end()
    cpu_s = float(relay.end())
    sink.end()
    sent, came = found["sent"], found["came"]
    assert came, "nothing came"
    return {
        "packets_s": 2 * found["answered_s"],
        "lost": 1 - came / sent,
        "cpu_us": cpu_s / (sent + came) * 1e6,
    }


def compared(seconds: float, size: int, rounds: int) -> dict[str, Any]:
    """Medians of all kinds."""
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for round_ in range(rounds):
        for kind in KINDS if round_ % 2 else reversed(KINDS):
            runs[kind].append(measure(kind, seconds, size))
    report: dict[str, Any] = {"bytes": size, "rounds": rounds, "goal": GOAL}
    for kind, found in runs.items():
        report[kind] = {
            "packets_s": round(statistics.median(one["packets_s"] for one in found)),
            "lost": round(max(one["lost"] for one in found), 6),
            "relay_cpu_us": round(statistics.median(one["cpu_us"] for one in found), 2),
        }
    raw = report["raw"]["packets_s"]
    report["ratio_of_links"] = round(report["adjacency"]["packets_s"] / raw, 3)
    report["ratio_to_raw_zenoh"] = round(report["forwarder"]["packets_s"] / raw, 3)
    return report


def show(report: dict[str, Any]) -> None:
    title = (
        f"Packets of {report['bytes']} bytes of payload through a relay, {report['rounds']} rounds"
    )
    table = Table(title=title)
    for heading in ("relay", "packets/s", "most lost", "CPU µs per packet"):
        table.add_column(heading, justify="right")
    for kind in KINDS:
        table.add_row(kind, *(str(value) for value in report[kind].values()))
    Console().print(table)
    Console().print(f"ratio_to_raw_zenoh: {report['ratio_to_raw_zenoh']}; goal >= {GOAL:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aats_relay")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of each measurement")
    parser.add_argument("--bytes", type=int, default=256, help="bytes of each query's payload")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="number of rounds")
    arguments = parser.parse_args()
    report = compared(arguments.seconds, arguments.bytes, arguments.rounds)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
