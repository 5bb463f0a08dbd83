"""A recipe of DA-ITN as a Flower client.

Runs in Flower's environment, with numpy and nothing of DA-ITN's but this file:

    from daitn.learning.flower.client import client_app, initial_arrays
    app = client_app("classifier", {"classes": ["ill", "well"]}, python="/opt/daitn/bin/python")

`python` is that of an environment with `daitn[train]`, where `daitn.learning.flower.visit` trains.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

__all__ = ["client_app", "initial_arrays"]

_ARRAYS, _METRICS = "arrays", "metrics"
_DEADLINE_S = 4 * 3600.0


def client_app(
    recipe: str,
    config: Mapping[str, Any],
    *,
    python: str,
    epochs: float = 1.0,
    threads: int = 1,
    deadline_s: float = _DEADLINE_S,
) -> ClientApp:
    """A client that trains and measures with a recipe.

    Each client's `node_config` names its files: `data`, and `test` if it measures. A message's
    record `config` may say `epochs` and `seed`. Replies have the arrays, and `num-examples`; of a
    measurement also the metric by its name. Raises `RuntimeError` for what the recipe refuses.
    """
    app = ClientApp()
    usual = {"recipe": recipe, "config": dict(config), "threads": threads}

    def train(message: Message, context: Context) -> Message:
        config = _config(message)
        task = {
            **usual,
            "do": "train",
            "data": str(context.node_config["data"]),
            "epochs": float(config.get("epochs", epochs)),
            "seed": int(config.get("seed", 0)),
        }
        arrays, answer = _visit(python, task, _arrays(message), deadline_s)
        metrics = MetricRecord({"num-examples": answer["examples"]})
        content = RecordDict({_ARRAYS: _record(arrays), _METRICS: metrics})
        return Message(content=content, reply_to=message)

    def evaluate(message: Message, context: Context) -> Message:
        task = {**usual, "do": "evaluate", "data": str(context.node_config["test"])}
        _, answer = _visit(python, task, _arrays(message), deadline_s)
        metrics = {"num-examples": answer["examples"], answer["metric"]: answer["value"]}
        return Message(content=RecordDict({_METRICS: MetricRecord(metrics)}), reply_to=message)

    app.train()(train)
    app.evaluate()(evaluate)
    return app


def initial_arrays(
    recipe: str, config: Mapping[str, Any], *, python: str, seed: int = 0
) -> ArrayRecord:
    """A fresh model, for the server's strategy to start from."""
    task = {"do": "initialise", "recipe": recipe, "config": dict(config), "seed": seed}
    return _record(_visit(python, task, None, _DEADLINE_S)[0])


def _config(message: Message) -> Mapping[str, Any]:
    config: Mapping[str, Any] = message.content.get("config", {})
    return config


def _arrays(message: Message) -> dict[str, Any]:
    return {name: array.numpy() for name, array in message.content[_ARRAYS].items()}


def _record(arrays: Mapping[str, Any]) -> ArrayRecord:
    return ArrayRecord(OrderedDict((name, Array(array)) for name, array in arrays.items()))


def _visit(
    python: str, task: Mapping[str, Any], arrays: Mapping[str, Any] | None, deadline_s: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "task.json").write_text(json.dumps(task))
        if arrays is not None:
            np.savez(folder / "arrays.npz", **arrays)
        ended = subprocess.run(
            [python, "-m", "daitn.learning.flower.visit", scratch],
            capture_output=True,
            timeout=deadline_s,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"{python} failed:\n{ended.stderr.decode(errors='replace')[-2000:]}")
        answer = json.loads((folder / "answer.json").read_text())
        if answer["error"]:
            raise RuntimeError(answer["error"])
        if not (folder / "arrays.npz").exists():
            return {}, answer
        with np.load(folder / "arrays.npz", allow_pickle=False) as made:
            return dict(made), answer
