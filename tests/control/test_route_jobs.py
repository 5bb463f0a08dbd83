"""Jobs led through simulated worlds, whose truth is not what the planner believes."""

from __future__ import annotations

import numpy as np
import pytest

from daitn.sim.learning.episode import Episode, EpisodeEnd
from daitn.sim.learning.families import FAMILIES
from daitn.sim.learning.world import LearningWorld

from .route_jobs import Watched, led, led_in, single_class_pairs

PLAIN = [("plain", 1_000 + k) for k in range(6)] + [("tiny", 1_000 + k) for k in range(4)]
"""Honest sites; a fixed route is known that reaches within half of the budget or less."""
MANY_PLAIN = [("plain", 1_000 + k) for k in range(16)] + [("tiny", 1_000 + k) for k in range(8)]
STRESSED = [
    (family, 1_000 + k)
    for family in ("prices", "poisoned", "jurisdictions", "wrong topics")
    for k in range(2)
]


def told(led: tuple[LearningWorld, Episode, Watched]) -> str:
    world, episode, _ = led
    return f"{world.family} {world.seed}: {episode.why} after {episode.seconds:.0f} s"


@pytest.mark.parametrize(("family", "seed"), PLAIN)
def test_what_fixed_routes_reach_is_reached(family: str, seed: int) -> None:
    led = led_in(family, seed)
    world, episode, _ = led
    assert world.reference
    assert episode.reached, told(led)


@pytest.mark.parametrize(("family", "seed"), [*PLAIN, *STRESSED])
def test_a_budget_is_kept(family: str, seed: int) -> None:
    world, episode, _ = led_in(family, seed)
    budget = world.intent.budget
    assert budget.duration_s is not None
    assert episode.seconds <= budget.duration_s
    assert budget.cost_usd is None or episode.usd <= budget.cost_usd + 1e-9
    assert budget.examples is None or episode.examples <= budget.examples
    assert episode.why not in (EpisodeEnd.USD, EpisodeEnd.EXAMPLES, EpisodeEnd.STUCK)


@pytest.mark.parametrize(("family", "seed"), [*PLAIN, *STRESSED])
def test_a_job_that_can_still_gain_does_not_end(family: str, seed: int) -> None:
    """Whoever gives up has tried each site, or cannot pay for the least visit any more."""
    world, episode, watched = led_in(family, seed)
    if episode.why != EpisodeEnd.GAVE_UP:
        return
    question, chosen = watched.asked[-1]
    assert chosen is None
    options = [o for o in question.topology.options if o.site not in question.excluded]
    tried = {visit.site for visit in episode.route}
    assert world.intent.budget.duration_s is not None
    late = episode.seconds > 0.8 * world.intent.budget.duration_s
    assert late or tried >= {option.site for option in options}


def test_a_site_whose_topic_is_what_is_missing_is_not_put_off() -> None:
    """An expert is among the first four sites of a route, or the job reaches without one.

    An expert has the objective's topic and at least a tenth of the records of the largest site. A
    smaller one may come after large sites of broader topics, which then teach more of its topic.
    """
    places = []
    for family, seed in MANY_PLAIN:
        world, episode, watched = led_in(family, seed)
        options = watched.asked[0][0].topology.options
        most = max(option.dataset.samples for option in options)
        order = list(dict.fromkeys(visit.site for visit in episode.route))
        for objective in world.intent.objectives:
            if objective.name == "broad":
                continue
            experts = {
                option.site
                for option in options
                if option.dataset.topics == (objective.topic,)
                and option.dataset.samples >= most / 10
            }
            last = episode.route[-1].values[objective.name]
            if experts and (last < objective.at_least or experts & set(order)):
                first = next((k for k, site in enumerate(order) if site in experts), len(order))
                places.append(first)
    assert len(places) >= 12
    assert max(places) <= 3
    assert sorted(places)[len(places) // 2] <= 1


@pytest.mark.parametrize("number", range(6))
def test_two_sites_of_one_class_each_take_turns(number: int) -> None:
    """A long visit makes a model that knows one class alone; a few short turns teach both."""
    world, episode, _ = single_class_pairs()[number]
    assert [len(site.node.datasets[0].labels) for site in world.sites] == [1, 1]
    sites = [visit.site for visit in episode.route]
    assert set(sites) == {site.name for site in world.sites}
    assert episode.reached
    assert episode.visits <= 24


def test_the_same_job_goes_the_same_way_again() -> None:
    _, first, _ = led_in("tiny", 1_001)
    again, _ = led(FAMILIES["tiny"](1_001))
    assert again.route == first.route
    assert again.seconds == first.seconds


def test_a_job_ends_by_reaching_or_says_why() -> None:
    for family, seed in [*PLAIN, *STRESSED]:
        _, episode, watched = led_in(family, seed)
        assert watched.last is not None
        assert episode.why
        assert episode.reached == (episode.why == EpisodeEnd.REACHED)
        for objective in watched.last.intent.objectives:
            if episode.reached:
                assert episode.route[-1].values[objective.name] >= objective.at_least


def test_progress_is_made_over_fixed_worlds() -> None:
    """Most of what stress leaves reachable is reached; the figures are in benchmarks."""
    reached = [led_in(family, seed)[1].reached for family, seed in STRESSED]
    assert np.mean(reached) >= 0.5
