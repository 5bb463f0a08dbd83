"""Items of one kind in a folder, one file each: a crash loses no stored item."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from daitn.files.atomic import PARTIAL, make_folder, put_in_place, replace_file
from daitn.files.failed_writes import STATE_FIX
from daitn.objects.errors import Corrupt, StorageFull
from daitn.objects.identifiers import checked_name
from daitn.objects.wire import decode, encode

__all__ = ["ItemStore"]

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_SUFFIX = ".msgpack"
_CORRUPT = ".corrupt"


class ItemStore(Generic[Item]):
    """Items by name, as MessagePack. The folder belongs to one process at a time.

    A file that the disk changed is set aside beside the others, for people to look at. In a
    `private` store it is removed instead, and only this user can read the files.
    """

    def __init__(self, folder: Path, kind: type[Item], *, private: bool = False) -> None:
        self._folder = folder
        self._kind = kind
        self._private = private
        make_folder(folder)
        for leftover in folder.glob(f"*{PARTIAL}"):
            leftover.unlink()

    def get(self, name: str) -> Item | None:
        """The item as last stored; None if there is none, or it cannot be read."""
        path = self._path(name)
        try:
            return decode(path.read_bytes(), self._kind)
        except FileNotFoundError:
            return None
        except Corrupt as error:
            if self._private:
                log.warning("%s is removed: %s", path, error.problem)
                self.forget(name)
                return None
            log.warning("%s is set aside: %s", path, error.problem)
            put_in_place(path, path.with_name(path.name + _CORRUPT))
        except OSError as error:
            log.warning("%s is left aside: %s", path, error.strerror)
        return None

    def put(self, name: str, item: Item) -> None:
        """Store an item; on disk when this returns. Raises `StorageFull`."""
        try:
            replace_file(self._path(name), encode(item), private=self._private)
        except OSError as error:
            raise StorageFull(
                f"{self._folder} cannot be written: {error.strerror}",
                fix=STATE_FIX,
            ) from None

    def forget(self, name: str) -> None:
        """Delete an item. Forgetting twice is harmless."""
        self._path(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Names of all items, in order."""
        return sorted(path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}"))

    def written(self) -> list[tuple[str, int, float]]:
        """All items: name, bytes, and when it was put, in seconds since the epoch."""
        named = [(name, self._path(name).stat()) for name in self.names()]
        return [(name, file.st_size, file.st_mtime) for name, file in named]

    def __iter__(self) -> Iterator[Item]:
        """All readable items, by name."""
        for name in self.names():
            item = self.get(name)
            if item is not None:
                yield item

    def _path(self, name: str) -> Path:
        return self._folder / f"{checked_name(name, 'name')}{_SUFFIX}"
