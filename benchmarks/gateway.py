"""What a gateway costs: `python -m benchmarks.gateway [--json] [--rows 1000] [--soak N]`.

An upstream that answers at once, a bare reverse proxy (Starlette, aiohttp, uvicorn with httptools
under uvloop), the gateway and, where it installs, LiteLLM's proxy are processes of their own; this
process asks them in turn, round by round. The gateway decides on every request over `--rows`
deployments, and its topology changes with every answer. `--soak` asks the gateway N times and
tells its memory when it is warm and after each tenth of them.

Where there are two cores, each proxy has the last one to itself, and this process and the upstream
share the first. Left to the scheduler, a direct round trip takes 25 us when both ends happen to be
on one core and 75 us when they are not, which would decide `p50_added_ms`; this way it is always
the shorter one, so that what is added is never told too small.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

CORES = os.sched_getaffinity(0)
"""As they were before this process was pinned."""
CONNECTIONS = 32
WARM = 20_000
"""Requests before memory is first looked at: pools and rings are full then."""
SOAK_PARTS = 10
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "daitn-benchmarks"
LITELLM_STARTS_WITHIN_S = 90.0
GOALS = {"p50_added_ms": 1.0, "ratio_to_bare_proxy": 0.8, "ratio_to_litellm": 30.0}
KEY = f"sk-{secrets.token_hex(32)}"
QUESTION = (
    "What are the treatments for asthma?\n\nA) rest\nB) inhalers\n\nAnswer with the letter only."
)


def request(model: str, constraints: dict[str, Any] | None = None) -> bytes:
    """A whole HTTP request."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 16,
        "temperature": 0,
    }
    if constraints is not None:
        body["daitn"] = constraints
    sent = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: benchmark\r\n"
        f"authorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
    )
    return head.encode() + sent


PLAIN = request("m")
ROUTED = request("auto", {"topic": "medicine", "min_accuracy": 0.7})


async def asked(port: int, message: bytes, until_s: float, most: int, took_s: list[float]) -> None:
    """One connection, one request after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(most):
        began_s = time.perf_counter()
        if began_s >= until_s:
            break
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200 "), head
        if b"transfer-encoding: chunked" in head:
            size = -1
            while size:
                size = int(await reader.readline(), 16)
                await reader.readexactly(size + 2)
        else:
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)
        took_s.append(time.perf_counter() - began_s)
    writer.close()


async def load(
    port: int, message: bytes, connections: int, *, seconds: float = 1e9, most: int = sys.maxsize
) -> tuple[float, float]:
    """Requests per second, and the median time of one. `most`: requests per connection."""
    took_s: list[float] = []
    began_s = time.perf_counter()
    until_s = began_s + seconds
    await asyncio.gather(*(asked(port, message, until_s, most, took_s) for _ in range(connections)))
    return len(took_s) / (time.perf_counter() - began_s), statistics.median(took_s)


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


@contextmanager
def litellm(url: str) -> Iterator[tuple[int | None, str]]:
    """Port of LiteLLM's proxy, or none and why. It wants a key, which `PLAIN` shows."""
    home = CACHE / "litellm"
    try:
        if not (home / "bin" / "litellm").exists():
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            pip = [str(home / "bin" / "pip"), "install", "-q", "litellm[proxy]"]
            subprocess.run(pip, check=True, capture_output=True, timeout=600)
    except (subprocess.SubprocessError, OSError) as error:
        yield None, f"it does not install: {error}"
        return
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        upstream = {"model": "openai/m", "api_base": f"{url}/v1", "api_key": "none"}
        config.write_text(
            json.dumps({"model_list": [{"model_name": "m", "litellm_params": upstream}]})
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        log = Path(folder) / "log"
        with log.open("wb") as told:
            started = subprocess.Popen(
                [str(home / "bin" / "litellm"), "--config", str(config), "--port", str(port)],
                stdout=told,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                    "LITELLM_MASTER_KEY": KEY,
                },
                start_new_session=True,
            )
        pin(started.pid, proxy=True)
        try:
            if starts(port):
                yield port, ""
            else:
                said = " ".join(log.read_text(errors="replace").split()[-60:])
                yield None, f"it does not answer within {LITELLM_STARTS_WITHIN_S:g} s: {said}"
        finally:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def starts(port: int) -> bool:
    until_s = time.monotonic() + LITELLM_STARTS_WITHIN_S
    while time.monotonic() < until_s:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/health/liveliness", timeout=2
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.5)
    return False


