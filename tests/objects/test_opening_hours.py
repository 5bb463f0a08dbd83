"""Hours of a policy: over midnight, in other time zones, and where the clock is set."""

from __future__ import annotations

import datetime
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.descriptors import DataPolicy
from daitn.objects.opening_hours import day_of, is_open, is_zone, window

BERLIN = "Europe/Berlin"
NIGHTS = ("Mon-Fri 18:00-08:00",)


def at(text: str, zone: str = BERLIN, fold: int = 0) -> float:
    moment = datetime.datetime.fromisoformat(text).replace(fold=fold)
    return moment.replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("when", "is_so"),
    [
        ("2026-11-27 17:59", False),  # A Friday.
        ("2026-11-27 18:00", True),
        ("2026-11-28 07:59", True),  # The night of Friday ends on Saturday.
        ("2026-11-28 08:00", False),
        ("2026-11-28 20:00", False),
        ("2026-11-30 07:00", False),  # Sunday's night is not listed.
        ("2026-11-30 18:30", True),
    ],
)
def test_a_night_ends_on_the_next_day(when: str, is_so: bool) -> None:
    assert is_open(NIGHTS, BERLIN, at(when)) is is_so


def test_hours_are_those_of_their_zone() -> None:
    noon = at("2026-11-27 12:00", "UTC")
    hours = ("Fri 12:00-13:00",)
    assert is_open(hours, "UTC", noon)
    assert not is_open(hours, BERLIN, noon)
    assert is_open(("Fri 21:00-22:00",), "Asia/Tokyo", noon)
    assert is_open(("Sat 01:00-02:00",), "Pacific/Auckland", noon), "it is tomorrow there"


def test_the_clock_on_the_wall_decides_where_it_is_set() -> None:
    hours = ("Sun 02:00-03:00",)
    spring = at("2026-03-29 01:59:59")
    assert not is_open(hours, BERLIN, spring)
    assert not is_open(hours, BERLIN, spring + 1), "the clock skips this hour"
    for fold in (0, 1):
        assert is_open(hours, BERLIN, at("2026-10-25 02:30", fold=fold))
    first, second = at("2026-10-25 02:30"), at("2026-10-25 02:30", fold=1)
    assert second - first == 3600
    assert day_of(BERLIN, first) == day_of(BERLIN, second)


def test_any_time_and_no_time() -> None:
    assert is_open(("*",), "UTC", 0.0)
    assert not is_open((), "UTC", 0.0)
    assert is_open(("Sat,Sun 00:00-24:00", "Fri-Mon 23:00-24:00"), "UTC", at("2026-11-28", "UTC"))


@given(minute=st.integers(0, 7 * 1440 - 1))
def test_a_week_is_divided_without_gap_or_overlap(minute: int) -> None:
    now_s = at("2026-11-23", "UTC") + 60.0 * minute
    day, night = ("Mon-Sun 08:00-18:00",), ("Mon-Sun 18:00-08:00",)
    assert is_open(day, "UTC", now_s) is not is_open(night, "UTC", now_s)


@pytest.mark.parametrize(
    "text",
    ["", "always", "Mon 18-20", "Mon 25:00-26:00", "Mon 18:60-19:00", "Mon 18:00-18:00",
     "Mon 24:00-02:00", "Mon- 18:00-20:00", "Montag 18:00-20:00", "Mon,, 18:00-20:00",
     "Mon 18:00-20:00 ", "Mon 18:00-24:01"],
)  # fmt: skip
def test_other_words_are_not_hours(text: str) -> None:
    with pytest.raises(ValueError, match="hours"):
        window(text)
    with pytest.raises(ValueError, match="hours"):
        DataPolicy(recipes=("*",), hours=(text,))


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "../../etc/passwd", "America", "zone.tab"])
def test_hours_in_a_zone_that_is_not_known_here_are_closed(zone: str) -> None:
    assert not is_zone(zone)
    assert not any(is_open(("Mon-Sun 00:00-24:00",), zone, 3600.0 * hour) for hour in range(48))
    assert is_open(("*",), zone, 0.0), "any time is one everywhere"
