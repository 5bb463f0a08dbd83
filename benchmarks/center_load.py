"""The control centre with many sites and jobs: `python -m benchmarks.center_load [--json]
[--sites 2000] [--jobs 200] [--seconds 60] [--work 30] [--folder FOLDER]`.

The whole control centre runs in a separate process, on SQLite, behind a real Zenoh router. One
other process plays all sites, over one session, and sends the commands. Each site has a liveliness
token and a signed descriptor with data and a computer, every 50th is a verifier, and all report
their load and their distance to eight peers, in turn, every five seconds. They report work that
they receive as done, signed, after half a minute (`--work`). A visit improves the job's model a
little, so its targets are reached after three to five. Whenever a job ends, another is submitted,
so the number of open jobs is constant. Sites sign what they sign themselves, but the network is
insecure, as on one machine: no envelope is signed or checked.

The output shows the latencies of commands as their sender sees them (`submit`, `get` one job,
`list` the latest 50, `explain` its decisions, `dry run` of an intent, `cancel`), the control
centre's memory, CPU time and longest stalls of its event loop, and the growth of its journal per
job. With an existing folder, the control centre continues where it ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks.center_load_process import Told
from benchmarks.topology import INTENT, named, site
from daitn.identity.keys import SigningKey, key_mark
from daitn.identity.signing import sign_advert, sign_entry, sign_report
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import Digest, JobId, SiteId
from daitn.objects.jobs import JobState, JobView, WorkNeeds
from daitn.objects.lineage import LineageFact, Origin, Verification, Visit
from daitn.objects.messages import (
    MergeWork,
    Sensed,
    VerifyWork,
    Work,
    WorkOutcome,
    WorkState,
    WorkStatus,
)
from daitn.objects.models import ModelRef
from daitn.objects.readings import LinkReading, LoadReading, Reading
from daitn.objects.requests import AssessIntent, JobQuery, JobsWanted, SubmitIntent
from daitn.objects.wire import decode, encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.fabric.settings import FabricSettings
from daitn.tools.fabric.zenoh import open_zenoh
from daitn.tools.ports import free_port
from daitn.tools.tasks import Tasks
from daitn.topology.network import fair_share

SENSED_EVERY_S, PEERS = 5.0, 8
"""As real sites do."""
ASKED_EVERY_S = 0.25
ASSESSED_EVERY_S = 2.0
TIMEOUT_S = 60.0
_WORK: msgspec.msgpack.Decoder[Work] = msgspec.msgpack.Decoder(Work)
NEEDS = WorkNeeds(
    data_schema="qa-pairs/1",
    test_schema="multiple-choice/1",
    parameters=300_000,
    flops_per_example=1e6,
    memory_bytes=10**9,
    size_bytes=10**6,
)


class Sites:
    """All sites, on one session."""

    def __init__(self, fabric: Fabric, count: int, work_s: float) -> None:
        self._work_s = work_s
        rng = random.Random(count)
        self._fabric = fabric
        self._rng = rng
        self._rounds = 0
        self._keys = {named(index): SigningKey.generate() for index in range(count)}
        self._adverts = {}
        for index, (name, key) in enumerate(self._keys.items()):
            described = msgspec.structs.replace(
                site(index, rng), public_key=key.public, started_at_s=time.time()
            )
            self._adverts[name] = encode(sign_advert(described, key))
        self._names = list(self._keys)
        self._begun: set[str] = set()
        self._taught: Counter[str] = Counter()
        self._tasks = Tasks()
        self.asked: Counter[str] = Counter()

    async def start(self) -> None:
        await self._fabric.serve("daitn/site/*/do/*", self._on_request)
        for name, key in self._keys.items():
            await self._fabric.announce(keys.site_alive(name, key_mark(key.public)))
        self._tasks.repeat(self._sense, "readings")

    async def close(self) -> None:
        await self._tasks.close()

    async def _sense(self) -> None:
        count = len(self._names)
        peers = min(count - 1, fair_share(count))
        for index, name in enumerate(self._names):
            now_s = time.time()

            def reading(value: float, at_s: float = now_s, of: SiteId = name) -> Reading:
                return Reading(value, at_s, of)

            links = tuple(
                LinkReading(
                    source=name,
                    target=self._names[(index + 1 + place % peers) % count],
                    rtt_s=reading(self._rng.uniform(0.001, 0.09)),
                    throughput_bps=reading(self._rng.uniform(1e6, 1e9)),
                )
                for place in range(PEERS * self._rounds, PEERS * (self._rounds + 1))
            )
            load = LoadReading(
                site=name,
                queue=reading(0.0),
                cpu_share=reading(self._rng.random()),
                disk_free_bytes=reading(1e11),
            )
            sensed = Sensed(site=name, links=links, load=load)
            await self._fabric.publish(keys.site_sensed(name), encode(sensed))
            await asyncio.sleep(SENSED_EVERY_S / count)
        self._rounds += 1

    async def _on_request(self, key: str, payload: bytes) -> bytes:
        name, verb = keys.site_of(key), keys.verb_of(key)
        self.asked[verb] += 1
        match verb:
            case "describe":
                return self._adverts[name]
            case "estimate":
                return encode(NEEDS)
            case "work":
                work = _WORK.decode(payload)
                if work.visit not in self._begun:
                    self._begun.add(work.visit)
                    self._tasks.spawn(self._do(name, work), work.visit)
                return encode(WorkStatus(state=WorkState.RUNNING))
        return b""

    async def _do(self, name: SiteId, work: Work) -> None:
        await asyncio.sleep(self._work_s * self._rng.uniform(0.5, 1.5))
        fact, made = self._fact(name, work), None
        if isinstance(fact, Origin):
            made = fact.model
        elif isinstance(fact, Visit):
            made = fact.model_out
        outcome = WorkOutcome(
            visit=work.visit,
            job=work.job,
            site=name,
            state=WorkState.DONE,
            entry=sign_entry(fact, work.previous, self._keys[name]),
            model=ModelRef(manifest=made, size_bytes=10**6, holders=(name,)) if made else None,
        )
        report = encode(sign_report(outcome, self._keys[name]))
        while True:
            try:
                await self._fabric.request(keys.center_do("report"), report, timeout_s=TIMEOUT_S)
            except DaitnError:
                await asyncio.sleep(1.0)
            else:
                return

    def _fact(self, name: SiteId, work: Work) -> LineageFact:
        now_s, made = time.time(), Digest(f"{abs(hash(work.visit)):0>64x}")
        about: dict[str, Any] = {
            "job": work.job, "visit": work.visit, "site": name, "at_s": now_s
        }  # fmt: skip
        took: dict[str, Any] = {"seconds": self._work_s, "transfer_s": 0.1, "bytes_in": 10**6}
        assert not isinstance(work, MergeWork)
        if isinstance(work, VerifyWork):
            value = min(0.95, 0.2 + 0.1 * self._taught[work.job])
            return Verification(
                **about, **took, model=work.model.manifest, topic=work.topic,
                metric=work.metric, value=value, items=400, standard_error=0.02,
            )  # fmt: skip
        if work.model is None:
            return Origin(**about, recipe=work.recipe, seed=work.seed, model=made)
        self._taught[work.job] += 1
        return Visit(
            **about, **took, dataset=work.dataset, overhead_s=0.01, examples=work.examples,
            loss=1.0, model_in=work.model.manifest, model_out=made, size_bytes=10**6,
        )  # fmt: skip


class Owner:
    """Submits jobs, so that as many are open all the time, and asks about them."""

    def __init__(self, fabric: Fabric, jobs: int) -> None:
        self._fabric = fabric
        self._jobs = jobs
        self._open: dict[JobId, None] = {}
        self._tasks = Tasks()
        self._rng = random.Random(jobs)
        self.took_ms: defaultdict[str, list[float]] = defaultdict(list)
        self.failed: Counter[str] = Counter()
        self.submitted = 0
        self.ended: Counter[str] = Counter()

    async def start(self) -> None:
        await self._fabric.subscribe("daitn/center/event/*", self._on_event)
        while self.submitted < self._jobs:
            await self._submit()
        for ask in (self._get, self._list, self._explain):
            self._tasks.repeat(self._every(ASKED_EVERY_S, ask), ask.__name__)
        for ask in (self._dry_run, self._cancel):  # Each has an intent assessed.
            self._tasks.repeat(self._every(ASSESSED_EVERY_S, ask), ask.__name__)

    async def close(self) -> None:
        await self._tasks.close()

    def forget(self) -> None:
        """What was measured until now was warming up."""
        self.took_ms.clear()
        self.failed.clear()
        self.ended.clear()

    def _every(
        self, pause_s: float, ask: Callable[[], Awaitable[None]]
    ) -> Callable[[], Awaitable[None]]:
        async def asked() -> None:
            await asyncio.sleep(pause_s)
            await ask()

        return asked

    async def _ask(self, what: str, verb: str, question: msgspec.Struct) -> bytes:
        began_s = time.perf_counter()
        try:
            answer = await self._fabric.request(
                keys.center_do(verb), encode(question), timeout_s=TIMEOUT_S
            )
        except DaitnError as error:
            self.failed[f"{what}: {type(error).__name__}"] += 1
            raise
        self.took_ms[what].append(1000 * (time.perf_counter() - began_s))
        return answer

    async def _submit(self) -> JobId:
        self.submitted += 1
        asked = SubmitIntent(intent=INTENT, insist=True)
        shown = decode(await self._ask("submit", "submit", asked), JobView)
        self._open[shown.job] = None
        return shown.job

    def _any(self) -> JobId:
        return self._rng.choice(list(self._open))

    async def _get(self) -> None:
        await self._ask("get", "jobs", JobQuery(job=self._any()))

    async def _list(self) -> None:
        await self._ask("list", "summaries", JobsWanted(limit=50))

    async def _explain(self) -> None:
        await self._ask("explain", "decisions", JobQuery(job=self._any()))

    async def _dry_run(self) -> None:
        await self._ask("dry run", "assess", AssessIntent(intent=INTENT))

    async def _cancel(self) -> None:
        """Of a job that was begun for that."""
        job = await self._submit()
        await self._ask("cancel", "cancel", JobQuery(job=job))

    async def _on_event(self, key: str, payload: bytes) -> None:
        job = keys.job_of(key)
        if job not in self._open:
            return
        shown = decode(payload, JobView)
        if shown.state.final:
            self._open.pop(job, None)
            self.ended[str(shown.state)] += 1
            if shown.state is not JobState.CANCELLED:
                self._tasks.spawn(self._again())

    async def _again(self) -> None:
        await self._submit()


class Center:
    """The control centre's process."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        command = [sys.executable, "-m", "benchmarks.center_load_process", str(folder), endpoint]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.told: list[Told] = []

    async def start(self) -> None:
        """Wait until it runs, then hear what it says."""
        await self._hear()
        self._hearing = asyncio.create_task(self._hear_on())

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.to_thread(self._process.wait)
        await self._hearing

    async def _hear(self) -> bool:
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        if line:
            self.told.append(msgspec.json.decode(line, type=Told))
        return bool(line)

    async def _hear_on(self) -> None:
        while await self._hear():
            pass


