"""`daitn explain`: why a job goes where it goes, and how a query found its model."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from daitn.cli.get import OriginOption
from daitn.cli.queries import explained_query, query_table
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    connect,
    print_json,
    run,
    screen,
)
from daitn.cli.tables import assessment_table, decided_table, decision_table, decisions_table
from daitn.oam.words import setback_lines
from daitn.objects.errors import NotFound
from daitn.objects.identifiers import JobId, checked_name
from daitn.objects.jobs import Decided, JobView
from daitn.objects.requests import DecisionList, JobList, JobQuery, QueryExplained
from daitn.objects.wire import to_json

__all__ = ["explain"]


def explain(
    job: Annotated[str, typer.Argument(help="A job's id, or a query's: `site:number`.")],
    decision: Annotated[
        int | None,
        typer.Option(
            "--decision", min=1, help="For a job: only this decision, in full; the first is 1."
        ),
    ] = None,
    site: OriginOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Explain a job's feasibility and route, or how a query found its model.

    Examples:

      daitn explain healthcare-1

      daitn explain healthcare-1 --decision 3

      daitn explain metals-home-1 --site home

      daitn explain gateway:17
    """
    if ":" in job and decision is not None:
        raise typer.BadParameter("only jobs have numbered decisions", param_hint="--decision")
    if ":" in job:
        _show_query(run(explained_query(center, job)), as_json)
        return
    view, made = run(_job_with_decisions(center, site, job, decision))
    if decision is not None:
        one = made[decision - 1]
        if as_json:
            print_json(to_json(one))
        else:
            screen.print(decided_table(one, len(made)))
        return
    if as_json:
        shown = {
            "assessment": view.assessment,
            "decision": view.decision,
            "decisions": made,
            "disagreements": view.disagreements,
            "setbacks": view.setbacks,
            "excluded": view.excluded,
        }
        print_json(to_json(shown))
        return
    parts: list[RenderableType] = []
    if view.assessment is not None:
        parts.append(assessment_table(view.assessment))
    parts += [Text(f"not counted: {one}") for one in view.disagreements]
    parts += [Text(f"set back: {one}") for one in setback_lines(view)]
    if made:
        parts += [decisions_table(made), decided_table(made[-1], len(made))]
    screen.print(Group(*parts))


async def _job_with_decisions(
    center: str, site: str, job: str, wanted: int | None
) -> tuple[JobView, tuple[Decided, ...]]:
    """Raises `NotFound` if the job has no decision with that number."""
    query = JobQuery(job=JobId(checked_name(job, "job")))
    async with connect(center, site) as session:
        view = (await session.ask("jobs", query, JobList)).jobs[0]
        made = (await session.ask("decisions", query, DecisionList)).decisions
    if wanted is not None and wanted > len(made):
        has = f"decisions 1 to {len(made)}" if made else "no decision yet"
        raise NotFound(f"{job} has {has}", field="--decision", fix="name one of them")
    return view, made


def _show_query(explained: QueryExplained, as_json: bool) -> None:
    if as_json:
        print_json(to_json(explained))
        return
    screen.print(query_table(explained.query))
    if explained.undecided:
        screen.print(f"no decision to show: {explained.undecided}", highlight=False)
    else:
        screen.print(decision_table(explained.decision))
