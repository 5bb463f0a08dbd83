"""`daitn model export` and `verify`: trained models with their lineage and a card."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from daitn.cli.card import model_card
from daitn.cli.identity import site_keys
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
from daitn.files.atomic import put_in_place
from daitn.identity.signing import check_model, read_advert
from daitn.learning.process import ReadingProcess
from daitn.learning.recipe import Form
from daitn.learning.sandbox.policy import Limits, Sandbox
from daitn.learning.trainer import Trainer
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound, Unreachable
from daitn.objects.identifiers import JobId, SiteId
from daitn.objects.jobs import JobView
from daitn.objects.lineage import Lineage, ancestry
from daitn.objects.models import CHUNK_BYTES, Manifest
from daitn.objects.requests import JobQuery, TrainedModel
from daitn.objects.wire import canonical, to_json
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.manifests import checked_manifest, digest_of
from daitn.tools.mobility.transport import ChunkTransport
from daitn.topology.snapshot import NodeList

__all__ = [
    "added_in",
    "check_folder",
    "export_command",
    "export_model",
    "limits_of",
    "read_keys",
    "recipes_here",
    "verify_command",
    "verify_folder",
]

T = TypeVar("T")

STORE_TIMEOUT_S = 30.0
LINEAGE = "lineage.json"
CARD = "README.md"
MANIFEST = "manifest.json"
_ADDED = frozenset({LINEAGE, CARD, MANIFEST})
_BESIDE = frozenset({"config.json", "predict.py"})
"""What recipes may add to their parts."""
_MOST_KEYS_BYTES = 64 << 20
_COPIES = 2
"""Of a model in memory while it takes another form: float16 is float32 there, and what is written
lies beside what was read."""


KeysOption = Annotated[
    Path | None,
    typer.Option("--keys", help="JSON file with the public key of each site, as you know them."),
]


def export_command(
    job: Annotated[str, typer.Argument(help="The job that trained it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new or empty folder.")],
    site: Annotated[
        str, typer.Option("--site", help="Its origin, if the model travelled on its own.")
    ] = "",
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="`parts`: as it travels, to verify and to train on; `hf`: a folder "
            "of transformers; `peft`: adapters for peft and vLLM, with their base; `merged`: "
            "transformers, the adapters merged in; `gguf`: the same for llama.cpp; `xgboost`: "
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
    folder: Annotated[Path, typer.Argument(help="What `daitn model export` wrote.")],
    keys_file: KeysOption = None,
    center: CenterOption = DEFAULT_CENTER,
    as_json: JsonOption = False,
) -> None:
    """Check an exported model without a network: parts, manifest, lineage and signatures.

    The roster in the network's folder says which key is whose; where there is none, or for sites
    that have left, `--keys` does.

    Example: daitn model verify model/ --keys keys.json
    """
    pinned = run(_pinned(center, keys_file))
    lineage = run(_verified(folder, pinned))
    if as_json:
        print_json(to_json(lineage))
        return
    signed = {entry.fact.site: entry.public_key for entry in lineage.entries}
    screen.print(f"{folder} is the model that its {len(lineage.entries)} signed entries made")
    if pinned is None:
        screen.print("compare these keys with your network's, or state them with --keys:")
        for site, key in sorted(signed.items()):
            screen.print(f"  {site} {key}")


def verify_folder(folder: Path, keys_: Mapping[SiteId, str] | None = None) -> Lineage:
    """Check an exported folder; returns its lineage.

    Raises `NotFound` for a missing file, and `Corrupt` for a model that is not what it says.
    """
    manifest = _read(folder / MANIFEST, Manifest)
    lineage = _read(folder / LINEAGE, Lineage)
    checked_manifest(manifest)
    check_model(lineage, digest_of(canonical(manifest)), keys_)
    named = {part.name for part in manifest.parts}
    if {path.name for path in folder.iterdir()} - _ADDED - (_BESIDE - named) != named:
        raise Corrupt(
            f"{folder} does not hold the parts that its manifest names",
            field="manifest",
            fix="export the model again",
        )
    for part in manifest.parts:
        with (folder / part.name).open("rb") as file:
            chunks = tuple(digest_of(chunk) for chunk in iter(lambda: file.read(CHUNK_BYTES), b""))
        if chunks != part.chunks:
            raise Corrupt(
                f"{part.name} is not what the manifest says",
                field=part.name,
                fix="export the model again",
            )
    return lineage


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
    In another `form` than parts there is no manifest.

    `recipes` runs recipes: without it, parts are all that can be had, and nothing is added to them.
    `keys_`: the sites' public keys; without them, those in the session's roster. Only in a network
    without a roster is the control centre's directory asked for them, and the sites that it does
    not know are asked themselves. Raises `Corrupt` for a model that is
    not the one that its lineage ends with, and `InvalidInput` for a form that its recipe does not
    have.
    """
    check_folder(out)
    trained = await session.ask("lineage", JobQuery(job=job), TrainedModel)
    model = trained.job.model
    if model is None:
        raise Corrupt(f"{job} has a lineage and no model", field="job.model", fix="ask again")
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
        if taken := sorted(_ADDED & {part.name for part in manifest.parts}):
            raise Corrupt(
                f"a part is called {taken[0]}, as what an export adds",
                field="manifest",
                fix="do not use this model; ask its owner where it comes from",
            )
        parts, formed = Path(scratch) / "parts", Path(scratch) / "formed"
        for folder in (parts, formed):
            folder.mkdir()
        store.unpack(manifest, parts)
        usage = await _formed(trained.job, form, recipes, parts, formed)
        if form is Form.PARTS:
            for path in formed.iterdir():
                if path.name in _BESIDE - {part.name for part in manifest.parts}:
                    put_in_place(path, parts / path.name)
            (parts / MANIFEST).write_text(to_json(manifest) + "\n")
            formed = parts
        for path in formed.iterdir():
            put_in_place(path, out / path.name)
    (out / LINEAGE).write_text(to_json(trained.lineage) + "\n")
    (out / CARD).write_text(model_card(trained, usage))
    return trained


