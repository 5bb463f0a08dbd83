"""Messages between a node and its training worker.

The node sends one `Task`; the worker answers with any number of `Advanced` and `Kept` and then one
`WorkerFinished` or `WorkerFailed`.
"""

from __future__ import annotations

import msgspec

from daitn.learning.child.frames import Ready
from daitn.learning.recipe import DpSgd, Fault, Form, LocalTask, MergeTask, Progress, Selection
from daitn.learning.sandbox.policy import UNLIMITED, Limits
from daitn.learning.saving import Saving
from daitn.objects.compression import Compression
from daitn.objects.errors import ErrorReport
from daitn.objects.identifiers import Digest

__all__ = [
    "Advanced",
    "Command",
    "CompressUpdate",
    "Describe",
    "EstimateFootprint",
    "Evaluate",
    "ExportModel",
    "ImportModel",
    "Initialise",
    "Inspect",
    "InspectTest",
    "Kept",
    "MergeModels",
    "ProbeSpeed",
    "Probed",
    "RebuildWeights",
    "Reply",
    "Task",
    "Train",
    "WorkerFailed",
    "WorkerFinished",
]


class ProbeSpeed(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """Measure how fast the training engine computes here."""


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """The training engine's device, and its speed."""

    device: str
    memory_bytes: int
    """Memory of the training device; of one of them if there are several."""
    speed_flops: float
    """Floating-point operations per second of all devices, sustained while training a small
    network."""
    is_gpu: bool = False


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag="describe"):
    """Ask for a recipe's description: `RecipeFacts`."""

    recipe: str


class EstimateFootprint(msgspec.Struct, frozen=True, kw_only=True, tag="estimate"):
    """`Recipe.estimate`."""

    recipe: str
    config: dict[str, object]


class Inspect(msgspec.Struct, frozen=True, kw_only=True, tag="inspect"):
    """`Recipe.inspect`."""

    recipe: str
    data: str
    selection: Selection = Selection()


class InspectTest(msgspec.Struct, frozen=True, kw_only=True, tag="inspect-test"):
    """`Recipe.inspect_test`."""

    recipe: str
    test: str
    selection: Selection = Selection()


class Initialise(msgspec.Struct, frozen=True, kw_only=True, tag="initialise"):
    """`Recipe.initialise`."""

    recipe: str
    config: dict[str, object]
    seed: int
    out: str


class ImportModel(msgspec.Struct, frozen=True, kw_only=True, tag="import"):
    """`Importing.import_model`."""

    recipe: str
    folder: str
    out: str


class ExportModel(msgspec.Struct, frozen=True, kw_only=True, tag="export"):
    """`Exporting.export_model`."""

    recipe: str
    model: str
    config: dict[str, object]
    form: Form
    out: str


class Train(msgspec.Struct, frozen=True, kw_only=True, tag="train"):
    """`Recipe.train`."""

    recipe: str
    model: str
    config: dict[str, object]
    data: str
    examples: int
    seed: int
    out: str
    selection: Selection = Selection()
    saving: Saving | None = None
    """`None` means it keeps no savepoints."""
    local: LocalTask = LocalTask()
    privacy: DpSgd | None = None
    """`None` means it trains without differential privacy."""


class MergeModels(msgspec.Struct, frozen=True, kw_only=True, tag="merge"):
    """`Merging.merge`."""

    recipe: str
    config: dict[str, object]
    task: MergeTask
    out: str
    moments: str


class CompressUpdate(msgspec.Struct, frozen=True, kw_only=True, tag="compress"):
    """Reduce a trained model to its difference from the base, see `learning/compression.py`."""

    base: str
    of: Digest
    """Digest of the base."""
    trained: str
    how: Compression
    left: str
    """File for what is lost now."""
    before: str = ""
    """File with what was lost before; empty means none."""


class RebuildWeights(msgspec.Struct, frozen=True, kw_only=True, tag="rebuild"):
    """Rebuild weights from an update and its base."""

    base: str
    of: Digest
    update: str
    out: str


class Evaluate(msgspec.Struct, frozen=True, kw_only=True, tag="evaluate"):
    """`Recipe.evaluate`."""

    recipe: str
    model: str
    config: dict[str, object]
    test: str
    metric: str
    selection: Selection = Selection()


Command = (
    ProbeSpeed
    | Describe
    | EstimateFootprint
    | Inspect
    | InspectTest
    | Initialise
    | ImportModel
    | ExportModel
    | Train
    | MergeModels
    | CompressUpdate
    | RebuildWeights
    | Evaluate
)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A command, and its limits."""

    command: Command
    limits: Limits = UNLIMITED


class Advanced(msgspec.Struct, frozen=True, kw_only=True, tag="advanced"):
    """Progress of the running command."""

    progress: Progress


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    """The running visit is on disk, as of the progress reported before."""

    number: int
    """Number of the savepoint."""


class WorkerFinished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The command is done. `result` is the MessagePack of the result of the recipe's method."""

    result: msgspec.Raw


class WorkerFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The command raised."""

    error: ErrorReport
    fault: Fault | None = None
    counts: dict[str, int] = {}
    """Counts of a `DataFault`."""
    by_recipe: bool = True
    """Whether the text is the recipe's, which may contain a record, rather than the worker's."""
    traceback: str = ""
    """For the node's own log, if the failure was unforeseen. It never leaves the site."""


Reply = Ready | Advanced | Kept | WorkerFinished | WorkerFailed
