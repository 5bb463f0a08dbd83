"""What watching costs a gateway: `python -m benchmarks.monitoring [--json] [--rounds 60]`.

Gateways that differ in one thing are processes of their own, each asked in turn, round by round, in
an order that changes: one that counts nothing; one that counts, as all do, and is scraped each
second, fifteen times as often as usual; and one that also traces a tenth of the queries, to a
collector that is a process too. A gateway is one event loop: what it manages is what its processor
time per request allows. So that is told, with all its threads, the exporter's too, as the kernel
counts it: other work of the machine slows requests, but hardly changes what they take. Each round's
is divided by that of the gateway that counts nothing; the medians over the rounds count. Requests
per second stand beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.gateway import pin
from benchmarks.gateway_load import ROUTED, load

CONNECTIONS = 32
SCRAPED_EVERY_S = 1.0
KINDS = ("uncounted", "counted", "traced")
GOALS = {"counted": 1 / 0.97, "traced": 1 / 0.92}
"""Processor time per request, as a multiple of that without."""


class Gateway(NamedTuple):
    """A gateway's process."""

    pid: int
    port: int
    metrics: str
    """Their URL; `-`: none."""


class Measured(NamedTuple):
    """What one load of a gateway took."""

    per_s: float
    cpu_s: float
    """Per request."""


@contextmanager
def process(*arguments: str, proxy: bool) -> Iterator[tuple[int, list[str]]]:
    """Starts one; gives its id and the words that it prints first."""
    started = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        pin(started.pid, proxy=proxy)
        yield started.pid, started.stdout.readline().split()
    finally:
        started.kill()
        started.wait()


async def measure(
    gateways: dict[str, Gateway], requests: int, rounds: int
) -> dict[str, list[Measured]]:
    """What each took in each round."""
    found: dict[str, list[Measured]] = {name: [] for name in gateways}
    each = requests // CONNECTIONS
    for number in range(rounds):
        first = number % len(gateways)
        for name in (*list(gateways)[first:], *list(gateways)[:first]):
            gateway = gateways[name]
            await load(gateway.port, ROUTED, CONNECTIONS, most=each // 4)
            scraping = asyncio.create_task(scrape(gateway.metrics))
            before_s = cpu_s(gateway.pid)
            told = await load(gateway.port, ROUTED, CONNECTIONS, most=each)
            taken_s = cpu_s(gateway.pid) - before_s
            scraping.cancel()
            found[name].append(Measured(told.per_s, taken_s / (each * CONNECTIONS)))
    return found


def cpu_s(pid: int) -> float:
    """Processor time of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def scrape(url: str) -> None:
    """Scrape a gateway until cancelled; one without metrics is left alone."""
    while url != "-":
        await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())
        await asyncio.sleep(SCRAPED_EVERY_S)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    pin(0, proxy=False)
    with ExitStack() as stack:
        gateway = "benchmarks.gateway_processes"
        _, (upstream,) = stack.enter_context(process(gateway, "upstream", "", "0", proxy=False))
        ours = "benchmarks.monitoring_processes"
        _, (collector,) = stack.enter_context(process(ours, proxy=False))
        url, rows = f"http://127.0.0.1:{upstream}", str(arguments.rows)
        gateways = {}
        for kind in KINDS:
            words = (ours, kind, url, rows, collector)
            pid, (port, metrics) = stack.enter_context(process(*words, proxy=True))
            gateways[kind] = Gateway(pid, int(port), metrics)
        found = uvloop.run(measure(gateways, arguments.requests, arguments.rounds))
        spans = int(urllib.request.urlopen(f"{collector}/spans").read())
    without_s = [one.cpu_s for one in found["uncounted"]]
    ratios = {
        kind: [one.cpu_s / of_s for one, of_s in zip(found[kind], without_s, strict=True)]
        for kind in GOALS
    }
    return {
        "rows": arguments.rows,
        **{f"cpu_{kind}_to_uncounted": statistics.median(ratios[kind]) for kind in GOALS},
        "rounds": {kind: [round(ratio, 3) for ratio in ratios[kind]] for kind in GOALS},
        "cpu_us_per_request": {
            kind: round(1e6 * statistics.median(one.cpu_s for one in found[kind]), 1)
            for kind in KINDS
        },
        "requests_per_s": {
            kind: round(statistics.median(one.per_s for one in found[kind])) for kind in KINDS
        },
        "spans_collected": spans,
        "goals": GOALS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rows", type=int, default=1000, help="deployments in the topology")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--requests", type=int, default=640, help="of each measurement")
    arguments = parser.parse_args()
    result = run(arguments)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    table = Table("figure", "value")
    for name, value in result.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
