"""Processes that `benchmarks.monitoring` measures: a collector without arguments, or `URL ROWS
COLLECTOR TURNS`, a gateway like that of `benchmarks.gateway_processes` that switches settings.

A collector prints its URL. The gateway prints its port and how many requests it wants, and at the
end their CPU time, as JSON.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvloop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.gateway_processes import ORIGIN, serving_gateway
from daitn.node.gateway import Gateway
from daitn.node.gateway.metrics import GatewayMetrics
from daitn.oam.monitoring.exposition import MetricsServer
from daitn.oam.monitoring.traces import Traces
from daitn.tools.monitoring.config import MetricsConfig, TracesConfig
from daitn.tools.monitoring.tracing import OFF

RATIO = 0.1
TURN, SETTLE = 512, 512
"""Requests that are timed of each turn, and those before them, while requests of the turn before
are still under way and its spans are sent."""


class Uncounted(GatewayMetrics):
    """Counts nothing."""

    def ended(self, *told: Any) -> None:
        """Nothing."""

    def refused(self, *told: Any) -> None:
        """Nothing."""


class Turns:
    """Changes the ways of a gateway, and times each turn."""

    def __init__(self, gateway: Gateway, traces: Traces, turns: int) -> None:
        self._gateway = gateway
        self._ways = {
            "uncounted": (Uncounted(), OFF),
            "counted": (GatewayMetrics(), OFF),
            "traced": (GatewayMetrics(), traces.tracer),
        }
        # In a new order each time, so that none of them always follows the same other one.
        rng, ways = random.Random(1), list(self._ways)
        self._order = [way for _ in range(turns) for way in rng.sample(ways, len(ways))]
        self.cpu_s: dict[str, list[float]] = {name: [] for name in self._ways}
        self.requests = len(self._order) * (TURN + SETTLE)
        self.done = asyncio.Event()
        self._count = 0
        self._began_s = 0.0
        self._inner = gateway._serve
        gateway._api._serve = self._serve

    def _serve(self, *asked: Any) -> Any:
        at = self._count % (TURN + SETTLE)
        if at == 0:
            self._change()
        elif at == SETTLE:
            self._began_s = time.thread_time()
        self._count += 1
        return self._inner(*asked)

    def _change(self) -> None:
        turn = self._count // (TURN + SETTLE)
        if turn:
            self.cpu_s[self._order[turn - 1]].append((time.thread_time() - self._began_s) / TURN)
        if turn < len(self._order):
            self._gateway._metrics, self._gateway._tracer = self._ways[self._order[turn]]
        else:
            self.done.set()


async def gateway(url: str, rows: int, collector: str, turns: int) -> None:
    traced = TracesConfig(endpoint=collector, ratio=RATIO)
    traces = Traces(traced, kind="node", site=ORIGIN)
    serving = serving_gateway(url, rows)
    server = MetricsServer(
        MetricsConfig(listen="127.0.0.1:0"),
        (serving.measured,),
        kind="node",
        site=ORIGIN,
        state=Path(tempfile.mkdtemp()),
        usual="",
    )
    await server.start()
    await serving.start()
    measured = Turns(serving, traces, turns)
    # One more than the turns need: the last one ends with the next request.
    wanted = measured.requests + 1
    print(serving.descriptor().endpoint.rpartition(":")[2], wanted, flush=True)
    await measured.done.wait()
    await traces.close()
    scrape_s = []
    for _ in range(20):
        began_s = time.thread_time()
        await asyncio.to_thread(lambda: urllib.request.urlopen(server.url).read())
        scrape_s.append(time.thread_time() - began_s)
    print(json.dumps({"cpu_s": measured.cpu_s, "scrape_s": scrape_s}), flush=True)
    await asyncio.Event().wait()


def collect() -> None:
    """Take spans, read and count them."""
    counted, lock = [0], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            request = ExportTraceServiceRequest()
            zipped = self.headers.get("content-encoding") == "gzip"
            request.ParseFromString(gzip.decompress(body) if zipped else body)
            with lock:
                counted[0] += sum(
                    len(scope.spans)
                    for resource in request.resource_spans
                    for scope in resource.scope_spans
                )
            self._say(b"")

        def do_GET(self) -> None:
            self._say(str(counted[0]).encode())

        def _say(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        collect()
    else:
        uvloop.run(gateway(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
