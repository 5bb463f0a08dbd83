"""Whatever is said on the fabric has a line in the table, and what has none is refused."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import daitn
from daitn.identity.envelopes import Purpose
from daitn.objects.descriptors import Role
from daitn.objects.identifiers import CENTER_SITE, JobId, SiteId
from daitn.objects.roster import Kind, Member
from daitn.tools.fabric import keys
from daitn.tools.fabric.authority import CENTER_VERBS, SITE_VERBS, allowed

SOURCES = Path(daitn.__file__).parent
EAST = SiteId("east")
CENTER = Member(name="center", kind=Kind.CENTER, public_key="", until_s=1.0)
OWNER = Member(name="acme", kind=Kind.OWNER, public_key="", until_s=1.0)
OPERATOR = Member(name="ops", kind=Kind.OPERATOR, public_key="", until_s=1.0)


def site(name: str, *roles: Role) -> Member:
    return Member(name=name, kind=Kind.SITE, public_key="", until_s=1.0, roles=roles)


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCES.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def registered(tree: ast.Module) -> Iterator[str]:
    """Verbs in tables of handlers, `{"verb": self._on_verb}`, also if set one by one."""
    for node in ast.walk(tree):
        pairs: list[tuple[ast.expr | None, ast.expr]] = []
        match node:
            case ast.Dict(keys=names, values=values):
                pairs = list(zip(names, values, strict=True))
            case ast.Assign(targets=[ast.Subscript(slice=name)], value=value):
                pairs = [(name, value)]
        for verb_of, handler_of in pairs:
            match verb_of, handler_of:
                case ast.Constant(value=str(verb)), ast.Attribute(attr=handler):
                    if handler.startswith(("_on_", "on_")):
                        yield verb


def asked(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Requests by literal verbs, with the function that makes the key."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="site_do" | "center_do" as made)
                | ast.Name(id="site_do" | "center_do" as made),
                args=[*_, ast.Constant(value=str(verb))],
            ):
                yield made, verb


def test_every_verb_that_anybody_serves_or_asks_has_a_line() -> None:
    served = {
        (path.relative_to(SOURCES).parts[0], verb)
        for path, tree in trees()
        for verb in registered(tree)
    }
    assert {verb for of, verb in served if of == "center"} == set(CENTER_VERBS)
    assert {verb for of, verb in served if of == "node"} | {"chunk"} == set(SITE_VERBS)
    assert {of for of, _ in served} == {"center", "node"}
    for _, tree in trees():
        for made, verb in asked(tree):
            assert verb in (SITE_VERBS if made == "site_do" else CENTER_VERBS)


def test_every_publication_has_a_publisher() -> None:
    job = JobId("tumour-1")
    published = {
        keys.center_advice(): CENTER,
        keys.job_event(job): CENTER,
        keys.site_event(EAST, JobId("tumour-east-1")): site("east", Role.FORWARDER),
        keys.site_advert(EAST): site("east"),
        keys.site_sensed(EAST): site("east"),
        keys.site_progress(EAST, job): site("east"),
        keys.site_serving(EAST): site("east", Role.FACILITY),
        keys.site_attested(EAST): site("east", Role.VERIFIER),
        keys.site_demand(EAST): site("east", Role.GATEWAY),
    }
    for key, publisher in published.items():
        assert allowed(publisher, Purpose.PUBLICATION, key), key
        for other in (OWNER, OPERATOR, site("west", *Role), site(CENTER_SITE, *Role)):
            assert not allowed(other, Purpose.PUBLICATION, key), key
        if publisher.roles:
            assert not allowed(site(publisher.name), Purpose.PUBLICATION, key), key


@pytest.mark.parametrize("verb", sorted(CENTER_VERBS))
def test_only_a_centre_answers_for_the_centre(verb: str) -> None:
    key = keys.center_do(verb)
    assert allowed(CENTER, Purpose.ANSWER, key)
    for other in (OWNER, OPERATOR, site("east", *Role), site(CENTER_SITE, *Role)):
        assert not allowed(other, Purpose.ANSWER, key)
        assert not allowed(other, Purpose.ERROR, key)


@pytest.mark.parametrize("verb", sorted(SITE_VERBS))
def test_only_the_site_answers_for_itself_in_its_role(verb: str) -> None:
    key = keys.site_do(EAST, verb)
    assert allowed(site("east", *Role), Purpose.ANSWER, key)
    assert allowed(site("east"), Purpose.ANSWER, key) == (SITE_VERBS[verb].role is None)
    for other in (CENTER, OWNER, OPERATOR, site("west", *Role)):
        assert not allowed(other, Purpose.ANSWER, key)


def test_the_centre_serves_chunks_and_nothing_else_under_a_site_key() -> None:
    center = SiteId(CENTER_SITE)
    assert allowed(CENTER, Purpose.ANSWER, keys.site_do(center, "chunk"))
    assert not allowed(CENTER, Purpose.ANSWER, keys.site_do(center, "work"))
    assert not allowed(site(CENTER_SITE), Purpose.ANSWER, keys.site_do(center, "chunk"))


@pytest.mark.parametrize("verb", ["work", "stop", "retain", "estimate", "deploy", "retire"])
def test_only_a_centre_commands_a_site(verb: str) -> None:
    key = keys.site_do(EAST, verb)
    assert allowed(CENTER, Purpose.REQUEST, key)
    for other in (OWNER, OPERATOR, site("east", *Role), site("west", *Role)):
        assert not allowed(other, Purpose.REQUEST, key)


def test_only_operators_steer() -> None:
    for key in (keys.center_do("steer"), keys.site_do(EAST, "steer")):
        assert allowed(OPERATOR, Purpose.REQUEST, key)
        for other in (OWNER, CENTER, site("east", *Role)):
            assert not allowed(other, Purpose.REQUEST, key)


HOME = site("home", *Role)


@pytest.mark.parametrize(
    "job", ["tumour-home-1", "tumour-my-home-1", "home-1", "x-home-", "-home-1"]
)
def test_no_home_speaks_of_jobs_but_under_its_own_name(job: str) -> None:
    """What a job is called says nothing: `my-home` ends as `home` does."""
    for key in (f"daitn/center/event/{job}", f"daitn/site/my-home/event/{job}"):
        assert not allowed(HOME, Purpose.PUBLICATION, key)


@pytest.mark.parametrize(
    "name",
    ["*", "**", "$*", "ea$*", "e*t", "home*", "@home", "", "home ", "Home", "home/..", "h\u00f6me"],
)
def test_a_wildcard_is_nobodys_name(name: str) -> None:
    """A publication at a wildcard reaches whoever listens to any key under it."""
    known = [
        keys.center_do("submit"),
        keys.site_do(EAST, "work"),
        keys.site_do(EAST, "chunk"),
        keys.site_echo(EAST),
        keys.job_event(JobId("j")),
        keys.site_event(EAST, JobId("j")),
        keys.site_advert(EAST),
        keys.site_progress(EAST, JobId("j")),
        keys.site_attested(EAST),
        keys.center_advice(),
    ]
    members = [CENTER, OWNER, OPERATOR, HOME, site("east", *Role), site(name, *Role)]
    for parts in (key.split("/") for key in known):
        for place in range(len(parts)):
            key = "/".join([*parts[:place], name, *parts[place + 1 :]])
            for purpose in Purpose:
                assert not any(allowed(member, purpose, key) for member in members), key


@pytest.mark.parametrize("name", ["eas", "east-2", "west-east", "east.east", "e", "east0"])
def test_names_that_begin_or_end_alike_are_others(name: str) -> None:
    other = site(name, *Role)
    for key in (
        keys.site_advert(EAST),
        keys.site_progress(EAST, JobId(f"{name}-1")),
        keys.site_event(EAST, JobId(f"{name}-1")),
        keys.site_serving(EAST),
        keys.site_attested(EAST),
        keys.site_demand(EAST),
        keys.job_event(JobId(f"{name}-1")),
    ):
        assert not allowed(other, Purpose.PUBLICATION, key)
    for verb in SITE_VERBS:
        assert not allowed(other, Purpose.ANSWER, keys.site_do(EAST, verb))


@pytest.mark.parametrize(
    "key",
    [
        "daitn/center/do/launch",
        "daitn/site/east/do/launch",
        "daitn/site/east/do/work/more",
        "daitn/site/east/launch",
        "daitn/center/secrets",
        "daitn/site/east/progress",
        "other/center/do/submit",
        "daitn",
    ],
)
def test_what_is_not_listed_is_refused(key: str) -> None:
    for member in (CENTER, OWNER, OPERATOR, site("east", *Role)):
        for purpose in Purpose:
            assert not allowed(member, purpose, key)
