"""Text files as data owners write them: UTF-8, with or without byte order marks, with any line
endings."""

from __future__ import annotations

import codecs
import stat
from collections.abc import Iterator
from pathlib import Path

from daitn.learning.recipe import DataFault, Fault
from daitn.objects.errors import NotFound

__all__ = ["text_lines"]

_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""UTF-32's little-endian mark begins like UTF-16's."""

_NUL = "line {line} contains a NUL byte, as in UTF-16 or a binary file"


def text_lines(path: Path) -> Iterator[str]:
    """The file's lines, with their endings. A byte order mark may begin any line: files that begin
    with one may have been joined.

    Raises `NotFound` if there is no such file, `DataFault` naming file and line if it is not
    text in UTF-8. The error does not quote the content, which is private data.
    """
    try:
        _check(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise _no_text(path, _NUL.format(line=number))
                yield line.removeprefix("\ufeff")
    except FileNotFoundError:
        raise NotFound(f"no file {path}", field=str(path), fix="check the path") from None
    except UnicodeDecodeError:
        raise _no_text(path, f"line {_first_invalid_line(path)} is not UTF-8") from None
    except OSError as error:
        raise DataFault(
            Fault.UNREADABLE,
            f"{path} cannot be read: {error.strerror}",
            field=str(path),
            fix="let the user that runs daitn read it and the folders above it",
        ) from None


def _check(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        # Reading a pipe could block forever.
        raise DataFault(
            Fault.NO_REGULAR_FILE, f"{path} is not a file", field=str(path), fix="name a file"
        )
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(_OTHER_MARKS):
        raise _no_text(path, "it is UTF-16 or UTF-32")
    if b"\0" in head:
        raise _no_text(path, _NUL.format(line=1))


def _first_invalid_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _no_text(path: Path, problem: str) -> DataFault:
    return DataFault(
        Fault.NO_TEXT,
        f"{path} is not UTF-8 text: {problem}",
        field=str(path),
        fix="save it as UTF-8",
    )