async def measure(
    ports: dict[str, int], seconds: float, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Per round: requests per second at 32 connections, and median seconds at one."""
    rates: dict[str, list[float]] = {name: [] for name in ports}
    medians: dict[str, list[float]] = {name: [] for name in ports}
    for number in range(rounds):
        order = list(ports.items())
        for name, port in order if number % 2 else reversed(order):
            message = ROUTED if name == "gateway" else PLAIN
            await load(port, message, CONNECTIONS, seconds=seconds / 4)
            rates[name].append((await load(port, message, CONNECTIONS, seconds=seconds))[0])
            medians[name].append((await load(port, message, 1, seconds=seconds))[1])
    return rates, medians


async def soaked(port: int, pid: int, requests: int) -> dict[str, Any]:
    """Memory of the gateway at points of so many requests, the first of them when it is warm."""
    gateway, each = psutil.Process(pid), max(1, requests // SOAK_PARTS // CONNECTIONS)
    await load(port, ROUTED, CONNECTIONS, most=WARM // CONNECTIONS)
    rss_mb, per_s = [gateway.memory_info().rss / 1e6], []
    for _ in range(SOAK_PARTS):
        rate, _ = await load(port, ROUTED, CONNECTIONS, most=each)
        per_s.append(round(rate))
        rss_mb.append(gateway.memory_info().rss / 1e6)
    return {
        "requests": SOAK_PARTS * each * CONNECTIONS,
        "rss_mb": [round(value, 1) for value in rss_mb],
        "rss_grew_mb": rss_mb[-1] - rss_mb[0],
        "requests_per_s": per_s,
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    pin(0, proxy=False)
    with ExitStack() as stack:
        upstream, _ = stack.enter_context(process("upstream"))
        url = f"http://127.0.0.1:{upstream}"
        gateway, pid = stack.enter_context(process("gateway", url, arguments.rows))
        if arguments.soak:
            return uvloop.run(soaked(gateway, pid, arguments.soak))
        bare, _ = stack.enter_context(process("bare", url))
        ports = {"direct": upstream, "bare": bare, "gateway": gateway}
        rates, medians = uvloop.run(measure(ports, arguments.seconds, arguments.rounds))
        other, reason = None, "not asked for"
        if arguments.litellm:
            port, reason = stack.enter_context(litellm(url))
            if port is not None:
                pair = {"litellm": port, "gateway": gateway}
                other, _ = uvloop.run(measure(pair, arguments.seconds, arguments.rounds))
    # The gateway is measured anew beside LiteLLM, which is not idle when nobody asks it.
    beside = {} if other is None else other
    told = rates | {
        "gateway_beside_litellm" if name == "gateway" else name: values
        for name, values in beside.items()
    }
    p50_s = {name: statistics.median(values) for name, values in medians.items()}
    return {
        "rows": arguments.rows,
        "p50_added_ms": (p50_s["gateway"] - p50_s["direct"]) * 1e3,
        "p50_added_by_bare_proxy_ms": (p50_s["bare"] - p50_s["direct"]) * 1e3,
        "ratio_to_bare_proxy": ratio(rates, "bare"),
        "ratio_to_litellm": None if other is None else ratio(other, "litellm"),
        "litellm_skipped": reason or None,
        "requests_per_s": {name: statistics.median(values) for name, values in told.items()},
        "p50_ms": {name: value * 1e3 for name, value in p50_s.items()},
        "p50_ms_per_round": {
            name: [round(value * 1e3, 4) for value in values] for name, values in medians.items()
        },
        "requests_per_s_per_round": {
            name: [round(value) for value in values] for name, values in told.items()
        },
        "pinned": len(CORES) > 1,
        "goals": GOALS,
    }


def ratio(rates: dict[str, list[float]], other: str) -> float:
    """Median over the rounds: both sides of a round met the same machine."""
    pairs = zip(rates["gateway"], rates[other], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rows", type=int, default=1000, help="deployments in the topology")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="only ask N times")
    parser.add_argument("--no-litellm", dest="litellm", action="store_false")
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
