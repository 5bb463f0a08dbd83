"""The gate: whatever a site publishes or reports of a data set or a test set is made here.

Recipes read records, and a visitor chooses what they compute. So nothing passes as it comes out of
a recipe: labels with few records are suppressed, losses are averaged and rounded, and a failure
leaves as one of a few fixed sentences with counts, while the recipe's own words stay in the site's
log. This is statistical disclosure control by a threshold rule (Hundepool et al. 2012, *Statistical
Disclosure Control*).
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from daitn.learning.child.outside import ProcessFailed
from daitn.learning.recipe import DataFault, DataProfile, Fault, Measured, Progress
from daitn.objects.descriptors import TopicSketch
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    InvalidInput,
    NotFound,
    StorageFull,
    WorkFailed,
)
from daitn.topology.topics import sketch

__all__ = ["Disclosure", "LossGate", "withheld"]

log = logging.getLogger(__name__)

_STEPS = 20
"""Progress reports of a visit, at most."""
_LAST_SHARE = 0.1
"""Share of a visit whose mean loss is the visit's loss."""
_DIGITS = 3
"""Significant digits of a loss, enough to see a trend: exact means could be solved for the losses
of single records over many visits."""
_SEE_LOG = "the site's log says more"


@dataclass(frozen=True)
class Disclosure:
    """What may leave of one data set or test set."""

    name: str
    """In messages of this site: `data set notes`."""
    least_records: int
    """Minimum number of records behind anything that leaves."""
    label_values: bool = True
    """Whether measured values per label leave."""

    def check_profile(self, profile: DataProfile) -> None:
        """Raise `InvalidInput` if there are too few records to describe any of them together."""
        if profile.samples < self.least_records:
            raise InvalidInput(
                f"has fewer than {self.least_records} records",
                field="least_records",
                fix="add records: a model, a measurement or a count would describe single ones",
            )

    def check_examples(self, examples: int) -> None:
        """Raise `InvalidInput` for a visit too short to hide what one record taught."""
        if examples < self.least_records:
            raise InvalidInput(
                f"{examples} examples would let the model show what single records taught",
                field="examples",
                fix=f"train on at least {self.least_records}",
            )

    def labels(self, histogram: Mapping[str, int]) -> dict[str, int]:
        """The histogram of the labels with enough records."""
        return {label: n for label, n in histogram.items() if n >= self.least_records}

    def sketch(self, texts: Iterable[str]) -> TopicSketch:
        """How texts are worded, from features that occur in enough of them."""
        return sketch(texts, self.least_records)

    def by_label(self, measured: Measured) -> dict[str, float]:
        """The metric of the labels with enough items, if the owner lets it out.

        The metric of all items, less that of these labels, is that of the others together: where
        these are few, the smallest of these labels is left out, too (complementary suppression).
        """
        if not self.label_values:
            return {}
        scores = measured.by_label
        enough = [label for label, one in scores.items() if one.items >= self.least_records]
        enough.sort(key=lambda label: (-scores[label].items, label))
        others = measured.items - sum(scores[label].items for label in enough)
        while enough and 0 < others < self.least_records:
            others += scores[enough.pop()].items
        return {label: scores[label].value for label in sorted(enough)}

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """While a recipe reads records: log an error in full, and raise what may leave of it.

        The full error is the cause of what is raised, for whoever runs this process.
        """
        try:
            yield
        except DaitnError as error:
            log.error("%s: %s", self.name, error)
            raise withheld(error) from error


class LossGate:
    """Turns a recipe's progress into coarse steps: means over enough records, rounded."""

    def __init__(self, least_records: int) -> None:
        self._least = least_records
        self._summed, self._since = 0.0, 0
        self._steps: list[tuple[int, float]] = []
        """Examples and mean loss of each step."""
        self._done = 0

    def take(self, progress: Progress) -> Progress | None:
        """The progress to publish, if enough was trained since the last time."""
        examples = max(0, progress.examples - self._done)
        self._done += examples
        self._summed += progress.loss * examples
        self._since += examples
        if self._since < max(self._least, progress.of_examples / _STEPS):
            return None
        loss = self._summed / self._since
        self._steps.append((self._since, loss))
        self._summed, self._since = 0.0, 0
        return Progress(examples=self._done, of_examples=progress.of_examples, loss=_rounded(loss))

    def loss(self) -> float | None:
        """The visit's loss: the mean over its last tenth; none if too few records reported one."""
        examples, summed = self._since, self._summed
        for count, loss in reversed(self._steps):
            if examples >= max(self._least, self._done * _LAST_SHARE):
                break
            examples, summed = examples + count, summed + count * loss
        return _rounded(summed / examples) if examples >= self._least else None


