"""The posterior of the value model's parameters, given the measured visits.

The estimate is the mode of the posterior, found by damped Gauss-Newton (Levenberg 1944, Marquardt
1963) from the prior's mean; its width is that of the Gaussian with the same curvature there
(Laplace's approximation; Tierney and Kadane 1986). Where measurements miss the mode by more than
their errors explain, the model is wrong about something, and the width grows accordingly.

Draws always use the same normal scores, so the same question gives the same decision, and two
decisions differ by what was measured between them and not by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise

import numpy as np

from daitn.control.route.merged import merged_skills
from daitn.control.route.priors import SHAPE, Prior
from daitn.control.route.question import PastVisit
from daitn.control.route.value_model import (
    Draws,
    Setting,
    Visits,
    after_visit,
    effects,
    start_skills,
    values,
    visits_to,
)
from daitn.objects.merging import Algorithm
from daitn.topology.arrays import Floats, Indices

__all__ = ["Belief", "Taught", "believed", "drawn", "hopeful", "parents", "taught", "untaught"]

_SHAPE = len(SHAPE)
_MODEL_SD = 0.03
"""Model error of an objective's value. With it and the next, the misfit at the end of 19 simulated
jobs of as many families was 0.02 to 2.6, with a median of 0.26: 1 or less in 14 power-law worlds of
few visits, 0.7 to 2.6 on recorded training, where the misfit widens the posterior."""
_LABEL_SD = 0.10
"""The same for one label's value, which has a fraction of the items."""
_EARLY = (2.5, 1.7, 1.3, 1.0)
"""Factor on both after the first, second and third visit of a fresh model, whose results depend
strongly on its start."""
_BROUGHT = 1000.0
"""Examples of everything that owner-supplied weights are assumed to have seen: more than
`value_model._SETTLED`, so that they fade slowly, and few enough to be taught. A guess."""
_DEFAULT_SE = 0.02
"""For a measurement without a standard error: that of 90 % over 225 items."""
_SAME_VALUE = 1e-9
_STEP = 1e-3
"""Step of finite differences, in prior standard deviations: far above rounding, far below
curvature."""
_ROUNDS = 10
"""Maximum number of Gauss-Newton rounds; it ends when a round gains less than a thousandth."""
_BAD_SHARE = 0.08
_BAD_LEVEL = -2.0
"""This share of the unvisited sites is assumed to teach next to nothing, whatever their descriptors
claim. No network has yet shown how many do; with one such site in twelve, a route does not rest on
a single unvisited one."""
_USUAL_SD = 1.0
"""Spread of the others; the prior of a visited site is wider, as it may be of either kind."""
_SEED = 20


@dataclass(frozen=True)
class Belief:
    """The posterior over shape, ceilings, teaches and the levels of the `visited` options.

    `mode` and `root`, a square root of its covariance. Other options' levels keep their prior.
    """

    known: Setting
    prior: Prior
    visited: Indices
    mean: Floats
    sd: Floats
    """Before any measurement."""
    mode: Floats
    root: Floats
    misfit: float
    """Mean squared error of the measurements in units of the expected error; about 1 if the model
    fits."""


@dataclass(frozen=True)
class _Seen:
    """Visits to known options, oldest first."""

    known: Setting
    site: Indices
    examples: Floats
    parent: Indices
    """(V,): the visit whose model this one received; -1 means the start."""
    start: Floats | None
    measured: Floats
    """(V, O)."""
    error: Floats
    by_label: Floats
    label_error: Floats
    """(V, O, L); infinite if not reported."""
    rounds: tuple[tuple[int, Algorithm], ...]
    """(V,): the number of the round, 0 for none, and how it was merged. Only the last visit of a
    round is measured."""

    @cached_property
    def visits(self) -> Visits:
        """(V, 1): the visits, each to the model that its site received."""
        known, made = self.known, list[Visits]()

        def received(row: int, model: Taught) -> Floats:
            site, examples = self.site[row : row + 1], self.examples[row : row + 1]
            made.append(model.visited(known, site, examples))
            return model.grid

        nothing = np.zeros((0, len(known.fields), len(known.labels)))
        self.models(_unseen(known, nothing, self.start), received)
        return Visits.joined(made).at(np.arange(len(made))[:, None])

    def models(self, start: Taught, visited: Callable[[int, Taught], Floats]) -> list[Taught]:
        """The model after each visit; `visited` returns its skills (D, L, N) as its site trained
        it, given the row and the model before."""
        models: list[Taught] = []
        together: list[Taught] = []
        for row, (site, examples) in enumerate(zip(self.site, self.examples, strict=True)):
            parent, (number, algorithm) = int(self.parent[row]), self.rounds[row]
            before = models[parent] if parent >= 0 else start
            made = before.made(self.known, int(site), float(examples), visited(row, before))
            together = together if number and row and self.rounds[row - 1][0] == number else []
            together.append(made)
            models.append(before.merged(together, algorithm) if number else made)
        return models


