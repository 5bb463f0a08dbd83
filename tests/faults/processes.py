"""The same over real processes: a network of six, over real sockets, in which processes are killed
and stopped, links cut and silenced, disks filled, chunks damaged, clocks set, and databases lost.

`python -m tests.faults --real --seeds 0:20 --at-once 3` plays seeds in three such networks side by
side, as each of them mostly waits, and in each one after the other. The jobs of even seeds are in
SQLite, those of odd ones in PostgreSQL. Time and the order of events are the machine's: a seed
gives the same faults again, not the same run.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from multiprocessing.util import Finalize
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from daitn.node.audit import verify
from daitn.objects.accounts import owner_account
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import CENTER_SITE
from tests.faults.intents import DIRECTED
from tests.faults.real_network import VERIFIERS, RealNetwork, real_network
from tests.faults.run import Outcome
from tests.faults.weather import Fault
from tests.scenes.breast_cancer import HOSPITALS, write_intent
from tests.scenes.waiting import PATIENCE_S
from tests.system.conftest import Network

__all__ = ["each_real", "run_real"]

_TROUBLE_S = 12.0
_BUDGET_S = 25.0
_LOOKS = 150
"""How many times the control centre may answer that a job has not ended, once all is well: 50 are
for the job's own time. Not seconds: with a small share of the processors, it answers slowly too."""
_MODEL = {
    "recipe": "classifier",
    "config": {"classes": ["benign", "malignant"], "hidden": [512], "batch": 1},
}
_ALGORITHMS = tuple(dict.fromkeys(DIRECTED))
"""In turn, so that few seeds have all of them."""
_TOLERANT = ("krum", "bulyan")
"""With as many sites as there are here, these tolerate no lie."""
_KINDS = (
    "kill",
    "kill",
    "kill center",
    "kill worker",
    "stop",
    "cut",
    "silence",
    "slow",
    "lossy",
    "fill",
    "rot",
    "clock",
    "clock",
    "database still",
    "database fails",
)
_OF_CENTER = ("kill center", "database still", "database fails")
_CLOCKS_S = (-7200.0, -200.0, -30.0, 30.0, 60.0)
"""By how much a clock leaps. What a site dates further ahead, others refuse, and they should."""
_ROOM = ("No space left on device", "has no room")
_DATABASE = ("check that the database is running", *_ROOM)
"""Why a process may end as it starts, as its log says, while a disk is full or a database away."""


def drawn(rng: random.Random, real: RealNetwork) -> tuple[Fault, ...]:
    """A seed's faults."""
    faults = []
    for _ in range(rng.randint(2, 6)):
        kind = rng.choice(_KINDS)
        where = rng.choice((*HOSPITALS, *VERIFIERS))
        if kind in _OF_CENTER or (kind == "clock" and rng.random() < 0.4):
            where = CENTER_SITE
        elif kind == "fill":
            if not real.small:
                continue
            where = rng.choice(real.small)
        lasts_s = rng.choice((0.5, 3.0, 12.0))
        size = {"rot": rng.random(), "clock": rng.choice(_CLOCKS_S)}.get(kind, 0.3)
        faults.append(Fault(rng.uniform(0.0, _TROUBLE_S), kind, where, "", lasts_s, size))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def run_real(outcome: Outcome, real: RealNetwork) -> None:
    """Play its seed."""
    outcome.faults = drawn(random.Random(outcome.seed), real)
    algorithm = _ALGORITHMS[outcome.seed % len(_ALGORITHMS)]
    accepted = _submit(real.network, f"seed{outcome.seed}", algorithm)
    submitted_s = time.monotonic()
    due: list[tuple[float, Callable[[], None]]] = []
    for fault in outcome.faults:
        _wait_until(submitted_s + fault.at_s, due)
        mend = real.begin(fault) if real.network.processes.started(fault.where) else None
        if mend is None:
            outcome.in_vain.append(fault)
        else:
            due.append((submitted_s + fault.at_s + fault.lasts_s, mend))
    _wait_until(submitted_s + _TROUBLE_S, due)
    for _, ending in due:
        ending()
    outcome.problems += real.mend(_excused(outcome.faults))
    job = _ended(real.network, accepted)
    outcome.jobs = [f"{job['job']} by {algorithm} {job['state']}: {job['detail']}"]
    outcome.problems += _problems(real, job, outcome.faults)
    real.set_right()


def _excused(faults: tuple[Fault, ...]) -> tuple[str, ...]:
    """Why processes may end by themselves."""
    kinds = {fault.kind for fault in faults}
    return (*(_ROOM if "fill" in kinds else ()), *(_DATABASE if kinds & {*_OF_CENTER[1:]} else ()))


def _submit(network: Network, name: str, algorithm: str) -> str:
    training: dict[str, Any] = {"algorithm": algorithm}
    if algorithm in _TOLERANT:
        training["merging"] = {"tolerates": 0}
    intent = write_intent(
        network.folder,
        name=name,
        model=_MODEL,
        objectives=[{"name": "tumours", "topic": "oncology/breast", "at_least": 0.99}],
        budget={"duration_s": _BUDGET_S},
        training=training,
    )
    ended = network.daitn("train", "-f", str(intent), "--insist")
    assert ended.returncode == 0, ended.stderr
    return f"{name}-1"


