"""Random route questions, the same for the same seed."""

from __future__ import annotations

import random

from daitn.control.route.question import RouteQuestion

from .route_world import MEDICINE, intent, option, question, topology

_TOPICS = ("medicine", "medicine", "medicine/neurology", "medicine/cardiology")


def instance(seed: int, sites: int) -> RouteQuestion:
    """A network of `sites` data sites with random data, prices, speeds, links and targets."""
    rng = random.Random(seed)
    options = [
        option(
            f"s{number}",
            rng.choice(_TOPICS),
            {label: rng.randint(5, 900) for label in rng.sample(MEDICINE, rng.randint(1, 5))},
            price=rng.choice([0.0, 0.0, 0.1, 1.0]),
            speed=rng.choice([2e10, 1e11, 4e11]),
            queue=rng.choice([0, 0, 1]),
        )
        for number in range(sites)
    ]
    broad, expert = (round(rng.uniform(0.4, 0.85), 2) for _ in range(2))
    seen = topology(options, throughput_bps=rng.choice([2e5, 2e6, 2e7]))
    return question(intent(broad=broad, expert=expert), seen, verify_s=rng.choice([1.0, 10.0]))
