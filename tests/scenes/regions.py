"""Three regions in network namespaces: one with public addresses, two behind NATs of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

__all__ = ["CENTER", "PRIVATE", "cut", "mend", "regions"]

CENTER = "10.99.77.1"
"""Of region `a`, on what stands for the Internet; this process is there, too."""
PRIVATE = "192.168.77.2"
"""Of the machine in region `b`, and of that in `c`: private addresses repeat."""
_GATE, _HERE = "192.168.77.1", "10.99.77.254"
_PREFIX = "daitn"


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


def _within(space: str, command: str) -> None:
    _run(f"ip netns exec {_PREFIX}-{space} {command}")


@contextmanager
def regions() -> Iterator[dict[str, str]]:
    """The names of the namespaces, by region. Skips the test without root or `iptables`."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("iptables")):
        pytest.skip("needs root, ip and iptables")
    spaces = ("wan", "a", "nat-b", "b", "nat-c", "c")
    _clear(spaces)
    try:
        for space in spaces:
            _run(f"ip netns add {_PREFIX}-{space}")
            _within(space, "ip link set lo up")
        _within("wan", "ip link add bridge type bridge")
        _within("wan", "ip link set bridge up")
        _plug("a", CENTER)
        for region, public in (("b", "10.99.77.2"), ("c", "10.99.77.3")):
            _plug(f"nat-{region}", public)
            _behind(region)
        _run(f"ip link add {_PREFIX}77 type veth peer name here netns {_PREFIX}-wan")
        _run(f"ip addr add {_HERE}/24 dev {_PREFIX}77")
        _run(f"ip link set {_PREFIX}77 up")
        _within("wan", "ip link set here master bridge up")
        yield {region: f"{_PREFIX}-{region}" for region in "abc"}
    finally:
        _clear(spaces)


def cut(region: str) -> None:
    """Let nothing more in or out of a region behind a NAT; nobody is told, and no connection is
    closed."""
    _within(f"nat-{region}", "iptables -I FORWARD -j DROP")


def mend(region: str) -> None:
    """Undo `cut`."""
    _within(f"nat-{region}", "iptables -D FORWARD -j DROP")


def _plug(space: str, address: str) -> None:
    """Connect a namespace to the Internet."""
    _run(
        f"ip link add wan netns {_PREFIX}-{space} type veth peer name p-{space} netns {_PREFIX}-wan"
    )
    _within("wan", f"ip link set p-{space} master bridge up")
    _within(space, f"ip addr add {address}/24 dev wan")
    _within(space, "ip link set wan up")


def _behind(region: str) -> None:
    """Put a machine behind the NAT of its region."""
    nat = f"nat-{region}"
    _run(f"ip link add lan netns {_PREFIX}-{nat} type veth peer name lan netns {_PREFIX}-{region}")
    for space, address in ((nat, _GATE), (region, PRIVATE)):
        _within(space, f"ip addr add {address}/24 dev lan")
        _within(space, "ip link set lan up")
    _within(region, f"ip route add default via {_GATE}")
    _within(nat, "sysctl -qw net.ipv4.ip_forward=1")
    _within(nat, "iptables -t nat -A POSTROUTING -o wan -j MASQUERADE")
    _within(nat, "iptables -P FORWARD DROP")
    _within(nat, "iptables -A FORWARD -i lan -j ACCEPT")
    _within(nat, "iptables -A FORWARD -m state --state ESTABLISHED,RELATED -j ACCEPT")


def _clear(spaces: tuple[str, ...]) -> None:
    for space in spaces:
        with suppress(subprocess.CalledProcessError):
            _run(f"ip netns del {_PREFIX}-{space}")
    with suppress(subprocess.CalledProcessError):
        _run(f"ip link del {_PREFIX}77")
