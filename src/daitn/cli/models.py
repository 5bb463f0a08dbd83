"""`daitn model export` and `verify`: trained models, with the evidence that others need to trust
them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from daitn.cli.handover.folder import ADDED, BESIDE, MANIFEST, read
from daitn.cli.handover.signers import Signers, read_keys, rostered
from daitn.cli.handover.summary import summary
from daitn.cli.handover.verifying import VerifiedModel, verify_folder
from daitn.cli.handover.writing import Hand, write_handover
from daitn.cli.identity import roster_file, site_keys
from daitn.cli.session import (
    DEFAULT_CENTER,
    CenterOption,
    JsonOption,
    Session,
    connect,
    errors,
    print_json,
    run,
    screen,
)
from daitn.cli.times import moment
from daitn.files.atomic import put_in_place
from daitn.files.failed_writes import naming
from daitn.identity.signing import check_model, read_advert
from daitn.learning.process import ReadingProcess
from daitn.learning.recipe import Form
from daitn.learning.sandbox.policy import Limits, Sandbox
from daitn.learning.trainer import Trainer
from daitn.objects.descriptors import DatasetDescriptor
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound, Refused, Unreachable
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.jobs import JobView
from daitn.objects.lineage import ancestry
from daitn.objects.models import DO_NOT_USE, Manifest
from daitn.objects.requests import EVERYTHING, JobQuery, TrainedModel
from daitn.objects.wire import to_json
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.transport import ChunkTransport
from daitn.topology.snapshot import NodeList

__all__ = [
    "added_in",
    "check_folder",
    "export_command",
    "export_model",
    "limits_of",
    "recipes_here",
    "verify_command",
]

STORE_TIMEOUT_S = 30.0
_COPIES = 2
"""Copies of a model in memory during conversion: float16 is float32 there, and the output is held
beside the input."""


KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", help="JSON file with the known public key of each site."),
]


def export_command(
    job: Annotated[str, typer.Argument(help="The job that trained it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new or empty folder.")],
    site: Annotated[
        str, typer.Option("--site", help="Its home, if the model travelled on its own.")
    ] = "",
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="`parts`: as it travels, to verify and train further; `hf`: a transformers "
            "folder; `peft`: adapters for peft and vLLM, with their base; `merged`: a "
            "transformers folder with merged adapters; `gguf`: the same for llama.cpp; `xgboost`: "
            "boosted trees for xgboost.",
        ),
    ] = Form.PARTS,
    keys_file: KeysOption = None,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Fetch a job's best verified model from its holders, with lineage and model card.

    Example: daitn model export healthcare-1 -o model/ --format peft
    """
    trained = run(_export(center, site, JobId(job), out, form, keys_file))
    if as_json:
        print_json(to_json(trained))
    else:
        screen.print(f"{job} is in {out}: weights, lineage.json and README.md")


