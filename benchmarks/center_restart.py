"""How long a control centre takes to start on a journal of very many facts:
`python -m benchmarks.center_restart [--facts 1000000] [--first] [--folder FOLDER] [--json]`.

The journal is an SQLite database of ended jobs with 27 facts each: four visits measured by two
verifiers, their costs in the ledger, and a model. The whole control centre is started over the
in-memory fabric (`again`). With `--first` an earlier version left the journal, and a start before
that reads every job back from its facts and writes its outline (`first`). The output shows the
seconds until it listens and until ended jobs are processed, the memory that each start added, and
the size of the database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import re
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psutil
import sqlalchemy as sa
from blake3 import blake3
from tests.control.jobs.world import World

from daitn.center.config import CenterConfig
from daitn.center.ended_jobs import EndedJob
from daitn.center.service import ControlCenter
from daitn.center.stored_events import StoredEvent
from daitn.control.jobs.job import Job
from daitn.objects.accounts import LedgerEntry
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.jobs import JobState, Reported
from daitn.objects.lineage import Entry
from daitn.objects.wire import decode, encode
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.journal.sql import SqlJournal
from daitn.tools.journal.tables import EVENTS, JOBS

BEGAN_S: Final = time.time() - 7 * 86_400.0
NAME: Final = "qa-0000000"
_MODEL: Final = re.compile(rb"0+qa-0000000\.\d+")
AT_ONCE: Final = 500
"""Jobs in one transaction."""


class Template:
    """A job that has reached its targets, and what the journal holds of it and its likes."""

    def __init__(self) -> None:
        world = World(job=NAME)
        world.run()
        self.job = world.job
        assert self.job.state is JobState.REACHED
        self.facts = [
            (encode(StoredEvent(event, BEGAN_S + at_s)), BEGAN_S + at_s)
            for event, at_s in world.facts
        ]
        self._entries = [encode(entry) for entry in self.job.entries]
        self._records = {
            "model": encode(model_of(self.job)),
            "ended-job": encode(EndedJob.of(self.job, len(self.facts))),
        }

    def facts_of(self, name: str) -> list[tuple[bytes, float]]:
        """Those of a job of another name. Entries of its lineage name those that they build on by
        digests, in which the name is."""
        renamed: dict[bytes, bytes] = {}
        found = []
        for stored, at_s in self.facts:
            own = of_job(stored, name)
            for old, new in renamed.items():
                own = own.replace(old, new)
            for before, after in zip(entries_in(stored), entries_in(own), strict=True):
                renamed[before.digest.encode()] = after.digest.encode()
            found.append((own, at_s))
        return found

    def entries_of(self, name: str) -> list[LedgerEntry]:
        return [decode(of_job(entry, name), LedgerEntry) for entry in self._entries]

    def records_of(self, name: str, *, outlines: bool) -> dict[tuple[str, str], bytes]:
        return {
            (kind, name): of_job(record, name)
            for kind, record in self._records.items()
            if outlines or kind == "model"
        }


def of_job(data: bytes, name: str) -> bytes:
    """The same of a job of another name, which is as long, with models of its own."""

    def model(found: re.Match[bytes]) -> bytes:
        return blake3(name.encode() + found.group()).hexdigest().encode()

    return _MODEL.sub(model, data).replace(NAME.encode(), name.encode())


def entries_in(stored: bytes) -> list[Entry]:
    event = decode(stored, StoredEvent).event
    entry = event.outcome.entry if isinstance(event, Reported) else None
    return [entry] if entry else []


def fill(path: Path, facts: int, *, outlines: bool) -> int:
    """Write a journal of so many facts. Returns the number of jobs."""
    template, url = Template(), f"sqlite:///{path}"
    jobs = -(-facts // len(template.facts))
    journal, engine = SqlJournal(url), sa.create_engine(url)
    for first in range(1, jobs + 1, AT_ONCE):
        some = range(first, min(jobs + 1, first + AT_ONCE))
        names = {number: f"qa-{number:07}" for number in some}
        rows = [
            {"job_id": at, "seq": seq, "at_s": at_s, "event": stored}
            for at, name in names.items()
            for seq, (stored, at_s) in enumerate(template.facts_of(name), 1)
        ]
        with engine.begin() as connection:
            connection.execute(
                sa.insert(JOBS), [{"id": at, "job": name} for at, name in names.items()]
            )
            connection.execute(sa.insert(EVENTS), rows)
        records: dict[tuple[str, str], bytes] = {}
        for name in names.values():
            records |= template.records_of(name, outlines=outlines)
        journal.post([one for name in names.values() for one in template.entries_of(name)], records)
    engine.dispose()
    journal.close()
    return jobs


def model_of(job: Job) -> ModelDescriptor:
    """What the control centre tells of the job's model."""
    best = job.best
    assert best is not None
    return ModelDescriptor(
        name=job.id, owner=job.intent.owner, recipe="classifier",
        manifest=best.model.manifest, size_bytes=1, measured={}, holders=best.model.holders,
        created_at_s=BEGAN_S, config={},
    )  # fmt: skip


async def started(folder: Path) -> dict[str, float]:
    process = psutil.Process()
    before_mb = process.memory_info().rss / 1e6
    config = CenterConfig(state=str(folder), insecure=True)
    fabric = MemoryNetwork().open("center")
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    center = ControlCenter(config, fabric)
    await center.start()
    listens_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    while center._jobs.unsettled():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    done_s = time.perf_counter() - began_s
    added_mb = process.memory_info().rss / 1e6 - before_mb
    jobs = sum(center._jobs.states().values())
    await center.close()
    return {
        "jobs": jobs,
        "listens_s": round(listens_s, 2),
        "cpu_s": round(cpu_s, 2),
        "ended jobs seen to_s": round(done_s, 2),
        "memory_mb": round(added_mb, 1),
    }


def _start(folder: str) -> dict[str, float]:
    return asyncio.run(started(Path(folder)))


def measured(facts: int, folder: Path, *, first: bool) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "jobs.db"
    found: dict[str, Any] = {"facts": facts}
    if not database.exists():
        found["jobs"] = fill(database, facts, outlines=not first)
    spawn = multiprocessing.get_context("spawn")
    for turn in ("first", "again")[not first :]:
        with spawn.Pool(1) as pool:  # Memory of a process of its own.
            found[turn] = pool.apply(_start, (str(folder),))
    found["database_mb"] = round(sum(f.stat().st_size for f in folder.glob("jobs.db*")) / 1e6, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.center_restart")
    parser.add_argument("--facts", type=int, default=1_000_000, help="facts in the journal")
    parser.add_argument("--first", action="store_true", help="measure the first start too")
    parser.add_argument("--folder", type=Path, help="keep the control centre's state here")
    parser.add_argument("--json", action="store_true", help="print JSON on one line")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        found = measured(asked.facts, asked.folder or Path(made), first=asked.first)
    print(json.dumps(found, indent=None if asked.json else 1))


if __name__ == "__main__":
    main()
