"""`daitn data`: public data for experiments, and a check of your own data."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from daitn.cli.describe_pages import gaps
from daitn.cli.session import JsonOption, errors, print_json, run, screen
from daitn.cli.tables import plain_table
from daitn.learning.consultant import Consultant
from daitn.learning.corpora.records import is_examination
from daitn.learning.corpora.split import Prepared
from daitn.learning.installed import installed
from daitn.learning.process import ReadingProcess
from daitn.learning.recipe import LEAST_RECORDS, DataProfile, Selection
from daitn.learning.trainer import Trainer
from daitn.node.config import DatasetConfig, NodeConfig, PolicyConfig, TestSetConfig
from daitn.node.descriptor import QUESTIONS, described_dataset, described_test_set
from daitn.node.disclosure import whole
from daitn.objects.descriptors import (
    ANY,
    DatasetDescriptor,
    Role,
    TestSetDescriptor,
)
from daitn.objects.errors import DaitnError, InvalidInput, NotFound
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.text import counted
from daitn.objects.wire import to_json

__all__ = ["app", "medquad_path"]

app = typer.Typer(
    help="Public data for trying things out, and a check of your own.", no_args_is_help=True
)

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
    name: Annotated[str, typer.Argument(help="What to download: `medquad`.")],
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

        def watch(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total)

        path = run(_fetch(name, out, url, watch))
    if as_json:
        print_json(to_json({"path": str(path)}))
    else:
        screen.print(f"{path} is ready and checked")


async def _fetch(name: str, out: Path, url: str, watch: Callable[[int, int | None], None]) -> Path:
    if name != "medquad":
        raise NotFound(f"there is no data set {name}", field="name", fix="use medquad")
    from daitn.learning.corpora.fetch import fetch_medquad

    path = out / "medquad.parquet"
    await asyncio.to_thread(fetch_medquad, path, url or None, watch)
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
        screen.print(
            f"{prepared.source}: {counted(len(prepared.sites), 'site')}, 2 test sets in {out}"
        )


class DataCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a site would publish about a file, and remarks for its owner only."""

    published: DatasetDescriptor | TestSetDescriptor
    columns: tuple[str, ...]
    """For a table: the columns that models learn from, whose names travel with the models."""
    remarks: tuple[str, ...]


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A data set or, with --test, a test set.")],
    schema: Annotated[
        str,
        typer.Option(
            help="Schema of a record; by default `table/1` for `.csv`, `qa-pairs/1` for `.jsonl`, "
            "`multiple-choice/1` with --test."
        ),
    ] = "",
    test: Annotated[bool, typer.Option("--test", help="It is a test set.")] = False,
    label: Annotated[str, typer.Option(help="For a table: the column with the label.")] = "",
    columns: Annotated[
        list[str] | None,
        typer.Option(help="For a table: a column that models may learn from; repeatable."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="For a table: a column to ignore; repeatable.")
    ] = None,
    least_records: Annotated[
        int,
        typer.Option(
            min=LEAST_RECORDS, help="Minimum number of records behind anything that is published."
        ),
    ] = LEAST_RECORDS,
    as_json: JsonOption = False,
) -> None:
    """Read a file as a site would, and show what it would publish, or everything wrong with it.

    The options are the fields of the file's entry in a node's file, and of its policy. Nothing
    leaves this machine.

    Examples:

      daitn data check patients.csv --label diagnosis --ignore patient_id

      daitn data check exam.jsonl --test
    """
    selection = Selection(
        label=label,
        columns=tuple(columns or ()),
        ignore=tuple(ignore or ()),
        least_records=least_records,
    )
    with _not_logged():
        published, profile = run(_checked(file, schema, test, selection))
    if as_json:
        checked = DataCheck(published=published, columns=profile.columns, remarks=profile.remarks)
        print_json(to_json(checked))
    else:
        screen.print(_page(published, profile))


def _schema(file: Path, test: bool) -> str:
    schemas = {".csv": "table/1", ".jsonl": "multiple-choice/1" if test else "qa-pairs/1"}
    if file.suffix.lower() not in schemas:
        raise InvalidInput(
            f"the name of {file} does not reveal its schema",
            field="--schema",
            fix="give it: table/1, qa-pairs/1, multiple-choice/1, or a recipe's own",
        )
    return schemas[file.suffix.lower()]


