"""The surrogate's error on routes it was not fitted on, and how well it estimates that error.

The surrogate follows held-out routes alone, from the first visit to the last, drawing luck many
times: nothing recorded helps it along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from daitn.sim.learning.families.recorded import judgeable, repeats_of
from daitn.sim.learning.measuring import exact
from daitn.sim.learning.recordings import RecordedModel, Recording, Route, TrainedSplit
from daitn.sim.learning.replay import Replay, numbers_of, replay
from daitn.topology.arrays import Floats

__all__ = ["Calibration", "Errors", "calibrated"]

_EXPERT = "expert"
_DRAWS = 40
_COVERED = 0.8
"""The central share of the draws that should contain the recorded value this often."""
_HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class Errors:
    """Predicted minus recorded values of objectives."""

    count: int
    bias: float
    rmse: float
    covered: float
    """How often the central 80 % of the draws contained the recorded value."""
    still_rmse: float
    """RMSE of predicting no change (one visit) or a fresh model's values (a whole route)."""


@dataclass(frozen=True)
class Calibration:
    """Results for one family."""

    family: str
    splits: int
    visits: Errors
    """Starting from the recorded values before a visit."""
    routes: Errors
    """From a fresh model to the end of a route."""
    seeds_rmse: float
    """How far repetitions of a route with another seed end apart: the error of any prediction is at
    least this over the square root of 2."""


def calibrated(recording: Recording) -> Calibration:
    """Fit on everything not held out, and compare with the rest."""
    visits, routes, seeds = [], [], []
    splits = judgeable(recording)
    for trained in splits:
        judged = _with_held_out(trained.asking(_EXPERT))
        repeats = [other.asking(_EXPERT) for other in repeats_of(recording, trained)]
        learner = replay(judged, map(_kept, repeats), held_out=False)
        alone = replace(learner, known=learner.known.fresh())
        visits.append(_visits(alone, judged))
        routes.append(_routes(alone, judged))
        seeds += [
            _end(learner, other.nodes[route]) - _end(learner, judged.nodes[route])
            for other in repeats
            for route in other.walked()
            if route and route in trained.nodes
        ]
    spread = np.concatenate(seeds) if seeds else np.array([np.nan])
    return Calibration(
        family=recording.header.family,
        splits=len(splits),
        visits=_errors(visits),
        routes=_errors(routes),
        seeds_rmse=float(np.sqrt((spread**2).mean())),
    )


@dataclass(frozen=True)
class _Compared:
    """K values, each with draws (draws, K)."""

    draws: Floats
    recorded: Floats
    still: Floats


def _visits(learner: Replay, trained: TrainedSplit) -> _Compared:
    held = [
        route
        for route, node in trained.nodes.items()
        if node.held_out and route and route[:-1] in trained.nodes
    ]
    draws, recorded, still = [], [], []
    rng = np.random.default_rng(0)
    for route in held:
        models = learner.fresh(_DRAWS)
        for site, examples in route[:-1]:
            models = _visited(learner, models, site, examples, rng)
        before = numbers_of(trained.nodes[route[:-1]], learner.tests)
        models[:, 1 : 1 + len(before)] = before
        still.append(_objectives(learner, models)[0])
        models = _visited(learner, models, *route[-1], rng)
        draws.append(_objectives(learner, models))
        recorded.append(_end(learner, trained.nodes[route]))
    return _joined(draws, recorded, still, learner)


def _routes(learner: Replay, trained: TrainedSplit) -> _Compared:
    held = [route for route in trained.walked() if trained.nodes[route].held_out and route]
    draws, recorded, still = [], [], []
    rng = np.random.default_rng(1)
    for route in held:
        models = learner.fresh(_DRAWS)
        still.append(_objectives(learner, models)[0])
        for site, examples in route:
            models = _visited(learner, models, site, examples, rng)
        draws.append(_objectives(learner, models))
        recorded.append(_end(learner, trained.nodes[route]))
    return _joined(draws, recorded, still, learner)


def _joined(
    draws: list[Floats], recorded: list[Floats], still: list[Floats], learner: Replay
) -> _Compared:
    if not draws:
        nothing = np.zeros(0)
        return _Compared(np.zeros((_DRAWS, 0)), nothing, nothing)
    return _Compared(np.concatenate(draws, axis=1), np.concatenate(recorded), np.concatenate(still))


def _visited(
    learner: Replay, models: Floats, site: int, examples: int, rng: np.random.Generator
) -> Floats:
    count = len(models)
    return learner.trained(
        models, np.full(count, site), np.full(count, float(examples)), np.zeros(count), rng
    )


def _objectives(learner: Replay, models: Floats) -> Floats:
    return exact(learner.tests, learner.values(models))


def _end(learner: Replay, node: RecordedModel) -> Floats:
    return np.array([node.measured[test.objective].value for test in learner.tests])


def _errors(found: Sequence[_Compared]) -> Errors:
    draws = np.concatenate([one.draws for one in found], axis=1)
    recorded = np.concatenate([one.recorded for one in found])
    still = np.concatenate([one.still for one in found])
    off = draws.mean(axis=0) - recorded
    low, high = np.quantile(draws, [(1 - _COVERED) / 2, (1 + _COVERED) / 2], axis=0)
    return Errors(
        count=len(recorded),
        bias=float(off.mean()),
        rmse=float(np.sqrt((off**2).mean())),
        covered=float(((low <= recorded + 1e-9) & (recorded <= high + 1e-9)).mean()),
        still_rmse=float(np.sqrt(((still - recorded) ** 2).mean())),
    )


def _with_held_out(trained: TrainedSplit) -> TrainedSplit:
    """In a split held out as a whole, keep only a fifth of its routes held out."""
    if not all(node.held_out for node in trained.nodes.values()):
        return trained
    walked = trained.walked()
    kept = _prefixes(r for k, r in enumerate(walked) if k % _HELD_OUT_EVERY)
    return replace(trained, nodes=_held(trained.nodes, lambda route: route not in kept))


def _kept(trained: TrainedSplit) -> TrainedSplit:
    """A repetition for fitting; emptied if its split is held out as a whole."""
    if not all(node.held_out for node in trained.nodes.values()):
        return trained
    return replace(trained, nodes={})


def _prefixes(routes: Iterable[Route]) -> frozenset[Route]:
    return frozenset(route[:at] for route in routes for at in range(len(route) + 1))


def _held(
    nodes: Mapping[Route, RecordedModel], out: Callable[[Route], bool]
) -> dict[Route, RecordedModel]:
    return {
        route: msgspec.structs.replace(node, held_out=out(route)) for route, node in nodes.items()
    }
