"""`daitn schema`: the JSON Schema of an intent, a node file or a network file."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
import typer

from daitn.center.config import CenterConfig
from daitn.cli.network import NetworkFile
from daitn.cli.session import print_json
from daitn.node.config import NodeConfig
from daitn.objects.intents import TrainingIntent
from daitn.objects.wire import to_json

__all__ = ["schema"]


class File(enum.StrEnum):
    """A kind of file."""

    INTENT = "intent"
    NODE = "node"
    CENTER = "center"
    NETWORK = "network"


_STRUCTS = {
    File.INTENT: TrainingIntent,
    File.NODE: NodeConfig,
    File.CENTER: CenterConfig,
    File.NETWORK: NetworkFile,
}


def schema(file: Annotated[File, typer.Argument(help="Kind of file.")]) -> None:
    """Print the JSON Schema of a file, for editors and checks.

    Example: daitn schema intent
    """
    print_json(to_json(msgspec.json.schema(_STRUCTS[file], schema_hook=_anything)))


def _anything(kind: type) -> dict[str, object]:
    """Fields of type `object`, such as a recipe's configuration, accept any value."""
    return {"description": "any value"}