def verify_command(
    folder: Annotated[Path, typer.Argument(help="A folder from `daitn model export`.")],
    roster: Annotated[
        Path | None,
        typer.Option(
            "--roster",
            help="The network's `roster.json`; by default that of the network in use.",
        ),
    ] = None,
    keys_file: KeysOption = None,
    as_of: Annotated[
        str,
        typer.Option(
            "--as-of",
            help="Day (UTC) on which to apply the roster, like 2026-10-01; by default today.",
        ),
    ] = "",
    unsigned: Annotated[
        bool,
        typer.Option("--unsigned", help="Accept a folder that nobody in the roster signed."),
    ] = False,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Check an exported model without a network: its exporter, lineage, statements and weights.

    A roster says which key is whose; for sites that have left it, `--keys` does.

    Example: daitn model verify model/ --roster roster.json
    """
    signers = run(_signers(center, roster, keys_file, as_of))
    verified = run(_verified(folder, signers, unsigned))
    if as_json:
        print_json(to_json(verified))
        return
    for line in summary(folder, verified, signers):
        screen.print(line)


async def export_model(
    session: Session,
    job: JobId,
    out: Path,
    keys_: Mapping[SiteId, str] | None = None,
    *,
    form: Form = Form.PARTS,
    recipes: Trainer | None = None,
) -> TrainedModel:
    """Write the model's parts, its manifest, its checked lineage and its card to the folder `out`.
    In any other `form` there is no manifest.

    `recipes` runs recipes: without it, parts are all that can be had, and nothing is added to them.
    `keys_`: the sites' public keys; without them, those in the session's roster. Only in a network
    without a roster are they those of the control centre's sites; the sites that it does not know
    are asked themselves. Raises `Corrupt` for a model that is
    not the one that its lineage ends with, and `InvalidInput` for a form that its recipe does not
    have.
    """
    check_folder(out)
    hand = _hand(session.identity)
    trained = await session.ask("lineage", JobQuery(job=job), TrainedModel)
    model = trained.job.model
    if model is None:
        raise Corrupt(f"{job} has a lineage but no model", field="job.model", fix="ask again")
    lineage = ancestry(trained.lineage, model.manifest)
    sites = {entry.fact.site for entry in lineage.entries}
    if keys_ is None and session.identity is not None:
        keys_ = session.identity.orders().sites()
    if keys_ is None:
        keys_ = await _keys(session.fabric, sites)
    check_model(lineage, model.manifest, keys_)
    trained = msgspec.structs.replace(trained, lineage=lineage)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        store = DiskBlobStore(Path(scratch) / "store")
        transport = ChunkTransport(session.fabric, SiteId("owner"), store)
        try:
            await transport.fetch(model, lambda done, total: None)
        finally:
            await transport.close()
        manifest = store.manifest(model.manifest)
        if taken := sorted(ADDED & {part.name for part in manifest.parts}):
            raise Corrupt(
                f"a part is called {taken[0]}, like a file that the export adds",
                field="manifest",
                fix=DO_NOT_USE,
            )
        parts, formed = Path(scratch) / "parts", Path(scratch) / "formed"
        for folder in (parts, formed):
            folder.mkdir()
        store.unpack(manifest, parts)
        usage = await _formed(trained.job, form, recipes, parts, formed)
        if form is Form.PARTS:
            for path in formed.iterdir():
                if path.name in BESIDE - {part.name for part in manifest.parts}:
                    put_in_place(path, parts / path.name)
            (parts / MANIFEST).write_text(to_json(manifest) + "\n")
            formed = parts
        for path in formed.iterdir():
            put_in_place(path, out / path.name)
    write_handover(
        out,
        trained,
        form,
        await _datasets(session.fabric),
        hand,
        clock.wall_s(),
        usage,
    )
    return trained


def _hand(identity: Identity | None) -> Hand | None:
    """The exporter; none on a fabric without signatures."""
    if identity is None:
        return None
    member = identity.members().get(identity.key.public)
    if member is None:
        raise Refused(
            f"the roster of {identity.network} does not have this key, which would sign the export",
            field="DAITN_KEY",
            fix="name the file of your key, or get the current roster: `daitn network roster`",
        )
    return Hand(identity.key, member, identity.network)


async def _datasets(fabric: Fabric) -> tuple[DatasetDescriptor, ...]:
    """The available data sets, as known to the control centre; none if nobody answers."""
    with contextlib.suppress(DaitnError):
        nodes = await Session(fabric).ask("nodes", EVERYTHING, NodeList)
        return tuple(d for node in nodes.nodes for d in node.descriptor.datasets)
    return ()


@contextlib.asynccontextmanager
async def recipes_here(threads: int = 1) -> AsyncIterator[Trainer]:
    """Runs recipes for a command."""
    recipes = Trainer(threads=threads, process=ReadingProcess)
    try:
        yield recipes
    finally:
        await recipes.close()


def limits_of(folder: Path, copies: int, *, least_bytes: int = 0) -> Limits:
    """Limits for reading and writing a folder of weights, with at most this many copies in memory.

    `least_bytes`: of what is written, if it may be more than is read.
    """
    read_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    size_bytes = max(read_bytes, least_bytes)
    return Sandbox().limits_for(
        memory_bytes=copies * size_bytes, size_bytes=size_bytes, seconds=0, threads=1
    )


async def _formed(job: JobView, form: Form, recipes: Trainer | None, parts: Path, out: Path) -> str:
    """Have the recipe write another form, or its additions to the parts; returns how to use it."""
    try:
        if recipes is not None:
            exported = await recipes.export_model(
                job.recipe,
                parts.absolute(),
                job.config,
                form,
                out.absolute(),
                limits=limits_of(parts, _COPIES),
            )
            return exported.usage
    except DaitnError as error:
        if form is not Form.PARTS:
            raise
        errors.print(f"the parts are all that is exported: {error.problem}")
    return ""


def added_in(folder: Path) -> frozenset[str]:
    """Names of files that an export has added to a folder of parts."""
    named = set[str]()
    with contextlib.suppress(NotFound, Corrupt):
        named = {part.name for part in read(folder / MANIFEST, Manifest).parts}
    return ADDED | (BESIDE - named) if named else ADDED


def check_folder(out: Path) -> None:
    """Raise `InvalidInput` unless `out` is a new or empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput(f"{out} is not an empty folder", field="--out", fix="name a new folder")


async def _export(
    center: str, site: str, job: JobId, out: Path, form: Form, keys_file: Path | None
) -> TrainedModel:
    pinned = await _pinned(center, keys_file)
    async with connect(center, site) as session, recipes_here() as recipes:
        with naming(out):
            return await export_model(session, job, out, pinned, form=form, recipes=recipes)


async def _pinned(center: str, keys_file: Path | None) -> dict[SiteId, str] | None:
    return read_keys(keys_file) if keys_file else site_keys(center)


async def _signers(center: str, roster: Path | None, keys_file: Path | None, as_of: str) -> Signers:
    """The owners of keys: from a roster's file, or that of the network at `center`, and from
    keys."""
    now_s = clock.wall_s()
    at_s = moment(as_of, "--as-of", now_s, now_s)
    known = read_keys(keys_file) if keys_file else {}
    path = roster or (None if keys_file else roster_file(center))
    return Signers(known) if path is None else rostered(path, at_s, known)


async def _verified(folder: Path, signers: Signers, unsigned: bool) -> VerifiedModel:
    return verify_folder(folder, signers, unsigned=unsigned)


async def _keys(fabric: Fabric, sites: Iterable[SiteId]) -> dict[SiteId, str]:
    """The sites' public keys, as the control centre knows them, or else from each site."""
    known: dict[SiteId, str] = {}
    with contextlib.suppress(NotFound, Unreachable):
        nodes = await Session(fabric).ask("nodes", EVERYTHING, NodeList)
        known = {n.descriptor.site: n.descriptor.public_key for n in nodes.nodes}
    for site in set(sites) - known.keys():
        with contextlib.suppress(NotFound, Unreachable):
            key = keys.site_do(site, "describe")
            node = read_advert(await fabric.request(key, b"", timeout_s=STORE_TIMEOUT_S))
            if node.site == site:
                known[site] = node.public_key
    return known
