"""What owners of a run want trained, drawn from its seed."""

from __future__ import annotations

import random
from typing import Any

from msgspec import to_builtins

from daitn.objects.intents import TrainingIntent
from daitn.objects.wire import checked
from tests.faults.world import TOPIC

__all__ = ["DIRECTED", "drawn_intent", "in_secret"]

_TRAVELLING = ("sequential", "sequential", "gossip")
DIRECTED = (
    *(
        "sequential",
        "sequential",
        "sequential",
        "auto",
        "adaptive",
        "fedavg",
        "fedprox",
        "scaffold",
    ),
    *("fedseq", "fedbuff", "fedadam", "fedyogi", "diloco"),
    *("median", "trimmed-mean", "krum", "bulyan", "ties", "dare", "ewc", "lwf"),
)
"""All, the more usual ones more often."""
_SUMMING = ("fedavg", "fedavg", "fedprox", "fedadam", "diloco")
_PRIVATE = ("sequential", "auto", "fedavg", "fedbuff", "gossip")
"""Of those, some that may be trained by privately."""
_PRIVATELY = {"epsilon": 4.0, "visits": 3}


def drawn_intent(
    rng: random.Random, owner: str, number: int, verifiers: int, travels: bool
) -> TrainingIntent:
    """What an owner of a run wants, drawn."""
    algorithm = rng.choice(_TRAVELLING if travels else DIRECTED)
    training: dict[str, Any] = {"algorithm": algorithm}
    if algorithm == "gossip":
        training["walkers"] = rng.randint(2, 3)
    if rng.random() < 0.2 and algorithm in _PRIVATE:
        training["privacy"] = _PRIVATELY
    if rng.random() < 0.3 and not travels:
        training["credits_usd"] = 10.0
    if algorithm == "fedavg" and rng.random() < 0.5:
        training["contributions"] = "shapley"
    plain: dict[str, Any] = {
        "name": f"job{number}",
        "owner": owner,
        "model": {"recipe": "toy", "seed": 1, "config": {}},
        "objectives": [
            {"name": "tumours", "topic": TOPIC, "at_least": rng.choice((0.6, 0.75, 0.9))}
        ],
        "data": {"topics": ["oncology"]},
        "budget": {"duration_s": rng.choice((40.0, 80.0))},
        "training": training,
    }
    if verifiers > 2 and rng.random() < 0.7:
        plain["verification"] = {"quorum": 2, "of": 3}
    return checked(plain, TrainingIntent, "intent")


def in_secret(intent: TrainingIntent, rng: random.Random) -> TrainingIntent:
    """The same, by secure sums."""
    plain = to_builtins(intent)
    plain["model"]["config"] = {"summed": 1}
    training = {"algorithm": rng.choice(_SUMMING), "secure_aggregation": True}
    if rng.random() < 0.3 and training["algorithm"] in _PRIVATE:
        training["privacy"] = _PRIVATELY
    plain["training"] = training
    return checked(plain, TrainingIntent, "intent")
