"""A recipe for tables: boosted trees. Data and test sets are those of `classifier`. A visit
appends trees fitted to the residuals of the earlier ones at the site; a merge unites the trees
of several sites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from daitn.learning.answering.protocol import Generator
from daitn.learning.boosted_trees.config import parse_config
from daitn.learning.classifier.config import ASSUMED_COLUMNS, METRICS
from daitn.learning.classifier.exposure import profile_of_test
from daitn.learning.classifier.table import profile, read_table
from daitn.learning.recipe import (
    Config,
    DataProfile,
    Exported,
    Footprint,
    Form,
    Imported,
    Measured,
    MergeTask,
    Progress,
    Selection,
    Trained,
)
from daitn.objects.abilities import Abilities, Reads, Says
from daitn.objects.deployments import Api
from daitn.objects.merging import MERGE_RULES, Algorithm
from daitn.objects.model_needs import ColumnsNeeded

__all__ = ["BoostedTrees"]

_ENGINE_BYTES = 300 << 20
"""Resident memory of a process that has imported PyTorch and xgboost."""
_COPIES = 6
"""Copies of the trees: as received, as read, grown, in xgboost's file, joined and written."""
_FLOPS = 100.0
"""Operations per record, tree level and column, in the multiplications by which a site's speed is
measured: histograms are bound by memory."""


class BoostedTrees:
    """The recipe `boosted-trees`. Only the methods that compute import an engine."""

    name = "boosted-trees"
    data_schema = "table/1"
    test_schema = "table/1"
    metrics: tuple[str, ...] = METRICS
    apis: tuple[Api, ...] = (Api.CHAT, Api.COMPLETIONS)
    abilities = Abilities(reads=(Reads.TABLE,), says=(Says.CLASS,), tools=False, json_schema=False)

    def __init__(self, selection: Selection | None = None) -> None:
        """`selection`: the data owner's restrictions on columns."""
        self._selection = selection or Selection()

    def selecting(self, selection: Selection) -> BoostedTrees:
        """See `Selecting`."""
        return BoostedTrees(selection)

    def estimate(self, config: Config) -> Footprint:
        settings = parse_config(config)
        splits = 2**settings.depth - 1
        size_bytes = settings.most_trees * (13 * splits + 6)
        trees = settings.rounds * settings.groups
        return Footprint(
            parameters=settings.most_trees * (2 * splits + 1),
            flops_per_example=_FLOPS * trees * settings.depth * ASSUMED_COLUMNS,
            memory_bytes=_ENGINE_BYTES + _COPIES * size_bytes,
            size_bytes=size_bytes,
            labels=settings.classes,
            labels_field="model.config.classes",
            columns=ColumnsNeeded(field="data", fix="`ignore` columns that say nothing"),
            merges_fresh=True,
            packages=("xgboost",),
        )

    def inspect(self, data: Path) -> DataProfile:
        return profile(data, self._selection)

    def inspect_test(self, test: Path) -> DataProfile:
        return profile_of_test(test, self._selection, self.metrics)

    def initialise(self, config: Config, seed: int, out: Path) -> None:
        """A fresh model has no trees, whatever the seed."""
        from daitn.learning.boosted_trees import parts

        parts.write(parts.fresh(parse_config(config)), out)

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
        from daitn.learning.boosted_trees import parts, training

        settings = parse_config(config)
        state = parts.read(model, settings)
        table = read_table(data, settings.label, self._selection)
        trained = training.train(
            state, settings, table, data, examples, seed, watch, self._selection.least_records
        )
        parts.write(state, out)
        return trained

    def evaluate(self, model: Path, config: Config, test: Path, metric: str) -> Measured:
        from daitn.learning.boosted_trees import evaluation, parts

        settings = parse_config(config)
        evaluation.check_metric(metric, self.name)
        table = read_table(test, settings.label, self._selection)
        return evaluation.measure(parts.read(model, settings), settings, table, test, metric)

    def trains_by(self, algorithm: Algorithm) -> bool:
        """See `StatingAlgorithms`: trees are united, by shares."""
        from daitn.learning.boosted_trees.ensemble import unites

        rule = MERGE_RULES.get(algorithm)
        return rule is None or unites(rule)

    def merge(self, task: MergeTask, config: Config, out: Path, moments: Path) -> tuple[str, ...]:
        """See `Merging.merge`. It keeps no state."""
        from daitn.learning.boosted_trees import merging

        merging.merge(task, parse_config(config), out)
        return ()

    def export_model(self, model: Path, config: Config, form: Form, out: Path) -> Exported:
        from daitn.learning.boosted_trees import export

        return export.export_model(model, parse_config(config), form, out)

    def import_model(self, folder: Path, out: Path) -> Imported:
        """See `Importing`: a folder with a `model.json` saved by xgboost."""
        from daitn.learning.boosted_trees import export

        return export.import_model(folder, out)

    def open(self, model: Path, config: Config) -> Generator:
        from daitn.learning.boosted_trees import evaluation, parts
        from daitn.learning.classifier.speaking import RecordGenerator

        settings = parse_config(config)
        state = parts.read(model, settings)
        return RecordGenerator(
            state.columns,
            settings.classes,
            lambda records: evaluation.scores(state, settings, records),
        )
