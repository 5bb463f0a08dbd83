"""The command `daitn mcp`."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from daitn.cli.session import DEFAULT_CENTER, CenterOption, complain, errors, run
from daitn.cli.session import ExitCode as Ended
from daitn.objects.errors import InvalidInput

__all__ = ["mcp"]


def mcp(
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="Port on 127.0.0.1; 0 picks a free one. By default 7450, or a free one if that is "
            "taken.",
        ),
    ] = None,
    stdio: Annotated[
        bool, typer.Option("--stdio", help="Use standard input and output instead.")
    ] = False,
    token: Annotated[
        str,
        typer.Option(
            envvar="DAITN_MCP_TOKEN",
            help="Token that HTTP clients must send; by default a new one is printed.",
        ),
    ] = "",
    allow_writes: Annotated[
        bool,
        typer.Option(
            "--allow-writes", help="Allow assistants to make changes: cancel and resume jobs."
        ),
    ] = False,
    center: CenterOption = DEFAULT_CENTER,
) -> None:
    """Let assistants look at the network: sites, jobs, models, accounts, and explanations.

    It speaks the Model Context Protocol (MCP), and sees what you see. Without --allow-writes it
    changes nothing.

    Examples:

      daitn mcp --port 7450

      daitn mcp --stdio
    """
    try:
        from daitn.cli.mcp.serving import made, serve_http, serve_stdio
    except ModuleNotFoundError as error:
        complain(
            InvalidInput(
                f"{error.name} is not installed here", field="mcp", fix="pip install 'daitn[mcp]'"
            )
        )
        raise typer.Exit(Ended.BAD_INPUT) from None
    server = made(center, writes=allow_writes)
    if stdio:
        run(serve_stdio(server))
        return
    shown = token or secrets.token_urlsafe(24)

    def ready(url: str) -> None:
        errors.print(f"MCP at {url}", soft_wrap=True)
        if not token:
            errors.print(f"authorization: Bearer {shown}", soft_wrap=True)

    run(serve_http(server, port, shown, ready))
