"""Recipes: how a model is made, trained and measured where the data is.

A recipe is code that a site has installed (entry point group `daitn.recipes`) and that its data
owner has allowed. A visiting model brings *parts* (files: weights as safetensors, a tokenizer
as JSON) and a configuration, never code.

A model on disk is a folder of parts. A recipe reads one folder and writes another. It links or
copies a part that it does not change (frozen base weights under LoRA) byte for byte, so that the
part keeps its digest and is not transferred again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import msgspec

from daitn.objects.abilities import Abilities
from daitn.objects.deployments import Api
from daitn.objects.errors import InvalidInput
from daitn.objects.merging import MOST_MERGED, Algorithm, LocalRule, MergeRule

__all__ = [
    "LEAST_RECORDS",
    "Adapting",
    "Config",
    "DataFault",
    "DataProfile",
    "DpSgd",
    "Exported",
    "Exporting",
    "Fault",
    "Footprint",
    "Form",
    "Imported",
    "Importing",
    "LabelMeasured",
    "LocalTask",
    "Measured",
    "MergeTask",
    "Merging",
    "Private",
    "Progress",
    "Recipe",
    "RecipeFacts",
    "Resuming",
    "Savepoints",
    "Selecting",
    "Selection",
    "StatingAbilities",
    "StatingAlgorithms",
    "Trained",
    "check_no_columns",
]

Config = Mapping[str, object]

LEAST_RECORDS = 10
"""Number of records below which a count, a mean or a text fragment describes individual records.
Statistical offices use thresholds from 3 to 30, and 10 most often (Hundepool et al. 2012)."""


class Fault(enum.StrEnum):
    """Why a recipe cannot use a file of data. No other reason leaves a site."""

    NO_REGULAR_FILE = "no-regular-file"
    UNREADABLE = "unreadable"
    NO_TEXT = "no-text"
    NO_CSV = "no-csv"
    NO_HEADER = "no-header"
    NO_RECORDS = "no-records"
    NO_LABEL = "no-label"
    TOO_MANY_LABELS = "too-many-labels"
    """Counts: `labels`."""
    MALFORMED = "malformed"
    """Counts: `problems`."""
    OTHER_COLUMNS = "other-columns"
    OTHER_WIDTH = "other-width"
    """Counts: `model`, `data`."""
    OTHER_LABELS = "other-labels"
    LABEL_NOT_OFFERED = "label-not-offered"
    COLUMNS_NOT_CHOSEN = "columns-not-chosen"
    LOSS_NOT_FINITE = "loss-not-finite"
    SCORES_NOT_FINITE = "scores-not-finite"


class DataFault(InvalidInput):
    """A file that a recipe cannot use, or that does not fit a model.

    The fault and the counts may leave the site; the words, which may name columns and labels, stay
    in its log.
    """

    def __init__(
        self,
        fault: Fault,
        problem: str,
        counts: Mapping[str, int] | None = None,
        *,
        field: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(problem, field=field, fix=fix)
        self.fault = fault
        self.counts = dict(counts or {})


class RecipeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a node needs to know of a recipe, which never runs in the node's own process."""

    data_schema: str
    test_schema: str
    metrics: tuple[str, ...]
    apis: tuple[Api, ...] = ()
    """The APIs through which its models answer; empty: they do not."""
    abilities: Abilities = Abilities()
    """What its models read and say."""
    merges: bool = False
    """Whether it merges models that sites trained apart from one another."""
    algorithms: tuple[Algorithm, ...] = ()
    """Those by which its models can be trained."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a model with some configuration needs."""

    parameters: int
    flops_per_example: float
    """Floating-point operations of one training example, forward and backward."""
    memory_bytes: int
    """Peak memory of training, estimated."""
    size_bytes: int
    """Size of the parts on the wire, estimated."""
    labels: tuple[str, ...] = ()
    """The labels that the model distinguishes: it cannot learn from data with other labels, nor be
    measured on it. Empty: any."""
    labels_field: str = ""
    """The field of the intent that lists them, for instance `model.config.classes`."""
    private: bool = False
    """Whether it can be trained with differential privacy."""
    merges_fresh: bool = False
    """Whether models can be merged that sites trained from a fresh one, and not only from one that
    has visited a site."""
    packages: tuple[str, ...] = ()
    """Modules that must be installed where it trains and is measured, beyond what the recipe always
    needs."""
    learning: dict[str, tuple[float, float]] = {}
    """What past visits with this configuration taught, as mean and standard deviation of a
    logarithm or logit: `tau` (examples until a gap has shrunk to 37 %), `warm` and `ripe` (examples
    lost at the start of a visit, and of a model), `repeats` (epochs until repetition teaches 37 %),
    `fading` (speed of forgetting, relative to learning), `labelled` (whether a label needs examples
    of its own), `averaged` (share of a visit undone by averaging). Measured values belong here, not
    estimates. Empty: unknown; the planner then starts from what holds for any recipe."""


class DataProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe reports of a data set so that it can be described without being shown."""

    samples: int
    """Records that models learn from, or are measured on."""
    labels: dict[str, int]
    """Label histogram, with labels of whose records no use is made."""
    different: dict[str, int] = {}
    """Label histogram of different records: equal ones count once. Empty: all differ."""
    quality: float
    """Share of the records in [0, 1] that are usable as they are."""
    columns: tuple[str, ...] = ()
    """Of a table: the columns that models learn from. Not published."""
    remarks: tuple[str, ...] = ()
    """Notes for the data's owner. Not published."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The data owner's terms for reading a file; an empty field sets none."""

    label: str = ""
    """The column with the label."""
    columns: tuple[str, ...] = ()
    """The columns that models may learn from; empty: all but the label."""
    ignore: tuple[str, ...] = ()
    """Columns that nobody reads."""
    least_records: int = LEAST_RECORDS
    """Minimum number of different records behind a class, the scale of a column and any text
    fragment that a model takes along. A table's records of rarer labels are not used."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a training run."""

    examples: int
    of_examples: int
    loss: float
    """Mean over the examples since the last report, after each was clipped to the same range."""
    sensitivity: float = 0.0
    """The most that one record can add to the sum of the losses of all examples of the run: the
    width of that range, times the number of times that a record is used. 0: not bounded; no loss
    leaves the site."""


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a training run; the site computes its loss from the progress reports."""

    examples: int
    seconds: float
    carried: tuple[str, ...] = ()
    """Parts of the model that training left as they were, and that are not in `out`."""


class LabelMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """A metric over the test items of one label."""

    value: float
    items: int


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One metric on one test set.

    A metric gives each item between 0 and 1, and is their mean: over all items, or over each
    label's and then over the labels. The site publishes it in steps of several items.
    """

    metric: str
    value: float
    items: int
    standard_error: float
    """As measured. The site publishes that of the value that it publishes."""
    by_label: dict[str, LabelMeasured] = {}
    """The metric per label; the site publishes labels with enough items."""
    over_labels: bool = False
    """Whether `value` is the mean over labels."""


class Recipe(Protocol):
    """The seam between DA-ITN and machine learning.

    Every method that takes a configuration raises `InvalidInput` naming the bad field
    (`model.config.<field>`). Methods that read data raise `InvalidInput` naming file, line and
    field, for the site's log, and `DataFault` if model and data do not fit. Nothing in here may
    reach the network.
    """

    name: str
    data_schema: str
    """The data schema that it reads, for instance `qa-pairs/1`."""
    test_schema: str
    """The schema of the test sets that it can be measured on, for instance `multiple-choice/1`."""
    metrics: tuple[str, ...]

    def estimate(self, config: Config) -> Footprint:
        """What a model with `config` needs, without loading a framework."""
        ...

    def inspect(self, data: Path) -> DataProfile:
        """Read and validate a training data set."""
        ...

    def inspect_test(self, test: Path) -> DataProfile:
        """Read and validate a test set."""
        ...

    def initialise(self, config: Config, seed: int, out: Path) -> None:
        """Write the parts of a fresh model into the empty folder `out`."""
        ...

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
        """Train the model in `model` on `examples` examples of `data`; write the parts to `out`.

        Parts that stay as they are need not be written: `Trained.carried` names them.
        The same arguments give the same model on the same machine and thread count.
        """
        ...

    def evaluate(self, model: Path, config: Config, test: Path, metric: str) -> Measured:
        """Measure the model in `model` on the test set `test`."""
        ...


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an intent says of a model that was imported."""

    config: dict[str, object]
    """For `model.config`."""


@runtime_checkable
class Importing(Protocol):
    """The part of a recipe that takes models from elsewhere."""

    def import_model(self, folder: Path, out: Path) -> Imported:
        """Write the parts of the model in `folder` into the empty folder `out`.

        Raises `NotFound`, `InvalidInput` or `Corrupt` for a folder that holds no such model.
        """
        ...


class Form(enum.StrEnum):
    """What a model is exported as."""

    PARTS = "parts"
    """As it travels."""
    HF = "hf"
    """A folder of `transformers` with the whole model."""
    PEFT = "peft"
    """Adapters as a folder of `peft`, and their base as one of `transformers`."""
    MERGED = "merged"
    """As `hf`, of a model with adapters only: they are merged into its weights."""
    GGUF = "gguf"
    """A file of llama.cpp, of the model with its adapters merged."""
    XGBOOST = "xgboost"
    """A file of xgboost, of boosted trees."""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe says of a model that it exported."""

    usage: str
    """How to use it without DA-ITN, in Markdown."""


@runtime_checkable
class Exporting(Protocol):
    """The part of a recipe that gives models away to other programs."""

    def export_model(self, model: Path, config: Config, form: Form, out: Path) -> Exported:
        """Write the model in `model` in another form into the empty folder `out`; for `parts` no
        more than what is of use beside them.

        Raises `InvalidInput` for a form that it does not have.
        """
        ...


