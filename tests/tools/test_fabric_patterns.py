"""Key expressions: our matcher against Zenoh's own."""

from __future__ import annotations

import pytest
import zenoh
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import JobId, SiteId
from daitn.tools.fabric import keys
from daitn.tools.fabric.patterns import checked_key, checked_pattern, covers

# Few names and short keys, so that patterns often cover keys and backtracking is exercised.
_NAMES = st.sampled_from(["a", "b", "ab"])
_KEYS = st.lists(_NAMES, min_size=1, max_size=6).map("/".join)
_PATTERNS = st.lists(st.one_of(_NAMES, st.sampled_from(["*", "**"])), min_size=1, max_size=6).map(
    "/".join
)
_ANY = st.lists(st.sampled_from(["a", "*", "**", "a*", "", "@a", "a$*", "a b"]), max_size=4).map(
    "/".join
)


@given(_PATTERNS, _KEYS)
def test_matches_as_zenoh_does(pattern: str, key: str) -> None:
    zenohs = zenoh.KeyExpr.autocanonize(pattern).intersects(zenoh.KeyExpr(key))
    assert covers(pattern, key) == zenohs


@given(_ANY)
def test_a_well_formed_pattern_is_one_for_zenoh_too(pattern: str) -> None:
    try:
        checked_pattern(pattern)
    except InvalidInput:
        return
    assert str(zenoh.KeyExpr(pattern)) == pattern


def test_many_double_wildcards_take_no_time() -> None:
    assert not covers("/".join(["**", "a"] * 40 + ["b"]), "/".join(["a"] * 200))


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/*", "**", "a/b*", "a?x", "a b", "@a"])
def test_refuses_what_is_no_key(key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_key(key)
    assert caught.value.field == "key"
    assert caught.value.fix


@pytest.mark.parametrize("pattern", ["", "a/**/**", "**/*", "a*", "***", "a/", "a/$*"])
def test_refuses_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_pattern(pattern)
    assert caught.value.field == "pattern"


def test_every_key_is_covered_by_its_pattern_and_read_back() -> None:
    site, job = SiteId("ninds"), JobId("job-1")
    assert covers(keys.ALL_SITES_ALIVE, keys.site_alive(site, "1"))
    assert not covers(keys.ALL_SITES_ALIVE, keys.center_alive())
    assert covers(keys.ALL_ADVERTS, keys.site_advert(site))
    assert covers(keys.ALL_SENSED, keys.site_sensed(site))
    assert covers(keys.ALL_PROGRESS, keys.site_progress(site, job))
    assert covers(keys.job_progress(job), keys.site_progress(site, job))
    assert covers(keys.ALL_MODEL_EVENTS, keys.site_event(site, job))
    of_site = (keys.site_advert, keys.site_sensed, keys.site_echo)
    assert {keys.site_of(key(site)) for key in (*of_site, keys.site_stream)} == {site}
    assert keys.site_of(keys.site_do(site, "visit")) == site
    assert keys.site_of(keys.site_alive(site, "a1")) == site
    assert keys.mark_of(keys.site_alive(site, "a1")) == "a1"
    assert keys.job_of(keys.job_event(job)) == keys.job_of(keys.site_progress(site, job)) == job
    assert keys.verb_of(keys.site_do(site, "visit")) == "visit"
    assert keys.verb_of(keys.center_do("submit")) == "submit"


@pytest.mark.parametrize("name", ["**", "*", "a/b", "", "A", "a b"])
def test_no_name_becomes_a_wildcard(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        keys.site_echo(SiteId(name))
    assert caught.value.field == "site"


@pytest.mark.parametrize("key", ["daitn/center/do/x", "daitn/site", "else/site/a/echo", ""])
def test_a_key_without_a_site_says_so(key: str) -> None:
    with pytest.raises(InvalidInput, match="names no site"):
        keys.site_of(key)
