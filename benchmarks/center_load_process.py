"""A control centre for `benchmarks.center_load`: `... FOLDER ENDPOINT`.

It prints its state as a line of JSON twice a second, and stops when its input ends.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path

import msgspec
import psutil
import uvloop

from daitn.center.config import CenterConfig
from daitn.center.service import ControlCenter
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh

__all__ = ["Told"]

TOLD_EVERY_S = 0.5
LOOKED_EVERY_S = 0.005


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """How a control centre does."""

    at_s: float
    resident_mb: float
    cpu_s: float
    """Of processor time since it began."""
    stall_ms: float
    """By how much the event loop was late at the most since the last line."""
    journal_mb: float
    """Of the database and what it has not merged into it yet."""
    began_s: float = 0.0
    """How long its start took."""


async def told(folder: Path, began_s: float) -> None:
    process, next_s, worst_s = psutil.Process(), 0.0, 0.0
    while True:
        asked_s = time.perf_counter()
        await asyncio.sleep(LOOKED_EVERY_S)
        now_s = time.perf_counter()
        worst_s = max(worst_s, now_s - asked_s - LOOKED_EVERY_S)
        if now_s >= next_s:
            files = folder.glob("jobs.db*")
            cpu = process.cpu_times()
            line = Told(
                at_s=time.time(),
                resident_mb=process.memory_info().rss / 1e6,
                cpu_s=cpu.user + cpu.system,
                stall_ms=1000 * worst_s,
                journal_mb=sum(file.stat().st_size for file in files) / 1e6,
                began_s=began_s,
            )
            print(msgspec.json.encode(line).decode(), flush=True)
            next_s, worst_s = now_s + TOLD_EVERY_S, 0.0


async def run(folder: Path, endpoint: str) -> None:
    """Until its input ends."""
    config = CenterConfig(listen=(endpoint,), state=str(folder), insecure=True, open_jobs=100_000)
    fabric = await open_zenoh(FabricSettings(mode="router", listen=(endpoint,)))
    began_s = time.perf_counter()
    center = ControlCenter(config, fabric)
    await center.start()
    telling = asyncio.create_task(told(folder, time.perf_counter() - began_s))
    await asyncio.to_thread(sys.stdin.read)
    telling.cancel()
    await center.close()
    await fabric.close()


if __name__ == "__main__":
    gc.freeze()  # As the command does, once all is imported.
    uvloop.run(run(Path(sys.argv[1]), sys.argv[2]))
