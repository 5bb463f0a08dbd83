"""A facility's memory of the models that it was asked to host: it outlives the process."""

from __future__ import annotations

import logging
from pathlib import Path

from daitn.objects.errors import Corrupt, StorageFull
from daitn.objects.identifiers import checked_name
from daitn.objects.messages import DeployModel
from daitn.objects.wire import decode, encode
from daitn.tools.files.atomic import PARTIAL, make_folder, replace_file

__all__ = ["DesiredModels"]

log = logging.getLogger(__name__)


class DesiredModels:
    """One file per model in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)
        for leftover in folder.glob(f"*{PARTIAL}"):
            leftover.unlink()

    def put(self, wanted: DeployModel) -> None:
        """Keep a wish; on disk when this returns. Raises `StorageFull`."""
        try:
            replace_file(self._path(wanted.name), encode(wanted))
        except OSError as error:
            raise StorageFull(
                f"{self._folder} cannot be written: {error.strerror}",
                fix="free room in the site's state folder, and check that it may be written",
            ) from None

    def forget(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def all(self) -> tuple[DeployModel, ...]:
        """Every wish, by name. One that the disk changed is dropped: the control centre repeats
        what it wants."""
        constraints = []
        for path in sorted(self._folder.iterdir()):
            try:
                constraints.append(decode(path.read_bytes(), DeployModel))
            except Corrupt:
                path.unlink()
            except OSError as error:
                log.warning("%s is left aside: %s", path, error.strerror)
        return tuple(constraints)

    def _path(self, name: str) -> Path:
        return self._folder / checked_name(name, "name")
