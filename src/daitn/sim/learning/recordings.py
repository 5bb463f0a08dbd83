"""Recordings of real training: measurements after every visit of many routes.

What judges a policy must be the real thing, not the model that the policy decides by. A recording
holds, for some *splits* (a data set divided among sites, with its own test sets), a tree of routes:
routes with the same beginning share their first visits. `python -m benchmarks.record_worlds` makes
one.

A recording is JSON lines: a header, then one line per split, then one per node of its tree. This
module reads nothing from disk; `benchmarks.worlds.files` opens those that come with the project.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from daitn.objects.errors import Corrupt, NotFound

__all__ = [
    "FORMAT",
    "RecordedModel",
    "RecordedOn",
    "RecordedSite",
    "Recording",
    "RecordingHeader",
    "Route",
    "Score",
    "Split",
    "Test",
    "TrainedSplit",
    "read_recording",
    "write_recording",
]

FORMAT = 1

Visit = tuple[int, int]
"""The index of a site in the split's `sites`, and how many examples the model saw there; negative
if it was trained to be merged. (Recordings have no such visits: they are trained on demand.)"""
Route = tuple[Visit, ...]


class RecordedOn(msgspec.Struct, frozen=True, kw_only=True):
    """The machine. Seconds are comparable within a recording only."""

    cpu: str
    cores: int
    threads: int
    torch: str
    date: str


class RecordingHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    format: int
    family: str
    recorded_on: RecordedOn
    command: str


class RecordedSite(msgspec.Struct, frozen=True, kw_only=True):
    """What a site would publish about its data, and in `flaw` what it would not."""

    site: str
    samples: int
    labels: dict[str, int]
    topics: tuple[str, ...]
    quality: float
    flaw: str = ""
    """The flaw of its records. Absent from every descriptor, so hidden from planners."""


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """A test set; its objective is a key of every node's `measured`."""

    objective: str
    topic: str
    metric: str
    items: int
    chance: float
    labels: dict[str, int]
    measuring_s: float = 0.0
    """Median seconds of one core for a measurement."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """One data set divided among some sites, and one configuration."""

    split: str
    recipe: str
    config: dict[str, object]
    parameters: int
    flops_per_example: float
    size_bytes: int
    sites: tuple[RecordedSite, ...]
    tests: tuple[Test, ...]
    targets: dict[str, float]
    """Per objective: a value that about a quarter of the recorded routes reach, for all at once."""
    seed: int = 0
    repeats: str = ""
    """The split whose routes this one repeats with another seed."""
    note: str = ""


class Score(msgspec.Struct, frozen=True, array_like=True):
    """A measurement: value, its standard error, and the value per label with enough items."""

    value: float
    standard_error: float
    by_label: dict[str, float] = {}


class RecordedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model after its route: the last visit's cost, and the measurements after it."""

    split: str
    route: Route
    seconds: float
    """Seconds of one core, for training at the last visit."""
    loss: float | None
    """Mean over the last tenth of the last visit; none for the untrained model."""
    measured: dict[str, Score]
    held_out: bool = False
    """For judging, never for fitting."""


@dataclass(frozen=True)
class TrainedSplit:
    """A split and the tree of routes that were trained on it."""

    split: Split
    nodes: Mapping[Route, RecordedModel]

    def walked(self) -> tuple[Route, ...]:
        """The routes that no other recorded route extends."""
        begun = {route[:-1] for route in self.nodes if route}
        return tuple(route for route in self.nodes if route not in begun)

    def asking(self, objective: str) -> TrainedSplit:
        """The same training judged by `broad` and another expert, which is renamed to `expert`.

        Raises `NotFound` if no node was measured for `objective`.
        """
        if objective not in self.split.targets:
            raise NotFound(
                f"{self.split.split} was not measured for {objective!r}",
                field="objective",
                fix=f"ask for one of {', '.join(self.split.targets)}",
            )
        kept = {"broad": "broad", "expert": objective}
        replace = msgspec.structs.replace
        tests = {test.objective: test for test in self.split.tests}
        split = replace(
            self.split,
            tests=tuple(replace(tests[old], objective=new) for new, old in kept.items()),
            targets={new: self.split.targets[old] for new, old in kept.items()},
        )
        nodes = {
            route: replace(node, measured={new: node.measured[old] for new, old in kept.items()})
            for route, node in self.nodes.items()
        }
        return TrainedSplit(split=split, nodes=nodes)


@dataclass(frozen=True)
class Recording:
    """Everything recorded of one family."""

    header: RecordingHeader
    splits: tuple[TrainedSplit, ...]


class _Kind(msgspec.Struct):
    """Just enough of a line to recognise its kind."""

    route: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def read_recording(lines: Iterable[bytes]) -> Recording:
    """Read a recording, line by line. Raises `Corrupt` naming the line that cannot be read."""
    header: RecordingHeader | None = None
    splits: dict[str, Split] = {}
    nodes: dict[str, dict[Route, RecordedModel]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            if header is None:
                header = _checked(_HEADER.decode(line))
            elif _KIND.decode(line).route is msgspec.UNSET:
                split = _SPLIT.decode(line)
                splits[split.split], nodes[split.split] = split, {}
            else:
                node = _NODE.decode(line)
                nodes[node.split][node.route] = node
        except (msgspec.DecodeError, ValueError, KeyError) as error:
            raise _corrupt(f"line {number}: {error!r}") from error
    if header is None:
        raise _corrupt("it is empty")
    trained = (TrainedSplit(split=split, nodes=nodes[name]) for name, split in splits.items())
    return Recording(header=header, splits=tuple(trained))


def write_recording(recording: Recording) -> Iterable[bytes]:
    """The lines of a recording, without line ends; the inverse of `read_recording`."""
    yield msgspec.json.encode(recording.header)
    yield from (msgspec.json.encode(trained.split) for trained in recording.splits)
    for trained in recording.splits:
        yield from map(msgspec.json.encode, trained.nodes.values())


def _checked(header: RecordingHeader) -> RecordingHeader:
    if header.format != FORMAT:
        raise ValueError(f"format {header.format}, not {FORMAT}")
    return header


def _corrupt(problem: str) -> Corrupt:
    return Corrupt(
        f"not a recording of training: {problem}",
        field="recording",
        fix="record it again: python -m benchmarks.record_worlds",
    )


_HEADER = msgspec.json.Decoder(RecordingHeader)
_KIND = msgspec.json.Decoder(_Kind)
_SPLIT = msgspec.json.Decoder(Split)
_NODE = msgspec.json.Decoder(RecordedModel)
