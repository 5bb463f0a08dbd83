"""`daitn data`: public data for trying things out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from daitn.cli.session import JsonOption, errors, print_json, run, screen
from daitn.learning.corpora.split import Prepared
from daitn.objects.errors import NotFound
from daitn.objects.wire import to_json

__all__ = ["app", "medquad_path"]

app = typer.Typer(help="Public data for trying things out.", no_args_is_help=True)

DEFAULT_FOLDER = Path("~/.cache/daitn")


def medquad_path() -> Path | None:
    """MedQuAD's parquet file, in the folder `DAITN_DATA` or where `daitn data fetch` saved it."""
    folders = (os.environ.get("DAITN_DATA"), str(DEFAULT_FOLDER))
    for folder in folders:
        path = Path(folder or "").expanduser() / "medquad.parquet"
        if folder and path.is_file():
            return path
    return None


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="medquad")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder.")] = DEFAULT_FOLDER,
    url: Annotated[str, typer.Option(help="Download the archive from here instead.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Download a data set and check it.

    MedQuAD: 14,814 question-answer pairs of nine NIH institutes (Ben Abacha and Demner-Fushman,
    BMC Bioinformatics 20:511, 2019), CC BY 4.0.

    Example: daitn data fetch medquad
    """
    out = out.expanduser()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=errors, transient=True) as bars:
        task = bars.add_task("medquad", total=None)

        def told(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total)

        path = run(_fetch(name, out, url, told))
    if as_json:
        print_json(to_json({"path": str(path)}))
    else:
        screen.print(f"{path} is ready and checked")


async def _fetch(name: str, out: Path, url: str, told: Callable[[int, int | None], None]) -> Path:
    if name != "medquad":
        raise NotFound(f"there is no data set {name}", field="name", fix="use medquad")
    from daitn.learning.corpora.fetch import fetch_medquad

    path = out / "medquad.parquet"
    await asyncio.to_thread(fetch_medquad, path, url or None, told)
    return path


async def _prepare(out: Path) -> Prepared:
    from daitn.learning.corpora.prepare import prepare

    return prepare(out, medquad_path())


@app.command("prepare")
def prepare_command(
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder.")],
    as_json: JsonOption = False,
) -> None:
    """Write the healthcare scenario's data: nine sites and two private test sets.

    Uses MedQuAD if available, otherwise a generated corpus of the same shape.

    Example: daitn data prepare -o data/
    """
    prepared = run(_prepare(out))
    if as_json:
        print_json(to_json(prepared))
    else:
        screen.print(f"{prepared.source}: {len(prepared.sites)} sites, 2 test sets in {out}")
