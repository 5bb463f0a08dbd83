"""Times are printed and read in UTC, whatever the time zone of the machine."""

from __future__ import annotations

import ast
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

import daitn
from daitn.cli.events import _Teller
from daitn.cli.logs import LogLines
from daitn.cli.times import day, moment, when
from daitn.identity.keys import SigningKey
from daitn.node.audit import AuditLog
from daitn.oam.api.answers import PastEvent, SiteNews
from daitn.objects.accounts import AccountStatement, EntryKind, LedgerEntry, LedgerLine, Posting
from daitn.objects.audit import AuditEvent
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import Digest, SiteId
from daitn.objects.wire import decode, encode
from tests.scenes import command_line

T = TypeVar("T")

AT_S = 1_795_745_400.0
AT = "2026-11-27 02:10:00 UTC"
CLI = Path(daitn.__file__).parent / "cli"
FOR_MACHINES = {"accounts/export.py", "logs.py"}
"""They write RFC 3339, with the zone."""


@pytest.fixture(params=["America/New_York", "Asia/Kolkata"], autouse=True)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


def test_a_time_has_its_zone_and_is_read_as_it_is_printed() -> None:
    assert (when(AT_S), day(AT_S)) == (AT, "2026-11-27")
    assert when(1e300) == "no day of the calendar"
    for text in ("2026-11-27 02:10", "2026-11-27T02:10:00Z", "2026-11-27 07:40+05:30"):
        assert moment(text, "--from", 0.0, 0.0) == AT_S
    assert moment("2h", "--from", AT_S, 0.0) == AT_S - 7200.0
    with pytest.raises(InvalidInput, match="'then' is not a time"):
        moment("then", "--from", 0.0, 0.0)


def test_events_are_printed_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    news = SiteNews(site="east", state="lost", at_s=AT_S)
    event = PastEvent(id="1", kind="site", at_s=AT_S, data=msgspec.to_builtins(news))
    _Teller(as_json=False).tell(event)
    assert capsys.readouterr().out == f"{AT}  east is lost\n"


def test_an_audit_log_is_printed_and_searched_in_utc(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", SiteId("north"), SigningKey.generate(), lambda: AT_S)
    log.append(AuditEvent.REFUSED, owner="evil")
    log.close()
    shown = command_line.daitn("audit", "show", str(tmp_path), COLUMNS="200")
    assert AT in shown.stdout
    for since, found in (("2026-11-27 02:10", 2), ("2026-11-27 02:11", 0)):
        told = command_line.daitn("audit", "show", str(tmp_path), "--since", since, "--json")
        assert len(json.loads(told.stdout)) == found


def test_an_account_is_printed_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    postings = (Posting(account="owner/me", micro_usd=-7), Posting(account="site/e", micro_usd=7))
    entry = LedgerEntry(cause="visit/1", at_s=AT_S, kind=EntryKind.VISIT, postings=postings)
    line = LedgerLine(number=1, entry=entry, digest=Digest("ab"))
    statement = AccountStatement(accounts=("owner/me",), lines=(line,))

    class Owners:
        async def ask(self, verb: str, question: object, answer: type[T]) -> T:
            return decode(encode(statement), answer)

    @asynccontextmanager
    async def connect(center: str) -> AsyncIterator[Owners]:
        yield Owners()

    monkeypatch.setattr("daitn.cli.accounts.command.connect", connect)
    assert AT in command_line.daitn("account", "statement", "me", COLUMNS="200").stdout


def test_a_policy_is_asked_by_the_clock_of_its_owner(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "recipes: [classifier]\nhours: [Mon-Fri 18:00-23:00]\ntime_zone: Europe/Berlin\n"
    )
    who = ("--owner", "acme", "--recipe", "classifier")
    for at, code in (("2026-11-27 22:00", 0), ("2026-11-27 17:59", 3)):
        ended = command_line.daitn("policy", "explain", str(policy), *who, "--at", at)
        assert ended.returncode == code, ended.stdout + ended.stderr


def test_a_log_is_in_utc() -> None:
    record = logging.LogRecord("daitn", logging.INFO, "", 1, "ready", None, None)
    record.created, record.msecs = AT_S, 5.0
    line = LogLines("%(asctime)s UTC %(message)s").format(record)
    assert line == "2026-11-27 02:10:00,005 UTC ready"


def test_every_command_prints_and_reads_times_through_one_module() -> None:
    """So that each new one is in UTC too, and accepts what the others accept."""
    calls = {"fromtimestamp", "fromisoformat", "strftime", "strptime", "localtime", "ctime"}
    elsewhere = {
        str(file.relative_to(CLI))
        for file in CLI.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in calls
    }
    assert elsewhere == {"times.py", *FOR_MACHINES}
