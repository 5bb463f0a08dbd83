"""Measures how fast the training engine computes, in a fraction of a second."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch
from torch import nn

from daitn.learning import memory
from daitn.learning.commands import Probed
from daitn.learning.engine import engine_devices, mixed_precision

__all__ = ["probe"]

_DURATION_S = 0.3
_LAYERS = 3
_SIZES = {"cpu": (512, 64)}
"""Width and batch."""
_LARGE = (4096, 2048)
"""On other devices: smaller sizes would measure only how fast work is submitted."""
_WARM_UP_STEPS = 2


def probe() -> Probed:
    """Train a small network for `_DURATION_S`, and derive the speed: that of one device, times
    their number.

    On processors, a step is timed by the processor time that it took, not by wall-clock time, and
    the fastest step counts: the site's load reading covers what else runs here at the moment.
    """
    device, *others = engine_devices()
    width, batch = _SIZES.get(device.type, _LARGE)
    step_s = min(_step_durations(device, width, batch))
    weights = _LAYERS * width * width
    # Two operations per weight and example forward, twice as many backward.
    return Probed(
        device=f"{1 + len(others)} x {_device_name(device)}" if others else _device_name(device),
        memory_bytes=_memory_bytes(device),
        speed_flops=6.0 * weights * batch / step_s * (1 + len(others)),
        is_gpu=device.type != "cpu",
    )


def _step_durations(device: torch.device, width: int, batch: int) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(batch, width, generator=generator).to(device)
    layers = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(_LAYERS)]
    network = nn.Sequential(*layers).to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    durations: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < _DURATION_S or len(durations) <= _WARM_UP_STEPS:
        before = _spent_s(device)
        optimiser.zero_grad()
        with mixed_precision(device, torch.float32):
            loss = network(inputs).float().square().mean()
        loss.backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        durations.append(_spent_s(device) - before)
    return durations[_WARM_UP_STEPS:]


def _spent_s(device: torch.device) -> float:
    if device.type == "cuda":
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()}, {torch.get_num_threads()} threads"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return memory.total_bytes()
