"""Recipes: how a model is created, trained and measured at the data.

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
from daitn.objects.model_needs import ColumnsNeeded

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
    NO_PROBES = "no-probes"
    OTHER_WIDTH = "other-width"
    """Counts: `model`, `data`."""
    OTHER_LABELS = "other-labels"
    LABEL_NOT_OFFERED = "label-not-offered"
    COLUMNS_NOT_CHOSEN = "columns-not-chosen"
    LOSS_NOT_FINITE = "loss-not-finite"
    SCORES_NOT_FINITE = "scores-not-finite"
    METRIC_NOT_FINITE = "metric-not-finite"


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
    """What a node needs to know about a recipe, which never runs in the node's own process."""

    data_schema: str
    test_schema: str
    metrics: tuple[str, ...]
    apis: tuple[Api, ...] = ()
    """The APIs through which its models answer; empty means they do not."""
    abilities: Abilities = Abilities()
    """Inputs and outputs of its models."""
    merges: bool = False
    """Whether it merges models that sites trained separately."""
    algorithms: tuple[Algorithm, ...] = ()
    """Algorithms by which its models can be trained."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """The needs of a model with some configuration."""

    parameters: int
    flops_per_example: float
    """Floating-point operations of one training example, forward and backward."""
    memory_bytes: int
    """Peak memory of training, estimated."""
    size_bytes: int
    """Size of the parts on the wire, estimated."""
    labels: tuple[str, ...] = ()
    """Labels that the model distinguishes: it cannot learn from data with other labels, nor be
    measured on it. Empty means any."""
    labels_field: str = ""
    """The field of the intent that lists them, for instance `model.config.classes`."""
    columns: ColumnsNeeded | None = None
    """For a model that reads tables, and the same columns everywhere: how many it can read."""
    imported: bool = False
    """Whether it must start from an imported model, because `initialise` cannot make one."""
    private: bool = False
    """Whether it can be trained with differential privacy."""
    merges_fresh: bool = False
    """Whether models can be merged that sites trained from a fresh one, and not only from one that
    has visited a site."""
    packages: tuple[str, ...] = ()
    """Modules that must be installed where it trains and is measured, beyond the recipe's usual
    ones."""
    learning: dict[str, tuple[float, float]] = {}
    """What past visits with this configuration taught, as mean and standard deviation of a
    logarithm or logit: `tau` (examples until a gap has shrunk to 37 %), `warm` and `ripe` (examples
    lost at the start of a visit, and of a model), `repeats` (epochs until repetition teaches 37 %),
    `fading` (speed of forgetting, relative to learning), `labelled` (whether a label needs examples
    of its own), `averaged` (share of a visit undone by averaging). Measured values belong here, not
    estimates. Empty means unknown; the planner then starts from general assumptions."""


class DataProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe's report on a data set, from which it can be described without being shown."""

    samples: int
    """Records that models learn from, or are measured on."""
    labels: dict[str, int]
    """Label histogram, including labels whose records are not used."""
    different: dict[str, int] = {}
    """Label histogram of distinct records. Empty means all are distinct."""
    quality: float
    """Share of the records in [0, 1] that are usable as they are: of a table, those without missing
    values in columns that have any."""
    columns: tuple[str, ...] = ()
    """For a table: the columns that models learn from. Only their number is published."""
    remarks: tuple[str, ...] = ()
    """Notes for the data's owner. Not published."""
    metrics: tuple[str, ...] = ()
    """For a test set: the recipe's metrics that it can measure; empty means all."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The data owner's terms for reading a file; an empty field sets none."""

    label: str = ""
    """The column with the label."""
    columns: tuple[str, ...] = ()
    """The columns that models may learn from; empty means all but the label."""
    ignore: tuple[str, ...] = ()
    """Columns that are never read."""
    least_records: int = LEAST_RECORDS
    """Minimum number of distinct records behind a class, the scale of a column and any text
    fragment that a model takes along. A table's records of rarer labels are not used."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a training run."""

    examples: int
    of_examples: int
    loss: float
    """Mean over the examples since the last report, after each was clipped to the same range."""
    sensitivity: float = 0.0
    """Maximum contribution of one record to the sum of the losses of all examples of the run: the
    width of that range, times the number of times that a record is used. 0 means not bounded; then
    no loss leaves the site."""


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a training run; the site computes its loss from the progress reports."""

    examples: int
    seconds: float
    carried: tuple[str, ...] = ()
    """Parts of the model that training left unchanged, and that are not in `out`."""


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
    """As measured. The site publishes that of the published value."""
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
    """The schema of the test sets on which it can be measured, for instance `multiple-choice/1`."""
    metrics: tuple[str, ...]

    def estimate(self, config: Config) -> Footprint:
        """The needs of a model with `config`, without loading a framework."""
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
    """The intent's fields for an imported model."""

    config: dict[str, object]
    """For `model.config`."""


