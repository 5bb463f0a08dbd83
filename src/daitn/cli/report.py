"""`daitn report`: everything about a job in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daitn.cli.get import OriginOption
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    Session,
    connect,
    print_json,
    run,
    screen,
)
from daitn.files.output import write_output
from daitn.oam.report.facts import ReportFacts, gather
from daitn.oam.report.page import page
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import JobId, checked_name
from daitn.objects.wire import to_json

__all__ = ["facts_of", "report"]


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
    """Write a report on a job: a self-contained page to read, print and share.

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
        facts = await facts_of(session, JobId(job), travels=bool(site))
    if out is not None or not as_json:
        write_output(out or Path(f"{job}.html"), page(facts).encode())
    return facts


async def facts_of(session: Session, job: JobId, *, travels: bool = False) -> ReportFacts:
    """Everything known about a job. `travels`: its model travels on its own, and the session is
    with its home. Raises like `gather`."""
    keys = session.identity.orders().sites() if session.identity else None
    center = Session(session.fabric).ask if travels else None
    return await gather(job, session.ask, keys, ask_center=center)
