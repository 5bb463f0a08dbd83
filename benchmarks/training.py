"""How much time a training job spends on anything but transfer, training and measuring.

    python -m benchmarks.training --json

Starts a real network (three data sites, one verifier, one control centre: five processes) and
measures, over several jobs:

- the time from `daitn train` to the first training step, with warm nodes, including the whole
  process of the command (whose start alone is shown separately);
- overhead per hop: a job's time from submission to end, less what its lineage records as transfer,
  training and measuring, divided by its hops. A hop is a piece of work at a site and the
  verification of its result: every visit, and before them the creation of the fresh model. The
  overhead includes assessment, planning, messages, signatures, the journal, chunking and hashing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.scenes.breast_cancer import HOSPITALS, write_intent, write_network

from daitn.cli.embedded import EmbeddedNetwork
from daitn.cli.session import Session, connect
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import JobView
from daitn.objects.lineage import Verification, Visit
from daitn.objects.messages import WorkProgress
from daitn.objects.requests import JobList, JobQuery, TrainedModel
from daitn.objects.wire import decode
from daitn.tools.fabric import keys

GOAL_HOP_S = 0.050
VISITS = 9
JOBS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(Path(folder)))
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name:32} {value:.4g}" if isinstance(value, float) else f"{name:32} {value}")


async def measure(folder: Path) -> dict[str, Any]:
    network = EmbeddedNetwork(write_network(folder), folder / "logs")
    try:
        await network.start(lambda site, done, of: None)
        async with connect(network.endpoint) as session:
            await one_job(session, network, folder, 0)
            jobs = [await one_job(session, network, folder, n) for n in range(1, JOBS + 1)]
    finally:
        network.stop()
    hops = [job["hop_overhead_s"] for job in jobs]
    return {
        "hops_per_job": VISITS + 1,
        "jobs": JOBS,
        "hop_overhead_p50_s": statistics.median(hops),
        "hop_overhead_least_s": min(hops),
        "hop_overhead_most_s": max(hops),
        "hop_overhead_goal_s": GOAL_HOP_S,
        "hop_transfer_p50_s": statistics.median(job["hop_transfer_s"] for job in jobs),
        "first_step_p50_s": statistics.median(job["first_step_s"] for job in jobs),
        "first_step_of_which_command_start_s": command_start_s(),
    }


async def one_job(
    session: Session, network: EmbeddedNetwork, folder: Path, number: int
) -> dict[str, Any]:
    route = [{"site": HOSPITALS[n % len(HOSPITALS)], "examples": 64} for n in range(VISITS)]
    target = [{"name": "tumours", "topic": "oncology/breast", "at_least": 1.0}]
    budget = {"duration_s": 3600}  # More than planners expect on a busy machine.
    intent = write_intent(
        folder, name=f"hop{number}", route=route, objectives=target, budget=budget
    )
    job = JobId(f"hop{number}-1")
    first_step = asyncio.get_running_loop().create_future()

    async def heard(key: str, payload: bytes) -> None:
        if decode(payload, WorkProgress).phase == "training" and not first_step.done():
            first_step.set_result(time.perf_counter())

    subscription = await session.fabric.subscribe(keys.job_progress(job), heard)
    began = time.perf_counter()
    command = [sys.executable, "-m", "daitn.cli.app", "train", "-f", str(intent)]
    process = await asyncio.create_subprocess_exec(
        *command, "--center", network.endpoint, stdout=subprocess.DEVNULL
    )
    if await process.wait() not in (0, 1):
        raise SystemExit(f"{job} was not accepted")
    first_step_s = await first_step - began
    view = await until_ended(session, job)
    await subscription.close()
    trained = await session.ask("lineage", JobQuery(job=job), TrainedModel)
    facts = [entry.fact for entry in trained.lineage.entries]
    timed = [fact for fact in facts if isinstance(fact, Visit | Verification)]
    work_s = sum(fact.seconds for fact in timed)
    transfer_s = sum(fact.transfer_s for fact in timed)
    return {
        "hop_overhead_s": (view.seconds - work_s - transfer_s) / (len(view.route) + 1),
        "hop_transfer_s": transfer_s / (len(view.route) + 1),
        "first_step_s": first_step_s,
    }


async def until_ended(session: Session, job: JobId) -> JobView:
    while True:
        (view,) = (await session.ask("jobs", JobQuery(job=job), JobList)).jobs
        if view.state.final:
            return view
        await asyncio.sleep(0.05)


def command_start_s() -> float:
    """Median time of a command that does nothing."""
    times = []
    for _ in range(JOBS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "daitn.cli.app", "version"], capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