def believed(
    known: Setting, prior: Prior, history: Sequence[PastVisit], start: Floats | None
) -> Belief:
    """The posterior after `history`.

    `start` holds the measurements of owner-supplied weights, (O,); none for a fresh model.
    """
    seen = _seen(known, history, start)
    visited = np.unique(seen.site)
    mean, sd = _layout(prior, visited)
    if not len(seen.site):
        return Belief(known, prior, visited, mean, sd, mean, np.diag(sd), 1.0)
    mode, jacobian, residual = _mode(seen, prior, visited, mean, sd)
    observed = residual[: len(residual) - len(mean)]
    misfit = float(np.mean(observed**2)) if len(observed) else 1.0
    precision = jacobian.T @ jacobian
    covariance: Floats = np.linalg.inv(precision).astype(np.float64) * max(1.0, misfit)
    covariance = _no_wider(covariance, sd)
    return Belief(known, prior, visited, mean, sd, mode, _root(covariance), misfit)


def drawn(belief: Belief, count: int) -> Draws:
    """`count` sets of parameters; the first is the mode, the others come in mirrored pairs."""
    width, options = len(belief.mode), len(belief.known.options)
    rng = np.random.default_rng(_SEED)
    half = rng.standard_normal((count // 2 + 1, width + options))
    luck = rng.random((count, options))
    scores = np.vstack([np.zeros((1, width + options)), *_mirrored(half)])[:count]
    theta = belief.mode + scores[:, :width] @ belief.root.T
    prior = belief.prior
    spread = np.minimum(prior.level_sd, _USUAL_SD)
    level = prior.level + scores[:, width:] * spread
    doubtful = prior.level_sd > _USUAL_SD
    bad = (luck < _BAD_SHARE) & doubtful & (np.arange(count) > 0)[:, None]
    return _unpacked(belief.known, theta, belief.visited, np.where(bad, _BAD_LEVEL, level))


def hopeful(belief: Belief, deviations: float) -> Draws:
    """One parameter set: each parameter this many of its standard deviations better than the
    mode."""
    sd = np.sqrt((belief.root**2).sum(axis=1))
    better = np.ones(len(sd))
    better[:_SHAPE] = (-1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0)
    theta = belief.mode + deviations * better * sd
    level = belief.prior.level + deviations * belief.prior.level_sd
    return _unpacked(belief.known, theta[None], belief.visited, level[None])


@dataclass(frozen=True)
class Taught:
    """State of a model after its visits.

    Skills (N, D, L) under each draw, examples (S,) at each option, and examples (D, L) of each
    label in each field.
    """

    skills: Floats
    seen: Floats
    exposure: Floats
    fresh: bool

    @property
    def grid(self) -> Floats:
        """(D, L, N): its skills in the form for `after_visit`."""
        return self.skills.transpose(1, 2, 0)

    def after(self, known: Setting, draws: Draws, site: int, examples: float) -> Taught:
        """The state after one more visit."""
        visit = self.visited(known, np.array([site]), np.array([examples]))
        return self.made(known, site, examples, after_visit(draws, self.grid, visit))

    def visited(self, known: Setting, site: Indices, examples: Floats) -> Visits:
        """Visits that this model might make, of any shape."""
        return visits_to(
            known,
            site,
            examples,
            before=self.seen[site],
            total=np.full(site.shape, self.seen.sum()),
            exposure=self.exposure.reshape(*self.exposure.shape, *[1] * site.ndim),
            fresh=np.full(site.shape, self.fresh),
        )

    def made(self, known: Setting, site: int, examples: float, skills: Floats) -> Taught:
        """The state after one more visit, which resulted in the skills (D, L, N)."""
        seen, exposure = self.seen.copy(), self.exposure.copy()
        seen[site] += examples
        exposure[known.field[site]] += known.share[site] * examples
        return Taught(skills.transpose(2, 0, 1), seen, exposure, fresh=False)

    def merged(self, made: Sequence[Taught], algorithm: Algorithm) -> Taught:
        """The merge of the models that sites made from this one."""
        if not made:
            return self
        more = np.array([one.seen.sum() - self.seen.sum() for one in made])
        after = np.stack([one.skills for one in made])
        return Taught(
            merged_skills(self.skills, after, np.maximum(more, 1.0), algorithm),
            self.seen + sum(one.seen - self.seen for one in made),
            self.exposure + sum(one.exposure - self.exposure for one in made),
            fresh=False,
        )


def untaught(known: Setting, draws: Draws, start: Floats | None) -> Taught:
    """A model before its first visit; `start` as in `believed`."""
    return _unseen(known, start_skills(known, draws, start), start)


def _unseen(known: Setting, skills: Floats, start: Floats | None) -> Taught:
    seen = 0.0 if start is None else _BROUGHT
    exposure = np.full((len(known.fields), len(known.labels)), seen)
    return Taught(skills, np.zeros(len(known.options)), exposure, fresh=start is None)


def taught(
    known: Setting, draws: Draws, visits: Sequence[PastVisit], start: Floats | None
) -> Taught:
    """The model that these visits made; ignores visits to options that no longer exist."""
    column = known.index()
    model = untaught(known, draws, start)
    for (number, algorithm), together in groupby(visits, lambda one: (one.round, one.algorithm)):
        made = []
        for visit in together:
            position = column.get(visit.option_id)
            if position is None or visit.examples <= 0:
                continue
            after = model.after(known, draws, position, float(visit.examples))
            made.append(after)
            model = model if number else after
        model = model.merged(made, algorithm) if number else model
    return model


def parents(history: Sequence[PastVisit]) -> tuple[int, ...]:
    """For each visit, the position of the visit whose model it received; -1 for the start.

    That is the latest earlier visit that ended with the values this one began with.
    """
    return tuple(
        next((i for i in reversed(range(k)) if _follows(history[i], visit)), -1)
        for k, visit in enumerate(history)
    )


def _follows(earlier: PastVisit, later: PastVisit) -> bool:
    if later.round and later.round == earlier.round:
        return False
    shared = earlier.after.keys() & later.before.keys()
    return bool(shared) and all(
        abs(earlier.after[name] - later.before[name]) < _SAME_VALUE for name in shared
    )


def _seen(known: Setting, history: Sequence[PastVisit], start: Floats | None) -> _Seen:
    column = known.index()
    rows = [k for k, v in enumerate(history) if v.option_id in column and v.examples > 0]
    row_of = {k: row for row, k in enumerate(rows)}
    origin = parents(history)
    parent = np.array([_known_origin(origin, row_of, k) for k in rows], dtype=np.int64)
    depth = _depths(parent)
    site = np.array([column[history[k].option_id] for k in rows], dtype=np.int64)
    examples = np.array([float(history[k].examples) for k in rows])
    count, label_count = len(known.objectives), len(known.labels)
    measured, error = np.zeros((len(rows), count)), np.full((len(rows), count), np.inf)
    by_label = np.zeros((len(rows), count, label_count))
    label_error = np.full(by_label.shape, np.inf)
    unmerged = _followed_in_round([history[k].round for k in rows])
    for row, k in enumerate(rows):
        for o, name in enumerate(known.objectives):
            if name not in history[k].after:
                continue
            measured[row, o] = history[k].after[name]
            own = history[k].standard_error.get(name) or _DEFAULT_SE
            early = _EARLY[min(depth[row], len(_EARLY) - 1)]
            error[row, o] = np.hypot(own, early * _MODEL_SD)
            if row in unmerged:
                error[row, o] = np.inf
                continue
            for label, value in history[k].by_label.get(name, {}).items():
                if label in known.labels:
                    at = known.labels.index(label)
                    by_label[row, o, at] = value
                    items = max(1.0, known.items[o, at])
                    noise = np.sqrt(max(value * (1.0 - value), 0.05) / items)
                    label_error[row, o, at] = np.hypot(noise, early * _LABEL_SD)
    return _Seen(
        known,
        site,
        examples,
        parent,
        start,
        measured,
        error,
        by_label,
        label_error,
        tuple((history[k].round, history[k].algorithm) for k in rows),
    )


def _followed_in_round(rounds: Sequence[int]) -> frozenset[int]:
    """Rows followed by another visit of the same round: the merged model was measured."""
    pairs = pairwise(rounds)
    return frozenset(row for row, (one, then) in enumerate(pairs) if one and one == then)


def _depths(parent: Indices) -> list[int]:
    """Number of ancestors of each visit."""
    depths: list[int] = []
    for row in parent:
        depths.append(depths[row] + 1 if row >= 0 else 0)
    return depths


def _known_origin(origin: Sequence[int], row_of: dict[int, int], visit: int) -> int:
    """Row of the closest ancestor at an option that is still known."""
    ancestor = origin[visit]
    while ancestor >= 0 and ancestor not in row_of:
        ancestor = origin[ancestor]
    return row_of.get(ancestor, -1)


def _layout(prior: Prior, visited: Indices) -> tuple[Floats, Floats]:
    mean = (prior.shape, prior.ceiling, prior.teaches.ravel(), prior.level[visited])
    sd = (prior.shape_sd, prior.ceiling_sd, prior.teaches_sd.ravel(), prior.level_sd[visited])
    return np.concatenate(mean), np.concatenate(sd)


def _unpacked(known: Setting, theta: Floats, visited: Indices, level: Floats) -> Draws:
    """Parameter sets (N, ...); `level`, (N, S) or (1, S), is for the unvisited options."""
    objectives, fields = len(known.objectives), len(known.fields)
    shape = np.clip(theta[:, :_SHAPE], -12.0, 14.0)
    rest = theta[:, _SHAPE:]
    ceiling, rest = rest[:, :objectives], rest[:, objectives:]
    teaches, own = rest[:, : fields * objectives], rest[:, fields * objectives :]
    levels = np.broadcast_to(level, (len(theta), len(known.options))).copy()
    levels[:, visited] = own
    return Draws(
        tau=np.exp(shape[:, 0]),
        warm=np.exp(shape[:, 1]),
        ripe=np.exp(shape[:, 2]),
        repeats=np.exp(shape[:, 3]),
        fading=np.exp(np.minimum(shape[:, 4], 3.0)),
        labelled=_share(shape[:, 5]),
        averaged=_share(shape[:, 6]),
        ceiling=np.maximum(_share(ceiling), known.chance + 0.02),
        teaches=_share(teaches).reshape(len(theta), fields, objectives),
        level=_share(levels),
        row=np.arange(len(theta)),
    )


def _share(logit: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0)))
    return found