@runtime_checkable
class Importing(Protocol):
    """The part of a recipe that imports models."""

    def import_model(self, folder: Path, out: Path) -> Imported:
        """Write the parts of the model in `folder` into the empty folder `out`.

        Raises `NotFound`, `InvalidInput` or `Corrupt` for a folder that holds no such model.
        """
        ...


class Form(enum.StrEnum):
    """Export format of a model."""

    PARTS = "parts"
    """As it travels."""
    HF = "hf"
    """A folder of `transformers` with the whole model."""
    PEFT = "peft"
    """Adapters as a folder of `peft`, and their base as one of `transformers`."""
    MERGED = "merged"
    """As `hf`, of a model with adapters only: they are merged into its weights."""
    GGUF = "gguf"
    """The model with its adapters merged, in llama.cpp's format."""
    XGBOOST = "xgboost"
    """Boosted trees in xgboost's model format."""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe's notes on an exported model."""

    usage: str
    """How to use it without DA-ITN, in Markdown."""


@runtime_checkable
class Exporting(Protocol):
    """The part of a recipe that exports models for other programs."""

    def export_model(self, model: Path, config: Config, form: Form, out: Path) -> Exported:
        """Write the model in `model` in another form into the empty folder `out`; for `parts`, only
        useful additions.

        Raises `InvalidInput` for a form that it does not have.
        """
        ...


@runtime_checkable
class Selecting(Protocol):
    """The part of a recipe that follows a data owner's terms."""

    def selecting(self, selection: Selection) -> Recipe:
        """The same recipe, with methods that read data by these terms.

        Raises `InvalidInput` for terms that it cannot follow.
        """
        ...


class Savepoints(Protocol):
    """Storage of a visit's progress, at its site, until it has ended."""

    def latest(self) -> bytes | None:
        """The last savepoint of this visit, from a process that ended before the visit did; `None`
        means the visit begins. Savepoints of another visit, data set, model or configuration, and
        damaged ones, are not returned."""
        ...

    def due(self) -> bool:
        """Whether the next savepoint is due."""
        ...

    def keep(self, state: bytes) -> None:
        """Save everything that training needs to resume here and does not find in its arguments. To
        be called after the progress so far was reported."""
        ...


@runtime_checkable
class Resuming(Protocol):
    """The part of a recipe that resumes training where an earlier process ended."""

    def resuming(self, savepoints: Savepoints) -> Recipe:
        """The same recipe, with a `train` that writes savepoints and starts from the latest.

        Where training is deterministic, the model is that of an uninterrupted visit.
        """
        ...


class LocalTask(msgspec.Struct, frozen=True, kw_only=True):
    """An algorithm's requirements for a visit."""

    rule: LocalRule = LocalRule()
    own: str = ""
    """Folder of the model that the visit's site last made from the same data; empty means this is
    the first time, or that model is lost."""


