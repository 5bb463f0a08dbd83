"""The commands of `daitn account`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from daitn.cli.accounts.export import write_table
from daitn.cli.option_names import naming
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
from daitn.cli.times import moment, when
from daitn.control.accounting.checking import Checker
from daitn.identity.audit import check_countersigned
from daitn.objects.accounts import (
    MICROS,
    AccountList,
    AccountQuestion,
    AccountStatement,
    AccountView,
    LedgerEntry,
    LedgerLine,
    Quantities,
)
from daitn.objects.audit import CountersignedHead
from daitn.objects.errors import Corrupt, InvalidInput, Refused
from daitn.objects.identifiers import Digest
from daitn.objects.text import counted, decimals
from daitn.objects.usage import Count, UsageCompared, UsageList
from daitn.objects.wire import decode, to_json
from daitn.tools import clock

__all__ = ["app"]

app = typer.Typer(help="Who used what, and what it cost.", no_args_is_help=True)

FromOption = Annotated[
    str,
    typer.Option("--from", help="Start, UTC: 2026-11-21, or 7d, 24h, 2w before now."),
]
ToOption = Annotated[str, typer.Option("--to", help="End (exclusive), in the same form.")]
AccountArgument = Annotated[
    str,
    typer.Argument(
        help="An account, for instance `owner/ann`, or an owner or site for all of its accounts."
    ),
]


class _Used(msgspec.Struct):
    """The total of entries of one kind, about one thing."""

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


class _Written(msgspec.Struct):
    """A `LedgerLine` as it was received: its digest covers what this release does not know."""

    number: int
    entry: msgspec.Raw
    digest: Digest

    def read(self) -> LedgerLine:
        entry = decode(bytes(self.entry), LedgerEntry)
        return LedgerLine(number=self.number, entry=entry, digest=self.digest)


class _WrittenPage(msgspec.Struct):
    """An `AccountStatement` of such lines."""

    lines: tuple[_Written, ...]
    accounts: tuple[str, ...] = ()
    next: int | None = None
    head: CountersignedHead | None = None


P = TypeVar("P", AccountStatement, _WrittenPage)


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
    """Show what an owner or a site used, paid and earned, by purpose.

    Example: daitn account show ann --from 7d
    """

    async def work() -> _Shown:
        question = _question(account, from_, to)
        async with connect(center) as session:
            listed = await session.ask("accounts", question, AccountList)
            statement = await _whole(session, question, AccountStatement)
        return _Shown(accounts=listed.accounts, used=_used(statement))

    shown = run(work())
    if as_json:
        print_json(to_json(shown))
        return
    _print_accounts(shown.accounts)
    rows = [
        (one.kind, one.what, one.entries, _usd(one.micro_usd), _quantity_words(one.quantities))
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
            when(line.entry.at_s),
            line.entry.kind,
            line.entry.job,
            line.entry.what,
            _usd(line.entry.on(found.accounts)),
            _quantity_words(line.entry.quantities),
        )
        for line in found.lines
    ]
    total = sum(line.entry.on(found.accounts) for line in found.lines)
    rows.append(("", "", "together", "", "", _usd(total), ""))
    columns = ("entry", "at", "for", "job", "what", "USD", "used")
    screen.print(plain_table("", columns, rows))
    if found.head is not None:
        screen.print(f"The ledger has {found.head.number} entries; digest {found.head.digest}.")


@app.command()
def export(
    output: Annotated[Path, typer.Option(help="File, ending in .csv or .parquet.")],
    account: Annotated[
        str,
        typer.Option(help="As for `daitn account statement`; empty means all visible accounts."),
    ] = "",
    from_: FromOption = "",
    to: ToOption = "",
    center: CenterOption = DEFAULT_CENTER,
) -> None:
    """Write entries to a file as a table, with a row for each posting.

    Example: daitn account export --output november.parquet --from 2026-11-01 --to 2026-12-01
    """

    async def work() -> int:
        with naming({"account": "--account"}):  # Elsewhere it is an argument.
            found = await _statement(center, account, from_, to)
        return write_table(found.lines, found.accounts, output)

    screen.print(f"{output}: {counted(run(work()), 'row')}")


@app.command()
def compare(
    account: Annotated[str, typer.Argument(help="An owner or a site; empty means all.")] = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Compare what gateways and facilities report about the same answers.

    A difference that stays means that one of the two counts wrongly, or lost counts, or that the
    gateway charges more than the model's owner asks. Statements come once a minute.
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
            _difference(one),
        )
        for one in found.compared
    ]
    columns = ("gateway", "facility", "owner", "model", "by the gateway", "by the facility", "")
    screen.print(plain_table("answers/tokens read/tokens written", columns, rows))


@app.command()
def check(center: CenterOption = DEFAULT_CENTER, as_json: JsonOption = False) -> None:
    """Check the whole ledger: every entry balances, follows from the previous one, and exists once.

    Only operators see all of it; others are refused. Keep the digest: a ledger that was rewritten
    since has another one at that entry.
    """
    checker = Checker()

    async def work() -> tuple[_Written, ...]:
        async with connect(center) as session:
            found = await _whole(session, AccountQuestion(), _WrittenPage)
        if found.accounts:
            raise Refused(
                "the ledger can only be checked as a whole, and you see the entries of "
                f"{', '.join(found.accounts)} alone",
                field="account check",
                fix="ask an operator to check it; `daitn account show` shows yours",
            )
        for line in found.lines:
            checker.take(line.read(), bytes(line.entry))
        if found.head is not None:
            check_countersigned(found.head)
            if found.lines and found.lines[-1].number > found.head.number:
                raise Corrupt("the ledger's signed head is older than its entries")
        problems.extend(checker.ended())
        return found.lines

    problems: list[str] = []
    lines = run(work())
    digest = lines[-1].digest if lines else ""
    if as_json:
        print_json(to_json(_Checked(len(lines), digest, tuple(problems))))
    elif not problems:
        screen.print(f"{len(lines)} entries, all well; digest {digest}")
    else:
        complain(
            Corrupt("; ".join(problems), fix="restore a backup, and keep this ledger for analysis")
        )
    if problems:
        raise typer.Exit(ExitCode.OTHER)


def _question(account: str, from_: str, to: str) -> AccountQuestion:
    now_s = clock.wall_s()
    from_s, to_s = moment(from_, "--from", now_s, 0.0), moment(to, "--to", now_s, 1e13)
    if from_s >= to_s:
        raise InvalidInput(
            f"{to} is not after {from_ or 'the beginning'}",
            field="--to",
            fix="state an end after the start; 7d is before 1d",
        )
    return AccountQuestion(account=account, from_s=from_s, to_s=to_s)


async def _accounts(center: str, from_: str, to: str) -> AccountList:
    question = _question("", from_, to)
    async with connect(center) as session:
        return await session.ask("accounts", question, AccountList)


async def _statement(center: str, account: str, from_: str, to: str) -> AccountStatement:
    question = _question(account, from_, to)
    async with connect(center) as session:
        return await _whole(session, question, AccountStatement)


async def _whole(session: Session, question: AccountQuestion, kind: type[P]) -> P:
    """All pages of a statement, as one."""
    lines: list[Any] = []
    while True:
        page = await session.ask("ledger", question, kind)
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
            _quantity_words(one.quantities),
        )
        for one in accounts
    ]
    columns = ("account", "owner", "entries", "paid USD", "earned USD", "balance USD", "used")
    screen.print(plain_table("", columns, rows))


def _usd(micro_usd: int) -> str:
    whole, part = divmod(abs(micro_usd), MICROS)
    return f"{'-' if micro_usd < 0 else ''}{whole}.{part:06d}"


def _quantity_words(used: Quantities) -> str:
    """The non-zero quantities, in words."""
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
    return ", ".join(words for amount, words in parts if amount)


def _difference(one: UsageCompared) -> str:
    if one.overcharges:
        read, written = one.prices_by_gateway
        return f"differs: charged at up to {decimals(read)} and {decimals(written)} USD"
    if not one.agrees:
        return f"differs: charged {counted(-one.uncharged, 'answer')} too many"
    return f"{one.uncharged} not charged" if one.uncharged else ""


def _counted(count: Count) -> str:
    return f"{count.answers}/{count.tokens_in}/{count.tokens_out}"
