"""The same over real processes: a network of six, over real sockets, in which processes are killed
and stopped, links cut and silenced, disks filled, and chunks damaged.

`python -m tests.faults --real --seeds 0:20 --at-once 3` plays seeds in three such networks side by
side, as each of them mostly waits, and in each one after the other. Time and the order of events
are the machine's: a seed gives the same faults again, not the same run.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.util import Finalize
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import psutil
import yaml

from daitn.node.audit import verify
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import CENTER_SITE
from tests.faults.run import Outcome
from tests.faults.weather import Fault
from tests.scenes.breast_cancer import HOSPITALS, write_intent, write_network
from tests.scenes.relay import Relay
from tests.scenes.waiting import PATIENCE_S
from tests.system.conftest import Network, running

__all__ = ["RealNetwork", "each_real", "real_network", "run_real"]

_VERIFIERS = ("mpvu", "mpvu2")
_TROUBLE_S = 12.0
_BUDGET_S = 25.0
_FAR_S = 0.1
"""How long what sites and the control centre say is under way: faults meet it there, and a job
lasts until all is well again with fewer visits, which cost processor time."""
_LOOKS = 150
"""How many times the control centre may answer that a job has not ended, once all is well: 50 are
for the job's own time. Not seconds: with a small share of the processors, it answers slowly too."""
_MODEL = {
    "recipe": "classifier",
    "config": {"classes": ["benign", "malignant"], "hidden": [512], "batch": 1},
}
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
)


class RealNetwork:
    """A running network, and what may go wrong with it."""

    def __init__(self, network: Network, relays: dict[str, Relay], small: str) -> None:
        """`relays`: by site, of its link to the control centre. `small`: the site whose state is on
        a small disk; empty: mounting one needs root."""
        self.network = network
        self.relays = relays
        self.small = small

    def begin(self, fault: Fault) -> Callable[[], None] | None:
        """Let it happen. What is returned mends it; none if it found nothing to harm."""
        processes, where = self.network.processes, fault.where
        match fault.kind:
            case "kill" | "kill center":
                processes.kill(where)

                def launch() -> None:
                    if not processes.started(where):
                        processes.launch(where)

                return launch
            case "kill worker":
                return (lambda: None) if _kill_workers(processes.pid(where)) else None
            case "stop":
                pid = processes.pid(where)
                os.kill(pid, signal.SIGSTOP)
                return lambda: _signal(pid, signal.SIGCONT)
            case "cut":
                self.relays[where].cut()
                return self.relays[where].mend
            case "silence":
                self.relays[where].silent = True
                return self._unsilenced(where)
            case "slow":
                self.relays[where].delay_s = fault.size
                return self.relays[where].mend
            case "lossy":
                self.relays[where].loss = fault.size
                return self.relays[where].mend
            case "fill":
                filler = self._state(self.small) / "filler"
                _fill(filler)
                return lambda: filler.unlink(missing_ok=True)
        return (lambda: None) if _rot(self._state(where), fault.size) else None

    def _unsilenced(self, where: str) -> Callable[[], None]:
        def mend() -> None:
            # What was on its way is gone: the connection is of no more use.
            self.relays[where].cut()
            self.relays[where].mend()

        return mend

    def _state(self, site: str) -> Path:
        return self.network.folder / "state" / site


def drawn(rng: random.Random, real: RealNetwork) -> tuple[Fault, ...]:
    """A seed's faults."""
    faults = []
    for _ in range(rng.randint(2, 6)):
        kind = rng.choice(_KINDS)
        where = rng.choice((*HOSPITALS, *_VERIFIERS))
        if kind == "kill center":
            where = CENTER_SITE
        elif kind == "fill":
            if not real.small:
                continue
            where = real.small
        lasts_s = rng.choice((0.5, 3.0, 12.0))
        size = rng.random() if kind == "rot" else 0.3
        faults.append(Fault(rng.uniform(0.0, _TROUBLE_S), kind, where, "", lasts_s, size))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def run_real(outcome: Outcome, real: RealNetwork) -> None:
    """Play its seed."""
    rng = random.Random(outcome.seed)
    outcome.faults = drawn(rng, real)
    algorithm = rng.choice(("sequential", "fedavg", "fedbuff"))
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
    for (
        ended
    ) in real.network.processes.ended():  # One that starts on a full disk ends, and says so.
        if "No space left on device" not in ended.problem:
            outcome.problems.append(f"a process ended by itself: {ended.problem}")
    real.network.mend()
    job = _ended(real.network, accepted)
    outcome.jobs = [f"{job['job']} {job['state']}: {job['detail']}"]
    outcome.problems += _problems(real, job, outcome.faults)


