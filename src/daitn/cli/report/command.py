"""`daitn report`: everything about a job in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daitn.cli.get import OriginOption
from daitn.cli.report.facts import ReportFacts, gather
from daitn.cli.report.page import page
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    connect,
    print_json,
    run,
    screen,
)
from daitn.files.atomic import replace_file
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import JobId, checked_name
from daitn.objects.wire import to_json

__all__ = ["report"]


def report(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The HTML file; by default `JOB.html`, here."),
    ] = None,
    site: OriginOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Write a report on a job: a page that loads nothing, to read, print and pass on.

    It may still run, or have failed. With --json all facts are printed, and no file is written
    without -o.

    Examples:

      daitn report healthcare-1 -o report.html

      daitn report healthcare-1 --json
    """
    facts = run(_written(center, site, job, out, as_json))
    if as_json:
        print_json(to_json(facts))
    else:
        screen.print(f"report on {job} is in {out or f'{job}.html'}")


async def _written(
    center: str, site: str, job: str, out: Path | None, as_json: bool
) -> ReportFacts:
    checked_name(job, "job")
    if out is not None and out.is_dir():
        raise InvalidInput(f"{out} is a folder", field="--out", fix="name a file, such as r.html")
    async with connect(center, site) as session:
        facts = await gather(session, JobId(job), travels=bool(site))
    if out is not None or not as_json:
        replace_file(out or Path(f"{job}.html"), page(facts).encode())
    return facts
