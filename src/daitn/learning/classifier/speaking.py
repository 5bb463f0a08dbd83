"""A classifier that answers queries: it gets one record and answers with its class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import torch

from daitn.learning.answering.protocol import Piece, Question, only_message
from daitn.learning.classifier.config import ClassifierConfig
from daitn.learning.classifier.network import forward, scaled
from daitn.learning.classifier.parts import State
from daitn.objects.errors import InvalidInput
from daitn.objects.text import plain

__all__ = ["ClassifierGenerator"]

_RECORD = msgspec.json.Decoder(dict[str, float | None])


class ClassifierGenerator:
    """See `daitn.learning.answering.protocol.Generator`.

    A question is one message: a JSON object of columns and numbers. A column that is null counts as
    missing; one that is absent may have been forgotten. The answer is the most likely class.
    """

    most_tokens = 2
    """An answer has one, and is never cut off."""

    def __init__(self, state: State, config: ClassifierConfig) -> None:
        self._state = state
        self._config = config

    def length(self, question: Question) -> int:
        """The number of columns in the record."""
        return len(self._record(question))

    def answer(self, question: Question) -> Iterator[Piece]:
        """See `Generator.answer`."""
        record = self._record(question)
        standard = self._state.standard
        assert standard is not None, "a model that knows its columns has seen data"
        values = [record[column] for column in self._state.columns]
        features = np.array([[math.nan if v is None else v for v in values]], np.float32)
        with torch.inference_mode():
            logits = forward(scaled(features, standard), self._state.layers)
            log_probabilities = torch.log_softmax(logits[0], dim=0)
        best = int(log_probabilities.argmax())
        yield Piece(self._config.classes[best], float(log_probabilities[best]))

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Raises `InvalidInput`: a classifier embeds no texts."""
        raise InvalidInput("this model cannot embed texts", field="model", fix="use another model")

    def _record(self, question: Question) -> dict[str, float | None]:
        columns = self._state.columns
        content = only_message(question)
        try:
            record = _RECORD.decode(content.encode())
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
