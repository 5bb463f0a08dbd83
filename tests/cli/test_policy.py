"""`daitn policy` and `daitn audit`: what a data owner reads before and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daitn.cli.network import read_node
from daitn.identity.keys import SigningKey
from daitn.node.audit import AuditLog
from daitn.node.config import read_policy
from daitn.objects.audit import AuditEvent
from daitn.objects.identifiers import SiteId
from tests.scenes.command_line import daitn

POLICY = """\
# For visitors of our notes.
recipes: [classifier]
owners:
  - acme
purposes: [research]
hours: ["Mon-Fri 18:00-08:00"]
time_zone: Europe/Berlin
limits: {examples_per_day: 1000}
"""
NODE = """\
site: north
owner: me
jurisdiction: CA
roles: [data]
center: [tcp/127.0.0.1:1]
state: state
datasets:
  - {name: notes, path: notes.csv, data_schema: table/1, topics: [t], policy: owners/notes.yaml}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def explained(file: Path, *options: str) -> tuple[int, dict[str, tuple[int | None, bool]]]:
    ended = daitn("policy", "explain", str(file), "--json", *options)
    told = json.loads(ended.stdout)
    assert told["allowed"] == (ended.returncode == 0)
    return ended.returncode, {r["rule"]: (r["line"], r["allowed"]) for r in told["rules"]}


def test_a_policy_is_said_in_plain_words(file: Path) -> None:
    ended = daitn("policy", "check", str(file))
    assert ended.returncode == 0, ended.stderr
    shown = " ".join(ended.stdout.split())
    for words in ("models of acme", "purposes research", "Mon-Fri 18:00-08:00 by the clock of",
                  "their examples at most 1,000", "over at least 10 records"):  # fmt: skip
        assert words in shown
    plain = daitn("policy", "check", str(file), "--json").stdout
    assert json.loads(plain)["limits"]["examples_per_day"] == 1000
    again = file.with_name("again.yaml")
    again.write_text(plain)
    assert read_policy(again) == read_policy(file), "what is shown is a policy file too"


def test_every_rule_is_explained_with_its_line(file: Path) -> None:
    good = ("--owner", "acme", "--recipe", "classifier", "--purpose", "research")
    code, rules = explained(file, *good, "--at", "2026-11-27 22:00", "--examples", "1000")
    assert code == 0
    assert rules == {
        "recipes": (2, True),
        "owners": (3, True),
        "purposes": (5, True),
        "hours": (6, True),
        "limits.examples_per_day": (8, True),
        "least_records": (None, True),
    }
    bad = ("--owner", "stranger", "--recipe", "causal-lm", "--at", "2026-11-27 12:00")
    code, rules = explained(file, *bad, "--examples", "1001")
    assert code == 3
    assert [rule for rule, (_, allowed) in rules.items() if allowed] == ["least_records"]
    _, rules = explained(file, *good, "--examples", "9")
    assert rules["least_records"] == (None, False)
    shown = daitn("policy", "explain", str(file), *bad).stdout
    assert "policy.yaml:3" in shown
    assert "does not admit models of stranger" in shown


def test_a_time_is_one_of_the_policys_zone(file: Path) -> None:
    good = ("--owner", "acme", "--recipe", "classifier", "--purpose", "research")
    for at, code in (("2026-11-27 18:00", 0), ("2026-11-27 17:30", 3), ("2026-11-27T17:30Z", 0)):
        assert explained(file, *good, "--at", at)[0] == code
    ended = daitn("policy", "explain", str(file), *good, "--at", "noon")
    assert ended.returncode == 2
    assert "--at" in ended.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("recipes: [classifier]", "missing required field `recipes`"),
        ("limits: {examples_per_day: 1000}\n", "limits: Object contains unknown field `visits`"),
        ("time_zone: Europe/Berlin", "Europe/Atlantis is not a time zone"),
        ("time_zone: Europe/Berlin\n", "Europe is not a time zone"),
        ("18:00-08:00", "is not of the form"),
        ("purposes: [research]", "owners: is stated on line 3 too (line 5 of the policy"),
        ("acme", "owners[0]: is no Unicode text"),
    ],
)
def test_a_mistake_is_named(file: Path, change: str, words: str) -> None:
    instead = {
        "recipes: [classifier]": "",
        "limits: {examples_per_day: 1000}\n": "limits: {visits: 3}\n",
        "time_zone: Europe/Berlin": "time_zone: Europe/Atlantis",
        "time_zone: Europe/Berlin\n": "time_zone: Europe\n",
        "18:00-08:00": "at night",
        "purposes: [research]": "owners: [any]",
        "acme": '"x\\ud800"',
    }
    file.write_text(POLICY.replace(change, instead[change]))
    ended = daitn("policy", "check", str(file))
    assert ended.returncode == 2
    assert words in ended.stderr
    assert daitn("policy", "check", str(file.parent / "none.yaml")).returncode == 2


def test_a_node_file_names_a_policys_file_or_holds_it(file: Path, tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(NODE)
    (left,) = read_node(tmp_path / "node.yaml", "").left_out  # type: ignore[attr-defined]
    assert left.reason == "policy: its policy cannot be used"
    (tmp_path / "owners").mkdir()
    (tmp_path / "owners/notes.yaml").write_text(POLICY)
    (tmp_path / "inline.yaml").write_text(
        NODE.replace("owners/notes.yaml", "{recipes: [classifier], owners: [acme], "
        "purposes: [research], hours: ['Mon-Fri 18:00-08:00'], time_zone: Europe/Berlin, "
        "limits: {examples_per_day: 1000}}")
    )  # fmt: skip
    (by_path,) = read_node(tmp_path / "node.yaml", "").datasets
    (inline,) = read_node(tmp_path / "inline.yaml", "").datasets
    assert by_path.terms == inline.terms
    assert by_path.terms.published.owners == ("acme",)
    assert not hasattr(by_path.terms.published, "limits")


def test_an_audit_log_is_shown_and_checked(tmp_path: Path) -> None:
    key = SigningKey.generate()
    log = AuditLog(tmp_path / "state/audit", SiteId("north"), key, lambda: 1_800_000_000.0)
    log.append(AuditEvent.REFUSED, owner="evil\x1b[31m", visit="j-1.1", reason="not\nadmitted")
    log.close()
    state = str(tmp_path / "state")
    ended = daitn("audit", "show", state)
    assert "\x1b" not in ended.stdout
    assert "not?admitted" in ended.stdout
    (entry,) = json.loads(daitn("audit", "show", state, "--owner", "evil\x1b[31m", "--json").stdout)
    assert entry["number"] == 2
    assert json.loads(daitn("audit", "show", state, "--since", "2030-01-01", "--json").stdout) == []
    assert daitn("audit", "show", state, "--since", "then").returncode == 2
    assert daitn("audit", "verify", state, "--key", key.public).returncode == 0
    other = daitn("audit", "verify", state, "--key", SigningKey.generate().public)
    assert other.returncode == 5
    assert "000001.jsonl:1" in other.stderr
    assert daitn("audit", "verify", str(tmp_path / "nothing")).returncode == 2
