"""The compared systems, each with its best settings that `tuning` found on other seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.environments import FLARE, FLOWER, environment
from benchmarks.peers.run import System
from benchmarks.peers.systems.flare import Flare, FlareSimulator
from benchmarks.peers.systems.flower import Flower, FlowerSimulation
from benchmarks.peers.systems.network import DaItn

__all__ = ["CONTENDERS", "Contender"]

_AVERAGED = 0.01
"""The learning rate at which models are averaged, and at which peers go around."""
_EPOCHS = 5.0
"""Of the sites' work in a round."""
_MU = 0.01


@dataclass(frozen=True)
class Contender:
    """A system, and how it is set for each task."""

    system: Callable[[Path, Path, str, bool], System]
    """Of the folder of environments, that of the task, its name, and whether sites leave."""
    networked: bool = True
    rates: Mapping[str, float] = field(default_factory=dict)
    """Learning rates other than that of averaging, by task."""

    def rate(self, task: str) -> float:
        return self.rates.get(task, _AVERAGED)


def _flower(home: Path) -> Path:
    return environment(home, "flower", FLOWER)


def _flare(home: Path) -> Path:
    return environment(home, "flare", FLARE)


CONTENDERS: Mapping[str, Contender] = {
    "daitn-auto": Contender(lambda home, data, task, leaving: DaItn(data), rates={"digits": 1e-3}),
    "daitn-fedavg": Contender(
        lambda home, data, task, leaving: DaItn(data, "fedavg", {"epochs": _EPOCHS})
    ),
    "flower": Contender(
        lambda home, data, task, leaving: Flower(_flower(home), data, _EPOCHS, leaving=leaving)
    ),
    "flower-fedprox": Contender(
        lambda home, data, task, leaving: Flower(_flower(home), data, _EPOCHS, _MU, leaving)
    ),
    "flower-simulation": Contender(
        lambda home, data, task, leaving: FlowerSimulation(_flower(home), data, _EPOCHS),
        networked=False,
    ),
    "flare": Contender(
        lambda home, data, task, leaving: Flare(_flare(home), data, _EPOCHS, leaving=leaving)
    ),
    "flare-cyclic": Contender(
        lambda home, data, task, leaving: Flare(_flare(home), data, 20.0, "cyclic", leaving),
        rates={"digits": 1e-3},
    ),
    "flare-simulator": Contender(
        lambda home, data, task, leaving: FlareSimulator(_flare(home), data, _EPOCHS),
        networked=False,
    ),
}
"""By name. FLARE's ring makes twenty epochs at each site."""
