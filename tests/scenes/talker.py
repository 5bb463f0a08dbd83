"""A recipe whose models say what they are told to, and misbehave on request.

A module of its own beside the tests' packages: workers import it as pip would install it.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat, takewhile
from pathlib import Path

from daitn.learning.answering.protocol import Piece, Question
from daitn.learning.recipe import Config, DataProfile, Footprint, Measured, Progress, Trained
from daitn.objects.deployments import Api
from daitn.objects.errors import InvalidInput

VOICE = "voice"
"""The one part of a model: how it begins what it says."""


class Talker:
    """`{"pause_s": 0.01}` is how long each piece takes, `{"load": "die"}` how loading ends."""

    name = "talker"
    data_schema = "any/1"
    test_schema = "any/1"
    metrics: tuple[str, ...] = ("accuracy",)
    apis: tuple[Api, ...] = (Api.CHAT, Api.COMPLETIONS, Api.EMBEDDINGS)

    def estimate(self, config: Config) -> Footprint:
        return Footprint(parameters=1, flops_per_example=1.0, memory_bytes=1, size_bytes=1)

    def inspect(self, data: Path) -> DataProfile:
        return DataProfile(samples=1, labels={}, quality=1.0)

    def inspect_test(self, test: Path) -> DataProfile:
        return DataProfile(samples=1, labels={}, quality=1.0)

    def initialise(self, config: Config, seed: int, out: Path) -> None:
        (out / VOICE).write_text(str(seed))

    def evaluate(self, model: Path, config: Config, test: Path, metric: str) -> Measured:
        return Measured(metric=metric, value=0.5, items=1, standard_error=0.5)

    def train(
        self,
        model: Path,
        config: Config,
        data: Path,
        examples: int,
        seed: int,
        out: Path,
        watch: Callable[[Progress], None],
    ) -> Trained:
        return Trained(examples=examples, seconds=0.0)

    def open(self, model: Path, config: Config) -> "Talking":
        load = config.get("load")
        if load == "die":
            os._exit(9)
        if load == "refuse":
            raise InvalidInput("it does not fit", field="model.config.load", fix="leave it out")
        if load == "hang":
            time.sleep(600)
        if load == "reckon":
            until_s = time.monotonic() + 2.0
            while time.monotonic() < until_s:
                pass
        return Talking((model / VOICE).read_text(), float(str(config.get("pause_s", 0.0))))


class Talking:
    most_tokens = 1000

    def __init__(self, voice: str, pause_s: float) -> None:
        self._voice = voice
        self._pause_s = pause_s
        self._under_way = 0
        self._embedded = 0

    def length(self, question: Question) -> int:
        asked = question.messages[-1].content
        if asked == "ponder":
            time.sleep(600)
        return len(asked.split())

    def answer(self, question: Question) -> Iterator[Piece | None]:
        asked = question.messages[-1].content
        if asked == "refuse":
            raise InvalidInput("not that", field="messages", fix="ask something else")
        if asked == "hum":
            for _ in range(50):
                time.sleep(0.04)
                yield None
            yield Piece("hm", -0.5)
            return
        self._under_way += 1
        with contextlib.ExitStack() as ended:
            ended.callback(self._ended)
            most = None if asked.startswith("until ") else question.max_tokens
            for word in islice(self._words(asked), most):
                time.sleep(self._pause_s)
                yield Piece(word, -0.5)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        time.sleep(self._pause_s)
        self._embedded += len(texts)
        return [[float(len(text)), 1.0] for text in texts]

    def _words(self, asked: str) -> Iterable[str]:
        what, _, more = asked.partition(" ")
        if what == "until":  # A file is there.
            return takewhile(lambda word: not Path(more).exists(), repeat("on "))
        if what == "count":
            return [f"{number} " for number in range(int(more))]
        if what == "die":
            os._exit(9)
        if what == "hang":
            time.sleep(600)
        if what == "trip":
            raise KeyError("no such word")
        if what == "status":
            return [f"{self._under_way - 1} {self._embedded}"]
        return [f"{self._voice} ", "heard ", asked]

    def _ended(self) -> None:
        self._under_way -= 1
