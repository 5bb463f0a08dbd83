"""`daitn train`: submit an intent, check its feasibility, follow its job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daitn.cli.job_progress import watch_job
from daitn.cli.models import added_in, check_folder, export_model, recipes_here
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    ExitCode,
    JsonOption,
    Session,
    connect,
    print_json,
    run,
    screen,
)
from daitn.cli.tables import assessment_table, job_table
from daitn.cli.uploads import upload
from daitn.files.yaml_file import read_yaml
from daitn.identity.orders import sign_order
from daitn.objects.decisions import Assessment
from daitn.objects.errors import NotFound, Unreachable
from daitn.objects.identifiers import JobId, checked_name
from daitn.objects.intents import MOST_JOB_NAME, TrainingIntent
from daitn.objects.jobs import JobState, JobView, model_left
from daitn.objects.models import ModelRef
from daitn.objects.orders import SignedOrder, order_until_s
from daitn.objects.requests import AssessIntent, JobList, JobQuery, SubmitIntent
from daitn.objects.wire import checked, to_json
from daitn.tools import clock

__all__ = ["cancel", "read_intent", "resume", "train"]

HomeOption = Annotated[
    str, typer.Option("--site", help="Its home, if the model travels on its own.")
]


def train(
    file: Annotated[Path, typer.Option("-f", "--file", help="Training intent (YAML).")],
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Follow the job to its end; in a pipe, print a line for each change, and its "
            "progress every ten seconds.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only check whether it is feasible, and why; exit code 0 or 3."
        ),
    ] = False,
    insist: Annotated[
        bool, typer.Option("--insist", help="Start even if the targets are expected to be missed.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Follow the job, and export the model to this folder."),
    ] = None,
    autonomous: Annotated[
        bool,
        typer.Option(
            "--autonomous",
            help="Let the model find its own way, without a control centre; needs --site.",
        ),
    ] = False,
    site: Annotated[
        str, typer.Option("--site", help="With --autonomous: the forwarder that is its home.")
    ] = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Train a model over the network's data sites.

    Exit code: 0 the targets hold (or the job is accepted), 1 they were not reached, 2 bad input,
    3 not feasible, 4 nobody answers.

    Examples:

      daitn train -f intent.yaml --dry-run

      daitn train -f intent.yaml --watch -o model/

      daitn train -f intent.yaml --autonomous --site home --watch
    """
    if autonomous != bool(site):
        raise typer.BadParameter("--autonomous and --site go together")
    intent = run(_read(file, out))
    if dry_run:
        assessment = run(_assess(center, site, intent))
        if as_json:
            print_json(to_json(assessment))
        else:
            screen.print(assessment_table(assessment))
        raise typer.Exit(ExitCode.DONE if assessment.feasible else ExitCode.INFEASIBLE)
    job = run(_train(center, site, intent, file.parent, insist, watch, out, as_json))
    if as_json:
        print_json(to_json(job))
    elif job.state.final:
        screen.print(job_table(job))
    else:
        of_site = f" --site {site}" if site else ""
        screen.print(f"job {job.job} is accepted; follow it with: daitn watch {job.job}{of_site}")
    raise typer.Exit(_exit_code(job))


