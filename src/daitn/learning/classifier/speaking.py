"""A model of tables that answers queries: it gets one record and answers with its class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from daitn.learning.answering.protocol import Piece, Question, only_message
from daitn.learning.classifier.config import ClassifierConfig
from daitn.learning.classifier.network import forward, scaled
from daitn.learning.classifier.parts import State
from daitn.objects.errors import InvalidInput
from daitn.objects.text import plain
from daitn.openai.query_needs import RECORD

__all__ = ["RecordGenerator", "speaking"]


def speaking(state: State, config: ClassifierConfig) -> RecordGenerator:
    """A classifier in its answering form."""

    def scores(features: NDArray[np.float32]) -> NDArray[np.float64]:
        assert state.standard is not None, "a model that knows its columns has seen data"
        with torch.inference_mode():
            logits = forward(scaled(features, state.standard), state.layers)
            return torch.log_softmax(logits, dim=1).double().numpy()

    return RecordGenerator(state.columns, config.classes, scores)


class RecordGenerator:
    """See `daitn.learning.answering.protocol.Generator`.

    A question is one message: a JSON object of columns and numbers. A column that is null counts as
    missing; one that is absent may have been forgotten. The answer is the most likely class.
    """

    most_tokens = 2
    """An answer has one token, and is never cut off."""

    def __init__(
        self,
        columns: tuple[str, ...],
        classes: tuple[str, ...],
        scores: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    ) -> None:
        """`scores`: the log probability of each class, for records of these columns."""
        self._columns = columns
        self._classes = classes
        self._scores = scores

    def length(self, question: Question) -> int:
        """The number of columns in the record."""
        return len(self._record(question))

    def answer(self, question: Question) -> Iterator[Piece]:
        """See `Generator.answer`."""
        record = self._record(question)
        values = [record[column] for column in self._columns]
        features = np.array([[math.nan if v is None else v for v in values]], np.float32)
        likely = self._scores(features)[0]
        best = int(likely.argmax())
        yield Piece(self._classes[best], float(likely[best]))

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Raises `InvalidInput`: it cannot embed texts."""
        raise InvalidInput("this model cannot embed texts", field="model", fix="use another model")

    def _record(self, question: Question) -> dict[str, float | None]:
        columns = self._columns
        content = only_message(question)
        try:
            record = RECORD.decode(content.encode())
        except msgspec.DecodeError as error:
            raise InvalidInput(
                f"this model takes a JSON object of numbers: {error}",
                field="messages",
                fix=f'ask, for instance, {{"{columns[0] if columns else "column"}": 1.5}}',
            ) from None
        record = {plain(column): value for column, value in record.items()}
        if unknown := sorted(record.keys() - set(columns)):
            raise InvalidInput(
                f"no such columns: {', '.join(unknown[:5])}",
                field="messages",
                fix=f"use {', '.join(columns[:10])}",
            )
        if absent := [column for column in columns if column not in record]:
            raise InvalidInput(
                f"the record lacks {', '.join(absent[:5])}",
                field="messages",
                fix="give null where a number is missing",
            )
        return record
