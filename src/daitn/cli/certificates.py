"""`daitn certificate`: certificates by which the processes of a network authenticate each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daitn.cli.session import run, screen
from daitn.identity.certificates import issue

__all__ = ["certificate"]


def certificate(
    folder: Annotated[Path, typer.Argument(help="New folder for the key and the certificate.")],
    host: Annotated[
        list[str],
        typer.Option("--host", help="Name or IP address by which others reach it; repeatable."),
    ],
    authority: Annotated[
        Path, typer.Option("--authority", help="Folder of the network's authority.")
    ] = Path("authority"),
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="Validity in days.")] = 365,
) -> None:
    """Make a certificate for a node, a control centre or an operator.

    The network's authority signs it, and is created if missing; keep its folder to yourself. A
    node's or control centre's file names the certificate's folder as `tls`, an operator's
    environment as DAITN_TLS. Endpoints that begin with `tls/` admit only holders of a certificate.

    Examples:

      daitn certificate tls/center --host control.example.org --host 10.0.0.2

      daitn certificate ~/.daitn-tls --host localhost
    """
    run(_issue(folder, authority, host, days))
    screen.print(f"{folder} is ready: name it as `tls`, or in DAITN_TLS", soft_wrap=True)


async def _issue(folder: Path, authority: Path, hosts: list[str], days: int) -> None:
    issue(folder, authority, hosts, days)
