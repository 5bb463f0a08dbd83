"""What a node and its training worker say to each other: framed MessagePack over pipes.

The node sends one command; the worker answers with any number of `Advanced` and then one
`Finished` or `Failed`. A worker says `Ready` once, when its training engine is loaded.
A frame is a length (four bytes, big-endian) and that many bytes.
"""

from __future__ import annotations

import struct

import msgspec

from daitn.learning.recipe import Progress
from daitn.objects.errors import ErrorReport
from daitn.objects.wire import encode

__all__ = [
    "HEADER",
    "MAX_FRAME_BYTES",
    "Advanced",
    "Command",
    "Estimate",
    "Evaluate",
    "Failed",
    "Finished",
    "Initialise",
    "Inspect",
    "InspectTest",
    "Probe",
    "Probed",
    "Ready",
    "Reply",
    "Train",
    "framed",
]

HEADER = struct.Struct(">I")
MAX_FRAME_BYTES = 16 << 20
"""Far above any command or reply: models and data travel as paths."""


class Probe(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """Measure how fast the training engine computes here."""


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What the training engine computes with, and how fast."""

    device: str
    memory_bytes: int
    """Memory of the device that trains."""
    speed_flops: float
    """Floating-point operations per second, sustained while training a small network."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True, tag="estimate"):
    """`Recipe.estimate`."""

    recipe: str
    config: dict[str, object]


class Inspect(msgspec.Struct, frozen=True, kw_only=True, tag="inspect"):
    """`Recipe.inspect`."""

    recipe: str
    data: str


class InspectTest(msgspec.Struct, frozen=True, kw_only=True, tag="inspect-test"):
    """`Recipe.inspect_test`."""

    recipe: str
    test: str


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


class Evaluate(msgspec.Struct, frozen=True, kw_only=True, tag="evaluate"):
    """`Recipe.evaluate`."""

    recipe: str
    model: str
    config: dict[str, object]
    test: str
    metric: str


Command = Probe | Estimate | Inspect | InspectTest | Initialise | Train | Evaluate


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The worker takes commands."""


class Advanced(msgspec.Struct, frozen=True, kw_only=True, tag="advanced"):
    """The running command came this far."""

    progress: Progress


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The command is done. `result` is the MessagePack of what the recipe's method returned."""

    result: msgspec.Raw


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The command raised."""

    error: ErrorReport
    traceback: str = ""
    """For the node's own log, where the failure was not foreseen. It never leaves the site."""


Reply = Ready | Advanced | Finished | Failed


def framed(message: Command | Reply) -> bytes:
    """One frame. Raises `ValueError` if it is larger than the other side accepts."""
    payload = encode(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {len(payload)} bytes exceeds {MAX_FRAME_BYTES}")
    return HEADER.pack(len(payload)) + payload
