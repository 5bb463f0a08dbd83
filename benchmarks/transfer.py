"""How fast a model moves: `python -m benchmarks.transfer [--json]`.

All processes are real and communicate over loopback. In each round one holder serves and this
process fetches: once with `ChunkTransport.fetch` (chunks are read and checked at the holder, then
checked and stored as files here), once with plain Zenoh gets of the same chunks, which the holder
has in memory and this process discards. They alternate in going first, so neither always benefits
from the warmer machine. The goal is a ratio of 0.70 of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import zenoh
from rich.console import Console
from rich.table import Table

from benchmarks.transfer_holder import RAW_KEY
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.models import ModelRef
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.exchange import WINDOW
from daitn.tools.mobility.manifests import chunk_sizes
from daitn.tools.mobility.transport import ChunkTransport

GOAL = 0.70
ROUNDS = 4


class Holder:
    """A child process that holds a model; see `transfer_holder`."""

    def __init__(self, site: str, folder: Path, size_bytes: int) -> None:
        self.site = SiteId(site)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.transfer_holder", site, folder, str(size_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> tuple[str, str, Digest]:
        """Its endpoints, of the fabric and of the plain session, and its model."""
        assert self._process.stdout is not None
        endpoint, raw_endpoint, digest = self._process.stdout.readline().split()
        return endpoint, raw_endpoint, Digest(digest)

    def close(self) -> None:
        self._process.communicate(timeout=30)


async def fetch_mb_s(endpoints: list[str], model: ModelRef, folder: Path) -> float:
    """MB/s of a fetch into an empty store."""
    fabric = await open_zenoh(
        FabricSettings(listen=("tcp/127.0.0.1:0",), connect=tuple(endpoints)), connect_timeout_s=10
    )
    store = DiskBlobStore(folder)
    transport = ChunkTransport(fabric, SiteId("fetcher"), store)
    try:
        await asyncio.sleep(1.0)
        began_s = time.perf_counter()
        moved = await transport.fetch(model, lambda done, total: None)
        seconds = time.perf_counter() - began_s
        assert store.complete(model.manifest), "the fetch left something out"
        assert moved.bytes_in > model.size_bytes, "chunks were here before the fetch"
    finally:
        await transport.close()
        await fabric.close()
    return model.size_bytes / seconds / 1e6


def raw_mb_s(endpoint: str, digests: list[Digest], size_bytes: int, window: int) -> float:
    """MB/s of plain Zenoh gets, `window` at a time."""
    config = zenoh.Config()
    config.insert_json5("scouting/multicast/enabled", "false")
    # As on the fabric: sites share no memory.
    config.insert_json5("transport/shared_memory/enabled", "false")
    config.insert_json5("connect/endpoints", json.dumps([endpoint]))
    with zenoh.open(config) as session:
        time.sleep(1.0)
        room = threading.Semaphore(window)
        got = [0]

        def replied(reply: zenoh.Reply) -> None:
            assert reply.ok is not None
            got[0] += len(bytes(reply.ok.payload))

        def ended() -> None:
            room.release()

        began_s = time.perf_counter()
        for digest in digests:
            room.acquire()
            session.get(
                RAW_KEY,
                zenoh.handlers.Callback(replied, ended, indirect=False),
                payload=digest.encode(),
                consolidation=zenoh.ConsolidationMode.NONE,
                congestion_control=zenoh.CongestionControl.BLOCK,
            )
        for _ in range(window):
            room.acquire()
        seconds = time.perf_counter() - began_s
    assert got[0] == size_bytes, f"{got[0]} bytes came, the model has {size_bytes}"
    return size_bytes / seconds / 1e6


def measure(size_mib: int, holders: int, scratch: Path) -> dict[str, Any]:
    """One row of the table: medians over `ROUNDS` rounds."""
    size_bytes = size_mib << 20
    running = [Holder(f"holder-{i}", scratch / f"holder-{i}", size_bytes) for i in range(holders)]
    try:
        served = [holder.ready() for holder in running]
        endpoints = [endpoint for endpoint, _, _ in served]
        _, raw_endpoint, digest = served[0]
        sites = tuple(holder.site for holder in running)
        model = ModelRef(manifest=digest, size_bytes=size_bytes, holders=sites)
        digests = list(chunk_sizes(DiskBlobStore(scratch / "holder-0").manifest(digest)))
        found: dict[str, list[float]] = {"fetch": [], "raw": [], "raw_single": []}
        for round_ in range(ROUNDS):
            kinds = list(found) if round_ % 2 else list(reversed(found))
            for kind in kinds:
                if kind == "fetch":
                    with tempfile.TemporaryDirectory(dir=scratch) as folder:
                        rate = asyncio.run(fetch_mb_s(endpoints, model, Path(folder)))
                else:
                    window = 1 if kind == "raw_single" else WINDOW
                    rate = raw_mb_s(raw_endpoint, digests, size_bytes, window)
                found[kind].append(rate)
    finally:
        for holder in running:
            holder.close()
    row: dict[str, Any] = {f"{k}_mb_s": round(statistics.median(v), 1) for k, v in found.items()}
    ratio = row["fetch_mb_s"] / row["raw_mb_s"]
    return {"model_mib": size_mib, "holders": holders, **row, "ratio": round(ratio, 3)}


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"Model transfer over loopback, medians of {ROUNDS} rounds, in MB/s")
    titles = ("model MiB", "holders", "fetch", "raw pipelined", "raw one by one", "ratio")
    for title in titles:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    Console().print(f"ratio: fetch to raw pipelined, from holder-0 alone; goal >= {GOAL:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 256], metavar="MIB", help="sizes of the models"
    )
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size_mib in arguments.sizes:
        for holders in (1, 2):
            with tempfile.TemporaryDirectory() as scratch:
                rows.append(measure(size_mib, holders, Path(scratch)))
    if arguments.json:
        print(json.dumps({"goal": GOAL, "rounds": ROUNDS, "rows": rows}, indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    main()
