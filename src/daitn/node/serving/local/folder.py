"""`transformers` folders as model parts, which our own engine loads."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from daitn.files.atomic import make_folder, put_in_place, replace_file
from daitn.learning.process import ReadingProcess
from daitn.learning.published import MOST_COPIES
from daitn.learning.recipe import Imported
from daitn.learning.sandbox.policy import Sandbox
from daitn.learning.trainer import Trainer
from daitn.objects.errors import StorageFull

__all__ = ["Parts", "parts_of"]

_MADE, _PARTS = "made.json", "parts"


class Parts(NamedTuple):
    """A model in its recipe's form."""

    folder: Path
    config: dict[str, object]

    @property
    def size_bytes(self) -> int:
        """Size of its files."""
        return sum(path.stat().st_size for path in self.folder.iterdir())


class _Made(msgspec.Struct, frozen=True):
    of: str
    """State of the folder."""
    config: dict[str, object]


async def parts_of(
    folder: Path,
    kept: Path,
    recipe: str,
    size_bytes: int,
    sandbox: Sandbox,
    threads: int,
    room: AbstractContextManager[None],
) -> Parts:
    """The parts of the model in `folder`, in the folder `kept`: made by its recipe, in the sandbox,
    once, and again after the folder has changed.

    `size_bytes`: of its parts, at most. `room` holds memory while they are made.
    Raises what the recipe raises, `WorkFailed`, `StorageFull` and `OSError`.
    """
    state = await asyncio.to_thread(_state, folder)
    made = await asyncio.to_thread(_made, kept)
    if made is not None and made.of == state:
        return Parts(kept / _PARTS, made.config)
    shutil.rmtree(kept, ignore_errors=True)
    make_folder(kept)
    if (free := shutil.disk_usage(kept).free) < size_bytes:
        raise StorageFull(
            f"the model's parts take {size_bytes} bytes of disk, but {free} are free",
            field="state",
            fix="free space, or put `state` on a larger disk",
        )
    limits = sandbox.limits_for(
        memory_bytes=MOST_COPIES * size_bytes, size_bytes=size_bytes, seconds=0, threads=threads
    )
    recipes = Trainer(threads=threads, process=ReadingProcess, sandbox=sandbox)
    try:
        with room, tempfile.TemporaryDirectory(dir=kept) as scratch:
            parts = Path(scratch) / _PARTS
            parts.mkdir()
            imported: Imported = await recipes.import_model(recipe, folder, parts, limits=limits)
            await asyncio.to_thread(put_in_place, parts, kept / _PARTS)
    finally:
        await recipes.close()
    config = dict(imported.config)
    replace_file(kept / _MADE, msgspec.json.encode(_Made(state, config)))
    return Parts(kept / _PARTS, config)


def _state(folder: Path) -> str:
    """State of all files in a folder: names, sizes and times."""
    facts = [
        (path.name, (status := path.stat()).st_size, status.st_mtime_ns)
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]
    return sha256(json.dumps([str(folder), facts]).encode()).hexdigest()


def _made(kept: Path) -> _Made | None:
    try:
        return msgspec.json.decode((kept / _MADE).read_bytes(), type=_Made)
    except (OSError, msgspec.DecodeError):
        return None
