"""Bridges to Flower. What needs Flower runs where DAITN_FLOWER_PYTHON names a Python that has it,
which is not this one: Flower forbids the uvicorn that DA-ITN needs."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from daitn.learning.boosted_trees import BoostedTrees
from daitn.learning.classifier import Classifier
from daitn.learning.flower import visit
from daitn.learning.flower.arrays import arrays_of, check_like, write_parts
from daitn.learning.flower.recipe import FlowerApp
from daitn.learning.flower.visit import VisitAnswer, VisitRequest, carry_out
from daitn.objects.errors import Corrupt, InvalidInput, NotFound

CONFIG: dict[str, Any] = {"classes": ["no", "yes"], "hidden": [4], "learning_rate": 0.05}


def table(path: Path, seed: int) -> Path:
    rng = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "noise", "label"])
        for _ in range(120):
            yes = rng.random() < 0.5
            writer.writerow([rng.gauss(60 if yes else 40, 4), rng.random(), "yes" if yes else "no"])
    return path


def test_parts_become_arrays_and_come_back(tmp_path: Path) -> None:
    model, data, trained, back = (tmp_path / n for n in ("model", "data.csv", "trained", "back"))
    for folder in (model, trained, back):
        folder.mkdir()
    Classifier().initialise(CONFIG, 1, model)
    Classifier().train(model, CONFIG, table(data, 1), 200, 1, trained, lambda progress: None)
    arrays = arrays_of(trained)
    assert arrays["weights.safetensors/layers.0.weight"].shape == (4, 2)
    averaged = {name: (0.3 * array + 0.7 * array) for name, array in arrays.items()}
    for name in filter(lambda name: "/" in name, arrays):
        averaged[name] = averaged[name].astype(arrays[name].dtype)
    write_parts(averaged, back)
    assert (back / "features.json").read_bytes() == (trained / "features.json").read_bytes()
    before, after = (Classifier().evaluate(m, CONFIG, data, "accuracy") for m in (trained, back))
    assert before == after


@pytest.mark.parametrize("name", ["../x", "a/b/../c", "features.json/x", ".hidden", "", "/etc/x"])
def test_arrays_of_strangers_name_parts_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(Corrupt):
        write_parts({name: np.zeros(2, np.float32)}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_trees_have_no_mean(tmp_path: Path) -> None:
    BoostedTrees().initialise({"classes": ["no", "yes"]}, 1, tmp_path)
    with pytest.raises(InvalidInput, match="cannot be averaged"):
        arrays_of(tmp_path)


def test_what_an_app_returns_is_the_next_of_what_it_got() -> None:
    before = {"w": np.zeros((2, 3), np.float32)}
    check_like({"w": np.ones((2, 3), np.float32)}, before)
    odd: Any = np.full((2, 3), np.nan, np.float32)
    for bad in ({}, {"w": np.ones((3, 2), np.float32)}, {"w": np.ones((2, 3))}, {"w": odd}):
        with pytest.raises(Corrupt):
            check_like(bad, before)


def test_an_app_that_nobody_installed_is_refused_by_name(tmp_path: Path) -> None:
    config = {"app": "tumours", "classes": ["no", "yes"], "parameters": 10}
    assert FlowerApp().estimate(config).packages == ("flwr",)
    with pytest.raises(NotFound) as refused:
        FlowerApp().initialise(config, 1, tmp_path)
    assert refused.value.field == "model.config.app"
    with pytest.raises(InvalidInput) as nameless:
        FlowerApp().estimate({"classes": ["no", "yes"], "parameters": 10})
    assert nameless.value.field == "model.config.app"


@pytest.mark.processes
def test_a_visit_initialises_trains_and_measures_in_the_sandbox(tmp_path: Path) -> None:
    folder, data = tmp_path / "visit", table(tmp_path / "data.csv", 1)

    def done(**task: Any) -> VisitAnswer:
        (new := tmp_path / f"{task['do']}").mkdir()
        if (folder / visit.ARRAYS).exists():
            (folder / visit.ARRAYS).rename(new / visit.ARRAYS)
        one = VisitRequest(recipe="classifier", config=CONFIG, data=str(data), **task)
        answer = asyncio.run(carry_out(one, new))
        folder.mkdir(exist_ok=True)
        (new / visit.ARRAYS).rename(folder / visit.ARRAYS)
        return answer

    assert done(do="initialise", seed=1) == VisitAnswer()
    assert done(do="train", epochs=4).examples == 480
    measured = done(do="evaluate")
    assert measured.metric == "accuracy"
    assert measured.value > 0.9
    assert measured.examples == 120


FLOWER = os.environ.get("DAITN_FLOWER_PYTHON", "")
with_flower = pytest.mark.skipif(not FLOWER, reason="DAITN_FLOWER_PYTHON names no Python")

CLIENTS = """
import json, sys
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from daitn.learning.flower.client import client_app, initial_arrays

TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # As a server's process has.
told = json.loads(sys.argv[1])
app = client_app("classifier", told["config"], python=told["python"], epochs=2)
arrays = initial_arrays("classifier", told["config"], python=told["python"], seed=1)
contexts = [
    Context(run_id=1, node_id=n + 1, node_config={"data": data, "test": told["test"]},
            state=RecordDict(), run_config={})
    for n, data in enumerate(told["data"])
]

