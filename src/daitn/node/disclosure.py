"""The disclosure gate: it produces everything that a site publishes or reports about a data set or
test set.

Recipes read records, and a visitor chooses what they compute. So nothing passes as it comes out of
a recipe: labels with few different records are suppressed, losses are averaged and blurred,
measured values come in steps of items, and a failure leaves as one of a few fixed sentences with
counts, while the recipe's own words stay in the site's log. This is statistical disclosure control
by a threshold rule (Hundepool et al. 2012, *Statistical Disclosure Control*).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import random
import struct
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from daitn.control.attesting import Tally
from daitn.identity.keys import SigningKey
from daitn.learning.child.outside import ProcessFailed
from daitn.learning.recipe import DataFault, DataProfile, Fault, LabelMeasured, Measured, Progress
from daitn.objects.descriptors import TopicSketch
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    InvalidInput,
    NotFound,
    StorageFull,
    WorkFailed,
)
from daitn.objects.messages import VisitWork
from daitn.objects.models import CONFIG_FIX
from daitn.objects.sampling import COUNT_STEP
from daitn.objects.wire import canonical
from daitn.topology.topics import sketch

__all__ = [
    "Disclosure",
    "LossGate",
    "LossState",
    "TrainingStep",
    "coarse",
    "coarse_tally",
    "in_steps",
    "whole",
    "withheld",
]

log = logging.getLogger(__name__)

_STEPS = 20
"""Maximum number of progress reports of a visit."""
_LOSSES = 2
"""Maximum number of mean losses of a visit: more would need more noise each. The last one is the
visit's."""
_EPSILON = 0.5
"""How much all losses of a visit reveal about one record: with or without it, they are at most
`exp(_EPSILON)` times as likely (differential privacy, Dwork et al. 2006: the Laplace mechanism).
This covers the record's own losses; what a model learned from it shows in those of others, as in
weights. With 400 examples of two classes the noise has a deviation of 0.01; guessing has a loss of
0.69."""
_SEE_LOG = "see the site's log"


