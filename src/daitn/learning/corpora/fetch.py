"""Download MedQuAD from its authors' repository, and verify it.

The archive that a code host makes of a commit may change its bytes over time, so the content is
verified: a SHA-256 over all rows, sorted, each with single spaces between words.
"""

from __future__ import annotations

import hashlib
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO, NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from daitn.files.atomic import make_folder, put_in_place
from daitn.files.failed_writes import MAKE_ROOM, failed_write, is_full, naming
from daitn.learning.corpora.medquad import SITES
from daitn.objects.errors import Corrupt, InvalidInput, Unreachable

__all__ = ["COMMIT", "DIGEST", "URL", "CorpusRow", "Downloaded", "content_digest", "fetch_medquad"]

COMMIT = "577bd37b96c02d1833b2c9eed2de9f96964e96cb"
"""The repository's commit for which `DIGEST` was computed (read 2026-11-23)."""
URL = f"https://github.com/abachaa/MedQuAD/archive/{COMMIT}.zip"
DIGEST = "4f8ce5ea6fb4e917d645cb21ffa09016615b33cf83860f6cddbe761fd0885a43"
"""SHA-256 over the 16,407 answered pairs of the nine collections that have answers."""

_FIX = (
    "run `daitn data fetch medquad` again; if it persists, give another --url of the same archive"
)
_TIMEOUT_S = 30.0
"""For connecting and between two blocks."""
_BLOCK_BYTES = 1 << 18
_MOST_BYTES = 200 << 20
"""The archive has 16 MB; anything much larger is something else."""
_MOST_FILE_BYTES = 8 << 20
"""The largest document has 0.2 MB; anything much larger would be a bomb."""

Downloaded = Callable[[int, int | None], None]
"""Receives (bytes so far, total bytes if the server reports it)."""


class CorpusRow(NamedTuple):
    """An answered question: the columns of the parquet file, in order."""

    source: str
    focus: str
    qtype: str
    question: str
    answer: str
    doc: str
    group: str


def fetch_medquad(
    path: Path,
    url: str | None = None,
    watch: Downloaded = lambda done, of: None,
    digest: str = DIGEST,
) -> None:
    """Download MedQuAD, from `url` instead of `URL` if given, and write the parquet file `path`.

    Raises `InvalidInput` if `url` is not a web address, `Unreachable` if the server does not answer
    or stops, `Corrupt` if it sends something other than the expected corpus, `StorageFull` if there
    is no room. Replaces an existing file only with a complete and verified one.
    """
    url = url or URL
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".medquad-") as folder:
        archive, written = Path(folder) / "medquad.zip", Path(folder) / "medquad.parquet"
        _download(url, archive, watch)
        rows = _rows(archive, url)
        found = content_digest(rows)
        if found != digest:
            raise Corrupt(
                f"{url} holds {len(rows)} rows with SHA-256 {found}, expected {digest}",
                field="sha256",
                fix=_FIX,
            )
        with naming(path):
            _write(rows, written)
        put_in_place(written, path)


def _download(url: str, archive: Path, watch: Downloaded) -> None:
    if not url.startswith(("https://", "http://")):
        raise InvalidInput(
            f"{url} is not a web address", field="url", fix="give an https:// address"
        )
    done = 0
    try:
        # The digest verifies the content, so plain http is good enough.
        request = urllib.request.Request(url, headers={"User-Agent": "daitn"})  # noqa: S310
        with (
            urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer,  # noqa: S310
            archive.open("wb") as file,
        ):
            length = answer.headers.get("Content-Length")
            of = int(length) if length else None
            while block := answer.read(_BLOCK_BYTES):
                done += len(block)
                if done > _MOST_BYTES:
                    raise Corrupt(f"{url} sends more than {_MOST_BYTES} bytes", fix=_FIX)
                file.write(block)
                watch(done, of)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, OSError) and is_full(error):
            raise failed_write(archive.parent.parent, error, field="--out", fix=MAKE_ROOM) from None
        raise Unreachable(f"{url}: {error}", field="url", fix=_FIX) from error
    if of is not None and done != of:
        raise Unreachable(f"{url} stopped after {done} of {of} bytes", field="url", fix=_FIX)


def _rows(archive: Path, url: str) -> list[CorpusRow]:
    rows: list[CorpusRow] = []
    try:
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                parts = entry.filename.split("/")
                source = parts[1].partition("_")[2] if len(parts) == 3 else ""
                if source in SITES.values() and parts[2].endswith(".xml"):
                    if entry.file_size > _MOST_FILE_BYTES:
                        raise Corrupt(f"{url}, {entry.filename} is too large", fix=_FIX)
                    with opened.open(entry) as file:
                        rows.extend(_pairs(file, source, Path(parts[2]).stem))
    except (zipfile.BadZipFile, DefusedXmlException, ParseError, EOFError) as error:
        raise Corrupt(f"{url} is not the MedQuAD archive: {error}", fix=_FIX) from error
    return sorted(rows)


def _pairs(file: IO[bytes], source: str, doc: str) -> Iterator[CorpusRow]:
    """The answered pairs of one document; refuses entity definitions (billion laughs)."""
    document: Element = fromstring(file.read(), forbid_dtd=True)
    focus, group = (document.findtext(path) for path in ("Focus", ".//SemanticGroup"))
    for pair in document.iter("QAPair"):
        question = pair.find("Question")
        answer = _spaced(pair.findtext("Answer"))
        if question is not None and answer:
            texts = (focus, question.get("qtype"), question.text, answer, doc, group)
            yield CorpusRow(source, *(_spaced(text) for text in texts))


def _spaced(text: str | None) -> str:
    return " ".join((text or "").split())


def content_digest(rows: Sequence[CorpusRow]) -> str:
    """SHA-256 over sorted rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update("\x1f".join(row).encode() + b"\x1e")
    return digest.hexdigest()


def _write(rows: Sequence[CorpusRow], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([row._asdict() for row in rows]), path)
