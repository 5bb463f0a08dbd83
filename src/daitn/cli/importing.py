"""`daitn model import`: converts an external model into the parts from which an intent starts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
import yaml

from daitn.cli.models import check_folder, limits_of, recipes_here
from daitn.cli.session import JsonOption, errors, print_json, run, screen
from daitn.files.atomic import put_in_place
from daitn.files.failed_writes import naming
from daitn.learning import memory
from daitn.learning.published import MOST_COPIES, USUAL_COPIES, check_published, weights_bytes
from daitn.learning.recipe import Imported
from daitn.oam.words import size
from daitn.objects.errors import StorageFull
from daitn.objects.wire import to_json

__all__ = ["import_command", "import_folder"]


def import_command(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder in `transformers` format, or with xgboost's `model.json`."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new or empty folder for its parts.")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="The recipe that will train it.")
    ] = "causal-lm",
    as_json: JsonOption = False,
) -> None:
    """Convert a pretrained model into the parts that training starts from.

    Prints what to write under `model` in an intent. Nothing is downloaded, and none of the model's
    code is run.

    Example: daitn model import Llama-3.2-1B/ -o parts/
    """
    imported = run(import_folder(recipe, folder, out))
    if as_json:
        print_json(to_json(imported))
        return
    model = {"recipe": recipe, "start": str(out.absolute()), "config": imported.config}
    errors.print(f"{out} holds its parts. Write into the intent:")
    screen.print(yaml.safe_dump({"model": model}, sort_keys=False), end="", highlight=False)


async def import_folder(recipe: str, folder: Path, out: Path, *, named: str = "folder") -> Imported:
    """Write the parts of the model in `folder` to `out`, a new or empty folder.

    `named`: what errors call `folder`. Raises `NotFound` for a folder that lacks a file,
    `InvalidInput` and `Corrupt` as the recipe does, and `StorageFull` for weights that memory does
    not hold.
    """
    check_published(folder, named, ())  # What else it needs is for the recipe to say.
    check_folder(out)
    weights = weights_bytes(folder)
    _check_memory(folder, weights, named)
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    limits = limits_of(folder, MOST_COPIES, least_bytes=weights)
    with (
        naming(out),
        tempfile.TemporaryDirectory(dir=out.parent) as scratch,
        errors.status(f"reading {folder}"),
    ):
        parts = Path(scratch) / "parts"
        parts.mkdir()
        async with recipes_here() as recipes:
            imported = await recipes.import_model(recipe, folder.absolute(), parts, limits=limits)
        put_in_place(parts, out)
        return imported


def _check_memory(folder: Path, weights: int, named: str) -> None:
    needed, free = USUAL_COPIES * weights, memory.free_bytes()
    if needed > free:
        raise StorageFull(
            f"reading the weights in {folder} takes {size(needed)} of memory, but {size(free)} "
            f"are free",
            field=named,
            fix="use a smaller model, or a machine with more memory",
        )
