"""The process that trains: `python -m daitn.learning.worker --threads N`.

A child of the node, so that training neither holds the node's interpreter nor takes the node
down with it. It reads commands on its standard input and answers on its standard output, both of
which it keeps from the recipes, and ends with the node that started it, however that one ends.
"""

from __future__ import annotations

import importlib
import queue
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from daitn.learning import registry
from daitn.learning.child.frames import Ready
from daitn.learning.child.inside import reported, send, serve
from daitn.learning.commands import (
    Advanced,
    Command,
    EstimateFootprint,
    Evaluate,
    Initialise,
    Inspect,
    InspectTest,
    ProbeSpeed,
    Reply,
    Train,
    WorkerFailed,
    WorkerFinished,
)
from daitn.learning.recipe import Progress, Recipe
from daitn.objects.errors import DaitnError
from daitn.objects.wire import encode

__all__ = ["main"]


def main() -> None:
    """Serve commands until the node goes away."""
    serve("daitn.learning.worker", lambda replies, inbox: _Service(replies).run(inbox))


class _Service:
    """Carries out one command after the other."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._recipes: dict[str, Recipe] = {}

    def run(self, inbox: queue.SimpleQueue[bytes]) -> None:
        self._send(Ready())
        decoder = msgspec.msgpack.Decoder(Command)
        while True:
            self._send(self._answer(decoder.decode(inbox.get())))

    def _send(self, reply: Reply) -> None:
        send(self._replies, reply)

    def _answer(self, command: Command) -> Reply:
        try:
            return WorkerFinished(result=msgspec.Raw(encode(self._perform(command))))
        except Exception as error:
            foreseen = isinstance(error, DaitnError)
            told = "" if foreseen else traceback.format_exc()
            return WorkerFailed(error=reported(error), traceback=told)

    def _perform(self, command: Command) -> object:
        if isinstance(command, ProbeSpeed):
            return importlib.import_module("daitn.learning.probe").probe()
        recipe = self._recipe(command.recipe)
        match command:
            case EstimateFootprint():
                return recipe.estimate(command.config)
            case Inspect():
                return recipe.inspect(Path(command.data))
            case InspectTest():
                return recipe.inspect_test(Path(command.test))
            case Initialise():
                recipe.initialise(command.config, command.seed, Path(command.out))
                return None
            case Train():
                return _train(recipe, command, self._advance)
            case Evaluate():
                return recipe.evaluate(
                    Path(command.model), command.config, Path(command.test), command.metric
                )

    def _recipe(self, name: str) -> Recipe:
        if name not in self._recipes:
            self._recipes[name] = registry.load(name)
        return self._recipes[name]

    def _advance(self, progress: Progress) -> None:
        self._send(Advanced(progress=progress))


def _train(recipe: Recipe, command: Train, watch: Callable[[Progress], None]) -> object:
    return recipe.train(
        Path(command.model),
        command.config,
        Path(command.data),
        command.examples,
        command.seed,
        Path(command.out),
        watch,
    )


if __name__ == "__main__":
    main()