@contextmanager
def _not_logged() -> Iterator[None]:
    """This command shows what a site writes to its log."""
    logger = logging.getLogger("daitn.node")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


async def _checked(
    file: Path, schema: str, test: bool, selection: Selection
) -> tuple[DatasetDescriptor | TestSetDescriptor, DataProfile]:
    schema = schema or _schema(file, test)
    policy = PolicyConfig(recipes=(ANY,), least_records=selection.least_records)
    table = {name: getattr(selection, name) for name in ("label", "columns", "ignore")}
    trainer = Trainer(threads=1, process=ReadingProcess)
    consultant = Consultant(installed())
    path = str(file.absolute())  # Recipes work in a folder of their own.
    try:
        await consultant.start(trainer)
        if test:
            exam = TestSetConfig(
                topic="-",
                path=path,
                test_schema=schema,
                policy=policy,
                **table,
            )
            return await described_test_set(exam, "test", consultant, trainer)
        data = DatasetConfig(
            name=file.stem,
            path=path,
            data_schema=schema,
            topics=("-",),
            policy=policy,
            **table,
        )
        nobody = NodeConfig(
            site=SiteId("-"), owner=OwnerId("-"), jurisdiction="-", roles=(Role.DATA,), state=""
        )
        return await described_dataset(nobody, data, "data", consultant, trainer)
    except DaitnError as error:
        # The file's owner sees what a site writes to its log.
        full = whole(error)
        if not test and schema == QUESTIONS and is_examination(file):
            raise InvalidInput(
                "this looks like multiple-choice/1", field=str(file), fix="use --test"
            ) from None
        problem, field = (text.replace(path, str(file)) for text in (full.problem, full.field))
        raise type(error)(problem, field=field, fix=full.fix) from None
    finally:
        await trainer.close()
        await consultant.close()


def _counted(labels: Mapping[str, int], profile: DataProfile) -> Iterator[str]:
    """Each label with its number of records, and how many of them are distinct."""
    for label, count in labels.items():
        different = profile.different.get(label, count)
        yield f"{label}: {count:,}" + (f" ({different:,} differ)" if different < count else "")


def _page(published: DatasetDescriptor | TestSetDescriptor, profile: DataProfile) -> Group:
    rows: list[tuple[str, str]] = [
        ("records", f"{_records(published):,}"),
        ("labels", ", ".join(f"{name}: {n:,}" for name, n in published.labels.items()) or "-"),
    ]
    if published.columns is not msgspec.UNSET:
        rows.append(("columns", f"{published.columns:,}"))
    if isinstance(published, DatasetDescriptor):
        rows.append(("quality", f"{published.quality:.3f}: {gaps(published)}"))
        if published.sketch is not None:
            buckets = len(published.sketch.buckets)
            rows.append(("wording", f"{buckets:,} hashed features, unless `sketch: false`"))
    carried = _carried(published, profile)
    private = [("columns, whose names travel with models", ", ".join(profile.columns) or "-")]
    rare = {name: n for name, n in profile.labels.items() if name not in published.labels}
    if rare:
        private.append(("labels with too few records", ", ".join(_counted(rare, profile))))
    private += [("remark", remark) for remark in profile.remarks]
    return Group(
        plain_table("published", ("", ""), rows),
        *carried,
        plain_table("not published", ("", ""), private),
    )


def _records(published: DatasetDescriptor | TestSetDescriptor) -> int:
    return published.samples if isinstance(published, DatasetDescriptor) else published.items


def _carried(
    published: DatasetDescriptor | TestSetDescriptor, profile: DataProfile
) -> Iterator[RenderableType]:
    """What travels with each model that learns from a data set."""
    if isinstance(published, TestSetDescriptor):
        return
    rows = [("weights", "they can remember records")]
    if profile.columns:
        rows.append(("of each column", "its name; mean, deviation and share of values, in steps"))
    yield plain_table("leaves with a model", ("", ""), rows)
