"""What monitoring costs a gateway: `python -m benchmarks.monitoring [--json] [--turns 100]`.

Every 1024 requests, one gateway switches between no metrics, metrics as in all gateways, and
metrics with traces of a tenth of the queries; 32 connections send requests. A gateway is one event
loop, so its CPU time per request determines its throughput. This is measured for each setting in
the same process, in turns so short that other load on the machine affects all settings alike: over
the second half of each, when no span of the turn before is left to send. Spans go to a separate
collector process. Scrapes are timed separately, and charged as one every 15 s to a gateway that
does nothing else. Each turn is divided by the neighbouring turn without metrics; the output shows
medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import uvloop

from benchmarks.gateway import pin, show
from benchmarks.gateway_load import ROUTED, load

CONNECTIONS = 32
SCRAPE_EVERY_S = 15.0
GOALS = {"throughput_counted": 0.97, "throughput_traced": 0.92}
"""As a share of the throughput of a gateway that counts nothing."""
OURS = "benchmarks.monitoring_processes"


@contextmanager
def process(*arguments: str, proxy: bool) -> Iterator[IO[str]]:
    """Starts one; gives what it prints."""
    started = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        pin(started.pid, proxy=proxy)
        yield started.stdout
    finally:
        started.kill()
        started.wait()


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    pin(0, proxy=False)
    with ExitStack() as stack:

        def start(*words: str, proxy: bool = False) -> IO[str]:
            return stack.enter_context(process(*words, proxy=proxy))

        upstream = start("benchmarks.gateway_processes", "upstream", "", "0").readline().strip()
        collector = start(OURS).readline().strip()
        rows, turns = str(arguments.rows), str(arguments.turns)
        told = start(OURS, f"http://127.0.0.1:{upstream}", rows, collector, turns, proxy=True)
        port, requests = told.readline().split()
        each = -(-int(requests) // CONNECTIONS)
        speed = uvloop.run(load(int(port), ROUTED, CONNECTIONS, most=each))
        measured = json.loads(told.readline())
        spans = int(urllib.request.urlopen(f"{collector}/spans").read())
    cpu_s = measured["cpu_s"]
    scrape_s = statistics.median(measured["scrape_s"])
    share = 1 - scrape_s / SCRAPE_EVERY_S
    turns_of = list(zip(cpu_s["uncounted"], cpu_s["counted"], cpu_s["traced"], strict=True))
    counted = [share * without_s / with_s for without_s, with_s, _ in turns_of]
    traced = [share * without_s / with_s for without_s, _, with_s in turns_of]
    return {
        "rows": arguments.rows,
        "throughput_counted": statistics.median(counted),
        "throughput_traced": statistics.median(traced),
        "quartiles": {
            "counted": [round(value, 3) for value in statistics.quantiles(counted)],
            "traced": [round(value, 3) for value in statistics.quantiles(traced)],
        },
        "cpu_us_per_request": {
            name: statistics.median(turns) * 1e6 for name, turns in cpu_s.items()
        },
        "scrape_ms": scrape_s * 1e3,
        "spans": spans,
        "requests_per_s": round(speed.per_s),
        "goals": GOALS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rows", type=int, default=1000, help="deployments in the topology")
    parser.add_argument("--turns", type=int, default=100, help="turns of each setting")
    arguments = parser.parse_args()
    show(run(arguments), as_json=arguments.json)


if __name__ == "__main__":
    main()
