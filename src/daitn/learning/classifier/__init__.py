"""A recipe for tables: a small network that classifies records by numeric columns.

It suits images too, with one column per pixel. Data and test sets have the schema `table/1`: a CSV
file whose header names the columns. The label is in the column called `label`, or the one that the
data's owner names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

from daitn.learning.answering.protocol import Generator
from daitn.learning.classifier.config import ASSUMED_COLUMNS, METRICS, parse_config
from daitn.learning.classifier.exposure import profile_of_test
from daitn.learning.classifier.table import profile, read_table
from daitn.learning.recipe import (
    Config,
    DataProfile,
    DpSgd,
    Exported,
    Footprint,
    Form,
    LocalTask,
    Measured,
    MergeTask,
    Progress,
    Savepoints,
    Selection,
    Trained,
)
from daitn.objects.abilities import Abilities, Reads, Says
from daitn.objects.deployments import Api

__all__ = ["Classifier"]

_FLOAT_BYTES = 4
_COPIES = 4
"""Weights, gradients and Adam's two moments."""
_ENGINE_BYTES = 250 << 20
"""Resident memory of a process that has imported PyTorch (measured: 220 MB)."""


def _learning(rate: float) -> dict[str, tuple[float, float]]:
    """Fitted to recorded training on breast cancer, digits and wine (`benchmarks/recordings`): the
    examples needed are inverse to the learning rate; nothing is averaged; repetition hardly wears
    off; only labels matter."""
    return {
        "tau": (6.3 - math.log(rate / 1e-3), 1.0),
        "warm": (0.2, 1.5),
        "ripe": (0.0, 2.5),
        "repeats": (5.5, 1.2),
        "fading": (-2.6, 1.2),
        "labelled": (4.0, 1.5),
        "averaged": (-4.0, 1.0),
    }


class Classifier:
    """The recipe `classifier`. Only the methods that compute import PyTorch."""

    name = "classifier"
    data_schema = "table/1"
    test_schema = "table/1"
    metrics: tuple[str, ...] = METRICS
    apis: tuple[Api, ...] = (Api.CHAT, Api.COMPLETIONS)
    abilities = Abilities(reads=(Reads.TABLE,), says=(Says.CLASS,), tools=False, json_schema=False)

    def __init__(
        self,
        selection: Selection | None = None,
        savepoints: Savepoints | None = None,
        task: LocalTask | None = None,
        privacy: DpSgd | None = None,
    ) -> None:
        """`selection`: the data owner's restrictions on columns; `task`: the algorithm's
        requirements for a visit."""
        self._selection = selection or Selection()
        self._savepoints = savepoints
        self._task = task or LocalTask()
        self._privacy = privacy

    def selecting(self, selection: Selection) -> Classifier:
        """See `Selecting`."""
        return Classifier(selection, self._savepoints, self._task, self._privacy)

    def resuming(self, savepoints: Savepoints) -> Classifier:
        """See `Resuming`."""
        return Classifier(self._selection, savepoints, self._task, self._privacy)

    def adapting(self, task: LocalTask) -> Classifier:
        """See `Adapting`."""
        return Classifier(self._selection, self._savepoints, task, self._privacy)

    def privately(self, terms: DpSgd) -> Classifier:
        """See `Private`."""
        return Classifier(self._selection, self._savepoints, self._task, terms)

    def estimate(self, config: Config) -> Footprint:
        settings = parse_config(config)
        columns = settings.features if isinstance(settings.features, int) else ASSUMED_COLUMNS
        sizes = settings.layer_sizes(columns)
        weights = sum(a * b for a, b in itertools.pairwise(sizes))
        parameters = weights + sum(sizes[1:])
        activations = settings.batch * sum(sizes) * 2
        return Footprint(
            parameters=parameters,
            # Two operations per weight forward, twice as many backward.
            flops_per_example=6.0 * weights,
            memory_bytes=_ENGINE_BYTES + _FLOAT_BYTES * (parameters * _COPIES + activations),
            size_bytes=_FLOAT_BYTES * (parameters + 2 * columns),
            labels=settings.classes,
            labels_field="model.config.classes",
            columns=settings.columns_needed(),
            private=bool(settings.ranges),
            merges_fresh=True,
            learning=_learning(settings.learning_rate),
        )

    def inspect(self, data: Path) -> DataProfile:
        return profile(data, self._selection)

    def inspect_test(self, test: Path) -> DataProfile:
        return profile_of_test(test, self._selection, self.metrics)

    def initialise(self, config: Config, seed: int, out: Path) -> None:
        from daitn.learning.classifier import parts

        settings = parse_config(config)
        parts.write(parts.fresh(settings, seed), out)

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
        from daitn.learning.classifier import parts, training

        settings = parse_config(config)
        state = parts.read(model, settings)
        table = read_table(data, settings.label, self._selection)
        own = parts.read(Path(self._task.own), settings) if self._task.own else None
        trained = training.train(
            state,
            settings,
            table,
            data,
            examples,
            seed,
            watch,
            self._selection.least_records,
            self._savepoints,
            self._task.rule,
            own,
            self._privacy,
        )
        parts.write(state, out)
        return trained

    def evaluate(self, model: Path, config: Config, test: Path, metric: str) -> Measured:
        from daitn.learning.classifier import evaluation, parts

        settings = parse_config(config)
        evaluation.check_metric(metric)
        table = read_table(test, settings.label, self._selection)
        return evaluation.evaluate(parts.read(model, settings), settings, table, test, metric)

    def merge(self, task: MergeTask, config: Config, out: Path, moments: Path) -> tuple[str, ...]:
        """See `Merging.merge`."""
        from daitn.learning.classifier import merging

        merging.merge(task, parse_config(config), out, moments)
        return ()

    def export_model(self, model: Path, config: Config, form: Form, out: Path) -> Exported:
        from daitn.learning.classifier import export

        return export.export_model(model, parse_config(config), form, out)

    def open(self, model: Path, config: Config) -> Generator:
        from daitn.learning.classifier import parts
        from daitn.learning.classifier.speaking import speaking

        settings = parse_config(config)
        return speaking(parts.read(model, settings), settings)
