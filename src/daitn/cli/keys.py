"""`daitn key`: the key of a class of receivers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daitn.cli.session import JsonOption, print_json, run, screen
from daitn.identity.sealing import ReceiverKey
from daitn.objects.wire import to_json

__all__ = ["key"]


def key(
    file: Annotated[Path, typer.Argument(help="File for the private key.")],
    as_json: JsonOption = False,
) -> None:
    """Create the key of a class of receivers, and print its public half.

    Only sites that hold the file can read queries sealed to the public key, and only the file's
    owner may read it. An existing file is kept.

    Example: daitn key clinics.key
    """
    public = run(_public(file))
    if as_json:
        print_json(to_json({"public": public}))
    else:
        screen.print(public, soft_wrap=True)


async def _public(file: Path) -> str:
    return ReceiverKey.at(file).public
