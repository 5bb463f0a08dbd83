"""The files of an exported folder, none of which is trusted."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from daitn.cli.handover.comparing import difference
from daitn.identity.dsse import AGAIN, plain_json
from daitn.identity.model_signing import SIGNATURE
from daitn.objects.digests import digest_of
from daitn.objects.errors import Corrupt, NotFound
from daitn.objects.identifiers import Digest
from daitn.objects.models import CHUNK_BYTES
from daitn.objects.wire import to_json

__all__ = [
    "ADDED",
    "BESIDE",
    "BILL",
    "CARD",
    "CONFIG",
    "DATASETS",
    "EXPORTER",
    "EXPORTER_KEY",
    "LINEAGE",
    "MANIFEST",
    "PROGRAM",
    "PROVENANCE",
    "SIGNED",
    "STATEMENTS",
    "WRITTEN",
    "files_in",
    "hashed",
    "other_line_ends",
    "read",
    "read_bytes",
    "read_whole",
]

T = TypeVar("T")

LINEAGE: Final = "lineage.json"
CARD: Final = "README.md"
MANIFEST: Final = "manifest.json"
PROVENANCE: Final = "provenance"
EXPORTER_KEY: Final = f"{PROVENANCE}/exporter.pem"
EXPORTER: Final = f"{PROVENANCE}/exporter.dsse.json"
STATEMENTS: Final = f"{PROVENANCE}/statements.intoto.jsonl"
BILL: Final = f"{PROVENANCE}/bom.cdx.json"
DATASETS: Final = f"{PROVENANCE}/datasets"
CONFIG: Final = "config.json"
PROGRAM: Final = "predict.py"
ADDED: Final = frozenset({LINEAGE, CARD, MANIFEST, SIGNATURE, PROVENANCE})
"""Files that an export adds to a model's parts."""
SIGNED: Final = frozenset({SIGNATURE, EXPORTER, EXPORTER_KEY, STATEMENTS})
"""Absent if nobody signed."""
WRITTEN: Final = SIGNED | {LINEAGE, CARD, MANIFEST, BILL}
"""Files that an export writes, beside those in `DATASETS`."""
BESIDE: Final = frozenset({CONFIG, PROGRAM})
"""Files that recipes may add to their parts."""
_MOST_FILES: Final = 20_000
_DEEPEST: Final = 8
_MOST_BYTES: Final = 64 << 20
"""Maximum size of a file that is read whole."""


def files_in(folder: Path) -> dict[str, Path]:
    """Every file in a folder and in those below it, by its path there, with `/`.

    Raises `NotFound` if it is not a folder, and `Corrupt` if it holds anything but files and
    folders: what a link leads to is not what was handed over.
    """
    if not folder.is_dir():
        raise NotFound(f"no folder {folder}", field="FOLDER", fix="name what was exported")
    found: dict[str, Path] = {}
    _gather(folder, "", found)
    return found


def _gather(folder: Path, before: str, found: dict[str, Path]) -> None:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = before + entry.name
        if not name.isprintable():
            raise Corrupt(f"a file has the name {name!a}", field="FOLDER", fix=AGAIN)
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and name.count("/") < _DEEPEST:
            _gather(Path(entry.path), f"{name}/", found)
        elif stat.S_ISREG(mode) and len(found) < _MOST_FILES:
            found[name] = Path(entry.path)
        else:
            kind = "a link" if stat.S_ISLNK(mode) else "no file"
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                kind = f"more than {_MOST_FILES} files, or {_DEEPEST} folders deep,"
            raise Corrupt(f"{name} is {kind} in what was exported", field=name, fix=AGAIN)


def read_bytes(path: Path, field: str, most_bytes: int = _MOST_BYTES) -> bytes:
    """A whole file. Raises `NotFound` if it is missing, and `Corrupt` if it is too large."""
    if not path.is_file():
        raise NotFound(
            f"no file {path}",
            field=field,
            fix=f"put {path.name} back if you have moved it out of the folder; else {AGAIN}",
        )
    if path.stat().st_size > most_bytes:
        raise Corrupt(f"{path} has more than {most_bytes} bytes", field=field, fix=AGAIN)
    return path.read_bytes()


def read(path: Path, kind: type[T], most_bytes: int = _MOST_BYTES) -> T:
    """A JSON file. Raises like `read_bytes`, and `Corrupt` for invalid content."""
    try:
        return msgspec.json.decode(read_bytes(path, str(path), most_bytes), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{path}: {error}", field=str(path), fix=AGAIN) from None


def read_whole(folder: Path, name: str, kind: type[T]) -> T:
    """A JSON file of an export, of which nothing is ignored. Raises like `read`, and `Corrupt` for
    what nobody would check."""
    value = read(folder / name, kind)
    stated = plain_json(read_bytes(folder / name, name), name)
    known = plain_json(to_json(value).encode(), name)
    if found := difference(stated, known, whole=False):
        raise Corrupt(
            f"{found.path} is nothing that an export says there, and is not signed",
            field=f"{name}:{found.path}",
            fix=AGAIN,
        )
    return value


def other_line_ends(name: str) -> Corrupt:
    """The error about a file that is as it was, but for its line ends."""
    return Corrupt(
        f"{name} is what the exporter signed but for its line ends, which are CRLF now",
        field=name,
        fix="copy the folder anew as it is, without turning text into that of another system "
        "(git: `core.autocrlf=false`; FTP: binary; unzip: without `-a`)",
    )


def hashed(path: Path, chunk: Callable[[Digest], object] | None = None) -> str:
    """The SHA-256 of a file. `chunk` is called with the digest of each of its chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for data in iter(lambda: file.read(CHUNK_BYTES), b""):
            digest.update(data)
            if chunk is not None:
                chunk(digest_of(data))
    return digest.hexdigest()