@runtime_checkable
class Selecting(Protocol):
    """The part of a recipe that follows a data owner's terms."""

    def selecting(self, selection: Selection) -> Recipe:
        """The same recipe, whose methods that read data follow these terms.

        Raises `InvalidInput` for terms that it cannot follow.
        """
        ...


class Savepoints(Protocol):
    """Where a visit keeps how far it is, at its site, until it has ended."""

    def latest(self) -> bytes | None:
        """What was kept last of this visit, by a process that ended before the visit did; none: it
        begins. What was kept of another visit, other data, another model or configuration, or is
        damaged, is not given."""
        ...

    def due(self) -> bool:
        """Whether it is time to keep the next."""
        ...

    def keep(self, state: bytes) -> None:
        """Keep all that training needs to go on from here, and does not find in its arguments. To
        be called after the progress so far was reported."""
        ...


@runtime_checkable
class Resuming(Protocol):
    """The part of a recipe that goes on training where an earlier process ended."""

    def resuming(self, savepoints: Savepoints) -> Recipe:
        """The same recipe, whose `train` keeps savepoints and begins at the latest.

        Where training is deterministic, the model is that of an uninterrupted visit.
        """
        ...


class LocalTask(msgspec.Struct, frozen=True, kw_only=True):
    """What an algorithm asks of a visit."""

    rule: LocalRule = LocalRule()
    own: str = ""
    """Folder of the model that the visit's site last made of the same data; empty: this is the
    first time, or that model is lost."""


@runtime_checkable
class Adapting(Protocol):
    """The part of a recipe that trains as an algorithm asks."""

    def adapting(self, task: LocalTask) -> Recipe:
        """The same recipe, whose `train` does this too.

        Raises `InvalidInput` naming `training` for what it cannot do.
        """
        ...


class DpSgd(msgspec.Struct, frozen=True, kw_only=True):
    """How a visit trains with differential privacy (Abadi et al. 2016, arXiv:1607.00133).

    Each step takes each record with the probability `rate`, clips each record's gradient to the
    norm `clip`, adds Gaussian noise of `noise * clip` to the sum, and divides it by `lot`.
    """

    secret: bytes
    """Of the site: what is drawn follows from it and from nothing else."""
    rate: float
    steps: int
    noise: float
    clip: float
    lot: float
    """Records of a step, on the average, by the number that the site publishes."""

    @property
    def examples(self) -> int:
        """Of all steps, on the average: how many it were tells of the records."""
        return max(1, round(self.steps * self.lot))


@runtime_checkable
class Private(Protocol):
    """The part of a recipe that trains with differential privacy."""

    def privately(self, terms: DpSgd) -> Recipe:
        """The same recipe, whose `train` takes these steps, whatever number of examples it is
        given. All that it writes and reports of the records comes of them: no loss, no scale, no
        word and no failure of its own."""
        ...


class MergeTask(msgspec.Struct, frozen=True, kw_only=True):
    """What is merged, and how."""

    base: str
    """Folder of the model that the others were trained from."""
    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MOST_MERGED)]
    """Folders of the models that sites trained."""
    shares: tuple[float, ...]
    """How much each of them counts; positive, of any sum."""
    rule: MergeRule
    seed: int
    starts: tuple[str, ...] = ()
    """Folder of what each of them was trained from; empty: `base`, all of them."""
    scales: tuple[float, ...] = ()
    """What the update of each is multiplied by before it is merged; empty: 1."""
    moments: str = ""
    """File of what the last merge's outer step remembers; empty: this is the first."""


@runtime_checkable
class Merging(Protocol):
    """The part of a recipe that merges models that sites trained apart from one another."""

    def merge(self, task: MergeTask, config: Config, out: Path, moments: Path) -> tuple[str, ...]:
        """Write the parts of the merged model into the empty folder `out`, and what the outer step
        remembers, if anything, to the file `moments`.

        Returns the parts of `task.base` that stay as they are, and are not in `out`. Raises
        `Corrupt` for a model that does not fit the others, whose field is `models[k]`, and
        `InvalidInput` for a rule that needs more models.
        """
        ...


@runtime_checkable
class StatingAlgorithms(Protocol):
    """The part of a recipe that trains and merges by some algorithms only. Without it, a recipe
    that is `Merging` merges by all rules, and one that is `Adapting` trains as all algorithms ask.
    """

    def trains_by(self, algorithm: Algorithm) -> bool:
        """Whether models can be trained by an algorithm."""
        ...


@runtime_checkable
class StatingAbilities(Protocol):
    """The part of a recipe that says what its models read and say. Without it, they read text and
    answer in text."""

    abilities: Abilities


def check_no_columns(recipe: str, selection: Selection) -> None:
    """Raise `DataFault` if the terms name columns: the recipe would read what it must not."""
    stated = [name for name in ("label", "columns", "ignore") if getattr(selection, name)]
    if stated:
        raise DataFault(
            Fault.COLUMNS_NOT_CHOSEN,
            f"the recipe {recipe} cannot limit which columns it reads",
            field=stated[0],
            fix=f"leave out {', '.join(stated)}, or let other recipes read the data",
        )