def _mode(
    seen: _Seen, prior: Prior, visited: Indices, mean: Floats, sd: Floats
) -> tuple[Floats, Floats, Floats]:
    """Mode of the posterior, with Jacobian and residuals there.

    Levenberg-Marquardt (Marquardt 1963, SIAM J. Appl. Math. 11:431). Why not scipy's:
    `docs/explanation/architecture.md`.
    """
    theta = mean.copy()
    residual, jacobian = _linearised(theta, seen, prior, visited, mean, sd)
    damping = 1e-2
    for _ in range(_ROUNDS):
        normal = jacobian.T @ jacobian
        scale = np.diag(np.diag(normal))
        step = np.linalg.solve(normal + damping * scale, -jacobian.T @ residual)
        step = np.clip(step, -2.0 * sd, 2.0 * sd)
        trial, trial_jacobian = _linearised(theta + step, seen, prior, visited, mean, sd)
        if trial @ trial < residual @ residual:
            settled = trial @ trial > (1.0 - 1e-3) * (residual @ residual)
            theta, residual, jacobian = theta + step, trial, trial_jacobian
            damping = max(damping / 4.0, 1e-6)
            if settled:
                break
        else:
            damping *= 8.0
    return theta, jacobian, residual


def _linearised(
    theta: Floats, seen: _Seen, prior: Prior, visited: Indices, mean: Floats, sd: Floats
) -> tuple[Floats, Floats]:
    """Residuals of measurements and prior at `theta`, and their derivatives."""
    step = _STEP * sd
    sets = np.vstack([theta, theta + np.diag(step)])
    draws = _unpacked(seen.known, sets, visited, prior.level[None])
    residuals = np.hstack([_misses(draws, seen), (sets - mean) / sd])
    return residuals[0], ((residuals[1:] - residuals[0]) / step[:, None]).T