def watch(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    site: HomeOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Follow a job to its end.

    Example: daitn watch healthcare-1
    """
    ended = run(_watch(center, site, JobId(job), as_json))
    if as_json:
        print_json(to_json(ended))
    else:
        screen.print(job_table(ended))
    raise typer.Exit(_exit_code(ended))


def cancel(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    site: HomeOption = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Stop a job; its last verified model stays in the network.

    Example: daitn cancel healthcare-1
    """
    view = run(_cancel(center, site, JobId(job)))
    if as_json:
        print_json(to_json(view))
    else:
        screen.print(f"job {job} is {view.state}")


def resume(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Continue a job that was cancelled, failed or used up its budget from its best model.

    It goes on with what is left of its budget; the time between does not count, and sites that
    failed have another chance. For more budget or other targets, state `model.start: job:JOB` in
    another intent.

    Example: daitn resume healthcare-1
    """
    view = run(_resume(center, JobId(job)))
    if as_json:
        print_json(to_json(view))
    else:
        detail = f": {view.detail}" if view.detail else ""
        screen.print(f"job {job} is {view.state}{detail}; follow it with: daitn watch {job}")


def read_intent(path: Path) -> TrainingIntent:
    """Read and check an intent file. Raises `InvalidInput` naming the field."""
    intent = checked(read_yaml(path, "intent"), TrainingIntent, "intent")
    checked_name(intent.name, "name", MOST_JOB_NAME)
    named = intent.model.start
    start = path.parent / named if named and intent.model.from_job is None else None
    if start is not None and not start.is_dir():
        raise NotFound(
            f"there is no folder {start}", field="model.start", fix="name a folder of model parts"
        )
    return intent


async def _read(path: Path, out: Path | None) -> TrainingIntent:
    if out is not None:
        check_folder(out)
    return read_intent(path)


async def _assess(center: str, site: str, intent: TrainingIntent) -> Assessment:
    async with connect(center, site, intent.owner) as session:
        return await session.ask("assess", AssessIntent(intent=intent), Assessment)


async def _train(
    center: str,
    site: str,
    intent: TrainingIntent,
    folder: Path,
    insist: bool,
    follow: bool,
    out: Path | None,
    quiet: bool,
) -> JobView:
    async with connect(center, site, intent.owner) as session:
        start = None
        if (earlier := intent.model.from_job) is not None and not site:
            start = await _left(session, earlier, intent.model.recipe)
        elif intent.model.start and not site:  # Without a control centre, nobody holds weights.
            parts = folder / intent.model.start
            start = await upload(
                session, intent.model.recipe, parts, leave_out=added_in(parts), quiet=quiet
            )
        order = _ordered(session, intent, start)
        wanted = SubmitIntent(intent=intent, start=start, insist=insist, order=order)
        job = await _submitted(session, wanted)
        if follow or out is not None:
            job = await watch_job(session, job.job, quiet)
        if out is not None and job.model is not None:
            async with recipes_here() as recipes:
                await export_model(session, job.job, out, recipes=recipes)
        return job


async def _left(session: Session, job: JobId, recipe: str) -> ModelRef:
    """The best model of a job. Raises like `model_left`, and `NotFound` if there is no such job."""
    checked_name(job, "model.start")
    try:
        found = await session.ask("jobs", JobQuery(job=job), JobList)
    except NotFound as error:
        raise NotFound(error.problem, field="model.start", fix=error.fix) from None
    return model_left(found.jobs[0], recipe)


def _ordered(
    session: Session, intent: TrainingIntent, start: ModelRef | None
) -> SignedOrder | None:
    if session.identity is None:
        return None
    until_s = order_until_s(intent, clock.wall_s())
    return sign_order(
        intent,
        session.identity.network,
        until_s,
        session.identity.key,
        start=start.manifest if start else None,
    )


async def _submitted(session: Session, wanted: SubmitIntent) -> JobView:
    """Submit, and try once more if no answer came: an order starts only one job."""
    try:
        return await session.ask("submit", wanted, JobView)
    except Unreachable:
        if wanted.order is None:
            raise
        return await session.ask("submit", wanted, JobView)


async def _watch(center: str, site: str, job: JobId, quiet: bool) -> JobView:
    checked_name(job, "job")
    async with connect(center, site) as session:
        return await watch_job(session, job, quiet)


async def _cancel(center: str, site: str, job: JobId) -> JobView:
    checked_name(job, "job")
    async with connect(center, site) as session:
        return await session.ask("cancel", JobQuery(job=job), JobView)


async def _resume(center: str, job: JobId) -> JobView:
    checked_name(job, "job")
    async with connect(center) as session:
        return await session.ask("resume", JobQuery(job=job), JobView)


def _exit_code(job: JobView) -> ExitCode:
    if job.state is JobState.INFEASIBLE:
        return ExitCode.INFEASIBLE
    missed = job.state.final and job.state is not JobState.REACHED
    return ExitCode.NOT_REACHED if missed else ExitCode.DONE
