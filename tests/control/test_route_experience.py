"""What jobs teach the next one."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from daitn.control.route.costs import costs
from daitn.control.route.experience import Lesson, PastJob, lessons, pooled
from daitn.control.route.posterior import believed, drawn, untaught
from daitn.control.route.priors import UNTAUGHT, prior
from daitn.control.route.question import Believed, PastVisit, RouteQuestion
from daitn.control.route.value_model import setting, values
from daitn.objects.intents import ModelWanted

from .instances import instance
from .route_draws import NAMES
from .route_jobs import seen_by_a_ring
from .route_world import question

RECIPE = "causal-lm"
TRUE = {
    "tau": Believed(7.0, 0.01),
    "warm": Believed(3.5, 0.01),
    "fading": Believed(-0.5, 0.01),
    "labelled": Believed(0.5, 0.01),
}
"""Parameters of the jobs here; the rest is as an untaught planner believes."""
_NOISE = 0.01


def job(seed: int, recipe: str = RECIPE) -> RouteQuestion:
    """The last question of a job that went around a random network twice."""
    base = instance(seed, 5)
    wanted = msgspec.structs.replace(base.intent, model=ModelWanted(recipe=recipe))
    known = setting(base.topology, NAMES)
    rng = np.random.default_rng(seed)
    truth = drawn(believed(known, prior(known, TRUE), (), None), 1)
    model, visits = untaught(known, truth, None), []
    before: dict[str, float] = dict.fromkeys(map(str, NAMES), 0.25)
    for step in range(10):
        site = step % len(known.options)
        examples = int(known.records[site] * rng.choice([0.3, 1.0]))
        model = model.after(known, truth, site, float(examples))
        found = values(known, truth, model.skills)[0]
        by_label = np.clip(found + rng.normal(0.0, 3 * _NOISE, found.shape), 0.0, 1.0)
        whole = (by_label * known.shares).sum(axis=1)
        after = dict(zip(map(str, NAMES), whole.tolist(), strict=True))
        visits.append(
            PastVisit(
                option_id=known.options[site].id,
                examples=examples,
                seconds=1.0,
                before=before,
                after=after,
                standard_error=dict.fromkeys(NAMES, _NOISE),
                by_label={
                    name: dict(zip(known.labels, by_label[o].tolist(), strict=True))
                    for o, name in enumerate(NAMES)
                },
            )
        )
        before = after
    return replace(base, intent=wanted, history=tuple(visits))


def taught_by(*questions: RouteQuestion, parameters: int = 1_000) -> list[PastJob]:
    past = [lessons(question, parameters) for question in questions]
    assert all(past)
    return [one for one in past if one is not None]


SIX = taught_by(*(job(seed) for seed in range(6)))


def test_jobs_with_known_parameters_teach_them() -> None:
    taught = pooled(SIX, RECIPE, 1_000)
    assert "tau" in taught
    untaught_gap = taught_gap = 0.0
    for name, true in TRUE.items():
        sd = UNTAUGHT[name].sd
        untaught_gap += abs(UNTAUGHT[name].mean - true.mean) / sd
        taught_gap += abs(taught.get(name, UNTAUGHT[name]).mean - true.mean) / sd
    assert taught_gap < 0.6 * untaught_gap
    assert abs(taught["tau"].mean - TRUE["tau"].mean) < 0.5 * (
        TRUE["tau"].mean - UNTAUGHT["tau"].mean
    )


def test_what_is_taught_is_surer_than_before_and_never_more_than_jobs_differ() -> None:
    for count in (1, 3, 6):
        for key, one in pooled(SIX[:count], RECIPE, 1_000).items():
            base = UNTAUGHT[key.split(":")[0]]
            assert 0.0 < one.sd <= base.sd
    assert pooled(SIX, RECIPE, 1_000)["tau"].sd < pooled(SIX[:1], RECIPE, 1_000)["tau"].sd


def test_how_long_visits_take_is_learned() -> None:
    made = replace(job(0), verify_s=0.2)
    quick = [msgspec.structs.replace(v, overhead_s=0.1) for v in made.history]
    past = taught_by(replace(made, history=tuple(quick))) * 3
    taught = pooled(past, RECIPE, 1_000)
    assert math.exp(taught["measuring"].mean) == pytest.approx(0.2, rel=0.2)
    assert math.exp(taught["overhead"].mean) == pytest.approx(0.1, rel=0.2)
    fresh = question(made.intent, made.topology, verify_s=None)
    unknown = costs(fresh, made.topology.options)
    known = costs(replace(fresh, experience=taught), made.topology.options)
    assert (known.visit_s < unknown.visit_s - 1.0).all()


def test_lessons_of_another_recipe_teach_nothing() -> None:
    others = taught_by(*(job(seed, "classifier") for seed in range(2)))
    assert pooled(others, RECIPE, 1_000) == {}
    assert pooled([*SIX, *others], RECIPE, 1_000) == pooled(SIX, RECIPE, 1_000)


def test_lessons_of_models_of_another_size_teach_less() -> None:
    own, far = pooled(SIX, RECIPE, 1_000)["tau"], pooled(SIX, RECIPE, 1_000_000)["tau"]
    assert own.sd < far.sd
    base = UNTAUGHT["tau"].mean
    assert abs(far.mean - base) < abs(own.mean - base)


def test_the_order_of_jobs_does_not_matter() -> None:
    one, other = pooled(SIX, RECIPE, 1_000), pooled(reversed(SIX), RECIPE, 1_000)
    assert one.keys() == other.keys()
    for key, told in one.items():
        assert other[key].mean == pytest.approx(told.mean)
        assert other[key].sd == pytest.approx(told.sd)


def test_a_job_that_measured_nothing_teaches_nothing() -> None:
    base = instance(0, 5)
    assert lessons(base, 1_000) is None
    assert pooled([], RECIPE, 1_000) == {}
    made = job(0)
    nobody = replace(made.topology, verifiers={})
    assert lessons(replace(made, topology=nobody), 1_000) is None


def test_lessons_are_kept_as_they_are() -> None:
    for past in SIX:
        assert msgspec.json.decode(msgspec.json.encode(past), type=PastJob) == past


def test_lessons_do_not_hold_the_prior_that_a_job_began_with() -> None:
    """Or what was believed once would be believed more with every job."""
    made = job(3)
    experienced = replace(made, experience={"tau": Believed(7.0, 0.5)})
    (plain,), (told,) = taught_by(made), taught_by(experienced)
    assert told.lessons["tau"].sd > 0.4 * plain.lessons["tau"].sd


def test_contradicting_lessons_leave_it_wide() -> None:
    def past(*means: float) -> list[PastJob]:
        return [
            PastJob(recipe=RECIPE, parameters=1, lessons={"tau": Lesson(mean, 0.1)})
            for mean in means
        ]

    agreeing, torn = pooled(past(6.0, 6.1, 5.9), RECIPE, 1), pooled(past(4.0, 6.0, 8.0), RECIPE, 1)
    assert agreeing["tau"].sd < 0.7
    assert torn["tau"].sd > 1.5 * agreeing["tau"].sd


def test_a_job_in_a_simulated_world_teaches_parameters_that_have_names() -> None:
    _, question = seen_by_a_ring("plain", 1_003)
    (past,) = taught_by(question)
    assert past.lessons
    for key, lesson in past.lessons.items():
        assert key.split(":")[0] in UNTAUGHT
        assert np.isfinite([lesson.mean, lesson.sd]).all()
        assert lesson.sd > 0.0