@runtime_checkable
class Adapting(Protocol):
    """The part of a recipe that trains as an algorithm requires."""

    def adapting(self, task: LocalTask) -> Recipe:
        """The same recipe, with a `train` that does this too.

        Raises `InvalidInput` naming `training` for what it cannot do.
        """
        ...


class DpSgd(msgspec.Struct, frozen=True, kw_only=True):
    """How a visit trains with differential privacy (Abadi et al. 2016, arXiv:1607.00133).

    Each step takes each record with the probability `rate`, clips each record's gradient to the
    norm `clip`, adds Gaussian noise of `noise * clip` to the sum, and divides it by `lot`.
    """

    secret: bytes
    """Secret of the site, the only source of the draws."""
    rate: float
    steps: int
    noise: float
    clip: float
    lot: float
    """Average number of records of a step, by the number that the site publishes."""

    @property
    def examples(self) -> int:
        """Expected number of examples of all steps. It is published instead of the true number,
        which would reveal something about the records."""
        return max(1, round(self.steps * self.lot))


@runtime_checkable
class Private(Protocol):
    """The part of a recipe that trains with differential privacy."""

    def privately(self, terms: DpSgd) -> Recipe:
        """The same recipe, whose `train` takes exactly these private steps and ignores `examples`.

        Everything that it writes or reports about the records must come out of these steps: it
        reports no loss and no scale, and none of its errors may depend on the records.
        """
        ...


class MergeTask(msgspec.Struct, frozen=True, kw_only=True):
    """What to merge, and how."""

    base: str
    """Folder of the model from which the others were trained."""
    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MOST_MERGED)]
    """Folders of the models that sites trained."""
    shares: tuple[float, ...]
    """Weight of each of them; positive, with any sum."""
    rule: MergeRule
    seed: int
    starts: tuple[str, ...] = ()
    """Folder of the model from which each was trained; empty means `base` for all of them."""
    scales: tuple[float, ...] = ()
    """Factor on each update before it is merged; empty means 1."""
    moments: str = ""
    """File with the outer step's state from the last merge; empty means this is the first."""
    single: tuple[int, ...] = ()
    """Which models are of a single site, so that before a mean none of them counts for much more,
    or goes much further, than usual."""
    alike: tuple[bool, ...] = ()
    """Whether the data of each has about the same labels as most others': of these, a model whose
    update is unlike the others' is refused. Empty means that it is not known."""


@runtime_checkable
class Merging(Protocol):
    """The part of a recipe that merges models that sites trained separately."""

    def merge(self, task: MergeTask, config: Config, out: Path, moments: Path) -> tuple[str, ...]:
        """Write the parts of the merged model into the empty folder `out`, and the outer step's
        state, if any, to the file `moments`.

        Returns the parts of `task.base` that stay as they are, and are not in `out`. Raises
        `Corrupt` for a model that does not fit the others, whose field is `models[k]`, and
        `InvalidInput` for a rule that needs more models.
        """
        ...


@runtime_checkable
class StatingAlgorithms(Protocol):
    """The part of a recipe that trains and merges by some algorithms only. Without it, a recipe
    that is `Merging` merges by all rules, and one that is `Adapting` supports all algorithms."""

    def trains_by(self, algorithm: Algorithm) -> bool:
        """Whether models can be trained by an algorithm."""
        ...


@runtime_checkable
class StatingAbilities(Protocol):
    """The part of a recipe that states its models' inputs and outputs. Without it, they read text
    and answer in text."""

    abilities: Abilities


def check_no_columns(recipe: str, selection: Selection) -> None:
    """Raise `DataFault` if the terms name columns: the recipe would read forbidden ones."""
    stated = [name for name in ("label", "columns", "ignore") if getattr(selection, name)]
    if stated:
        raise DataFault(
            Fault.COLUMNS_NOT_CHOSEN,
            f"the recipe {recipe} cannot limit which columns it reads",
            field=stated[0],
            fix=f"leave out {', '.join(stated)}, or let other recipes read the data",
        )
