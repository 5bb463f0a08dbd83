"""A network of real processes over real sockets, and what may go wrong with it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from unittest import mock

import psutil
import yaml

from daitn.objects.identifiers import CENTER_SITE
from tests.faults.real_clocks import Clocks
from tests.faults.real_databases import OnFile, RealDatabase, on_server
from tests.faults.real_disks import fill, mounted, rot
from tests.faults.weather import Fault
from tests.scenes.breast_cancer import write_network
from tests.scenes.relay import Relay
from tests.scenes.waiting import wait_until
from tests.system.conftest import Network, running

__all__ = ["VERIFIERS", "RealNetwork", "real_network"]

VERIFIERS = ("mpvu", "mpvu2")
_FAR_S = 0.1
"""How long what sites and the control centre say is under way: faults meet it there, and a job
lasts until all is well again with fewer visits, which cost processor time."""


class RealNetwork:
    """A running network, and what may go wrong with it."""

    def __init__(
        self,
        network: Network,
        relays: dict[str, Relay],
        small: tuple[str, ...],
        clocks: Clocks,
        database: RealDatabase,
    ) -> None:
        """`relays`: by site, of its link to the control centre. `small`: the sites whose state is
        on a small disk; none: mounting one needs root."""
        self.network = network
        self.relays = relays
        self.small = small
        self.clocks = clocks
        self.database = database
        self._astray: set[str] = set()
        """What was started while its clock was wrong, and goes by it until it ends."""

    def begin(self, fault: Fault) -> Callable[[], None] | None:
        """Let it happen. What is returned mends it; none if it found nothing to harm."""
        processes, where = self.network.processes, fault.where
        match fault.kind:
            case "kill" | "kill center":
                processes.kill(where)
                return lambda: self._launch(where)
            case "kill worker":
                return (lambda: None) if _kill_workers(processes.pid(where)) else None
            case "stop":
                return _suspended(processes.pid(where))
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
                return fill(self.state(where))
            case "clock":
                self.clocks.set(where, fault.size)
                return lambda: self.clocks.set(where, 0.0)
            case "database still":
                return self.database.stand_still()
            case "database fails":
                return self.database.fail()
        return (lambda: None) if rot(self.state(where), fault.size) else None

    def _launch(self, name: str) -> None:
        if not self.network.processes.started(name):
            if self.clocks.wrong(name):
                self._astray.add(name)
            self.network.processes.launch(name)

    def mend(self, excused: tuple[str, ...]) -> Iterator[str]:
        """Start what does not run, again and again as whatever watches over processes does; return
        when the control centre sees all sites. What ended by itself is a problem, unless its log
        says one of what is `excused`."""
        problems: list[str] = []
        since = self._restarted(excused, problems)

        def back() -> bool:
            since.update(self._restarted(excused, problems))
            return self.network.sees(since)

        wait_until(back)
        yield from problems

    def _restarted(self, excused: tuple[str, ...], problems: list[str]) -> dict[str, float]:
        """When what had ended was started."""
        for ended in self.network.processes.ended():
            if not any(why in " ".join(ended.problem.split()) for why in excused):
                problems.append(f"a process ended by itself: {ended.problem}")
        return self.network.launch_missing()

    def set_right(self) -> None:
        """End what goes by a wrong clock, and start it again."""
        for name in self._astray:
            self.network.processes.kill(name)
        self._astray.clear()
        self.network.mend()

    def _unsilenced(self, where: str) -> Callable[[], None]:
        def mend() -> None:
            # What was on its way is gone: the connection is of no more use.
            self.relays[where].cut()
            self.relays[where].mend()

        return mend

    def state(self, name: str) -> Path:
        return self.network.folder / "state" / name


@contextmanager
def real_network(folder: Path, *, served: bool) -> Iterator[RealNetwork]:
    """A network whose sites reach the control centre through relays; a site and the control centre
    have small disks. `served`: whether its jobs are in PostgreSQL, else in SQLite."""
    path = write_network(folder, verifiers=VERIFIERS, save_every_s=0.5, hour_usd=36.0)
    plain = yaml.safe_load(path.read_text())
    target = int(plain["center"]["listen"][0].rpartition(":")[2])
    with ExitStack() as stack:
        relays = {}
        for node in plain["nodes"]:
            relay = stack.enter_context(Relay(target, far_s=_FAR_S))
            relays[node["site"]] = relay
            node["center"] = [f"tcp/127.0.0.1:{relay.port}"]
        states = {name: folder / "state" / name for name in ("east", CENTER_SITE)}
        small = tuple(name for name, state in states.items() if mounted(state, stack))
        database: RealDatabase = OnFile(states[CENTER_SITE], small=CENTER_SITE in small)
        if served:
            database = stack.enter_context(on_server())
            plain["center"]["database"] = database.url
        path.write_text(yaml.safe_dump(plain))
        clocks = Clocks(folder / "clocks", (CENTER_SITE, *relays))
        stack.enter_context(mock.patch.dict(os.environ, PYTHONPATH=clocks.path))
        network = running(folder, path)
        stack.callback(network.processes.stop)
        yield RealNetwork(network, relays, small, clocks, database)


def _suspended(pid: int) -> Callable[[], None] | None:
    def go_on() -> None:
        _signal(pid, signal.SIGCONT)

    return go_on if _signal(pid, signal.SIGSTOP) else None


def _signal(pid: int, number: int) -> bool:
    """Whether there is such a process."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


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
