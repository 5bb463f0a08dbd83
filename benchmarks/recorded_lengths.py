"""Queries with recorded lengths: two services of Azure, for writing code and for conversation.

`recordings/azure-2023.csv.gz` holds tokens of prompts and answers, in their order, from the Azure
LLM inference trace 2023 (https://github.com/Azure/AzurePublicDataset, CC BY 4.0; Patel et al.,
"Splitwise: Efficient generative LLM inference using phase splitting", ISCA 2024). It does not
contain the limits of the requests.
"""

from __future__ import annotations

import csv
import gzip
import math
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from daitn.objects.identifiers import SiteId
from daitn.sim.load import Arrival

__all__ = ["MEAN_TOKENS", "recorded_queries"]

RECORDING = Path(__file__).parent / "recordings" / "azure-2023.csv.gz"
MEAN_TOKENS = 120
"""Of an answer, where half of the queries are of either service."""
LIMIT = 1024
LUCK_SIGMA = 0.1


def recorded_queries(
    per_s: float,
    until_s: float,
    gateways: tuple[SiteId, ...],
    topic: str,
    seed: int,
    limited_share: float = 0.0,
) -> tuple[Arrival, ...]:
    """Poisson arrivals, each of either service. `limited_share`: of requests with a limit of
    `LIMIT`, which have nothing else in common."""
    rng = random.Random(seed)
    services = [_from(name, rng) for name in ("code", "conv")]
    arrivals: list[Arrival] = []
    at_s = rng.expovariate(per_s)
    while at_s < until_s:
        tokens_in, tokens_out = next(rng.choice(services))
        limit = LIMIT if rng.random() < limited_share else 0
        arrivals.append(
            Arrival(
                number=len(arrivals),
                at_s=at_s,
                gateway=rng.choice(gateways),
                topic=topic,
                model="doctor",
                tokens_in=tokens_in,
                tokens_out=min(tokens_out, limit or tokens_out),
                limit=limit,
                luck=math.exp(rng.gauss(0.0, LUCK_SIGMA)),
            )
        )
        at_s += rng.expovariate(per_s)
    return tuple(arrivals)


def _from(service: str, rng: random.Random) -> Iterator[tuple[int, int]]:
    """A service's queries from a random one on, over and over."""
    rows = _recording()[service]
    at = rng.randrange(len(rows))
    while True:
        yield rows[at]
        at = (at + 1) % len(rows)


@cache
def _recording() -> dict[str, list[tuple[int, int]]]:
    rows: dict[str, list[tuple[int, int]]] = {}
    with gzip.open(RECORDING, "rt", newline="") as lines:
        for service, tokens_in, tokens_out in csv.reader(lines):
            rows.setdefault(service, []).append((int(tokens_in), int(tokens_out)))
    return rows
