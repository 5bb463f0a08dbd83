"""The commands of `daitn account`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from daitn.cli.accounts.export import write_table
from daitn.cli.accounts.period import moment
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    ExitCode,
    JsonOption,
    Session,
    complain,
    connect,
    print_json,
    run,
    screen,
)
from daitn.cli.tables import plain_table
from daitn.control.accounting.checking import Checker
from daitn.identity.audit import check_countersigned
from daitn.objects.accounts import (
    MICROS,
    AccountList,
    AccountQuestion,
    AccountStatement,
    AccountView,
    LedgerLine,
    Quantities,
)
from daitn.objects.errors import Corrupt
from daitn.objects.text import counted
from daitn.objects.usage import Count, UsageList
from daitn.objects.wire import to_json
from daitn.tools import clock

__all__ = ["app"]

app = typer.Typer(help="Who used what, and what it cost.", no_args_is_help=True)

FromOption = Annotated[
    str,
    typer.Option("--from", help="First moment, UTC: 2026-11-21, or 7d, 24h, 2w before now."),
]
ToOption = Annotated[str, typer.Option("--to", help="First moment that is too late.")]
AccountArgument = Annotated[
    str,
    typer.Argument(help="An account, for instance `owner/ann`, or an owner or site: all of its."),
]


class _Used(msgspec.Struct):
    """What entries of one kind, about one thing, come to."""

    kind: str
    what: str
    entries: int = 0
    micro_usd: int = 0
    quantities: Quantities = Quantities()


class _Shown(msgspec.Struct):
    accounts: tuple[AccountView, ...]
    used: list[_Used]


class _Checked(msgspec.Struct):
    entries: int
    digest: str
    problems: tuple[str, ...]


@app.command("list")
def list_(
    from_: FromOption = "",
    to: ToOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """List accounts: what each paid and earned. Owners and sites see their own.

    Example: daitn account list --from 7d
    """
    found = run(_accounts(center, from_, to))
    print_json(to_json(found)) if as_json else _print_accounts(found.accounts)


@app.command()
def show(
    account: AccountArgument,
    from_: FromOption = "",
    to: ToOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Show what an owner or a site used, paid and earned, by what it was for.

    Example: daitn account show ann --from 7d
    """

    async def work() -> _Shown:
        question = _question(account, from_, to)
        async with connect(center) as session:
            listed = await session.ask("accounts", question, AccountList)
            statement = await _lines(session, question)
        return _Shown(accounts=listed.accounts, used=_used(statement))

    shown = run(work())
    if as_json:
        print_json(to_json(shown))
        return
    _print_accounts(shown.accounts)
    rows = [
        (one.kind, one.what, one.entries, _usd(one.micro_usd), _said(one.quantities))
        for one in shown.used
    ]
    screen.print(plain_table("", ("for", "what", "entries", "USD", "used"), rows))


