"""`daitn account`: periods and files, without a network."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from daitn.cli.accounts.export import write_table
from daitn.objects.accounts import AccountStatement, EntryKind, LedgerEntry, LedgerLine, Posting
from daitn.objects.identifiers import Digest
from daitn.objects.wire import decode, encode
from tests.scenes.command_line import daitn

T = TypeVar("T")


@pytest.mark.parametrize("command", ["list", "show", "statement"])
@pytest.mark.parametrize("period", [("7d", "8d"), ("2026-11-21", "2026-11-21")])
def test_a_period_that_ends_before_it_begins_is_refused(
    command: str, period: tuple[str, str]
) -> None:
    """It would cost nothing, whatever was used."""
    start, end = period
    account = [] if command == "list" else ["ann"]
    ended = daitn("account", command, *account, "--from", start, "--to", end)
    assert ended.returncode == 2
    assert f"--to: {end} is not after {start}" in ended.stderr


@pytest.mark.parametrize("name", ["november.csv", "NOVEMBER.CSV"])
def test_entries_are_written_under_any_spelling_of_a_table_s_name(
    tmp_path: Path, name: str
) -> None:
    postings = (Posting(account="owner/ann", micro_usd=-7), Posting(account="site/e", micro_usd=7))
    entry = LedgerEntry(cause="visit/1", at_s=0.0, kind=EntryKind.VISIT, postings=postings)
    line = LedgerLine(number=1, entry=entry, digest=Digest("ab"))
    assert write_table([line], ["owner/ann"], tmp_path / name) == 1
    with (tmp_path / name).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["account"], row["micro_usd"]) == ("owner/ann", "-7")


@pytest.mark.parametrize("entries", [(), (3, 7)])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_only_who_sees_the_whole_ledger_checks_it(
    monkeypatch: pytest.MonkeyPatch, entries: tuple[int, ...], options: tuple[str, ...]
) -> None:
    """The entries of others are not missing; and none of one's own proves nothing."""
    postings = (Posting(account="owner/me", micro_usd=-7), Posting(account="site/e", micro_usd=7))
    entry = LedgerEntry(cause="visit/1", at_s=0.0, kind=EntryKind.VISIT, postings=postings)
    lines = tuple(LedgerLine(number=one, entry=entry, digest=Digest("ab")) for one in entries)
    statement = AccountStatement(accounts=("owner/me",), lines=lines)

    class Owners:
        """A session of the owner `me`."""

        async def ask(self, verb: str, question: object, answer: type[T]) -> T:
            assert verb == "ledger"
            return decode(encode(statement), answer)

    @asynccontextmanager
    async def connect(center: str) -> AsyncIterator[Owners]:
        yield Owners()

    monkeypatch.setattr("daitn.cli.accounts.command.connect", connect)
    ended = daitn("account", "check", *options)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "you see the entries of owner/me alone" in ended.stderr
    assert "ask an operator" in ended.stderr
