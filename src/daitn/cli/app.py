"""`daitn`: the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from daitn import __version__
from daitn.cli import (
    audit,
    data,
    deploy,
    describe,
    explain,
    get,
    joining,
    keys,
    models,
    policy,
    processes,
    query,
    schemas,
    steering,
    tokens,
    topology,
    train,
    value,
)
from daitn.cli.demo.command import demo
from daitn.cli.importing import import_command
from daitn.cli.report.command import report
from daitn.cli.session import screen

__all__ = ["app", "main"]

app = typer.Typer(
    name="daitn",
    help="Models follow data, queries find models: train models over data sites that keep their "
    "data, and ask them wherever they are.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command()(processes.up)
app.command()(processes.center)
app.command()(processes.node)
app.command()(train.train)
app.command()(train.watch)
app.command()(train.cancel)
app.command()(query.query)
app.command()(deploy.deploy)
app.command()(deploy.retire)
app.command()(get.get)
app.command()(describe.describe)
app.command()(explain.explain)
app.command()(report)
app.command()(value.value)
app.command()(steering.ping)
app.command()(steering.traceroute)
app.command()(steering.trace)
app.command()(steering.steer)
app.command()(keys.key)
app.add_typer(joining.app, name="network")
app.add_typer(tokens.app, name="token")
models.app.command("import")(import_command)
app.add_typer(models.app, name="model")
app.add_typer(topology.app, name="topology")
app.add_typer(data.app, name="data")
app.add_typer(policy.app, name="policy")
app.add_typer(audit.app, name="audit")
app.command()(schemas.schema)
app.command()(demo)


@app.command()
def version() -> None:
    """Print the version."""
    screen.print(__version__)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """See the help of `app`."""


def main() -> None:
    """Entry point of the `daitn` command."""
    app()


if __name__ == "__main__":
    main()
