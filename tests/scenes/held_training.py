"""Training that is held up at sites of real processes for as long as a test wants to look: what is
seen of a site at work is still so when the test acts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scenes.waiting import wait_until

__all__ = ["HeldTraining"]

_HOOK = """
import asyncio, pathlib, sys, time

if "daitn.cli.app" in sys.orig_argv:
    from daitn.learning.trainer import Trainer
    from daitn.node.training.begun import UnderWay

    train, folder = Trainer.train, pathlib.Path(__file__).parent
    kept = UnderWay.kept

    def let(hold):
        try:
            hold.with_suffix(".let").unlink()
        except FileNotFoundError:
            return not hold.exists()
        return True

    async def train_when_let(self, recipe, model, *arguments, **options):
        for hold in folder.glob("*.hold"):
            if hold.stem in model.parts:
                held = hold.with_suffix(".held")
                held.touch()
                while not let(hold):
                    await asyncio.sleep(0.05)
                held.unlink(missing_ok=True)
        return await train(self, recipe, model, *arguments, **options)

    def keep_and_freeze(self, losses, number):
        kept(self, losses, number)
        for freeze in folder.glob("*.freeze"):
            if freeze.stem in self._visits.folder(self._visit).parts:
                freeze.with_suffix(".frozen").touch()
                while freeze.exists():
                    time.sleep(0.05)

    Trainer.train, UnderWay.kept = train_when_let, keep_and_freeze
"""


class HeldTraining:
    """Holds training at some sites, which have begun their visits then. A site is known by its
    state folder."""

    def __init__(self, folder: Path, also: str = "") -> None:
        """`also`: further code that the processes run at their start."""
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_HOOK + also)
        self.folder = folder

    @contextmanager
    def taken_over(self) -> Iterator[None]:
        """Processes that are started meanwhile can be held."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(self.folder), prepend=os.pathsep)
            yield

    @contextmanager
    def at(self, *sites: str) -> Iterator[None]:
        """Hold what begins to train at these sites meanwhile."""
        for site in sites:
            for suffix in ("held", "let"):
                self._file(site, suffix).unlink(missing_ok=True)
            self._file(site, "hold").touch()
        try:
            yield
        finally:
            for site in sites:
                self._file(site, "hold").unlink()

    @contextmanager
    def frozen_at_savepoint(self, site: str) -> Iterator[None]:
        """The site's whole process stands still as soon as it has stored how far a visit got."""
        self._file(site, "frozen").unlink(missing_ok=True)
        self._file(site, "freeze").touch()
        try:
            yield
        finally:
            self._file(site, "freeze").unlink()

    def wait_until_frozen(self, site: str) -> None:
        wait_until(self._file(site, "frozen").exists)

    def first(self) -> str:
        """Wait until some site is held up; returns which."""
        held: list[Path] = wait_until(lambda: sorted(self.folder.glob("*.held")))
        return held[0].stem

    def let(self, site: str) -> None:
        """Let one training go on that is held up at the site, and hold the next one."""
        self._file(site, "let").touch()

    def _file(self, site: str, suffix: str) -> Path:
        return self.folder / f"{site}.{suffix}"
