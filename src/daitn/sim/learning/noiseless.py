"""A world without luck, on many models at once: for setting targets and for hindsight.

Visits take as long as in an episode: the site fetches the model from the nearest holder (the last
site, or a unit that measured it), trains it, and units measure it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from daitn.objects.access import allows
from daitn.objects.descriptors import ANY
from daitn.sim.learning.measuring import exact
from daitn.sim.learning.topologies import Topologies
from daitn.sim.learning.work import INITIALISE_S
from daitn.sim.learning.world import BEGIN_S, GroundSite, GroundVerifier, LearningWorld
from daitn.topology.arrays import Flags, Floats, Indices

__all__ = ["Noiseless", "Travellers"]


@dataclass(frozen=True)
class Travellers:
    """N travelling models."""

    models: Floats
    at: Indices
    """Site last visited; -1 before the first visit."""
    seconds: Floats
    usd: Floats
    examples: Floats
    allowed: Flags
    """(N, J): places each may still go to."""
    alive: Flags
    """Whether rules, budget and sites allowed all of its visits."""

    def take(self, rows: Indices | Flags) -> Travellers:
        return Travellers(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def replaced(self, rows: Indices, others: Travellers) -> Travellers:
        """With `others` replacing these rows."""
        fields = []
        for name in self.__dataclass_fields__:
            column = getattr(self, name).copy()
            column[rows] = getattr(others, name)
            fields.append(column)
        return Travellers(*fields)


class Noiseless:
    """Follows routes through one world."""

    def __init__(self, world: LearningWorld, budgets: bool = True) -> None:
        """Without `budgets`, nothing is too long or too expensive."""
        self.world = world
        limits = world.intent.budget
        self._budgets = budgets
        self._limit_s = limits.duration_s or np.inf
        self._limit_usd = np.inf if limits.cost_usd is None else limits.cost_usd
        self._limit_examples = limits.examples or np.inf
        self.places = sorted({end.node.jurisdiction for end in world.ends.values()})
        self._place = np.array([self.places.index(s.node.jurisdiction) for s in world.sites])
        self._release = np.array(
            [[allows(_release_to(site), place) for place in self.places] for site in world.sites]
        )
        self.targets = np.array([o.at_least for o in world.intent.objectives])
        self._usd = np.array([_price(site) / 1000.0 for site in world.sites])
        self._example_s = np.array([site.example_s for site in world.sites])
        self._overhead_s = np.array([site.overhead_s for site in world.sites])
        self._hangs = np.array([site.hangs for site in world.sites])
        self._leavers = [k for k, site in enumerate(world.sites) if site.away]
        self.admitted = self._admitted()

    def start(self) -> Travellers:
        """One fresh model."""
        return Travellers(
            models=self.world.learner.fresh(1),
            at=np.array([-1]),
            seconds=np.zeros(1),
            usd=np.zeros(1),
            examples=np.zeros(1),
            allowed=np.ones((1, len(self.places)), dtype=np.bool_),
            alive=np.ones(1, dtype=np.bool_),
        )

    def visit(self, before: Travellers, site: Indices, examples: Floats) -> Travellers:
        """Each row's next visit, and the measurement after it."""
        first = before.at < 0
        may_go = before.allowed[np.arange(len(site)), self._place[site]]
        begin_s = before.seconds + np.where(first, self._first_s(site), 0.0)
        fetch_s = np.where(first, 0.0, self._fetch_s(before, site))
        allowed = before.allowed & self._release[site]
        end_s = begin_s + fetch_s + self._overhead_s[site] + examples * self._example_s[site]
        verify_s, measurable = self._verify_s(site, allowed)
        seconds = end_s + verify_s
        usd = before.usd + examples * self._usd[site]
        total = before.examples + examples
        alive = before.alive & may_go & measurable & self.admitted[site] & ~self._hangs[site]
        alive &= self._present(site, begin_s, end_s)
        if self._budgets:
            alive &= seconds <= self._limit_s
            alive &= usd <= self._limit_usd + 1e-9
            alive &= total <= self._limit_examples
        models = self.world.learner.trained(before.models, site, examples, begin_s, None)
        return Travellers(models, site, seconds, usd, total, allowed, alive)

    def values(self, travellers: Travellers) -> Floats:
        """(N, objectives)."""
        return exact(self.world.tests, self.world.learner.values(travellers.models))

    def _admitted(self) -> Flags:
        offered: set[str] = set()
        topologies = Topologies(self.world)
        for change_s in self.world.changes_s:
            offered |= {str(o.site) for o in topologies.at(BEGIN_S + change_s).options}
        return np.array([site.name in offered for site in self.world.sites])

    @cached_property
    def _ends(self) -> tuple[Floats, Floats]:
        ends: list[GroundSite | GroundVerifier] = [*self.world.sites, *self.world.verifiers]
        at = np.array([end.at for end in ends])
        access = np.array([end.access_bps for end in ends])
        return at, access

    def _link_s(self, source: Indices, target: Indices) -> Floats:
        at, access = self._ends
        rtt_s = 0.002 + 0.1 * np.linalg.norm(at[source] - at[target], axis=-1)
        bps = np.minimum(access[source], access[target]) * self.world.link_factor
        took_s: Floats = np.where(source == target, 0.0, rtt_s + self.world.needs.size_bytes / bps)
        return took_s

    def _fetch_s(self, before: Travellers, site: Indices) -> Floats:
        units = len(self.world.sites) + np.arange(len(self.world.verifiers))
        least = self._link_s(np.maximum(before.at, 0), site)
        for objective in range(len(self.world.tests)):
            chosen, _ = self._unit(objective, before.allowed)
            least = np.minimum(least, self._link_s(units[chosen], site))
        return least

    def _first_s(self, site: Indices) -> Floats:
        verify_s, _ = self._verify_s(site, np.ones((len(site), len(self.places)), dtype=np.bool_))
        first_s: Floats = self._overhead_s[site] + INITIALISE_S + verify_s
        return first_s

    def _verify_s(self, site: Indices, allowed: Flags) -> tuple[Floats, Flags]:
        took_s, measurable = np.zeros(len(site)), np.ones(len(site), dtype=np.bool_)
        for objective, test in enumerate(self.world.tests):
            unit, measured = self._unit(objective, allowed)
            measurable &= measured
            item_s = np.array([verifier.item_s for verifier in self.world.verifiers])
            each_s = self._link_s(site, len(self.world.sites) + unit) + item_s[unit] * test.total
            took_s = np.maximum(took_s, each_s)
        return took_s, measurable

    def _unit(self, objective: int, allowed: Flags) -> tuple[Indices, Flags]:
        """Per row, the first unit by name that measures the objective where the model may go."""
        topic = self.world.tests[objective].topic
        chosen = np.full(len(allowed), -1)
        for number, unit in sorted(enumerate(self.world.verifiers), key=lambda pair: pair[1].name):
            verifier = unit.node.verifier
            if verifier is None or all(test.topic != topic for test in verifier.tests):
                continue
            place = self.places.index(unit.node.jurisdiction)
            chosen = np.where((chosen < 0) & allowed[:, place], number, chosen)
        return np.maximum(chosen, 0), chosen >= 0

    def _present(self, site: Indices, begin_s: Floats, end_s: Floats) -> Flags:
        present = np.ones(len(site), dtype=np.bool_)
        for leaver in self._leavers:
            rows = site == leaver
            for begin, end in self.world.sites[leaver].away:
                present &= ~(rows & (begin_s < end) & (end_s >= begin))
        return present


def _release_to(site: GroundSite) -> tuple[str, ...]:
    return site.node.datasets[0].policy.release_to if site.node.datasets else (ANY,)


def _price(site: GroundSite) -> float:
    return site.node.datasets[0].price_usd_per_1k if site.node.datasets else 0.0
