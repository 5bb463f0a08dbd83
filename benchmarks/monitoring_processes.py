"""Processes that `benchmarks.monitoring` measures: a collector without arguments, or `KIND URL ROWS
COLLECTOR`, a gateway like that of `benchmarks.gateway_processes`.

Each prints where it listens: a collector its URL, a gateway its port and the URL of its metrics,
`-` for none.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvloop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.gateway_processes import ORIGIN, View, nobody, topology
from daitn.identity.keys import SigningKey
from daitn.node.config import GatewayConfig
from daitn.node.gateway import Gateway
from daitn.node.gateway.metrics import GatewayMetrics
from daitn.oam.monitoring.exposition import MetricsServer
from daitn.oam.monitoring.traces import Traces
from daitn.tools.monitoring.config import MetricsConfig, TracesConfig

RATIO = 0.1


class Uncounted(GatewayMetrics):
    """Counts nothing."""

    def ended(self, *told: Any) -> None:
        """Nothing."""

    def refused(self, *told: Any) -> None:
        """Nothing."""


async def gateway(kind: str, url: str, rows: int, collector: str) -> None:
    traced = TracesConfig(endpoint=collector, ratio=RATIO)
    traces = Traces(traced if kind == "traced" else TracesConfig(), kind="node", site=ORIGIN)
    serving = Gateway(
        ORIGIN,
        GatewayConfig(listen="127.0.0.1:0", max_in_flight=10_000),
        View(topology(url, rows)),
        SigningKey.generate(),
        nobody,
        lambda text: ("medicine", 1.0),
        tracer=traces.tracer,
    )
    metrics = "-"
    if kind == "uncounted":
        serving._metrics = Uncounted()
    else:
        server = MetricsServer(
            MetricsConfig(listen="127.0.0.1:0"),
            (serving.measured,),
            kind="node",
            site=ORIGIN,
            state=Path(tempfile.mkdtemp()),
            usual="",
        )
        await server.start()
        metrics = server.url
    await serving.start()
    print(serving.descriptor().endpoint.rpartition(":")[2], metrics, flush=True)
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
        uvloop.run(gateway(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
