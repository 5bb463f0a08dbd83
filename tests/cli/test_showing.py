"""Texts from the network neither forge a line nor move a terminal's cursor."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from daitn.cli import session
from daitn.cli.logs import LogLines
from daitn.cli.session import PlainConsole
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.intents import TrainingIntent
from daitn.objects.lineage import Origin
from daitn.objects.messages import DemandRate, RetireModel
from daitn.objects.text import escaped, escaped_json, hanging
from daitn.objects.wire import checked, decode, to_json

UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
ATTACKS = {
    "an escape sequence": "\x1b]0;owned\x07\x1b[2J",
    "a forged line": "x\n2026-01-01 00:00:00 INFO daitn.node ready",
    "a carriage return": "refused\raccepted",
    "eight-bit escapes": "x\x9b31m",
    "another reading order": "txt.\u202eexe",
    "isolates": "\u2066a\u2069",
    "a backspace": "no\b\byes",
    "another line end": "a\u2028b\u2029c\x85d",
    "nothing": "\x00",
}
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("\n\r\t\x1b\x9b\u202e[]/\\"))


def logged(message: str, *args: object, error: BaseException | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogLines("%(levelname)s %(name)s %(message)s"))
    record = logging.LogRecord(
        "daitn", logging.WARNING, __file__, 1, message, args,
        None if error is None else (type(error), error, error.__traceback__),
    )  # fmt: skip
    handler.emit(record)
    return stream.getvalue()


def records(output: str) -> list[str]:
    """The lines that look like records."""
    return [line for line in output.splitlines() if not line.startswith("    ")]


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_name_in_a_log_stays_in_its_record(attack: str) -> None:
    for output in (
        logged("%s joined", attack),
        logged(attack),
        logged("failed: %s", InvalidInput(attack, field=attack, fix=attack)),
        logged("%s", attack, error=ValueError(attack)),
    ):
        assert len(records(output)) == 1
        assert not UNSEEN.search(output)


@given(TEXTS)
def test_no_text_makes_two_records(text: str) -> None:
    output = logged("site %s says %s", text, text)
    assert len(records(output)) == 1
    assert output.startswith("WARNING daitn site ")
    assert not UNSEEN.search(output)


def test_errors_and_tracebacks_stay_readable() -> None:
    try:
        raise InvalidInput("is wrong", field="a.b", fix="mend it")
    except DaitnError as error:
        output = logged("failed: %s", error, error=error)
    assert "failed: a.b: is wrong\n      fix: mend it" in output
    assert "Traceback" in output


def shown(show: Callable[[PlainConsole], None]) -> str:
    """What reaches a terminal with colours."""
    console = PlainConsole(width=60)
    console.file = io.StringIO()
    console._force_terminal = True
    show(console)
    return console.file.getvalue()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_name_on_a_terminal_is_only_text(attack: str) -> None:
    def table(console: PlainConsole) -> None:
        rows = Table("name")
        rows.add_row(attack)
        rows.add_row(Text(attack))
        console.print(rows)

    styled = re.compile(r"\x1b\[[0-9;]*m")  # Rich's own colours.
    for show in (table, lambda console: console.print(f"{attack} is ready", attack)):
        assert not UNSEEN.search(styled.sub("", shown(show)))
    assert "\x1b]" not in shown(lambda console: console.print(attack))


def test_markup_in_a_name_is_text() -> None:
    name = "[link=http://evil][blink]x[/] :smile:"
    output = shown(lambda console: console.print(name))
    assert name in re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert "\x1b]8" not in output


def test_an_error_of_another_site_is_one_complaint(capsys: pytest.CaptureFixture[str]) -> None:
    session.complain(InvalidInput("x\nerror all is well\x1b[2J", field="f\x1b", fix="y\n  fix no"))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("    ")] == ["error", "fix"]
    assert not UNSEEN.search("".join(lines))


@given(st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_json_for_scripts_has_the_same_value_and_no_control_characters(value: object) -> None:
    text = escaped_json(to_json(value))
    assert msgspec.json.decode(text) == json.loads(text) == value
    assert not UNSEEN.search(text)


@given(TEXTS)
def test_visible_text_stays_as_it_is(text: str) -> None:
    if text.isprintable():
        assert escaped(text) == text == hanging(text)
    assert not UNSEEN.search(escaped(text))


ORIGIN = Origin(
    job=JobId("j"), visit=VisitId("v"), site=SiteId("s"), at_s=0.0, recipe="r", seed=0,
    model=Digest("d"),
)  # fmt: skip
INTENT = {
    "name": "n",
    "owner": "o",
    "model": {"recipe": "r"},
    "objectives": [{"name": "n", "topic": "t", "at_least": 0.5}],
    "data": {"topics": ["t"]},
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_message_carries_such_a_name(attack: str) -> None:
    for value, kind, fields in (
        (ORIGIN, Origin, ("job", "visit", "site", "recipe", "model")),
        (RetireModel(name="m"), RetireModel, ("name",)),
        (
            DemandRate(topic="t", model="m", per_s=0.0, shed_per_s=0.0, tokens_out=0.0),
            DemandRate,
            ("topic", "model"),
        ),
        (INTENT, TrainingIntent, ("name", "owner")),
    ):
        for field in fields:
            facts = msgspec.to_builtins(value) | {field: f"a{attack[:20]}b"}
            with pytest.raises(Corrupt, match=r"visible text on one line.*" + field):
                decode(msgspec.msgpack.encode(facts), kind)


def test_who_writes_such_a_name_is_told_in_words() -> None:
    with pytest.raises(InvalidInput, match="visible text on one line") as raised:
        checked(INTENT | {"owner": "a\x1bb"}, TrainingIntent, "intent")
    assert raised.value.field == "owner"