def asked(kind, number, context):
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"seed": number})})
    return app(Message(content, dst_node_id=context.node_id, message_type=kind), context)

strategy = FedAvg()
for number in range(2):
    replies = [asked("train", number, context) for context in contexts]
    arrays, metrics = strategy.aggregate_train(number + 1, replies)
print(json.dumps(dict(asked("evaluate", 0, contexts[0]).content["metrics"])))
"""


@with_flower
@pytest.mark.long
@pytest.mark.processes
def test_a_recipe_is_a_client_of_flower(tmp_path: Path) -> None:
    told = {
        "config": CONFIG,
        "python": sys.executable,
        "data": [str(table(tmp_path / f"{n}.csv", n)) for n in range(2)],
        "test": str(table(tmp_path / "test.csv", 9)),
    }
    ended = subprocess.run(
        [FLOWER, "-c", CLIENTS, json.dumps(told)], capture_output=True, text=True, timeout=280
    )
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout.splitlines()[-1])
    assert measured["num-examples"] == 120
    assert measured["accuracy"] > 0.9


APP = """
import csv
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

def initial_arrays(run_config, seed):
    return {"weights": np.zeros(3, np.float32)}

def rows(context):
    classes = context.node_config["classes"].split(",")
    with open(context.node_config["data"]) as file:
        records = list(csv.reader(file))
    assert records[0] == ["age", "label"], "the owner ignores the noise"
    x = np.array([[1.0, (float(age) - 50) / 10, 0.0] for age, _ in records[1:]])
    return x, np.array([classes.index(label) for _, label in records[1:]])

def weights(message):
    return message.content["arrays"]["weights"].numpy().astype(float)

@app.train()
def train(message, context):
    x, y = rows(context)
    w = weights(message)
    for _ in range(context.run_config["steps"]):
        w -= x.T @ (1 / (1 + np.exp(-x @ w)) - y) / len(y)
    arrays = ArrayRecord({"weights": Array(w.astype(np.float32))})
    told = MetricRecord({"num-examples": len(y)})
    return Message(RecordDict({"arrays": arrays, "metrics": told}), reply_to=message)

@app.evaluate()
def evaluate(message, context):
    x, y = rows(context)
    right = float(((x @ weights(message) > 0) == y).mean())
    told = MetricRecord({"num-examples": len(y), "accuracy": right})
    return Message(RecordDict({"metrics": told}), reply_to=message)
"""

SITE = """
import asyncio, json, sys
from pathlib import Path
from daitn.learning.recipe import MergeTask, Selection
from daitn.learning.trainer import Trainer
from daitn.objects.merging import MergeRule

async def main(folder):
    config = {"app": "ages", "classes": ["no", "yes"], "parameters": 3, "run": {"steps": 20}}
    selection = Selection(ignore=("noise",))
    trainer = Trainer(threads=1)
    for name in ("fresh", "0", "1", "merged"):
        (folder / name).mkdir()
    await trainer.initialise("flower-app", config, 1, folder / "fresh")
    for n in "01":
        await trainer.train("flower-app", folder / "fresh", config, folder / f"{n}.csv", 120, 1,
                            folder / n, lambda progress: None, selection)
    task = MergeTask(base=str(folder / "fresh"), models=(str(folder / "0"), str(folder / "1")),
                     shares=(1.0, 1.0), rule=MergeRule(), seed=0)
    await trainer.merge("flower-app", config, task, folder / "merged", folder / "moments")
    measured = await trainer.evaluate("flower-app", folder / "merged", config,
                                      folder / "test.csv", "accuracy", selection)
    await trainer.close()
    print(json.dumps([measured.value, measured.items]))

asyncio.run(main(Path(sys.argv[1])))
"""


@with_flower
@pytest.mark.long
@pytest.mark.processes
def test_a_site_runs_an_app_of_flower_that_its_owner_installed(tmp_path: Path) -> None:
    """Flower's packages come last on the path, as by a `.pth` file, so that DA-ITN's own count."""
    site = tmp_path / "site"
    info = site / "ages-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ages\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[daitn.flower_apps]\nages = ages:app\n")
    (site / "ages.py").write_text(APP)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.check_output([FLOWER, "-c", where], text=True).strip()
    (site / "sitecustomize.py").write_text(f"import sys\nsys.path.append({packages!r})\n")
    (tmp_path / "work").mkdir()
    for n in (0, 1):
        table(tmp_path / "work" / f"{n}.csv", n)
    table(tmp_path / "work" / "test.csv", 9)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-c", SITE, str(tmp_path / "work")],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert ended.returncode == 0, ended.stderr
    value, items = json.loads(ended.stdout.splitlines()[-1])
    assert value > 0.9
    assert items == 120


def test_tasks_and_answers_are_what_the_client_writes_and_reads() -> None:
    """The client is plain Python, as it runs without DA-ITN's packages."""
    told = {"do": "train", "recipe": "classifier", "config": CONFIG, "threads": 1, "epochs": 1.0}
    task = msgspec.convert(told | {"data": "x.csv", "seed": 0}, VisitRequest, strict=True)
    assert task.config == CONFIG
    answer = msgspec.to_builtins(VisitAnswer(examples=3, metric="accuracy"))
    assert answer.keys() == {"examples", "value", "metric", "error"}
