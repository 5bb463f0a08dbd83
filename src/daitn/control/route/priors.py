"""Beliefs about the value model's parameters before a job has measured anything.

Parameters live on an unbounded scale (logarithms and logits), each with a Gaussian belief: a mean
and a standard deviation. `UNTAUGHT` holds for any recipe; the lessons of earlier jobs narrow it
(`experience`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from daitn.control.route.question import Believed
from daitn.control.route.value_model import Setting
from daitn.topology.arrays import Floats

__all__ = [
    "SHAPE",
    "UNTAUGHT",
    "Prior",
    "advertised_gain",
    "ceiling_key",
    "guessed",
    "is_known",
    "level_key",
    "prior",
    "teaches_key",
    "untaught",
]


SHAPE = ("tau", "warm", "ripe", "repeats", "fading", "labelled", "averaged")
"""Parameters shared by all sites and objectives, named as in `Draws`."""

UNTAUGHT: dict[str, Believed] = {
    "tau": Believed(5.2, 1.4),
    "warm": Believed(1.0, 1.5),
    "ripe": Believed(2.0, 1.7),
    "repeats": Believed(4.0, 1.2),
    "fading": Believed(-2.6, 1.2),
    "labelled": Believed(2.5, 1.5),
    "averaged": Believed(-2.7, 1.0),
    "ceiling": Believed(4.5, 1.2),
    "teaches": Believed(0.0, 1.4),
    "level": Believed(3.5, 2.0),
    "measuring": Believed(0.0, 1.5),
    "overhead": Believed(0.0, 1.0),
    "slower": Believed(0.0, 1.0),
}
"""`teaches` is a shift relative to topic similarity, see `_TEACHES_AT`.

The last three are logarithms: of seconds to measure all objectives (0.001 to 7 s in
`benchmarks/recordings`, on top of a process's start), of seconds to start a visit, load and store,
and of how much longer training takes than the site's published speed says."""
_LEAST_SD, _FURTHEST = 0.05, 5.0
"""Bounds on what recipes and earlier jobs may report, the second in standard deviations."""
_FURTHEST_TIME = 12.0
"""The same for the logarithms of times: a site's published speed is that of large products, and a
small classifier was measured to train e^11 times more slowly."""
_TEACHES_AT = ((0.0, -2.2), (0.5, -0.9), (0.67, 1.0), (1.0, 4.0))
"""Logit of how much of an objective a field covers, by the similarity of their topics."""


@dataclass(frozen=True)
class Prior:
    """Means and standard deviations for one setting, on the unbounded scale."""

    shape: Floats
    shape_sd: Floats
    """(7,), in the order of `SHAPE`."""
    ceiling: Floats
    ceiling_sd: Floats
    """(O,)."""
    teaches: Floats
    teaches_sd: Floats
    """(D, O)."""
    level: Floats
    level_sd: Floats
    """(S,)."""


def prior(known: Setting, taught: Mapping[str, Believed]) -> Prior:
    """The prior of a setting; `taught` replaces the beliefs about some parameters.

    Keys: those of `UNTAUGHT`; `teaches:<field>|<objective's topic>`, `ceiling:<topic>` and
    `level:<option id>` for beliefs about one field, objective or data set.
    """
    taught = {key: _sane(key, one) for key, one in taught.items() if _plausible(key, one)}
    general = {**UNTAUGHT, **{key: one for key, one in taught.items() if key in UNTAUGHT}}
    shape = [general[name] for name in SHAPE]
    objectives = range(len(known.objectives))
    teaches = [
        [
            _shifted(
                advertised_gain(known, d, o),
                taught.get(teaches_key(known, d, o), general["teaches"]),
            )
            for o in objectives
        ]
        for d in range(len(known.fields))
    ]
    ceiling = [taught.get(ceiling_key(known, o), general["ceiling"]) for o in objectives]
    level = [taught.get(level_key(option.id), general["level"]) for option in known.options]
    return Prior(
        *_columns(shape),
        *_columns(ceiling),
        np.array([[one.mean for one in row] for row in teaches]),
        np.array([[one.sd for one in row] for row in teaches]),
        *_columns(level),
    )


def guessed(key: str, taught: Mapping[str, Believed], hope: float) -> float:
    """Seconds, or a factor, of `measuring`, `overhead` or `slower` before a job has measured it.

    What earlier jobs taught, or a wide guess; `hope` is how many standard deviations less.
    """
    base, one = UNTAUGHT[key], taught.get(key)
    if one is None or not _plausible(key, one):
        one = base
    mean = min(max(one.mean, base.mean - _FURTHEST_TIME), base.mean + _FURTHEST_TIME)
    return math.exp(mean - hope * min(max(one.sd, _LEAST_SD), base.sd))


def is_known(key: str) -> bool:
    """Whether experience may contain a parameter of this name."""
    return key.split(":")[0] in UNTAUGHT


def _plausible(key: str, one: Believed) -> bool:
    """Whether a belief is finite and about an existing parameter."""
    return is_known(key) and math.isfinite(one.mean) and math.isfinite(one.sd)


def _sane(key: str, one: Believed) -> Believed:
    """Bound a belief: no more certain, and no further from the default, than measurements allow."""
    base = untaught(key)
    furthest = _FURTHEST * base.sd
    mean = min(max(one.mean, base.mean - furthest), base.mean + furthest)
    return Believed(mean, min(max(one.sd, _LEAST_SD), base.sd))


def advertised_gain(known: Setting, field: int, objective: int) -> float:
    """Logit of how much of an objective a field covers, by the similarity of their topics alone."""
    at, logit = zip(*_TEACHES_AT, strict=True)
    return float(np.interp(known.fit[field, objective], at, logit))


def _shifted(logit: float, shift: Believed) -> Believed:
    return Believed(logit + shift.mean, shift.sd)


def untaught(key: str) -> Believed:
    """The belief about a parameter without experience.

    For one field, objective or data set, the belief about any of its kind.
    """
    return UNTAUGHT[key.split(":")[0]]


def teaches_key(known: Setting, field: int, objective: int) -> str:
    """The key of how much of an objective a field covers."""
    return f"teaches:{','.join(known.fields[field])}|{known.topics[objective]}"


def ceiling_key(known: Setting, objective: int) -> str:
    """The key of the highest value reachable on an objective."""
    return f"ceiling:{known.topics[objective]}"


def level_key(option_id: str) -> str:
    """The key of a data set's quality."""
    return f"level:{option_id}"


def _columns(believed: list[Believed]) -> tuple[Floats, Floats]:
    return np.array([one.mean for one in believed]), np.array([one.sd for one in believed])
