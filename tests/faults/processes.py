"""The same over real processes: a network of six, over real sockets, in which processes are killed
and stopped, links cut and silenced, disks filled, and chunks damaged.

`python -m tests.faults --real --seeds 0:5` plays seeds one after the other in one network. Time and
the order of events are the machine's: a seed gives the same faults again, not the same run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from daitn.node.audit import verify
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import CENTER_SITE
from tests.faults.run import Outcome
from tests.faults.weather import Fault
from tests.scenes.breast_cancer import HOSPITALS, write_intent, write_network
from tests.scenes.relay import Relay
from tests.system.conftest import Network, running

__all__ = ["RealNetwork", "each_real", "real_network", "run_real"]

_VERIFIERS = ("mpvu", "mpvu2")
_TROUBLE_S = 12.0
_ENDS_WITHIN_S = 120.0
_BUDGET_S = 60.0
_MODEL = {
    "recipe": "classifier",
    "config": {"classes": ["benign", "malignant"], "hidden": [512], "batch": 1},
}
_KINDS = ("kill", "kill", "kill center", "stop", "cut", "silence", "slow", "fill", "rot")


class RealNetwork:
    """A running network, and what may go wrong with it."""

    def __init__(self, network: Network, relays: dict[str, Relay], small: str) -> None:
        """`relays`: by site, of its link to the control centre. `small`: the site whose state is on
        a small disk; empty: mounting one needs root."""
        self.network = network
        self.relays = relays
        self.small = small

    def begin(self, fault: Fault) -> Callable[[], None]:
        """Let it happen; what is returned mends it."""
        processes, where = self.network.processes, fault.where
        match fault.kind:
            case "kill" | "kill center":
                processes.kill(where)

                def launch() -> None:
                    if not processes.started(where):
                        processes.launch(where)

                return launch
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
            case "fill":
                filler = self._state(self.small) / "filler"
                _fill(filler)
                return lambda: filler.unlink(missing_ok=True)
        _rot(self._state(where), fault.size)
        return lambda: None

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
    for _ in range(rng.randint(1, 4)):
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


def run_real(seed: int, real: RealNetwork) -> Outcome:
    """Play a seed."""
    began_s = time.monotonic()
    rng = random.Random(seed)
    outcome = Outcome(seed, drawn(rng, real))
    algorithm = rng.choice(("sequential", "fedavg", "fedbuff"))
    name = f"seed{seed}"
    accepted = _submit(real.network, name, algorithm)
    due: list[tuple[float, Callable[[], None]]] = []
    for fault in outcome.faults:
        _wait_until(began_s + fault.at_s, due)
        if fault.where == CENTER_SITE or real.network.processes.started(fault.where):
            due.append((began_s + fault.at_s + fault.lasts_s, real.begin(fault)))
    _wait_until(began_s + _TROUBLE_S, due)
    for _, mend in due:
        mend()
    real.network.mend()
    job = _ended(real.network, accepted)
    outcome.jobs = [f"{job['job']} {job['state']}: {job['detail']}"]
    outcome.problems = list(_problems(real, job, outcome.faults))
    outcome.seconds = time.monotonic() - began_s
    return outcome


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
    until_s = time.monotonic() + _ENDS_WITHIN_S
    shown: Any = {"job": job, "state": "lost", "detail": "", "route": [], "owner": "acme"}
    while time.monotonic() < until_s:
        ended = network.daitn("describe", "job", job, "--json")
        if ended.returncode == 0:
            shown = json.loads(ended.stdout)
            if shown["ended_at_s"] is not None:
                break
        time.sleep(0.5)
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


def _fill(filler: Path) -> None:
    """Leave no room on a disk."""
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * (1 << 16)):
            pass


def _rot(state: Path, where: float) -> None:
    """Turn over a bit of one of the blobs on a disk."""
    blobs = sorted((state / "models" / "blobs").glob("*/*"))
    if blobs:
        blob = blobs[int(where * len(blobs))]
        with suppress(OSError):
            data = bytearray(blob.read_bytes())
            data[len(data) // 2] ^= 1
            blob.write_bytes(bytes(data))


@contextmanager
def real_network(folder: Path) -> Iterator[RealNetwork]:
    """A network whose sites reach the control centre through relays; one has a small disk."""
    path = write_network(folder, verifiers=_VERIFIERS, save_every_s=0.5, hour_usd=36.0)
    plain = yaml.safe_load(path.read_text())
    target = int(plain["center"]["listen"][0].rpartition(":")[2])
    with ExitStack() as stack:
        relays = {node["site"]: stack.enter_context(Relay(target)) for node in plain["nodes"]}
        for node in plain["nodes"]:
            node["center"] = [f"tcp/127.0.0.1:{relays[node['site']].port}"]
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


def each_real(seeds: range) -> Iterator[Outcome]:
    """Play seeds in a network of their own."""
    folder = Path(tempfile.mkdtemp(prefix="daitn-faults-"))
    try:
        with real_network(folder) as real:
            for seed in seeds:
                yield run_real(seed, real)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