@app.command()
def statement(
    account: AccountArgument,
    from_: FromOption = "",
    to: ToOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Print every entry of an account, oldest first, with the ledger's signed head.

    Example: daitn account statement ann --from 2026-11-01 --to 2026-12-01
    """
    found = run(_statement(center, account, from_, to))
    if as_json:
        print_json(to_json(found))
        return
    rows: list[tuple[object, ...]] = [
        (
            line.number,
            _time(line.entry.at_s),
            line.entry.kind,
            line.entry.job,
            line.entry.what,
            _usd(line.entry.on(found.accounts)),
            _said(line.entry.quantities),
        )
        for line in found.lines
    ]
    total = sum(line.entry.on(found.accounts) for line in found.lines)
    rows.append(("", "", "together", "", "", _usd(total), ""))
    columns = ("entry", "at (UTC)", "for", "job", "what", "USD", "used")
    screen.print(plain_table("", columns, rows))
    if found.head is not None:
        screen.print(f"The ledger has {found.head.number} entries; digest {found.head.digest}.")


@app.command()
def export(
    output: Annotated[Path, typer.Option(help="File, ending in .csv or .parquet.")],
    account: Annotated[
        str, typer.Option(help="As of `daitn account statement`; empty: all that may be seen.")
    ] = "",
    from_: FromOption = "",
    to: ToOption = "",
    center: CenterOption = DEFAULT_CENTER,
) -> None:
    """Write entries to a file as a table, with a row for each posting.

    Example: daitn account export --output november.parquet --from 2026-11-01 --to 2026-12-01
    """

    async def work() -> int:
        found = await _statement(center, account, from_, to)
        return write_table(found.lines, found.accounts, output)

    screen.print(f"{output}: {counted(run(work()), 'row')}")


@app.command()
def compare(
    account: Annotated[str, typer.Argument(help="An owner or a site; empty: all.")] = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Compare what gateways and facilities state about the same answers.

    A difference that stays means that one of the two counts wrongly, or lost counts. Statements
    come once a minute.
    """

    async def work() -> UsageList:
        async with connect(center) as session:
            return await session.ask("metered", AccountQuestion(account=account), UsageList)

    found = run(work())
    if as_json:
        print_json(to_json(found))
        return
    rows = [
        (
            one.gateway,
            one.facility,
            one.owner,
            one.model,
            _counted(one.by_gateway),
            "not yet" if one.by_facility is None else _counted(one.by_facility),
            "" if one.agrees else "differs",
        )
        for one in found.compared
    ]
    columns = ("gateway", "facility", "owner", "model", "by the gateway", "by the facility", "")
    screen.print(plain_table("answers/tokens read/tokens written", columns, rows))


@app.command()
def check(center: CenterOption = DEFAULT_CENTER, as_json: JsonOption = False) -> None:
    """Check the whole ledger: every entry balances, follows from the one before, and is there once.

    For operators: others do not see all of it. Keep the digest: a ledger that was rewritten since
    has another one at that entry.
    """
    checker = Checker()

    async def work() -> AccountStatement:
        async with connect(center) as session:
            found = await _lines(session, AccountQuestion())
        for line in found.lines:
            checker.take(line)
        if found.head is not None:
            check_countersigned(found.head)
            if found.lines and found.lines[-1].number > found.head.number:
                raise Corrupt("the ledger's signed head is older than its entries")
        problems.extend(checker.ended())
        return found

    problems: list[str] = []
    found = run(work())
    digest = found.lines[-1].digest if found.lines else ""
    if as_json:
        print_json(to_json(_Checked(len(found.lines), digest, tuple(problems))))
    elif not problems:
        screen.print(f"{len(found.lines)} entries, all well; digest {digest}")
    else:
        complain(Corrupt("; ".join(problems), fix="put back a backup, and keep this ledger aside"))
    if problems:
        raise typer.Exit(ExitCode.OTHER)


def _question(account: str, from_: str, to: str) -> AccountQuestion:
    now_s = clock.wall_s()
    return AccountQuestion(
        account=account,
        from_s=moment(from_, "--from", now_s, 0.0),
        to_s=moment(to, "--to", now_s, 1e13),
    )


async def _accounts(center: str, from_: str, to: str) -> AccountList:
    question = _question("", from_, to)
    async with connect(center) as session:
        return await session.ask("accounts", question, AccountList)


async def _statement(center: str, account: str, from_: str, to: str) -> AccountStatement:
    question = _question(account, from_, to)
    async with connect(center) as session:
        return await _lines(session, question)


async def _lines(session: Session, question: AccountQuestion) -> AccountStatement:
    """All pages of a statement."""
    lines: list[LedgerLine] = []
    while True:
        page = await session.ask("ledger", question, AccountStatement)
        lines += page.lines
        if page.next is None:
            return msgspec.structs.replace(page, lines=tuple(lines))
        question = msgspec.structs.replace(question, after=page.next)


def _used(statement: AccountStatement) -> list[_Used]:
    found: dict[tuple[str, str], _Used] = {}
    for line in statement.lines:
        entry = line.entry
        key = str(entry.kind), entry.what
        one = found.setdefault(key, _Used(*key))
        one.entries += 1
        one.micro_usd += entry.on(statement.accounts)
        one.quantities += entry.quantities
    return sorted(found.values(), key=lambda one: (one.kind, one.micro_usd, one.what))


def _print_accounts(accounts: Iterable[AccountView]) -> None:
    rows = [
        (
            one.account,
            one.owner,
            one.entries,
            _usd(one.paid_micro_usd),
            _usd(one.earned_micro_usd),
            _usd(one.balance_micro_usd),
            _said(one.quantities),
        )
        for one in accounts
    ]
    columns = ("account", "owner", "entries", "paid USD", "earned USD", "balance USD", "used")
    screen.print(plain_table("", columns, rows))


def _usd(micro_usd: int) -> str:
    whole, part = divmod(abs(micro_usd), MICROS)
    return f"{'-' if micro_usd < 0 else ''}{whole}.{part:06d}"


def _said(used: Quantities) -> str:
    """Quantities in words, those that are there."""
    parts = (
        (used.compute_ms, f"{used.compute_ms / 1000:.1f} s of computing"),
        (used.bytes_moved, f"{used.bytes_moved / 1e6:.2f} MB"),
        (used.examples, counted(used.examples, "example")),
        (used.items, counted(used.items, "test item")),
        (used.micro_epsilon, f"epsilon {used.micro_epsilon / MICROS:g}"),
        (used.answers, counted(used.answers, "answer")),
        (used.tokens_in or used.tokens_out, f"{used.tokens_in}+{used.tokens_out} tokens"),
        (used.hosted_ms, f"{used.hosted_ms / 3_600_000:.2f} h hosted"),
    )
    return ", ".join(said for amount, said in parts if amount)


def _counted(count: Count) -> str:
    return f"{count.answers}/{count.tokens_in}/{count.tokens_out}"


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
