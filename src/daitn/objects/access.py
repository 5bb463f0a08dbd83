"""What a data owner's policy says about a visit or a measurement.

Pure: the site enforces it with this module whoever asks, planners leave sites out by its published
part, and `daitn policy explain` shows it. Every rule rules on its own, so the answer is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec

from daitn.objects.bounds import Count
from daitn.objects.descriptors import ANY, DataPolicy
from daitn.objects.errors import Refused
from daitn.objects.opening_hours import is_open, is_zone

__all__ = [
    "AccessRequest",
    "DailyUsage",
    "Ruling",
    "UsageLimits",
    "allows",
    "decide",
    "narrowed",
    "published_rulings",
    "refusals",
    "rulings",
]


class UsageLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the data may be used in a day of the policy's time zone.

    An absent limit means no limit. They are not published.
    """

    visits_per_day: Count | None = None
    """Visits that train models of one owner. A visit counts as soon as it begins."""
    measurements_per_day: Count | None = None
    """Measurements of the models of one owner."""
    examples_per_day: Count | None = None
    """Training examples of all visits of one owner."""
    compute_s_per_day: Annotated[float, msgspec.Meta(ge=0.0)] | None = None
    """Seconds of training and measuring for all owners together. When they are used up, running
    work ends as usual and no new work begins."""


class AccessRequest(NamedTuple):
    """What somebody requests of a data set or a test set."""

    owner: str
    """Owner of the model."""
    recipe: str
    purpose: str = ""
    examples: int = 0
    """Training examples; 0 means the model is only created or measured."""
    measures: bool = False
    brought: bool = False
    """Whether the model started from parts supplied by its owner."""


class DailyUsage(NamedTuple):
    """What was used of a data set or a test set today, before a request."""

    visits: int = 0
    """Used by the request's owner, like the next two."""
    measurements: int = 0
    examples: int = 0
    compute_s: float = 0.0
    """Used by all owners."""


class Ruling(NamedTuple):
    """The answer of one policy rule to a request."""

    rule: str
    """Its path in the policy, for instance `limits.visits_per_day`."""
    allowed: bool
    reason: str
    """A sentence without its subject, the data owner."""
    field: str = ""
    """The field of the intent that it is about."""
    fix: str = ""


def allows(listed: tuple[str, ...], name: str) -> bool:
    """Whether a policy's list contains `name` or the wildcard."""
    return ANY in listed or name in listed


def narrowed(release_to: tuple[str, ...], further: tuple[str, ...]) -> tuple[str, ...]:
    """Jurisdictions that both lists allow; each may contain `*`."""
    if ANY in release_to:
        return further
    if ANY in further:
        return release_to
    return tuple(sorted(set(release_to) & set(further)))


def published_rulings(
    policy: DataPolicy, request: AccessRequest, now_s: float
) -> tuple[Ruling, ...]:
    """The answers of all published rules."""
    return (
        _recipe(policy, request),
        _owner(policy, request),
        _purpose(policy, request),
        *_start(policy, request),
        _hours(policy, now_s),
    )


def rulings(
    policy: DataPolicy, limits: UsageLimits, request: AccessRequest, usage: DailyUsage, now_s: float
) -> tuple[Ruling, ...]:
    """The answers of all rules; those about other kinds of work, and absent limits, give none."""
    return (
        *published_rulings(policy, request, now_s),
        *_counts(limits, request, usage),
        *_compute(limits, usage),
    )


def refusals(ruled: tuple[Ruling, ...]) -> tuple[Ruling, ...]:
    """The rulings that deny the request; it is allowed if there are none."""
    return tuple(ruling for ruling in ruled if not ruling.allowed)


def decide(
    policy: DataPolicy,
    limits: UsageLimits,
    request: AccessRequest,
    usage: DailyUsage,
    now_s: float,
    data: str,
) -> Refused | None:
    """The first refusal of a request for `data`, in words for the requester; absent means it is
    allowed."""
    refused = refusals(rulings(policy, limits, request, usage, now_s))
    if not refused:
        return None
    first = refused[0]
    return Refused(f"the owner of {data} {first.reason}", field=first.field, fix=first.fix)