@dataclass(frozen=True)
class Disclosure:
    """The rules for what may leave about one data set or test set."""

    name: str
    """In messages of this site: `data set notes`."""
    least_records: int
    """Minimum number of records behind anything that leaves."""
    label_values: bool = True
    """Whether measured values per label leave."""
    field: str = "dataset"
    """In errors about the data."""

    def check_profile(self, profile: DataProfile) -> None:
        """Raise `InvalidInput` if there are too few records to describe any of them together."""
        self.check_count(min(profile.samples, _different(profile)))

    def check_count(self, different: int) -> None:
        """Raise `InvalidInput` like `check_profile`, for a number of distinct records."""
        if different < self.least_records:
            raise InvalidInput(
                f"has fewer than {self.least_records} records",
                field="least_records",
                fix="add records: otherwise a model, a measurement or a count would describe "
                "single ones. Identical records count once, and records of a label that is too "
                "rare do not count",
            )

    def least_examples(self, profile: DataProfile) -> int:
        """Minimum number of examples of a visit: more if records repeat."""
        shares = [
            profile.labels[label] / different
            for label, different in profile.different.items()
            if different >= self.least_records
        ]
        return math.ceil(self.least_records * max(shares, default=1.0))

    def check_examples(self, examples: int, least_examples: int = 0) -> None:
        """Raise `InvalidInput` for a visit too short to hide what one record taught."""
        least = max(self.least_records, least_examples)
        if examples < least:
            raise InvalidInput(
                f"with {examples} examples, the model could reveal what single records taught",
                field="examples",
                fix=f"train on at least {least}",
            )

    def drawn(self, work: VisitWork, key: SigningKey) -> int:
        """The seed with which a visit draws records, a secret of the site.

        A visitor who knew which records a mean is over could solve many means for single records.
        It follows from all that decides what a visit makes: of two that drew alike, and one of them
        one record more, the difference of the weights would show that record.
        """
        secret = self._secret("records of {} drawn by ", work, key)
        return int.from_bytes(hashlib.blake2b(secret, digest_size=8).digest()) >> 1

    def noise_secret(self, work: VisitWork, key: SigningKey) -> bytes:
        """Secret from which a visit's `LossGate` draws its noise."""
        return self._secret("noise on losses on {} of ", work, key)

    def _secret(self, purpose: str, work: VisitWork, key: SigningKey) -> bytes:
        """Known only to this site, and the same for the same visit."""
        model = work.model.manifest if work.model else ""
        own = work.own.manifest if work.own else ""
        how = (work.local, own)
        visit = canonical((work.recipe, work.config, work.seed, work.examples, model, how))
        return key.sign_raw(purpose.format(self.name).encode() + visit)

    def labels(
        self, histogram: Mapping[str, int], different: Mapping[str, int] | None = None
    ) -> dict[str, int]:
        """The histogram of labels with enough records, in steps; `different`: distinct records
        by label."""
        counted = different or histogram
        return {
            label: in_steps(n)
            for label, n in histogram.items()
            if counted.get(label, 0) >= self.least_records
        }

    def quality(self, profile: DataProfile) -> float:
        """The share of usable records, in steps."""
        return coarse(profile.quality, in_steps(profile.samples))

    def columns(self, profile: DataProfile) -> int | msgspec.UnsetType:
        """The number of a table's columns: it tells nothing about a record."""
        return len(profile.columns) or msgspec.UNSET

    def sketch(self, texts: Iterable[str]) -> TopicSketch:
        """Sketch of the texts' wording, from features that occur in enough of them."""
        return sketch(texts, self.least_records)

    def measured(self, measured: Measured, labels: Collection[str]) -> Measured:
        """A metric as it may leave: in steps of several items, rounded down, and for `labels` only.

        Raises `InvalidInput` if it was measured on too few items, or is not a finite number.
        """
        if measured.items < self.least_records:
            raise InvalidInput(
                f"was measured on fewer than {self.least_records} items",
                field="least_records",
                fix="add items",
            )
        # A label without items has no metric; recipes say NaN then.
        with_items = {label: one for label, one in measured.by_label.items() if one.items}
        measured = msgspec.structs.replace(measured, by_label=with_items)
        _check_finite(measured)
        parts = self._parts(measured) if measured.over_labels else []
        if not parts:
            parts = [LabelMeasured(value=measured.value, items=measured.items)]
        shares = [coarse(part.value, part.items) for part in parts]
        variances = [
            share * (1.0 - share) / part.items for share, part in zip(shares, parts, strict=True)
        ]
        public = {label: one for label, one in measured.by_label.items() if label in labels}
        return Measured(
            metric=measured.metric,
            value=sum(shares) / len(shares),
            items=measured.items,
            standard_error=math.sqrt(sum(variances)) / len(parts),
            by_label={
                label: LabelMeasured(value=value, items=public[label].items)
                for label, value in self.by_label(
                    msgspec.structs.replace(measured, by_label=public)
                ).items()
            },
        )

    def _parts(self, measured: Measured) -> list[LabelMeasured]:
        """The metric of each label with enough items, and of all others together if they have
        enough."""
        every = measured.by_label.values()
        parts = [one for one in every if one.items >= self.least_records]
        rare = [one for one in every if one.items < self.least_records]
        items = sum(one.items for one in rare)
        if items >= self.least_records:
            value = sum(one.value * one.items for one in rare) / items
            parts.append(LabelMeasured(value=value, items=items))
        return parts

    def by_label(self, measured: Measured) -> dict[str, float]:
        """The metric of the labels with enough items, in steps, if the owner permits it.

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
        return {
            label: coarse(scores[label].value, scores[label].items, nearest=True)
            for label in sorted(enough)
        }

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """While a recipe reads records: log an error in full, and raise what may leave of it.

        The full error is the cause of what is raised, for the operator of this process.
        """
        try:
            yield
        except DaitnError as error:
            log.error("%s: %s", self.name, error)
            raise withheld(error, self.field) from error


class TrainingStep(NamedTuple):
    """Progress of a visit as it may leave."""

    examples: int
    of_examples: int
    loss: float | None
    """The latest mean; none until enough was trained for the first one."""


class LossState(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of a `LossGate`."""

    done: int = 0
    """Examples."""
    summed: float = 0.0
    since: int = 0
    """Examples since the last mean."""
    unsaid: int = 0
    """Examples since the last step."""
    means: int = 0
    """Number of means so far."""