def _wait_until(at_s: float, due: list[tuple[float, Callable[[], None]]]) -> None:
    """Wait, and mend what is due meanwhile."""
    while time.monotonic() < at_s:
        for ending in [one for one in due if one[0] <= time.monotonic()]:
            due.remove(ending)
            ending[1]()
        time.sleep(0.1)


def _ended(network: Network, job: str) -> Any:
    """The job once it has ended, or as it is when it should have."""
    shown: Any = {"job": job, "state": "lost", "detail": "", "route": [], "owner": "acme"}
    answered_s, in_vain = time.monotonic(), 0
    while in_vain < _LOOKS and time.monotonic() < answered_s + PATIENCE_S:
        looked_s = time.monotonic()
        ended = network.daitn("describe", "job", job, "--json")
        now_s = time.monotonic()
        if ended.returncode == 0:
            shown = json.loads(ended.stdout)
            if shown["ended_at_s"] is not None:
                break
            answered_s, in_vain = now_s, in_vain + 1
        time.sleep(max(0.5, 2.0 * (now_s - looked_s)))
    return shown


def _problems(real: RealNetwork, job: Any, faults: tuple[Fault, ...]) -> Iterator[str]:
    network = real.network
    if job["state"] == "lost" or job.get("ended_at_s") is None:
        yield f"{job['job']} has not ended: it is {job['state']}, {job['detail']}"
        return
    if job["state"] != "reached" and not job["detail"]:
        yield f"{job['job']} is {job['state']} and does not say why"
    yield from network.json("account", "check")["problems"]
    entries = [entry for entry in _entries(network, job["owner"]) if entry["job"] == job["job"]]
    causes = Counter(entry["cause"] for entry in entries)
    yield from (f"{cause} is paid {times} times" for cause, times in causes.items() if times > 1)
    paid = sum(entry["kind"] == "visit" for entry in entries)
    if paid < len(job["route"]):
        yield f"{len(job['route'])} visits are in the model's route, {paid} in the ledger"
    rotten = any(fault.kind == "rot" for fault in faults)
    if job["model"] is not None and not rotten:
        folder = network.folder / f"exported-{job['job']}"
        ended = network.daitn("model", "export", job["job"], "-o", str(folder))
        if ended.returncode:
            yield f"the model of {job['job']} is lost: {ended.stderr[-500:]}"
    for site in (*HOSPITALS, *VERIFIERS):
        try:
            verify(network.folder / "state" / site)
        except DaitnError as error:
            yield f"the audit log of {site}: {error}"


def _entries(network: Network, owner: str) -> list[Any]:
    """What the ledger has of an owner, who has no account before the first entry."""
    accounts = network.json("account", "list")["accounts"]
    if owner_account(owner) not in {one["account"] for one in accounts}:
        return []
    return [line["entry"] for line in network.json("account", "statement", owner)["lines"]]


@contextmanager
def _somewhere(*, served: bool) -> Iterator[RealNetwork]:
    """A network that nobody else knows."""
    with TemporaryDirectory(prefix="daitn-faults-", ignore_cleanup_errors=True) as folder:
        os.environ["XDG_CONFIG_HOME"] = folder
        with real_network(Path(folder), served=served) as real:
            yield real


def _served(seed: int) -> bool:
    """Whether a seed's jobs are in PostgreSQL."""
    return seed % 2 == 1


class _Own:
    """The network of this process, for seeds one after the other that have the same database."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._real: RealNetwork | None = None
        self._served = False

    def play(self, seed: int) -> Outcome:
        """Play a seed. What the harness does not expect is a problem of the seed, and the next one
        gets another network."""
        outcome, began_s = Outcome(seed), time.monotonic()
        try:
            if self._served != _served(seed):
                self.close()
            if self._real is None:
                self._served = _served(seed)
                somewhere = _somewhere(served=self._served)
                self._real = self._stack.enter_context(somewhere)
            run_real(outcome, self._real)
            outcome.logs = self._logs(outcome)
        except Exception:
            outcome.problems.append(traceback.format_exc())
            outcome.logs = self._logs(outcome)
            self.close()
        outcome.seconds = time.monotonic() - began_s
        return outcome

    def _logs(self, outcome: Outcome) -> str:
        """A copy of the processes' logs if there is a problem: it may never come again."""
        if self._real is None or not outcome.problems:
            return ""
        logs = mkdtemp(prefix=f"daitn-real-seed-{outcome.seed}-")
        shutil.copytree(self._real.network.folder / "logs", logs, dirs_exist_ok=True)
        return logs

    def close(self) -> None:
        self._real = None
        self._stack.close()


_own = _Own()


def _begin() -> None:
    """A process that plays seeds ends its network when it ends."""
    Finalize(None, _own.close, exitpriority=100)


def _play(seed: int) -> Outcome:
    return _own.play(seed)


def each_real(seeds: range, at_once: int) -> Iterator[Outcome]:
    """Play seeds in networks side by side, each of them of a process of its own."""
    # A fork has imported everything: no thread runs here yet.
    fork = multiprocessing.get_context("fork")
    number = max(1, min(at_once, len(seeds)))
    with ProcessPoolExecutor(number, fork, _begin) as processes:
        # Those with one database first: a process starts a network for each.
        playing = {processes.submit(_play, seed): seed for seed in sorted(seeds, key=_served)}
        try:
            for played in as_completed(playing):
                if (error := played.exception()) is not None:
                    yield Outcome(playing[played], problems=[f"the harness has ended: {error!r}"])
                else:
                    yield played.result()
        finally:
            for played in playing:
                played.cancel()
