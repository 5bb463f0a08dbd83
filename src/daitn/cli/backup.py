"""`daitn backup` and `daitn restore`: a control centre on another disk, and back from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daitn.center.backup import BackupContents, back_up
from daitn.center.backup import restore as restored
from daitn.cli.network import read_center
from daitn.cli.session import ConfigOption, JsonOption, print_json, run, screen
from daitn.cli.times import when
from daitn.objects.text import counted
from daitn.objects.wire import to_json

__all__ = ["backup", "restore"]


def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder, preferably on another disk.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back up a control centre, while it runs, on its machine.

    The folder holds its private key: keep it as safe as the control centre.

    Example: daitn backup /backups/2026-05-01 -c center.yaml
    """
    contents = run(_back_up(config, folder))
    if as_json:
        print_json(to_json(contents))
        return
    screen.print(
        f"{folder}: control centre {contents.name} as of {when(contents.at_s)}, "
        f"{counted(contents.rows, 'row')}, {counted(len(contents.files), 'file')}"
    )


def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `daitn backup` made.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore a control centre from a backup, into the empty state folder and database of its file.

    Then start it: jobs go on. What was accepted after the backup is not in it.

    Example: daitn restore /backups/2026-05-01 -c center.yaml
    """
    contents = run(_restore(config, folder))
    if as_json:
        print_json(to_json(contents))
        return
    screen.print(
        f"control centre {contents.name} is restored: start it with `daitn center`, at the "
        "addresses that its sites know"
    )


async def _back_up(config: Path | None, folder: Path) -> BackupContents:
    return back_up(read_center(config), folder)


async def _restore(config: Path | None, folder: Path) -> BackupContents:
    return restored(read_center(config), folder)