def _misses(draws: Draws, seen: _Seen) -> Floats:
    """(N, measurements): the errors of each set, in standard errors."""
    known, made = seen.known, effects(draws, seen.visits)
    start = untaught(known, draws, seen.start)
    models = seen.models(start, lambda row, model: made.of(row).on(model.grid))
    columns: list[Floats] = []
    values_known, labels_known = np.isfinite(seen.error), np.isfinite(seen.label_error)
    for row, model in enumerate(models):
        found = values(known, draws, model.skills)
        whole = np.einsum("nol,ol->no", found, known.shares)
        missed = (whole - seen.measured[row]) / seen.error[row]
        columns.append(missed[:, values_known[row]])
        if labels_known[row].any():
            each = (found - seen.by_label[row]) / seen.label_error[row]
            columns.append(each[:, labels_known[row]])
    return np.hstack(columns)


def _no_wider(covariance: Floats, sd: Floats) -> Floats:
    """The covariance, with no variance above the prior's.

    A misfit means that the model is wrong, not that less is known than before.
    """
    factor = np.minimum(1.0, sd / np.sqrt(np.maximum(np.diag(covariance), 1e-18)))
    kept: Floats = covariance * np.outer(factor, factor)
    return kept


def _mirrored(half: Floats) -> tuple[Floats, ...]:
    return tuple(row[None] for pair in zip(half, -half, strict=True) for row in pair)


def _root(covariance: Floats) -> Floats:
    """A square root of the covariance, ignoring negative eigenvalues from rounding."""
    weight, vectors = np.linalg.eigh((covariance + covariance.T) / 2.0)
    root: Floats = vectors * np.sqrt(np.maximum(weight, 0.0))
    return root