_NOTHING = LossState()


class LossGate:
    """Turns a recipe's progress into coarse steps, with means over enough records.

    A visitor who knows the records and chooses which of them a mean is over, or brings a model made
    to single one out, could solve means for the loss of that record. So noise is added: as much
    as one record can add to a mean, and more.

    A mean is published once: a visit that goes on from a savepoint repeats what it said, and the
    same mean has the same noise, which more draws would average out.
    """

    def __init__(
        self,
        least_examples: int,
        secret: bytes = b"",
        state: LossState = _NOTHING,
        published: tuple[float | None, ...] = (),
        tell: Callable[[tuple[float | None, ...]], None] = lambda _: None,
    ) -> None:
        """`secret`: source of the noise; empty means the system's randomness. `state` and
        `published`: from an interrupted visit. `tell` is called with all losses before the latest
        one leaves."""
        self._least = least_examples
        self._secret = secret or os.urandom(32)
        self.state = state
        self.published = published
        self._tell = tell

    def take(self, progress: Progress) -> TrainingStep | None:
        """The progress to publish, if enough was trained since the last time."""
        before = self.state
        examples = max(0, progress.examples - before.done)
        now = LossState(
            done=before.done + examples,
            summed=before.summed + progress.loss * examples,
            since=before.since + examples,
            unsaid=before.unsaid + examples,
            means=before.means,
        )
        if now.since >= max(self._least, progress.of_examples / _LOSSES):
            self._mean(now, progress.sensitivity)
            now = msgspec.structs.replace(now, summed=0.0, since=0, means=now.means + 1)
        due = now.unsaid >= max(self._least, progress.of_examples / _STEPS)
        self.state = msgspec.structs.replace(now, unsaid=0) if due else now
        return TrainingStep(now.done, progress.of_examples, self.loss()) if due else None

    def loss(self) -> float | None:
        """The visit's loss: the mean over its last half; none if too few records reported one, or
        without a bound."""
        return self.published[self.state.means - 1] if self.state.means else None

    def _mean(self, now: LossState, sensitivity: float) -> None:
        """Report the next mean, unless it was reported before."""
        if now.means < len(self.published):
            return
        mean = self._blurred(now.summed / now.since, now.since, sensitivity)
        self.published = (*self.published, mean)
        self._tell(self.published)

    def _blurred(self, mean: float, examples: int, sensitivity: float) -> float | None:
        """The mean with noise, rounded to the digits that the noise leaves meaningful. Different
        means never share the same noise, since their difference would be free of it."""
        scale = sensitivity / (examples * _EPSILON)
        if not (math.isfinite(mean) and 0.0 < scale < math.inf):
            return None
        # S311: nobody can try all secrets.
        rng = random.Random(self._secret + struct.pack(">dd", mean, scale))  # noqa: S311
        noise = rng.expovariate(1.0) - rng.expovariate(1.0)
        return max(0.0, round(mean + scale * noise, -math.floor(math.log10(scale))))


def in_steps(count: int) -> int:
    """A number of records for publication, rounded down: one record more rarely shows."""
    return count - count % COUNT_STEP


def coarse_tally(tally: Tally) -> Tally:
    """The number of right items, in the steps of `coarse`."""
    return Tally(round(coarse(tally.value, tally.items) * tally.items), tally.items)


def coarse(value: float, items: int, *, nearest: bool = False) -> float:
    """A mean over items of values between 0 and 1, in steps of several items.

    It is rounded down, so that no target is reached by rounding, or else to the `nearest` step.
    What all items have stays 1.
    """
    if not math.isfinite(value):
        return 0.0
    missing = items * (1.0 - min(1.0, max(0.0, value))) / COUNT_STEP
    steps = round(missing) if nearest else math.ceil(missing - 1e-6)
    return max(0, items - steps * COUNT_STEP) / items if items else 0.0


