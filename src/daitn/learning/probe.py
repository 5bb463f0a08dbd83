"""Measures how fast the training engine computes, in a fraction of a second."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch
from torch import nn

from daitn.learning import memory
from daitn.learning.commands import Probed

__all__ = ["probe"]

_DURATION_S = 0.3
_WIDTH = 512
_LAYERS = 3
_BATCH = 64
_WARM_UP_STEPS = 2


def probe() -> Probed:
    """Train a small network for `_DURATION_S`, and derive the speed.

    On processors, a step is timed by the processor time that it took, not by wall-clock time, and
    the fastest step counts: the site's load reading covers what else runs here at the moment.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step_s = min(_step_durations(device))
    weights = _LAYERS * _WIDTH * _WIDTH
    # Two operations per weight and example forward, twice as many backward.
    return Probed(
        device=_device_name(device),
        memory_bytes=_memory_bytes(device),
        speed_flops=6.0 * weights * _BATCH / step_s,
    )


def _step_durations(device: torch.device) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(_BATCH, _WIDTH, generator=generator).to(device)
    layers = [nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU()) for _ in range(_LAYERS)]
    network = nn.Sequential(*layers).to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    durations: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < _DURATION_S or len(durations) <= _WARM_UP_STEPS:
        before = _spent_s(device)
        optimiser.zero_grad()
        network(inputs).square().mean().backward()
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