def _submit(network: Network, name: str, algorithm: str) -> str:
    intent = write_intent(
        network.folder,
        name=name,
        model=_MODEL,
        objectives=[{"name": "tumours", "topic": "oncology/breast", "at_least": 0.99}],
        budget={"duration_s": _BUDGET_S},
        training={"algorithm": algorithm},
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
    lines = network.json("account", "statement", job["owner"])["lines"]
    entries = [line["entry"] for line in lines if line["entry"]["job"] == job["job"]]
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
    for site in (*HOSPITALS, *_VERIFIERS):
        try:
            verify(network.folder / "state" / site)
        except DaitnError as error:
            yield f"the audit log of {site}: {error}"


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _kill_workers(pid: int) -> bool:
    """Kill what trains and measures for a node: whatever does so now, or the next to do so soon.
    Returns whether there was any."""
    until_s = time.monotonic() + 3.0
    killed = False
    while not killed and time.monotonic() < until_s:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if f"(of {pid})" in " ".join(process.cmdline()):
                    process.kill()
                    killed = True
        time.sleep(0.05)
    return killed


def _fill(filler: Path) -> None:
    """Leave no room on a disk."""
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * (1 << 16)):
            pass


def _rot(state: Path, where: float) -> bool:
    """Turn over a bit of one of the blobs on a disk, if there is one."""
    blobs = sorted((state / "models" / "blobs").glob("*/*"))
    if blobs:
        blob = blobs[int(where * len(blobs))]
        with suppress(OSError):
            data = bytearray(blob.read_bytes())
            data[len(data) // 2] ^= 1
            blob.write_bytes(bytes(data))
    return bool(blobs)


@contextmanager
def real_network(folder: Path) -> Iterator[RealNetwork]:
    """A network whose sites reach the control centre through relays; one has a small disk."""
    path = write_network(folder, verifiers=_VERIFIERS, save_every_s=0.5, hour_usd=36.0)
    plain = yaml.safe_load(path.read_text())
    target = int(plain["center"]["listen"][0].rpartition(":")[2])
    with ExitStack() as stack:
        relays = {}
        for node in plain["nodes"]:
            relay = stack.enter_context(Relay(target, far_s=_FAR_S))
            relays[node["site"]] = relay
            node["center"] = [f"tcp/127.0.0.1:{relay.port}"]
        path.write_text(yaml.safe_dump(plain))
        small = _mounted(folder / "state" / "east", stack)
        network = running(folder, path)
        stack.callback(network.processes.stop)
        yield RealNetwork(network, relays, "east" if small else "")


def _mounted(folder: Path, stack: ExitStack) -> bool:
    """Put a small file system there, if this user may."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    unmount = ["umount", "-l", str(folder)]
    stack.callback(subprocess.run, unmount, capture_output=True, check=False)
    return True


@contextmanager
def _somewhere() -> Iterator[RealNetwork]:
    """A network that nobody else knows."""
    with TemporaryDirectory(prefix="daitn-faults-", ignore_cleanup_errors=True) as folder:
        os.environ["XDG_CONFIG_HOME"] = folder
        with real_network(Path(folder)) as real:
            yield real


class _Own:
    """The network of this process, for seeds one after the other."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._real: RealNetwork | None = None

    def play(self, seed: int) -> Outcome:
        """Play a seed. What the harness does not expect is a problem of the seed, and the next one
        gets another network."""
        outcome, began_s = Outcome(seed), time.monotonic()
        try:
            if self._real is None:
                self._real = self._stack.enter_context(_somewhere())
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
        playing = {processes.submit(_play, seed): seed for seed in seeds}
        try:
            for played in as_completed(playing):
                if (error := played.exception()) is not None:
                    yield Outcome(playing[played], problems=[f"the harness has ended: {error!r}"])
                else:
                    yield played.result()
        finally:
            for played in playing:
                played.cancel()
