"""One visit of a Flower server's model to a recipe: `python -m daitn.learning.flower.visit FOLDER`.

Runs where DA-ITN is installed, for `client`. Reads `task.json` and, unless it makes a model,
`arrays.npz` in the folder; writes `answer.json` and the new `arrays.npz`. The recipe runs in the
sandbox, as at a node.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from daitn.learning.flower.arrays import arrays_of, write_parts
from daitn.learning.process import WorkerProcess
from daitn.learning.trainer import Trainer
from daitn.objects.errors import DaitnError

__all__ = ["VisitAnswer", "VisitRequest", "carry_out", "main"]

TASK, ANSWER, ARRAYS = "task.json", "answer.json", "arrays.npz"


class VisitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The requested work."""

    do: Literal["initialise", "train", "evaluate"]
    recipe: str
    config: dict[str, object]
    data: str = ""
    """File of the data, or of the test set."""
    epochs: float = 1.0
    seed: int = 0
    metric: str = ""
    """Empty means the recipe's first."""
    threads: int = 1


class VisitAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The result, or the reason for its failure."""

    examples: int = 0
    """Number trained on, or measured."""
    value: float = 0.0
    metric: str = ""
    error: str = ""


def main() -> None:
    """Carry out the visit in the folder that the command names."""
    folder = Path(sys.argv[1])
    visit = msgspec.json.decode((folder / TASK).read_bytes(), type=VisitRequest)
    try:
        answer = asyncio.run(carry_out(visit, folder))
    except DaitnError as error:
        answer = VisitAnswer(error=str(error))
    (folder / ANSWER).write_bytes(msgspec.json.encode(answer))


async def carry_out(visit: VisitRequest, folder: Path) -> VisitAnswer:
    """Raises like recipes."""
    model, out = folder / "model", folder / "out"
    for new in (model, out):
        new.mkdir()
    trainer = Trainer(threads=visit.threads, process=WorkerProcess)
    try:
        if visit.do == "initialise":
            await trainer.initialise(visit.recipe, visit.config, visit.seed, out)
            _leave(folder, out)
            return VisitAnswer()
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            write_parts(dict(arrays), model)
        if visit.do == "evaluate":
            return await _measured(trainer, visit, model)
        profile = await trainer.inspect(visit.recipe, Path(visit.data))
        examples = max(1, round(visit.epochs * profile.samples))
        trained = await trainer.train(
            visit.recipe,
            model,
            visit.config,
            Path(visit.data),
            examples,
            visit.seed,
            out,
            lambda progress: None,
        )
        for part in trained.carried:
            shutil.copyfile(model / part, out / part)
        _leave(folder, out)
        return VisitAnswer(examples=trained.examples)
    finally:
        await trainer.close()


async def _measured(trainer: Trainer, visit: VisitRequest, model: Path) -> VisitAnswer:
    metric = visit.metric or (await trainer.facts(visit.recipe)).metrics[0]
    measured = await trainer.evaluate(visit.recipe, model, visit.config, Path(visit.data), metric)
    return VisitAnswer(examples=measured.items, value=measured.value, metric=metric)


def _leave(folder: Path, out: Path) -> None:
    np.savez(folder / ARRAYS, **arrays_of(out))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
