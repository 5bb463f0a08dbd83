"""What a policy says to a request; a stricter policy never allows more."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.access import (
    AccessRequest,
    DailyUsage,
    UsageLimits,
    decide,
    published_rulings,
    refusals,
    rulings,
)
from daitn.objects.descriptors import ANY, DataPolicy

POLICY = DataPolicy(recipes=("classifier",), owners=("acme",), purposes=("research",))
REQUEST = AccessRequest("acme", "classifier", "research", examples=500)
NIGHT = ("Mon-Sun 20:00-06:00",)
NOON_S = 12 * 3600.0

WORDS = st.sampled_from(["acme", "classifier", "research", "other", ""])
LISTS = st.lists(st.one_of(WORDS, st.just(ANY)), max_size=3).map(tuple)
HOURS = st.lists(
    st.sampled_from([ANY, *NIGHT, "Thu 11:00-13:00", "Mon-Wed 00:00-24:00"]), max_size=3
).map(tuple)
MOST = st.one_of(st.none(), st.integers(0, 5))


@st.composite
def policies(draw: st.DrawFn) -> tuple[DataPolicy, UsageLimits]:
    policy = DataPolicy(
        recipes=draw(LISTS), owners=draw(LISTS), purposes=draw(LISTS), hours=draw(HOURS)
    )
    compute_s = draw(st.one_of(st.none(), st.floats(0, 5)))
    limits = UsageLimits(
        visits_per_day=draw(MOST),
        measurements_per_day=draw(MOST),
        examples_per_day=draw(MOST),
        compute_s_per_day=compute_s,
    )
    return policy, limits


REQUESTS = st.builds(
    AccessRequest, WORDS, WORDS, purpose=WORDS, examples=st.integers(0, 3), measures=st.booleans()
)
USAGES = st.builds(
    DailyUsage, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.floats(0, 5)
)
TIMES = st.floats(0, 14 * 86_400.0)


def allowed(
    policy: DataPolicy, limits: UsageLimits, request: AccessRequest, usage: DailyUsage, now_s: float
) -> bool:
    return decide(policy, limits, request, usage, now_s, "data set notes") is None


@st.composite
def stricter(
    draw: st.DrawFn, policy: DataPolicy, limits: UsageLimits
) -> tuple[DataPolicy, UsageLimits]:
    """The same policy with one rule made stricter."""
    lists = {name: getattr(policy, name) for name in ("recipes", "owners", "purposes", "hours")}
    numbers = msgspec.structs.asdict(limits)
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(lists)))
        kept = draw(st.sets(st.sampled_from(lists[name]))) if lists[name] else set()
        return msgspec.structs.replace(policy, **{name: tuple(kept)}), limits
    name = draw(st.sampled_from(sorted(numbers)))
    most = numbers[name]
    less = draw(st.integers(0, 5)) if most is None else draw(st.integers(0, int(most)))
    return policy, msgspec.structs.replace(limits, **{name: less})


@given(data=st.data(), of=policies(), request=REQUESTS, usage=USAGES, now_s=TIMES)
def test_a_stricter_policy_never_allows_more(
    data: st.DataObject,
    of: tuple[DataPolicy, UsageLimits],
    request: AccessRequest,
    usage: DailyUsage,
    now_s: float,
) -> None:
    strict = data.draw(stricter(*of))
    if allowed(*strict, request, usage, now_s):
        assert allowed(*of, request, usage, now_s)


@given(data=st.data(), of=policies(), request=REQUESTS, usage=USAGES, now_s=TIMES)
def test_who_used_more_is_never_allowed_more(
    data: st.DataObject,
    of: tuple[DataPolicy, UsageLimits],
    request: AccessRequest,
    usage: DailyUsage,
    now_s: float,
) -> None:
    again = data.draw(USAGES)
    more = DailyUsage(
        usage.visits + again.visits,
        usage.measurements + again.measurements,
        usage.examples + again.examples,
        usage.compute_s + again.compute_s,
    )
    if allowed(*of, request, more, now_s):
        assert allowed(*of, request, usage, now_s)


@given(of=policies(), request=REQUESTS, usage=USAGES, now_s=TIMES)
def test_planners_never_leave_out_what_the_site_would_allow(
    of: tuple[DataPolicy, UsageLimits], request: AccessRequest, usage: DailyUsage, now_s: float
) -> None:
    policy, limits = of
    if refusals(published_rulings(policy, request, now_s)):
        assert not allowed(policy, limits, request, usage, now_s)
    else:
        assert allowed(policy, UsageLimits(), request, usage, now_s)


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        (
            REQUEST._replace(recipe="other"),
            "model.recipe",
            "does not allow recipe other; allowed: classifier",
        ),
        (REQUEST._replace(owner="stranger"), "owner", "does not admit models of stranger"),
        (REQUEST._replace(purpose="sale"), "purpose", "does not allow the purpose sale"),
        (REQUEST._replace(purpose=""), "purpose", "does not allow models without a purpose"),
    ],
)
def test_a_refusal_says_what_and_what_to_do(asked: AccessRequest, field: str, words: str) -> None:
    assert allowed(POLICY, UsageLimits(), REQUEST, DailyUsage(), NOON_S)
    no = decide(POLICY, UsageLimits(), asked, DailyUsage(), NOON_S, "data set notes")
    assert no is not None
    assert no.field == field
    assert words in no.problem
    assert no.problem.startswith("the owner of data set notes ")
    assert no.fix


def test_every_rule_that_says_no_is_named() -> None:
    policy = msgspec.structs.replace(POLICY, hours=NIGHT)
    limits = UsageLimits(visits_per_day=3, examples_per_day=1000, compute_s_per_day=60.0)
    request = AccessRequest("stranger", "other", "", examples=501)
    ruled = rulings(policy, limits, request, DailyUsage(3, 0, 500, 60.0), NOON_S)
    assert [no.rule for no in refusals(ruled)] == [
        "recipes", "owners", "purposes", "hours",
        "limits.visits_per_day", "limits.examples_per_day", "limits.compute_s_per_day",
    ]  # fmt: skip
    assert not any("1000" in no.reason for no in ruled), "limits are private"


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "America"])
def test_hours_in_a_zone_that_is_not_known_here_let_nobody_in(zone: str) -> None:
    policy = msgspec.structs.replace(POLICY, hours=("Mon-Sun 00:00-24:00",), time_zone=zone)
    (no,) = refusals(rulings(policy, UsageLimits(), REQUEST, DailyUsage(), NOON_S))
    assert no.rule == "hours"
    assert f"({zone}), and this machine does not know that time zone" in no.reason
    assert "tzdata" in no.fix
    at_any_time = msgspec.structs.replace(policy, hours=(ANY,))
    assert not list(refusals(rulings(at_any_time, UsageLimits(), REQUEST, DailyUsage(), NOON_S)))


def test_limits_count_what_they_are_about() -> None:
    limits = UsageLimits(visits_per_day=1, measurements_per_day=1)
    measures = REQUEST._replace(examples=0, measures=True)
    used = DailyUsage(visits=1)
    assert not allowed(POLICY, limits, REQUEST, used, NOON_S)
    assert allowed(POLICY, limits, measures, used, NOON_S)
    assert allowed(POLICY, limits, REQUEST._replace(examples=0), used, NOON_S), "it makes a model"
    assert not allowed(POLICY, limits, measures, DailyUsage(measurements=1), NOON_S)


def test_a_model_that_its_owner_brought_learns_only_where_the_data_owner_agreed() -> None:
    brought = REQUEST._replace(brought=True)
    agreed = msgspec.structs.replace(POLICY, start_models=True)
    assert allowed(agreed, UsageLimits(), brought, DailyUsage(), NOON_S)
    assert allowed(POLICY, UsageLimits(), brought._replace(measures=True), DailyUsage(), NOON_S)
    no = decide(POLICY, UsageLimits(), brought, DailyUsage(), NOON_S, "data set notes")
    assert no is not None
    assert (no.field, "start_models" in no.fix) == ("model.start", True)
