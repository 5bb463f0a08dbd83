"""Files that a user names for what a command writes."""

from __future__ import annotations

from pathlib import Path

from daitn.files.atomic import make_folder, replace_file
from daitn.files.failed_writes import failed_write

__all__ = ["write_output"]


def write_output(path: Path, data: bytes, field: str = "--out", *, private: bool = False) -> None:
    """Write a file as `replace_file` does, and make its folder. A link stays, and what it names is
    written; a device or pipe, such as `/dev/null` and `/dev/stdout`, is written to, never replaced.

    `field`: the option that names it. Raises `InvalidInput` and `StorageFull`.
    """
    try:
        make_folder(path.parent)
        if path.absolute().is_relative_to("/dev") or (path.exists() and not path.is_file()):
            path.write_bytes(data)
        else:
            replace_file(path.resolve(), data, private=private)
    except OSError as error:
        fix = "name a file in a folder that you may write to"
        raise failed_write(path, error, field=field, fix=fix) from None
