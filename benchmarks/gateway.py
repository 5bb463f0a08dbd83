"""What a gateway costs: `python -m benchmarks.gateway [--json] [--rows 1000] [--soak N]`.

An upstream that answers at once, a bare reverse proxy (Starlette, aiohttp, uvicorn with httptools
under uvloop), the gateway and, if they can be installed, a fast public router and LiteLLM's proxy
are separate processes. This process sends them requests in turns, round by round. The gateway
decides on every request over `--rows` deployments, and its topology changes with every answer.

Each round measures the median latency with one connection (what a proxy adds to a direct request),
and the throughput with 32 and with 256 connections. Then the 99th percentile is measured with
requests that arrive at half the gateway's maximum throughput, whether or not earlier ones have been
answered.

`--soak N` sends the gateway N requests, where every twentieth client leaves before its answer, and
prints the gateway's memory when it is warm and after each tenth of the requests. `--streams N`
holds N idle streams open, and prints the memory that they take.

With two cores, each proxy has the last one to itself, and this process and the upstream share the
first. Under the default scheduling, a direct round trip takes 25 us if both ends happen to be on
one core and 75 us if they are not, which would dominate `p50_added_ms`. With pinning it is always
the shorter one, so the added latency is never underestimated.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.gateway_load import (
    PLAIN,
    ROUTED,
    Told,
    idle_streams,
    load,
    open_load,
    vanishing,
)
from benchmarks.gateway_peers import PEERS, running

CORES = os.sched_getaffinity(0)
"""As they were before this process was pinned."""
CONNECTIONS = (32, 256)
WARM = 20_000
"""Requests before memory is first looked at: pools and rings are full then."""
SOAK_PARTS = 10
VANISH = 0.05
GOALS = {
    "p50_added_ms": 1.0,
    "ratio_to_bare_proxy_32": 0.8,
    "p99_added_at_half_load_ms": 5.0,
    "streams_2000_mb": 400.0,
}
Rates = dict[str, dict[int, list[float]]]


def pin(pid: int, *, proxy: bool) -> None:
    """Keep a process, its threads and its children to the core of its kind."""
    cores = sorted(CORES)
    if len(cores) > 1:
        os.sched_setaffinity(pid, {cores[-1] if proxy else cores[0]})


@contextmanager
def process(role: str, url: str = "", rows: int = 0) -> Iterator[tuple[int, int]]:
    """Port and process id."""
    started = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gateway_processes", role, url, str(rows)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        pin(started.pid, proxy=role != "upstream")
        yield int(started.stdout.readline()), started.pid
    finally:
        started.kill()
        started.wait()


async def measure(
    ports: dict[str, int], seconds: float, rounds: int
) -> tuple[Rates, dict[str, list[float]]]:
    """Of each round: requests per second by connections, and median seconds at one."""
    rates: Rates = {name: {n: [] for n in CONNECTIONS} for name in ports}
    medians: dict[str, list[float]] = {name: [] for name in ports}
    for number in range(rounds):
        order = list(ports.items())
        for name, port in order if number % 2 else reversed(order):
            message = _message(name)
            await load(port, message, CONNECTIONS[0], seconds=seconds / 4)
            for connections in CONNECTIONS:
                told = await load(port, message, connections, seconds=seconds)
                rates[name][connections].append(told.per_s)
            medians[name].append((await load(port, message, 1, seconds=seconds)).p50_s)
    return rates, medians


async def measure_half(
    ports: dict[str, int], per_s: float, seconds: float, rounds: int
) -> dict[str, list[Told]]:
    """Of each round: what requests at this rate tell."""
    told: dict[str, list[Told]] = {name: [] for name in ports}
    for _ in range(rounds):
        for name, port in ports.items():
            told[name].append(await open_load(port, _message(name), per_s, seconds))
    return told


def _message(name: str) -> bytes:
    return ROUTED if name == "gateway" else PLAIN


async def soaked(port: int, pid: int, requests: int) -> dict[str, Any]:
    """Memory of the gateway at points of so many requests, the first of them when it is warm."""
    gateway, connections = psutil.Process(pid), CONNECTIONS[0]
    each = max(1, requests // SOAK_PARTS // connections)
    await vanishing(port, ROUTED, connections, WARM // connections, VANISH)
    rss_mb, per_s = [gateway.memory_info().rss / 1e6], []
    for _ in range(SOAK_PARTS):
        told = await vanishing(port, ROUTED, connections, each, VANISH)
        per_s.append(round(told.per_s))
        rss_mb.append(gateway.memory_info().rss / 1e6)
    return {
        "requests": SOAK_PARTS * each * connections,
        "vanished": VANISH,
        "rss_mb": [round(value, 1) for value in rss_mb],
        "rss_grew_mb": rss_mb[-1] - rss_mb[0],
        "requests_per_s": per_s,
    }


async def streamed(port: int, pid: int, number: int) -> dict[str, Any]:
    """Memory of the gateway with so many streams that say no more."""
    gateway = psutil.Process(pid)
    await load(port, ROUTED, CONNECTIONS[0], most=WARM // CONNECTIONS[0])
    before_mb = gateway.memory_info().rss / 1e6
    opened = await idle_streams(port, number)
    with_mb = gateway.memory_info().rss / 1e6
    for writer in opened:
        writer.transport.abort()
    return {"streams": number, "rss_mb": with_mb, "rss_grew_mb": with_mb - before_mb}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    pin(0, proxy=False)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        upstream, _ = stack.enter_context(process("upstream"))
        url = f"http://127.0.0.1:{upstream}"
        gateway, pid = stack.enter_context(process("gateway", url, arguments.rows))
        if arguments.soak:
            return uvloop.run(soaked(gateway, pid, arguments.soak))
        if arguments.streams:
            return uvloop.run(streamed(gateway, pid, arguments.streams))
        bare, _ = stack.enter_context(process("bare", url))
        ports = {"direct": upstream, "bare": bare, "gateway": gateway}
        rates, medians = uvloop.run(measure(ports, arguments.seconds, arguments.rounds))
        half_per_s = statistics.median(rates["gateway"][CONNECTIONS[0]]) / 2
        half = uvloop.run(measure_half(ports, half_per_s, arguments.seconds, arguments.rounds))
    p50_s = {name: statistics.median(values) for name, values in medians.items()}
    p99_s = {name: statistics.median(told.p99_s for told in half[name]) for name in half}
    return {
        "rows": arguments.rows,
        "p50_added_ms": (p50_s["gateway"] - p50_s["direct"]) * 1e3,
        "p50_added_by_bare_proxy_ms": (p50_s["bare"] - p50_s["direct"]) * 1e3,
        **{f"ratio_to_bare_proxy_{n}": _ratio(rates, "bare", n) for n in CONNECTIONS},
        "p99_added_at_half_load_ms": (p99_s["gateway"] - p99_s["direct"]) * 1e3,
        "p99_added_by_bare_proxy_ms": (p99_s["bare"] - p99_s["direct"]) * 1e3,
        "half_load_per_s": half_per_s,
        "requests_per_s": {
            name: {n: round(statistics.median(values)) for n, values in by.items()}
            for name, by in rates.items()
        },
        "p50_ms_per_round": {
            name: [round(value * 1e3, 4) for value in values] for name, values in medians.items()
        },
        "beside_peers": _beside_peers(arguments) if arguments.peers else {},
        "pinned": len(CORES) > 1,
        "goals": GOALS,
    }


def _beside_peers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each peer beside the gateway, both anew: a peer is not idle when nobody asks it."""
    beside: dict[str, Any] = {}
    for peer in PEERS:
        with ExitStack() as stack:
            upstream, _ = stack.enter_context(process("upstream"))
            url = f"http://127.0.0.1:{upstream}"
            gateway, _ = stack.enter_context(process("gateway", url, arguments.rows))
            port, pid, reason = stack.enter_context(running(peer, url))
            if port is None:
                beside[peer.name] = {"skipped": reason}
                continue
            pin(pid, proxy=True)
            ports = {"direct": upstream, peer.name: port, "gateway": gateway}
            rates, medians = uvloop.run(measure(ports, arguments.seconds, arguments.rounds))
        p50_s = {name: statistics.median(values) for name, values in medians.items()}
        beside[peer.name] = {
            **{f"ratio_to_it_{n}": _ratio(rates, peer.name, n) for n in CONNECTIONS},
            "p50_added_by_it_ms": (p50_s[peer.name] - p50_s["direct"]) * 1e3,
            "p50_added_by_gateway_ms": (p50_s["gateway"] - p50_s["direct"]) * 1e3,
        }
    return beside


def _ratio(rates: Rates, other: str, connections: int) -> float:
    """Median over the rounds: both sides of a round met the same machine."""
    pairs = zip(rates["gateway"][connections], rates[other][connections], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rows", type=int, default=1000, help="deployments in the topology")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of each measurement")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="only send N requests")
    parser.add_argument("--streams", type=int, default=0, metavar="N", help="only hold N streams")
    parser.add_argument(
        "--no-peers", dest="peers", action="store_false", help="do not measure public gateways"
    )
    arguments = parser.parse_args()
    show(run(arguments), as_json=arguments.json)


def show(result: dict[str, Any], *, as_json: bool) -> None:
    """Print figures by name."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    table = Table("figure", "value")
    for name, value in result.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
