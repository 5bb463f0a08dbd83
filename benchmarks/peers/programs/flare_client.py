"""What a FLARE site does with a model. In rounds the first site reports what the arriving model
measures; in a ring every site reports what its own result measures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import nvflare.client as flare
from learners import Array, Learner, Progress

KEY = "numpy_key"
"""Of the only array of a model, all weights in a row."""


def _apart(flat: Array, like: list[Array]) -> list[Array]:
    cuts = np.cumsum([weight.size for weight in like])[:-1]
    parts = zip(np.split(np.asarray(flat, np.float32), cuts), like, strict=True)
    return [part.reshape(weight.shape) for part, weight in parts]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", type=Path)
    parser.add_argument("--progress", type=Path)
    parser.add_argument("--judge")
    parser.add_argument("--epochs", type=float)
    options = parser.parse_args()
    flare.init()
    name = flare.get_site_name()
    site, judge, progress = (
        Learner(options.task, name),
        Learner(options.task),
        Progress(options.progress),
    )
    like, visits = judge.fresh(), 0
    while flare.is_running():
        given = flare.receive()
        if given is None:
            break
        weights = _apart(given.params[KEY], like)
        number = int(given.current_round or 0)
        if name == options.judge:
            progress.tell(number, judge.accuracy(weights), 0)
        made = site.train(weights, options.epochs, seed=100 * visits + int(name.split("-")[1]))
        visits += 1
        if options.judge == "all":
            progress.tell(number, judge.accuracy(made), 1)
        flat = np.concatenate([weight.ravel() for weight in made])
        steps = {"NUM_STEPS_CURRENT_ROUND": site.examples(options.epochs)}
        flare.send(flare.FLModel(params={KEY: flat}, meta=steps))


if __name__ == "__main__":
    main()
