"""`daitn audit`: who visited a site, what was refused, and what left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from daitn.cli.session import JsonOption, print_json, run, screen
from daitn.cli.tables import plain_table
from daitn.cli.times import moment, when
from daitn.control.privacy_accounting import epsilon, spent_by
from daitn.node.audit import Verified, entries
from daitn.node.audit import verify as verified
from daitn.node.training.privacy_ledger import Ledger, ledgers
from daitn.oam.words import size
from daitn.objects.audit import AuditEntry, AuditEvent
from daitn.objects.wire import to_json
from daitn.tools import clock

__all__ = ["app"]

app = typer.Typer(help="A site's audit log.", no_args_is_help=True)

PathArgument = Annotated[
    Path, typer.Argument(help="The site's state folder, the folder `audit` in it, or one file.")
]
_SHOWN_DIGITS = 12
_USUAL_DELTA = 1e-5
"""Delta at which the spent privacy is reported if the data's owner demands none."""


@app.command()
def show(
    path: PathArgument,
    owner: Annotated[str, typer.Option(help="Only entries about this owner's models.")] = "",
    since: Annotated[
        str,
        typer.Option(
            help="Only entries from this time on, UTC: 2026-11-27, or 7d, 24h, 2w before now."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Show who visited a site, what was refused, and what left.

    It reads the files on this machine; the site may be running.

    Examples:

      daitn audit show state/north

      daitn audit show state/north --owner acme --since 2026-11-27
    """
    found = run(_found(path, owner, since))
    if as_json:
        print_json(to_json(found))
    else:
        columns = ("time", "event", "owner", "data", "work", "what left, or why not")
        screen.print(plain_table("", columns, map(_row, found)))


@app.command()
def verify(
    path: PathArgument,
    key: Annotated[
        str, typer.Option(help="The site's public key, as `daitn describe node` shows it.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Check that no entry was changed, moved or removed, and name the first line that was.

    Entries at the end can be missing without a trace in the file: compare the last number with
    that of the entry that a control centre has signed.

    Examples:

      daitn audit verify state/north

      daitn audit verify state/north/audit/000001.jsonl --key 8nYc...=
    """
    checked = run(_verified(path, key))
    if as_json:
        print_json(to_json(checked))
        return
    rows = [
        ("entries", f"{checked.first:,} to {checked.last:,}, each follows the one before"),
        ("signed by the site's key", checked.public_key),
        ("signed by a control centre", f"up to entry {checked.countersigned:,}"),
        *(("with the key", center) for center in checked.centers),
        ("digest of the last entry", checked.digest),
    ]
    screen.print(plain_table("whole", ("", ""), rows))


@app.command()
def privacy(
    state: Annotated[Path, typer.Argument(help="The site's state folder.")],
    as_json: JsonOption = False,
) -> None:
    """Show what visits revealed about any record of each data set, and how much more they may.

    Only visits with differential privacy count: what others tell has no bound. Epsilons of several
    visits add up to less than their sum.

    Example: daitn audit privacy state/north
    """
    found = run(_spent(state))
    if as_json:
        print_json(to_json(found))
        return
    columns = ("data", "job", "owner", "visits", "epsilon", "of", "delta")
    rows = [
        (
            each.dataset,
            each.job or "all together",
            each.owner,
            str(each.visits),
            f"{each.epsilon:.3g}",
            "" if each.of is None else f"{each.of:g}",
            f"{each.delta:g}",
        )
        for each in found
    ]
    screen.print(plain_table("", columns, (map(_printable, row) for row in rows)))


class SpentPrivacy(msgspec.Struct, frozen=True, kw_only=True):
    """What one job's visits, or all of them, revealed about any record of a data set."""

    dataset: str
    job: str = ""
    """Empty means all."""
    owner: str = ""
    visits: int
    epsilon: float
    of: float | None = None
    """For all together: what the data's owner allows, as of the latest visit; `None` means any
    amount."""
    delta: float


async def _spent(state: Path) -> tuple[SpentPrivacy, ...]:
    return tuple(row for ledger in ledgers(state) for row in _of_ledger(ledger))


def _of_ledger(ledger: Ledger) -> Iterator[SpentPrivacy]:
    delta = ledger.demand.delta if ledger.demand else _USUAL_DELTA
    jobs = {(charge.job, charge.owner): None for charge in ledger.charges}
    for job, owner in jobs:
        own = [each.mechanism for each in ledger.charges if (each.job, each.owner) == (job, owner)]
        yield SpentPrivacy(
            dataset=ledger.dataset,
            job=job,
            owner=owner,
            visits=len(own),
            epsilon=epsilon(spent_by(own), delta),
            delta=delta,
        )
    yield SpentPrivacy(
        dataset=ledger.dataset,
        visits=len(ledger.charges),
        epsilon=epsilon(spent_by(each.mechanism for each in ledger.charges), delta),
        of=ledger.demand.epsilon_total if ledger.demand else None,
        delta=delta,
    )


async def _found(path: Path, owner: str, since: str) -> tuple[AuditEntry, ...]:
    from_s = moment(since, "--since", clock.wall_s(), 0.0)
    return tuple(
        entry for entry in entries(path) if entry.at_s >= from_s and owner in ("", entry.owner)
    )


async def _verified(path: Path, key: str) -> Verified:
    return verified(path, key)


def _row(entry: AuditEntry) -> tuple[str, ...]:
    cells = (
        when(entry.at_s),
        entry.event.value,
        entry.owner,
        entry.data,
        entry.visit,
        _what(entry),
    )
    return tuple(_printable(cell) for cell in cells)


def _what(entry: AuditEntry) -> str:
    parts = [f"{name} {value:.4g}" for name, value in entry.values.items()]
    if entry.event in (AuditEvent.BEGUN, AuditEvent.RESUMED) and entry.examples:
        parts.append(f"{entry.examples:,} examples for {entry.recipe}")
    if entry.event in (AuditEvent.MADE, AuditEvent.VISITED):
        parts.append(f"model {entry.model[:_SHOWN_DIGITS]}, {size(entry.size_bytes)}")
    if entry.head is not None:
        parts.append(f"entry {entry.head.number:,}")
    if entry.reason:
        parts.append(entry.reason)
    return ", ".join(parts)


def _printable(text: str) -> str:
    """Names come from strangers, and may contain terminal control codes."""
    return "".join(c if c.isprintable() else "?" for c in text)
