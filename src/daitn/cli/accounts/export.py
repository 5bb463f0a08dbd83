"""Entries of the ledger as a table in a file: a row for each posting."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daitn.files.output import write_output
from daitn.objects.accounts import LedgerLine, Quantities
from daitn.objects.errors import InvalidInput

__all__ = ["write_table"]

_AMOUNTS = Quantities.__struct_fields__
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Prefixes of a text that spreadsheets take for a formula."""


def write_table(lines: Sequence[LedgerLine], accounts: Sequence[str], path: Path) -> int:
    """Write the postings on some accounts (`None` means on all) as CSV or Parquet, by the file's
    ending. Returns how many. Quantities appear only in the first posting of an entry, so that
    columns can be summed. Raises `InvalidInput`."""
    rows = [row for line in lines for row in _rows(line, frozenset(accounts))]
    match path.suffix.lower():
        case ".csv":
            data = _csv(rows)
        case ".parquet":
            data = _parquet(rows)
        case _:
            raise InvalidInput(
                f"{path.name} is neither CSV nor Parquet",
                field="--output",
                fix="let the file's name end in .csv or .parquet",
            )
    write_output(path, data, "--output")
    return len(rows)


def _rows(line: LedgerLine, accounts: frozenset[str]) -> list[dict[str, Any]]:
    entry = line.entry
    shown = [one for one in entry.postings if not accounts or one.account in accounts]
    return [
        {
            "number": line.number,
            "at": datetime.fromtimestamp(entry.at_s, UTC),
            "kind": str(entry.kind),
            "account": one.account,
            "micro_usd": one.micro_usd,
            "job": entry.job,
            "what": entry.what,
            **{name: getattr(entry.quantities, name) if not n else 0 for name in _AMOUNTS},
            "cause": entry.cause,
            "digest": line.digest,
        }
        for n, one in enumerate(shown)
    ]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, _columns())
    writer.writeheader()
    for row in rows:
        plain = {name: _cell(value) for name, value in row.items()}
        writer.writerow({**plain, "at": row["at"].isoformat()})
    return file.getvalue().encode()


def _cell(value: Any) -> Any:
    """A name from the network is a text in a spreadsheet, not a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InvalidInput(
            "Parquet needs pyarrow, which is not installed here",
            field="--output",
            fix="pip install 'daitn[train]', or write a .csv",
        ) from None
    types = dict.fromkeys(_columns(), pyarrow.int64())
    types |= dict.fromkeys(("kind", "account", "job", "what", "cause", "digest"), pyarrow.string())
    types["at"] = pyarrow.timestamp("us", tz="UTC")
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(list(types.items())))
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return bytes(sink.getvalue())


def _columns() -> list[str]:
    names = ("number", "at", "kind", "account", "micro_usd", "job", "what")
    return [*names, *_AMOUNTS, "cause", "digest"]
