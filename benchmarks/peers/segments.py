"""A network of hosts on this machine: network namespaces joined by a bridge, with links of given
rates, which know each other by name. Needs root and iproute2.

Rates are enforced by token buckets in both directions; packets are not delayed further. Bytes are
counted where they leave a host, and CPU time by a control group (of version 1), which includes
processes that have ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

__all__ = ["RATE_MBIT", "SLOWER", "Host", "Segments", "Watch"]

RATE_MBIT = 100.0
"""Of a link that is not slow."""
SLOWER = 50.0
_ACCOUNTS = Path("/sys/fs/cgroup/cpuacct")
_BRIDGE = "peers0"
_PREFIX = "10.77.0."
_BURST_KB = 64
_QUEUED_MS = 400
_JOIN = 'echo $$ > "$0"; exec "$@"'


@dataclass
class Host:
    """One host. Its processes are those in its namespace."""

    name: str
    namespace: str
    link: str
    """The bridge's end of its link."""
    address: str
    account: Path
    """The control group of its processes."""
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process on this host."""
        account = str(self.account / "cgroup.procs")
        with log.open("ab") as out:
            process = subprocess.Popen(
                ["sh", "-c", _JOIN, account, "ip", "netns", "exec", self.namespace, *command],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def pids(self) -> list[int]:
        """All processes of this host."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def kill(self) -> None:
        """End all its processes at once, as a power cut would."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self.started:
            process.wait()
        self.started.clear()


class Segments:
    """The hosts of one run; a context that leaves nothing behind."""

    def __init__(self, names: Sequence[str], slow: Sequence[str] = ()) -> None:
        # A namespace outlives its removal a little, so that no two runs use the same names.
        run = f"p{time.time_ns() // 10**6 % 10**7}"
        self.hosts = {
            name: Host(
                name,
                f"{run}-{number}",
                f"{run}-{number}",
                f"{_PREFIX}{number + 2}",
                _ACCOUNTS / run,
            )
            for number, name in enumerate(names)
        }
        self._slow = set(slow)
        self._account = _ACCOUNTS / run
        self._made = ExitStack()

    def __enter__(self) -> Segments:
        with ExitStack() as made:
            self._account.mkdir()
            made.callback(self._forget)
            _ip("link", "add", _BRIDGE, "type", "bridge")
            made.callback(_ip, "link", "del", _BRIDGE)
            _ip("addr", "add", f"{_PREFIX}1/24", "dev", _BRIDGE)
            _ip("link", "set", _BRIDGE, "up")
            for host in self.hosts.values():
                self._add(host, made)
            self._made = made.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._made.close()

    def sent_bytes(self) -> int:
        """Bytes that all hosts sent to others so far, headers included."""
        return sum(
            int(Path(f"/sys/class/net/{host.link}/statistics/rx_bytes").read_text())
            for host in self.hosts.values()
        )

    def processor_s(self) -> float:
        """Processor time of all hosts' processes so far, ended ones among them."""
        return int((self._account / "cpuacct.usage").read_text()) / 1e9

    def memory_bytes(self) -> int:
        """Memory of all hosts' processes now; pages that several share count once."""
        return sum(_pss_bytes(pid) for host in self.hosts.values() for pid in host.pids())

    def _forget(self) -> None:
        """Remove the account, once the last process has left it."""
        for _ in range(100):
            try:
                self._account.rmdir()
                return
            except OSError:
                time.sleep(0.1)

    def _add(self, host: Host, made: ExitStack) -> None:
        rate = RATE_MBIT / (SLOWER if host.name in self._slow else 1.0)
        shaped: tuple[str, ...] = ("root", "tbf", "rate", f"{rate}mbit", "burst", f"{_BURST_KB}kb")
        shaped = (*shaped, "latency", f"{_QUEUED_MS}ms")
        inside = ("netns", "exec", host.namespace)
        names = Path("/etc/netns") / host.namespace
        names.mkdir(parents=True)
        made.callback(shutil.rmtree, names)
        known = "".join(f"{one.address} {one.name}\n" for one in self.hosts.values())
        (names / "hosts").write_text(f"127.0.0.1 localhost\n{known}")
        _ip("netns", "add", host.namespace)
        made.callback(_ip, "netns", "del", host.namespace)
        made.callback(host.kill)
        peer = ("type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        _ip("link", "add", host.link, *peer)
        _ip("link", "set", host.link, "master", _BRIDGE, "up")
        _ip(*inside, "ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip(*inside, "ip", "link", "set", device, "up")
        _ip(*inside, "tc", "qdisc", "add", "dev", "eth0", *shaped)
        subprocess.run(["tc", "qdisc", "add", "dev", host.link, *shaped], check=True)


class Watch:
    """Peak memory of a run, looked at again and again by whoever waits."""

    def __init__(self, segments: Segments, every_s: float = 2.0) -> None:
        self._segments = segments
        self._every_s = every_s
        self._next_at = time.monotonic()
        self.peak_bytes = 0

    def look(self) -> None:
        """Look, if it is time to."""
        if time.monotonic() >= self._next_at:
            self.peak_bytes = max(self.peak_bytes, self._segments.memory_bytes())
            self._next_at = time.monotonic() + self._every_s


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # It has ended.
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
