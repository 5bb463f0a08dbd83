"""A job in a world whose truth is the knowledge model with other parameters than its prior."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
from daitn.control.route.knowledge import Floats, Knowledge, prior

from daitn.control.route.engine import Mtrce
from daitn.control.route.question import Checkpoint, RouteQuestion, Spent, VisitMade
from daitn.objects.identifiers import Digest

_ERROR = 0.018
_NEVER = -20.0
"""Shift of a logit that leaves nothing to learn."""


class SimulatedJob:
    """Follows the first visit of each plan, measures with noise, and asks again."""

    def __init__(
        self,
        question: RouteQuestion,
        *,
        slower: float = 1.0,
        forgets: float = 0.0,
        useless: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        names = question.intent.objective_names()
        count = len(question.topology.options)
        offered = prior(question.topology, names, only=range(count))
        affinity = np.zeros_like(offered.fit)
        affinity[[option.site in useless for option in offered.options]] = _NEVER
        self.truth = Knowledge.settled(
            offered, log_tau=math.log(slower), logit_phi=forgets, logit_affinity=affinity
        )
        self._rng = np.random.default_rng(seed)
        fresh = self._checkpoint((), np.zeros((1, count)), ())
        self.starts = [fresh, fresh]
        self._skills = {fresh.model: np.zeros((1, count))}
        self.question = replace(question, checkpoints=(fresh,))
        self.sites: list[str] = []

    def run(self, visits: int) -> bool:
        """Make up to so many visits; whether all targets were measured to hold."""
        for _ in range(visits):
            route, _ = Mtrce().plan(self.question, random.Random(0))
            if route is None:
                break
            stop = route.visits[0]
            base = next(c for c in self.question.checkpoints if c.model == route.start)
            option = self.truth.prior.index()[f"{stop.site}/{stop.dataset}"]
            skills = self.truth.after(
                self._skills[base.model], np.array([option]), np.array([float(stop.examples)])
            )
            self.sites.append(stop.site)
            self._measured(base, f"{stop.site}/{stop.dataset}", stop.examples, skills)
        return self._short(self.starts[0]) == 0.0

    def _measured(self, base: Checkpoint, option: str, examples: int, skills: Floats) -> None:
        visit = VisitMade(
            option_id=option,
            examples=examples,
            seconds=examples / 100.0,
            before=base.values,
            after=self._measure(skills),
            standard_error=dict.fromkeys(base.values, _ERROR),
        )
        latest = self._checkpoint((*base.visits, visit), skills, (option.split("/")[0],))
        best = min((latest, self.starts[1]), key=self._short)
        self.starts = [latest, best]
        self._skills[latest.model] = skills
        spent = self.question.spent
        self.question = replace(
            self.question,
            checkpoints=(latest,) if latest is best else (latest, best),
            history=(*self.question.history, visit),
            spent=Spent(
                duration_s=spent.duration_s + visit.seconds, examples=spent.examples + examples
            ),
        )

    def _checkpoint(
        self, visits: tuple[VisitMade, ...], skills: Floats, holders: tuple[str, ...]
    ) -> Checkpoint:
        made = len(self.question.history) + 1 if visits else 0
        return Checkpoint(
            model=Digest(f"{made:064x}"),
            size_bytes=10_000_000,
            holders=holders,  # type: ignore[arg-type]
            values=visits[-1].after if visits else self._measure(skills),
            visits=visits,
        )

    def _measure(self, skills: Floats) -> dict[str, float]:
        exact = self.truth.values(skills)[0]
        values = exact + self._rng.normal(0.0, _ERROR, len(exact))
        names = self.truth.prior.objectives
        return {
            name: float(np.clip(value, 0, 1)) for name, value in zip(names, values, strict=True)
        }

    def _short(self, checkpoint: Checkpoint) -> float:
        return sum(
            max(0.0, o.at_least - checkpoint.values[o.name])
            for o in self.question.intent.objectives
        )
