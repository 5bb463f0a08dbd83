"""`daitn model`: import weights, and export trained models with their lineage and a card."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from daitn.cli.card import model_card
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
from daitn.identity.signing import check_lineage
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import CENTER_SITE, JobId, SiteId
from daitn.objects.models import ModelRef
from daitn.objects.requests import JobQuery, TrainedModel
from daitn.objects.wire import to_json
from daitn.tools.fabric import keys
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.transport import ChunkTransport

__all__ = ["app", "check_folder", "export_model", "upload"]

STORE_TIMEOUT_S = 30.0
LINEAGE = "lineage.json"
CARD = "README.md"

app = typer.Typer(help="Trained models.", no_args_is_help=True)


@app.command("export")
def export_command(
    job: Annotated[str, typer.Argument(help="The job that trained it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new or empty folder.")],
    site: Annotated[
        str, typer.Option("--site", help="Its origin, if the model travelled on its own.")
    ] = "",
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Fetch a job's best verified model from its holders, with lineage and model card.

    Example: daitn model export healthcare-1 -o model/
    """
    trained = run(_export(center, site, JobId(job), out))
    if as_json:
        print_json(to_json(trained))
    else:
        screen.print(f"{job} is in {out}: weights, lineage.json and README.md")


async def export_model(session: Session, job: JobId, out: Path) -> TrainedModel:
    """Write the model's parts, its checked lineage and its card to the folder `out`."""
    check_folder(out)
    trained = await session.ask("lineage", JobQuery(job=job), TrainedModel)
    check_lineage(trained.lineage, trained.keys)
    assert trained.job.model is not None
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        store = DiskBlobStore(Path(scratch))
        transport = ChunkTransport(session.fabric, SiteId("owner"), store)
        try:
            await transport.fetch(trained.job.model, lambda done, total: None)
        finally:
            await transport.close()
        store.unpack(store.manifest(trained.job.model.manifest), out)
    (out / LINEAGE).write_text(to_json(trained.lineage) + "\n")
    (out / CARD).write_text(model_card(trained))
    return trained


def check_folder(out: Path) -> None:
    """Raise `InvalidInput` unless `out` is new or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput(f"{out} is not an empty folder", field="--out", fix="name a new folder")


async def upload(session: Session, recipe: str, folder: Path) -> ModelRef:
    """Upload a folder of parts to the control centre, which holds it for the first site.

    Skips what an export adds to a model's parts, so that an exported folder can be used.
    """
    with tempfile.TemporaryDirectory() as scratch:
        parts = Path(scratch) / "parts"
        parts.mkdir()
        for part in sorted(folder.iterdir()):
            if not part.is_file():
                raise InvalidInput(
                    f"{part} is no file", field="model.start", fix="name a folder of parts only"
                )
            if part.name not in (LINEAGE, CARD):
                shutil.copyfile(part, parts / part.name)
        store = DiskBlobStore(Path(scratch) / "blobs")
        digest, manifest = store.pack(recipe, parts)
        chunks = {chunk for part in manifest.parts for chunk in part.chunks}
        for blob in (*sorted(chunks), digest):
            await session.fabric.request(
                keys.center_do("store"), store.read(blob), timeout_s=STORE_TIMEOUT_S
            )
    return ModelRef(manifest=digest, size_bytes=manifest.size_bytes, holders=(CENTER_SITE,))


async def _export(center: str, site: str, job: JobId, out: Path) -> TrainedModel:
    async with connect(center, site) as session:
        return await export_model(session, job, out)
