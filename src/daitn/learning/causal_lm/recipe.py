"""The class `CausalLm`: the recipe protocol, importing no framework before work starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from daitn.learning.answering.protocol import Generator, Room
from daitn.learning.causal_lm.probes import members, no_probes
from daitn.learning.causal_lm.settings import CausalLmConfig, footprint
from daitn.learning.corpora.records import read_choices, read_pairs
from daitn.learning.exposure import UNEXPOSED, without_probes
from daitn.learning.recipe import (
    LEAST_RECORDS,
    Config,
    DataProfile,
    DpSgd,
    Exported,
    Footprint,
    Form,
    Imported,
    LocalTask,
    Measured,
    MergeTask,
    Progress,
    Savepoints,
    Selection,
    Trained,
    check_no_columns,
)
from daitn.objects.abilities import Abilities, Says
from daitn.objects.deployments import Api
from daitn.objects.errors import InvalidInput
from daitn.objects.merging import LOCAL_RULES, Algorithm, LocalRule

__all__ = ["CausalLm"]

_LEAST_WORDS = 5
"""A shorter answer is rarely a real one ("See above.")."""


class CausalLm:
    """A causal language model, from scratch or as adapters on an imported one.

    Learns from `qa-pairs/1` and is measured on `multiple-choice/1`: it chooses the option that
    makes the question most likely. Probes among the items measure what it reveals of records.
    `daitn.learning.recipe.Recipe` documents the methods.
    """

    name = "causal-lm"
    data_schema = "qa-pairs/1"
    test_schema = "multiple-choice/1"
    metrics: tuple[str, ...] = ("accuracy", "unexposed")
    apis: tuple[Api, ...] = (Api.CHAT, Api.COMPLETIONS, Api.EMBEDDINGS)
    abilities = Abilities(says=(Says.TEXT, Says.VECTOR), tools=False, json_schema=False)

    def __init__(
        self,
        least_records: int = LEAST_RECORDS,
        savepoints: Savepoints | None = None,
        task: LocalTask | None = None,
        privacy: DpSgd | None = None,
    ) -> None:
        """A tokenizer is learned from words that occur in at least `least_records` records, and
        none with `privacy`; `task`: the algorithm's requirements for a visit."""
        self._least_records = least_records
        self._savepoints = savepoints
        self._task = task or LocalTask()
        self._privacy = privacy

    def selecting(self, selection: Selection) -> CausalLm:
        """See `Selecting`."""
        check_no_columns(self.name, selection)
        return CausalLm(selection.least_records, self._savepoints, self._task, self._privacy)

    def resuming(self, savepoints: Savepoints) -> CausalLm:
        """See `Resuming`."""
        return CausalLm(self._least_records, savepoints, self._task, self._privacy)

    def adapting(self, task: LocalTask) -> CausalLm:
        """See `Adapting`."""
        if task.rule.distillation:
            raise InvalidInput(
                f"the recipe {self.name} does not support distillation from the arriving model",
                field="training.algorithm",
                fix="use the algorithm ewc or sequential",
            )
        return CausalLm(self._least_records, self._savepoints, task, self._privacy)

    def trains_by(self, algorithm: Algorithm) -> bool:
        """See `StatingAlgorithms`."""
        return not LOCAL_RULES.get(algorithm, LocalRule()).distillation

    def privately(self, terms: DpSgd) -> CausalLm:
        """See `Private`."""
        return CausalLm(self._least_records, self._savepoints, self._task, terms)

    def estimate(self, config: Config) -> Footprint:
        """See `Recipe.estimate`."""
        return footprint(CausalLmConfig.of(config))

    def inspect(self, data: Path) -> DataProfile:
        """See `Recipe.inspect`. A usable record is not a duplicate and has a real answer."""
        pairs = read_pairs(data)
        usable = {
            (pair.question, pair.answer)
            for pair in pairs
            if len(pair.answer.split()) >= _LEAST_WORDS
        }
        return DataProfile(
            samples=len(pairs),
            labels=dict(sorted(Counter(pair.label for pair in pairs).items())),
            different=_different((pair.label, pair.question, pair.answer) for pair in pairs),
            quality=len(usable) / len(pairs),
        )

    def inspect_test(self, test: Path) -> DataProfile:
        """See `Recipe.inspect_test`. A usable item has four distinct options; `unexposed` is
        measured if all are probes."""
        choices = read_choices(test)
        why_not = no_probes(choices)
        usable = sum(len(set(item.options)) == len(item.options) for item in choices)
        found = DataProfile(
            samples=len(choices),
            labels=dict(sorted(Counter(item.label for item in choices).items())),
            different=_different((item.label, item.question, item.options) for item in choices),
            quality=usable / len(choices),
            metrics=self.metrics,
        )
        return without_probes(found, self.metrics, why_not) if why_not else found

    def initialise(self, config: Config, seed: int, out: Path) -> None:
        """See `Recipe.initialise`."""
        settings = CausalLmConfig.of(config)
        from daitn.learning.causal_lm.models import write_fresh

        write_fresh(settings, seed, out)

    def import_model(self, folder: Path, out: Path) -> Imported:
        """See `Importing.import_model`. Accepts a folder in the format of `transformers`."""
        from daitn.learning.causal_lm.importing import import_pretrained

        return Imported(config=import_pretrained(folder, out))

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
        """See `Recipe.train`. At the first site a fresh model learns its tokenizer; with private
        training, it reads bytes."""
        settings = CausalLmConfig.of(config)
        if examples < 1:
            raise InvalidInput(f"is {examples}", field="examples", fix="train on at least one")
        pairs = read_pairs(data)
        from daitn.learning.causal_lm import models, private_training, tokens, training
        from daitn.learning.local.companions import read_companions

        if self._privacy is not None:
            loaded = models.load(model, settings)
            trained = private_training.train_privately(
                loaded, settings, pairs, self._privacy, watch, self._savepoints
            )
            carried = models.save(loaded, settings, model, out)
            return msgspec.structs.replace(trained, carried=carried)
        loaded, others = models.load_on_all(model, settings)
        if tokens.knows_only_bytes(loaded.tokenizer):
            records = ((pair.question, pair.answer) for pair in pairs)
            loaded.tokenizer = tokens.learn_tokenizer(
                records, settings.vocabulary, self._least_records
            )
        trainable = loaded.network.trainable().items()
        shapes = {name: tuple(weight.shape) for name, weight in trainable}
        loaded.companions = read_companions(model, shapes)
        own = read_companions(Path(self._task.own), shapes).variate if self._task.own else ()
        trained = training.train(
            loaded,
            settings,
            pairs,
            examples,
            seed,
            watch,
            self._least_records,
            self._savepoints,
            others,
            self._task.rule,
            own,
        )
        carried = models.save(loaded, settings, model, out)
        return msgspec.structs.replace(trained, carried=carried)

    def evaluate(self, model: Path, config: Config, test: Path, metric: str) -> Measured:
        """See `Recipe.evaluate`."""
        settings = CausalLmConfig.of(config)
        if metric not in self.metrics:
            raise InvalidInput(
                f"{self.name} has no metric {metric!r}",
                field="metric",
                fix=f"ask for {', '.join(self.metrics)}",
            )
        choices = read_choices(test)
        from daitn.learning.causal_lm import evaluation, models

        if metric == UNEXPOSED:
            member = members(choices, test)
            return evaluation.exposure(models.load(model, settings), settings, choices, member)
        return evaluation.accuracy(models.load(model, settings), settings, choices)

    def merge(self, task: MergeTask, config: Config, out: Path, moments: Path) -> tuple[str, ...]:
        """See `Merging.merge`."""
        from daitn.learning.causal_lm import merging

        return merging.merge(task, CausalLmConfig.of(config), out, moments)

    def export_model(self, model: Path, config: Config, form: Form, out: Path) -> Exported:
        """See `Exporting.export_model`."""
        settings = CausalLmConfig.of(config)
        if form is Form.PARTS:
            from daitn.learning.causal_lm.chat import read_chat
            from daitn.learning.causal_lm.usage import parts_usage

            chat = read_chat(model, settings.vocabulary)
            return Exported(usage=parts_usage(settings, chat))
        from daitn.learning.causal_lm import export

        return Exported(usage=export.export_model(model, settings, form, out))

    def open(self, model: Path, config: Config) -> Generator:
        """See `Answering.open`."""
        return self.host(model, config, Room())

    def host(self, model: Path, config: Config, room: Room) -> Generator:
        """See `Hosting.host`."""
        settings = CausalLmConfig.of(config)
        if settings.base:
            from daitn.learning.causal_lm.conversing import PretrainedGenerator

            return PretrainedGenerator(model, settings, room)
        from daitn.learning.causal_lm import models
        from daitn.learning.causal_lm.speaking import CausalGenerator

        return CausalGenerator(models.load(model, settings), settings)


def _different(records: Iterable[tuple[str, *tuple[object, ...]]]) -> dict[str, int]:
    """Number of distinct records per label."""
    return dict(sorted(Counter(label for label, *_ in set(records)).items()))
