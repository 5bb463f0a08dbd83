"""Messages between a node and its training worker.

The node sends one command. The worker sends any number of `Advanced`, then one `WorkerFinished` or
`WorkerFailed`.
"""

from __future__ import annotations

import msgspec

from daitn.learning.child.frames import Ready
from daitn.learning.recipe import Fault, Progress, Selection
from daitn.objects.errors import ErrorReport

__all__ = [
    "Advanced",
    "Command",
    "Describe",
    "EstimateFootprint",
    "Evaluate",
    "Initialise",
    "Inspect",
    "InspectTest",
    "ProbeSpeed",
    "Probed",
    "Reply",
    "Train",
    "WorkerFailed",
    "WorkerFinished",
]


class ProbeSpeed(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """Measure how fast the training engine computes."""


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What the training engine computes on, and how fast."""

    device: str
    memory_bytes: int
    """Memory of the device."""
    speed_flops: float
    """Floating-point operations per second, sustained while training a small network."""


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag="describe"):
    """Ask for a recipe's `RecipeFacts`."""

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
    | Train
    | Evaluate
)


class Advanced(msgspec.Struct, frozen=True, kw_only=True, tag="advanced"):
    """Progress of the running command."""

    progress: Progress


class WorkerFinished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The command is done. `result` is what the recipe's method returned, as MessagePack."""

    result: msgspec.Raw


class WorkerFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The command raised."""

    error: ErrorReport
    fault: Fault | None = None
    counts: dict[str, int] = {}
    """Of a `DataFault`."""
    traceback: str = ""
    """For the node's own log, if the failure was unforeseen. It never leaves the site."""


Reply = Ready | Advanced | WorkerFinished | WorkerFailed