def quantiles(values: list[float]) -> dict[str, float]:
    """In milliseconds."""
    ranked = sorted(values)
    return {
        "asked": len(ranked),
        "p50_ms": round(statistics.median(ranked), 1),
        "p99_ms": round(ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))], 1),
    }


async def measured(
    sites: int, jobs: int, seconds: float, work_s: float, folder: Path
) -> dict[str, Any]:
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    center = Center(folder, endpoint)
    await center.start()
    fabric = await open_zenoh(FabricSettings(mode="client", connect=(endpoint,)))
    network, owner = Sites(fabric, sites, work_s), Owner(fabric, jobs)
    await network.start()
    began_s = time.perf_counter()
    while network.asked["describe"] < sites:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    joined_s = time.perf_counter() - began_s
    await asyncio.sleep(SENSED_EVERY_S)
    await owner.start()
    await asyncio.sleep(seconds / 4)  # Until jobs are at all stages.
    owner.forget()
    first, cpu_from = len(center.told), center.told[-1]
    await asyncio.sleep(seconds)
    watched = center.told[first:]
    took = {what: quantiles(values) for what, values in sorted(owner.took_ms.items())}
    ended, failed = sum(owner.ended.values()), dict(owner.failed)
    await owner.close()
    await network.close()
    await fabric.close()
    await center.close()
    grown_mb = watched[-1].journal_mb - cpu_from.journal_mb
    return {
        "sites": sites,
        "jobs open": jobs,
        "seconds": seconds,
        "start_s": round(center.told[0].began_s, 2),
        "all sites joined_s": round(joined_s, 2),
        "jobs ended": ended,
        "ended as": dict(owner.ended),
        "failed": failed,
        "commands": took,
        "cores": round((watched[-1].cpu_s - cpu_from.cpu_s) / seconds, 2),
        "longest stall_ms": round(max(told.stall_ms for told in watched), 1),
        "stall p50_ms": round(statistics.median(told.stall_ms for told in watched), 1),
        "resident_mb": [
            round(told.resident_mb, 1) for told in watched[:: max(1, len(watched) // 8)]
        ],
        "journal_mb": round(watched[-1].journal_mb, 1),
        "journal_kb per job": round(1000 * grown_mb / max(1, ended), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.center_load")
    parser.add_argument("--sites", type=int, default=2000, help="number of sites")
    parser.add_argument("--jobs", type=int, default=200, help="number of open jobs")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of load")
    parser.add_argument("--work", type=float, default=30.0, help="mean seconds that work takes")
    parser.add_argument("--folder", type=Path, help="keep the control centre's state here")
    parser.add_argument("--json", action="store_true", help="print JSON on one line")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = asked.folder or Path(made)
        found = uvloop.run(measured(asked.sites, asked.jobs, asked.seconds, asked.work, folder))
    print(json.dumps(found, indent=None if asked.json else 1))


if __name__ == "__main__":
    main()