def _recipe(policy: DataPolicy, request: AccessRequest) -> Ruling:
    rule, field, recipe = "recipes", "model.recipe", request.recipe
    if allows(policy.recipes, recipe):
        return Ruling(rule, True, f"allows recipe {recipe}", field)
    allowed = _listed(policy.recipes)
    no = f"does not allow recipe {recipe}; allowed: {allowed}"
    return Ruling(rule, False, no, field, f"use one of: {allowed}")


def _owner(policy: DataPolicy, request: AccessRequest) -> Ruling:
    rule, field, owner = "owners", "owner", request.owner
    if allows(policy.owners, owner):
        return Ruling(rule, True, f"admits models of {owner}", field)
    fix = "ask the data owner for access, or exclude the site"
    return Ruling(rule, False, f"does not admit models of {owner}", field, fix)


def _purpose(policy: DataPolicy, request: AccessRequest) -> Ruling:
    rule, field = "purposes", "purpose"
    stated = f"the purpose {request.purpose}" if request.purpose else "models without a purpose"
    if allows(policy.purposes, request.purpose):
        return Ruling(rule, True, f"allows {stated}", field)
    allowed = _listed(policy.purposes)
    no = f"does not allow {stated}; allowed: {allowed}"
    return Ruling(rule, False, no, field, f"state one that is true: {allowed}")


def _start(policy: DataPolicy, request: AccessRequest) -> Iterator[Ruling]:
    """A measurement carries nothing away in weights, so any model may be measured."""
    if request.measures or not request.brought:
        return
    rule, field = "start_models", "model.start"
    if policy.start_models:
        yield Ruling(rule, True, "lets models learn that start from their owner's weights", field)
        return
    no = "lets no models learn that start from their owner's weights"
    fix = "leave model.start out, or ask the data owner for `start_models: true`"
    yield Ruling(rule, False, no, field, fix)


def _hours(policy: DataPolicy, now_s: float) -> Ruling:
    hours = f"{', '.join(policy.hours) or 'never'} ({policy.time_zone})"
    if is_open(policy.hours, policy.time_zone, now_s):
        always = ANY in policy.hours
        return Ruling("hours", True, "takes work at any time" if always else f"is open: {hours}")
    if policy.hours and not is_zone(policy.time_zone):
        no = f"takes work only {hours}, and this machine does not know that time zone"
        return Ruling("hours", False, no, fix="update the package `tzdata` here")
    return Ruling("hours", False, f"takes work only {hours}", fix="wait until then")


def _counts(limits: UsageLimits, request: AccessRequest, usage: DailyUsage) -> Iterator[Ruling]:
    of = f"of {request.owner}"
    if request.measures:
        most, done = limits.measurements_per_day, usage.measurements
        yield from _count("measurements_per_day", most, done, 1, f"measurements {of}", "")
    elif request.examples > 0:
        most, done = limits.visits_per_day, usage.visits
        yield from _count("visits_per_day", most, done, 1, f"visits {of}", "")
        most, done, more = limits.examples_per_day, usage.examples, request.examples
        what, field = f"examples {of}", "budget.examples"
        yield from _count("examples_per_day", most, done, more, what, field)


def _count(
    name: str, most: int | None, done: int, more: int, what: str, field: str
) -> Iterator[Ruling]:
    """The limit's number is the data owner's business and is not revealed to the requester."""
    if most is None:
        return
    allowed = done + more <= most
    reason = f"allows {'these' if allowed else 'no more'} {what} today"
    yield Ruling(f"limits.{name}", allowed, reason, field, "" if allowed else "come back tomorrow")


def _compute(limits: UsageLimits, usage: DailyUsage) -> Iterator[Ruling]:
    most = limits.compute_s_per_day
    if most is None:
        return
    allowed = usage.compute_s < most
    reason = "has computing time left today" if allowed else "has no computing time left today"
    fix = "" if allowed else "come back tomorrow"
    yield Ruling("limits.compute_s_per_day", allowed, reason, fix=fix)


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(sorted(words)) or "none"