@contextlib.asynccontextmanager
async def recipes_here(threads: int = 1) -> AsyncIterator[Trainer]:
    """What runs recipes for a command."""
    recipes = Trainer(threads=threads, process=ReadingProcess)
    try:
        yield recipes
    finally:
        await recipes.close()


def limits_of(folder: Path, copies: int, *, least_bytes: int = 0) -> Limits:
    """What may be taken to read and write a folder of weights, so often in memory at most.

    `least_bytes`: of what is written, if it may be more than is read.
    """
    read_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    size_bytes = max(read_bytes, least_bytes)
    return Sandbox().limits_for(
        memory_bytes=copies * size_bytes, size_bytes=size_bytes, seconds=0, threads=1
    )


async def _formed(job: JobView, form: Form, recipes: Trainer | None, parts: Path, out: Path) -> str:
    """Have the recipe write another form, or what belongs beside the parts; returns how it is
    used."""
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
    """Names in a folder of parts that an export has added to them."""
    named = set[str]()
    with contextlib.suppress(NotFound, Corrupt):
        named = {part.name for part in _read(folder / MANIFEST, Manifest).parts}
    return _ADDED | (_BESIDE - named) if named else _ADDED


def check_folder(out: Path) -> None:
    """Raise `InvalidInput` unless `out` is new or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput(f"{out} is not an empty folder", field="--out", fix="name a new folder")


async def _export(
    center: str, site: str, job: JobId, out: Path, form: Form, keys_file: Path | None
) -> TrainedModel:
    pinned = await _pinned(center, keys_file)
    async with connect(center, site) as session, recipes_here() as recipes:
        return await export_model(session, job, out, pinned, form=form, recipes=recipes)


async def _pinned(center: str, keys_file: Path | None) -> dict[SiteId, str] | None:
    return read_keys(keys_file) if keys_file else site_keys(center)


async def _verified(folder: Path, keys_: Mapping[SiteId, str] | None) -> Lineage:
    return verify_folder(folder, keys_)


async def _keys(fabric: Fabric, sites: Iterable[SiteId]) -> dict[SiteId, str]:
    """The sites' public keys, as the control centre's directory, or else each site, says them."""
    known: dict[SiteId, str] = {}
    with contextlib.suppress(NotFound, Unreachable):
        directory = await Session(fabric).ask("nodes", JobQuery(job=JobId("")), NodeList)
        known = {n.descriptor.site: n.descriptor.public_key for n in directory.nodes}
    for site in set(sites) - known.keys():
        with contextlib.suppress(NotFound, Unreachable):
            key = keys.site_do(site, "describe")
            node = read_advert(await fabric.request(key, b"", timeout_s=STORE_TIMEOUT_S))
            if node.site == site:
                known[site] = node.public_key
    return known


def read_keys(path: Path) -> dict[SiteId, str]:
    """Read a JSON file of sites and their public keys.

    Raises `NotFound` or `InvalidInput`.
    """
    try:
        return _read(path, dict[SiteId, str])
    except Corrupt as error:
        raise InvalidInput(error.problem, field="--keys", fix="write {site: key}") from None


def _read(path: Path, kind: type[T]) -> T:
    if not path.is_file():
        raise NotFound(f"no file {path}", field=str(path), fix="export the model again")
    if path.stat().st_size > _MOST_KEYS_BYTES:
        raise Corrupt(f"{path} is too large", field=str(path), fix="export the model again")
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{path}: {error}", field=str(path), fix="export the model again") from None
