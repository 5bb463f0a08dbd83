"""The job as a Flower app: a server that averages and measures, clients that train."""

from __future__ import annotations

import json
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedProx
from learners import Learner, Progress

_ENDLESS = 10_000
"""Rounds; who started the run ends it."""

server = ServerApp()
client = ClientApp()


class _Counted:
    """A strategy that counts whose models it averages."""

    seen = 0

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        kept = list(replies)
        self.seen = sum(1 for reply in kept if reply.has_content())
        return super().aggregate_train(server_round, kept)  # type: ignore[misc]


class _FedAvg(_Counted, FedAvg):
    pass


class _FedProx(_Counted, FedProx):
    pass


def _run(context: Context) -> dict[str, Any]:
    """The run's configuration; in a simulation by a script there is none but the environment's."""
    return dict(context.run_config) or json.loads(os.environ["PEERS_RUN"])


@cache
def _learner(folder: str, site: str) -> Learner:
    return Learner(Path(folder), site)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Average until stopped, and tell what each round's model measures."""
    run = _run(context)
    judge = Learner(Path(run["task"]))
    progress = Progress(Path(run["progress"]))
    sites, mu = str(run["sites"]).split(), float(run["mu"])
    counts = {"fraction_evaluate": 0.0, "min_available_nodes": int(run["least"])}
    strategy = _FedProx(proximal_mu=mu, **counts) if mu else _FedAvg(**counts)

    def measure(number: int, arrays: ArrayRecord) -> MetricRecord:
        value = judge.accuracy(arrays.to_numpy_ndarrays())
        progress.tell(number, value, strategy.seen)
        return MetricRecord({"accuracy": value})

    while len(list(grid.get_node_ids())) < len(sites):
        time.sleep(0.1)
    strategy.start(
        grid,
        ArrayRecord(judge.fresh()),
        num_rounds=_ENDLESS,
        timeout=float(run["timeout_s"]),
        train_config=ConfigRecord({"epochs": float(run["epochs"])}),
        evaluate_fn=measure,
    )


@client.train()
def train(message: Message, context: Context) -> Message:
    """One site's part of a round."""
    run, config = _run(context), message.content["config"]
    sites = str(run["sites"]).split()
    site = str(context.node_config.get("site") or sites[int(context.node_config["partition-id"])])
    learner = _learner(run["task"], site)
    epochs, number = float(config["epochs"]), int(config["server-round"])
    arrays = learner.train(
        message.content["arrays"].to_numpy_ndarrays(),
        epochs,
        seed=100 * number + sites.index(site),
        mu=float(config.get("proximal-mu", 0.0)),
    )
    counted = MetricRecord({"num-examples": learner.examples(epochs)})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": counted})
    return Message(content=content, reply_to=message)


def simulate() -> None:
    """The same in one process with Ray's workers."""
    from flwr.simulation import run_simulation

    run = json.loads(os.environ["PEERS_RUN"])
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, len(str(run["sites"]).split()), backend_config=resources)
