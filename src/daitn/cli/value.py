"""`daitn value`: each data set's contribution to a model."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

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
from daitn.cli.tables import plain_table
from daitn.oam.words import value_words
from daitn.objects.identifiers import JobId, checked_name
from daitn.objects.value import (
    MOST_MEASURED,
    VALUED_WITHIN_S,
    Contributions,
    Valuation,
    ValueOfData,
    ValueQuestion,
)
from daitn.objects.wire import to_json

__all__ = ["value"]

_ASK_EVERY_S = 0.5


def value(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="First merge and measure updates of subsets of each round's sites, to divide its "
            "gain by Shapley values. The job must have ended.",
        ),
    ] = False,
    coalitions: Annotated[
        int,
        typer.Option("--coalitions", min=2, max=1000, help="Maximum number of models to measure."),
    ] = MOST_MEASURED,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, max=1440.0, help="Maximum time for measuring.")
    ] = VALUED_WITHIN_S / 60,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Show each data set's contribution to a job's model. A data owner sees its own share.

    Examples:

      daitn value healthcare-1

      daitn value healthcare-1 --measure --coalitions 64
    """
    question = ValueQuestion(
        job=JobId(job), measure=measure, coalitions=coalitions, within_s=60.0 * minutes
    )
    found = run(_value(center, question))
    if as_json:
        print_json(to_json(found))
    else:
        screen.print(_table(found))


async def _value(center: str, question: ValueQuestion) -> ValueOfData:
    """The value, after measuring has ended if it was requested."""
    checked_name(question.job, "job")
    async with connect(center) as session:
        found = await session.ask("value", question, ValueOfData)
        while question.measure and found.valuation is Valuation.UNDER_WAY:
            found = await _again(session, question.job)
        return found


async def _again(session: Session, job: JobId) -> ValueOfData:
    await asyncio.sleep(_ASK_EVERY_S)
    return await session.ask("value", ValueQuestion(job=job), ValueOfData)


def _table(value: ValueOfData) -> RenderableType:
    names = list(value.credits[0].value) if value.credits else []
    rows = [
        (
            credit.site,
            credit.dataset,
            credit.owner,
            credit.visits,
            credit.examples,
            *(f"{credit.value[n]:+.3f}±{credit.standard_error[n]:.3f}" for n in names),
        )
        for credit in value.credits
    ]
    if value.gain and rows:
        rows.append(("together", "", "", "", "", *(f"{value.gain[n]:+.3f}" for n in names)))
    title = "" if value.method is Contributions.NONE else f"value of data, by {value.method}"
    columns = ("site", "data set", "owner", "visits", "examples", *names)
    parts: list[RenderableType] = [plain_table(title, columns, rows)] if rows else []
    return Group(*parts, Text(value_words(value)))