def withheld(error: DaitnError) -> DaitnError:
    """What may leave of an error that was raised while a recipe read records.

    The node's own words, and fixed sentences with counts: a recipe's words may hold a record.
    """
    match error:
        case ProcessFailed():
            return error
        case DataFault():
            return _stated(error)
        case NotFound():
            return NotFound("a file is missing", field="dataset", fix=_SEE_LOG)
        case Corrupt():
            return Corrupt(
                "the recipe cannot read the model's parts with this configuration",
                field="model.config",
                fix="use the configuration that the model was made with",
            )
        case InvalidInput():
            return InvalidInput(
                "the recipe can use neither the data nor the configuration on it",
                field="dataset",
                fix=_SEE_LOG,
            )
        case StorageFull():
            return StorageFull("the site's disk has no room", fix=_SEE_LOG)
    return WorkFailed("the recipe failed", fix=_SEE_LOG)


class _Sentence(NamedTuple):
    problem: str
    """With the fault's counts as fields."""
    field: str = "dataset"
    fix: str = _SEE_LOG


_SENTENCES = {
    Fault.NO_REGULAR_FILE: _Sentence("the data is not a file"),
    Fault.UNREADABLE: _Sentence("the data cannot be read"),
    Fault.NO_TEXT: _Sentence("the data is not UTF-8 text"),
    Fault.NO_CSV: _Sentence("the data is not a CSV file"),
    Fault.NO_HEADER: _Sentence("the header names fewer than two columns"),
    Fault.NO_RECORDS: _Sentence("the data has no records"),
    Fault.NO_LABEL: _Sentence("no column is called as the label is"),
    Fault.TOO_MANY_LABELS: _Sentence("{labels} different labels are too many to make classes"),
    Fault.MALFORMED: _Sentence("the data is malformed: {problems} problems"),
    Fault.OTHER_COLUMNS: _Sentence(
        "the data has other columns than the model has learned from",
        "columns",
        "give the columns the same names at every site; add a missing one, empty where its values "
        "are not known, and have the site `ignore` the others",
    ),
    Fault.OTHER_WIDTH: _Sentence(
        "the model takes {model} features, the data has {data}",
        "model.config.features",
        "give the number of feature columns, or `auto`",
    ),
    Fault.OTHER_LABELS: _Sentence(
        "the data has labels that are not classes of the model",
        "model.config.classes",
        "list every class in any site's data",
    ),
    Fault.LABEL_NOT_OFFERED: _Sentence(
        "the owner of the data does not offer that column as the label",
        "model.config.label",
        "leave it out: each data set's owner says which column it is",
    ),
    Fault.COLUMNS_NOT_CHOSEN: _Sentence("the recipe cannot limit which columns it reads"),
    Fault.LOSS_NOT_FINITE: _Sentence(
        "the loss is no longer finite",
        "model.config.learning_rate",
        "lower model.config.learning_rate",
    ),
    Fault.SCORES_NOT_FINITE: _Sentence(
        "the model's scores are not finite", "model", "train it anew, with a lower learning rate"
    ),
}
_OF_THE_MODEL = frozenset({Fault.LOSS_NOT_FINITE, Fault.SCORES_NOT_FINITE})


def _stated(error: DataFault) -> DaitnError:
    problem, field, fix = _SENTENCES[error.fault]
    counts = defaultdict(int, {name: int(count) for name, count in error.counts.items()})
    kind = WorkFailed if error.fault in _OF_THE_MODEL else InvalidInput
    return kind(problem.format_map(counts), field=field, fix=fix)


def _rounded(loss: float) -> float:
    if not math.isfinite(loss) or loss == 0.0:
        return loss
    return round(loss, _DIGITS - 1 - math.floor(math.log10(abs(loss))))