def _different(profile: DataProfile) -> int:
    """Number of distinct records of a data set."""
    return sum(profile.different.values()) or profile.samples


def _check_finite(measured: Measured) -> None:
    """Raise `DataFault` for a metric that is not a finite number."""
    values = {"": measured.value, **{name: one.value for name, one in measured.by_label.items()}}
    for label, value in values.items():
        if not math.isfinite(value):
            of = f" of label {label}" if label else ""
            raise DataFault(
                Fault.METRIC_NOT_FINITE,
                f"the recipe measured {measured.metric}{of} as {value}, which is not a finite "
                "number",
                field="model",
            )


def whole(error: DaitnError) -> DaitnError:
    """For the site's own log and terminal: the full error behind one that `Disclosure.failures`
    raised, whose advice is often to read that log."""
    full = error.__cause__
    return full if isinstance(full, DaitnError) else error


def withheld(error: DaitnError, field: str = "dataset") -> DaitnError:
    """The part that may leave of an error raised while a recipe read records.

    The node's own words, and fixed sentences with counts: a recipe's words may hold a record.
    """
    match error:
        case ProcessFailed():
            return error
        case DataFault():
            return _stated(error, field)
        case NotFound():
            return NotFound("a file is missing", field=field, fix=_SEE_LOG)
        case Corrupt():
            return Corrupt(
                "the recipe cannot read the model's parts with this configuration",
                field="model.config",
                fix=CONFIG_FIX,
            )
        case InvalidInput():
            return InvalidInput(
                "the recipe cannot use the data with this configuration",
                field=field,
                fix=_SEE_LOG,
            )
        case StorageFull():
            return StorageFull("the site's disk is full", fix=_SEE_LOG)
    return WorkFailed("the recipe failed", fix=_SEE_LOG)


class _Sentence(NamedTuple):
    problem: str
    """With the fault's counts as fields."""
    field: str = ""
    """Empty means the data."""
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
    Fault.MALFORMED: _Sentence("the data is malformed: {problems} problem{s}"),
    Fault.OTHER_COLUMNS: _Sentence(
        "the data has other columns than the model has learned from",
        "columns",
        "give the columns the same names at every site; add a missing one, empty where its values "
        "are not known, and have the site `ignore` the others",
    ),
    Fault.NO_PROBES: _Sentence(
        "the test set does not say in `member` which records sites have, which must be about half",
        "member",
        "measure `unexposed` on a test set of probes",
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
        "leave it out: each data set's owner names the column",
    ),
    Fault.COLUMNS_NOT_CHOSEN: _Sentence("the recipe cannot limit which columns it reads"),
    Fault.LOSS_NOT_FINITE: _Sentence(
        "the loss is no longer finite",
        "model.config.learning_rate",
        "lower model.config.learning_rate",
    ),
    Fault.SCORES_NOT_FINITE: _Sentence(
        "the model's scores are not finite", "model", "train it again with a lower learning rate"
    ),
    Fault.METRIC_NOT_FINITE: _Sentence(
        "the metric is not a finite number",
        "model",
        "train the model again with a lower learning rate, or correct `evaluate` of the recipe",
    ),
}
_OF_THE_MODEL = frozenset({Fault.LOSS_NOT_FINITE, Fault.SCORES_NOT_FINITE, Fault.METRIC_NOT_FINITE})


def _stated(error: DataFault, data: str) -> DaitnError:
    problem, field, fix = _SENTENCES[error.fault]
    counts: defaultdict[str, int | str] = defaultdict(int)
    counts.update({name: int(count) for name, count in error.counts.items()})
    kind = WorkFailed if error.fault in _OF_THE_MODEL else InvalidInput
    counts["s"] = "" if counts["problems"] == 1 else "s"
    return kind(problem.format_map(counts), field=field or data, fix=fix)
