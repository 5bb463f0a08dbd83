"""What the machine gives a process: disk, ports, sandbox, accelerators."""

from __future__ import annotations

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
from daitn.oam.doctor.diagnoses import Diagnosis, fine, problem, warning
from daitn.objects.addresses import host_of
from daitn.objects.descriptors import Role

__all__ = ["check_accelerators", "check_disk", "check_ports", "check_sandboxes"]

_LEAST_BYTES: Final = 1 << 30
"""Below this, a model of ordinary size no longer fits."""
_LOW_SHARE: Final = 0.05


def check_disk(subject: str, folder: Path) -> Diagnosis:
    """Whether a process has room for models and its logs."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    usage = shutil.disk_usage(there)
    free = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.0f} GB at {there}"
    fix = "free room, or move `state` to a larger disk"
    if usage.free < _LEAST_BYTES:
        return problem("disk", subject, free, fix)
    if usage.free < _LOW_SHARE * usage.total:
        return warning("disk", subject, free, fix)
    return fine("disk", subject, free)


def check_ports(subject: str, config: CenterConfig | NodeConfig) -> Iterator[Diagnosis]:
    """Whether a process that does not run could listen as its file says."""
    for field, address in _listens(config):
        host, port = host_of(address), address.rpartition(":")[2]
        if not port.isdecimal() or port == "0":
            continue
        try:
            family, _, _, _, place = socket.getaddrinfo(
                host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
        except OSError as error:
            yield problem(
                "port",
                subject,
                f"{field}: nobody can listen at {address} now: {error.strerror}",
                f"end what has the port (`ss -ltnp 'sport = :{port}'`), or name another address",
            )
        else:
            yield fine("port", subject, f"{field}: {address} is free")


def _listens(config: CenterConfig | NodeConfig) -> Iterator[tuple[str, str]]:
    yield from (("listen", endpoint) for endpoint in config.listen)
    if isinstance(config, NodeConfig):
        for field, part in (("facility", config.facility), ("gateway", config.gateway)):
            if part is not None:
                yield f"{field}.listen", part.listen
        if config.forwarder is not None:
            yield from (("forwarder.listen", endpoint) for endpoint in config.forwarder.listen)


async def check_sandboxes(subject: str, config: NodeConfig) -> Iterator[Diagnosis]:
    """Whether recipes are confined here, and as far as the site's file demands."""
    found = (await available()).mechanisms
    if not set(config.roles) - {Role.GATEWAY}:
        return iter(())
    lacking = [mechanism for mechanism in Mechanism if mechanism not in found]
    if not lacking:
        return iter((fine("sandbox", subject, f"recipes run in {', '.join(found)}"),))
    demanded = set(config.sandbox.required)
    return iter(
        (problem if mechanism in demanded else warning)(
            "sandbox",
            subject,
            f"{mechanism} does not work on this machine"
            + (", and the site's file demands it" if mechanism in demanded else ""),
            SANDBOX_FIXES[mechanism],
        )
        for mechanism in lacking
    )


def check_accelerators(subject: str) -> Diagnosis:
    """Whether what computes can use the GPUs that are there."""
    if not gpus.has_gpu():
        return fine("gpu", subject, "no GPU driver is loaded: it computes on processors")
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return warning(
            "gpu", subject, "a GPU is here, and PyTorch is not", "pip install 'daitn[train]'"
        )
    if version.endswith("+cpu"):
        return problem(
            "gpu",
            subject,
            f"a GPU is here, and PyTorch {version} is made for processors alone",
            "install the PyTorch of the machine's CUDA or ROCm: https://pytorch.org/get-started",
        )
    if not gpus.free_bytes() and Path("/dev/nvidiactl").exists():
        return problem(
            "gpu",
            subject,
            "a driver of NVIDIA's is loaded, and `nvidia-smi` lists no GPU",
            "install the driver's programs, or pass the GPU into the container (`--gpus all`)",
        )
    return fine("gpu", subject, f"PyTorch {version} finds a driver")
