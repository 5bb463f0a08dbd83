"""Checks of the machine: disk, ports, sandbox, accelerators."""

from __future__ import annotations

import errno
import importlib.metadata
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from daitn.center.config import CenterConfig
from daitn.learning import gpus
from daitn.learning.sandbox.policy import Mechanism
from daitn.learning.sandbox.probe import available
from daitn.node.config import NodeConfig
from daitn.node.sandbox import SANDBOX_FIXES
from daitn.oam.doctor.diagnoses import Check, Diagnosis, fine, problem, warning
from daitn.objects.addresses import place_of
from daitn.objects.descriptors import Role
from daitn.tools.http import bind

__all__ = ["check_accelerators", "check_disk", "check_ports", "check_sandboxes"]

_LEAST_BYTES: Final = 1 << 30
"""Below this, a model of ordinary size no longer fits."""
_LOW_SHARE: Final = 0.05
_ZENOH: Final = ("tcp/", "tls/")


def check_disk(subject: str, folder: Path) -> Diagnosis:
    """Whether a process has room for models and its logs."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    usage = shutil.disk_usage(nearest)
    free = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.0f} GB at {nearest}"
    fix = "free room, or move `state` to a larger disk"
    if usage.free < _LEAST_BYTES:
        return problem(Check.DISK, subject, free, fix)
    if usage.free < _LOW_SHARE * usage.total:
        return warning(Check.DISK, subject, free, fix)
    return fine(Check.DISK, subject, free)


async def check_ports(subject: str, config: CenterConfig | NodeConfig) -> list[Diagnosis]:
    """Whether a process that is not running could listen as its file says."""
    return [await _free(subject, field, address) for field, address in config.listen_addresses]


async def _free(subject: str, field: str, address: str) -> Diagnosis:
    host, port = place_of(address)
    try:
        if address.startswith(_ZENOH):
            _bind(host, port)
        else:
            for bound in await bind(host, port):
                bound.close()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        stop = (
            f"stop the process that uses the port (`ss -ltnp 'sport = :{port}'`), or name another"
        )
        return problem(
            Check.PORT,
            subject,
            f"{field}: cannot listen at {address}: {error.strerror}",
            f"{stop} address"
            if taken
            else "name an address of this machine, at a port that this user may use",
        )
    return fine(Check.PORT, subject, f"{field}: {address} is free")


def _bind(host: str, port: int) -> None:
    """Raises `OSError` if Zenoh could not listen there."""
    family, _, _, _, place = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(place)


async def check_sandboxes(subject: str, config: NodeConfig) -> Iterator[Diagnosis]:
    """Whether recipes are confined here, as far as the site's file demands."""
    found = (await available()).mechanisms
    if not set(config.roles) - {Role.GATEWAY}:
        return iter(())
    lacking = [mechanism for mechanism in Mechanism if mechanism not in found]
    if not lacking:
        return iter((fine(Check.SANDBOX, subject, f"recipes run in {', '.join(found)}"),))
    demanded = set(config.sandbox.required)
    return iter(
        (problem if mechanism in demanded else warning)(
            Check.SANDBOX,
            subject,
            f"{mechanism} does not work on this machine"
            + (", and the site's file demands it" if mechanism in demanded else ""),
            SANDBOX_FIXES[mechanism],
        )
        for mechanism in lacking
    )


def check_accelerators(subject: str) -> Diagnosis:
    """Whether the available GPUs can be used for computing."""
    if not gpus.has_gpu():
        return fine(Check.GPU, subject, "no GPU driver is loaded: it computes on processors")
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return warning(
            Check.GPU, subject, "a GPU is here, and PyTorch is not", "pip install 'daitn[train]'"
        )
    if version.endswith("+cpu"):
        return problem(
            Check.GPU,
            subject,
            f"there is a GPU, but this build of PyTorch {version} supports only CPUs",
            "install the PyTorch of the machine's CUDA or ROCm: https://pytorch.org/get-started",
        )
    if not gpus.free_bytes() and Path("/dev/nvidiactl").exists():
        return problem(
            Check.GPU,
            subject,
            "an NVIDIA driver is loaded, but `nvidia-smi` lists no GPU",
            "install the driver's programs, or pass the GPU into the container (`--gpus all`)",
        )
    return fine(Check.GPU, subject, f"PyTorch {version} finds a driver")
