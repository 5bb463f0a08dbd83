"""`daitn model`: its commands."""

from __future__ import annotations

import typer

from daitn.cli.importing import import_command
from daitn.cli.models import export_command, verify_command

__all__ = ["app"]

app = typer.Typer(help="Trained models.", no_args_is_help=True)
app.command("export")(export_command)
app.command("verify")(verify_command)
app.command("import")(import_command)
