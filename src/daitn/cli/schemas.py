"""`daitn schema`: the JSON Schema of a file: an intent, a node, a policy, a network."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
import typer

from daitn.center.config import CenterConfig
from daitn.cli.network import NetworkFile
from daitn.cli.session import print_json
from daitn.node.config import NodeConfig, PolicyConfig
from daitn.oam.api.openapi import any_value
from daitn.oam.field_docs import field_docs
from daitn.objects.intents import TrainingIntent
from daitn.objects.wire import to_json

__all__ = ["FILES", "File", "json_schema", "schema", "structs_in"]


class File(enum.StrEnum):
    """A kind of file."""

    INTENT = "intent"
    NODE = "node"
    CENTER = "center"
    NETWORK = "network"
    POLICY = "policy"


FILES: dict[File, type[msgspec.Struct]] = {
    File.INTENT: TrainingIntent,
    File.NODE: NodeConfig,
    File.CENTER: CenterConfig,
    File.NETWORK: NetworkFile,
    File.POLICY: PolicyConfig,
}


def schema(file: Annotated[File, typer.Argument(help="Kind of file.")]) -> None:
    """Print the JSON Schema of a file, for editors and checks.

    Example: daitn schema intent
    """
    print_json(to_json(json_schema(FILES[file])))


def json_schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a struct. Fields are described by their docstrings."""
    made = msgspec.json.schema(struct, schema_hook=any_value)
    for each in structs_in(struct):
        properties = made["$defs"][each.__name__]["properties"]
        for name, text in field_docs(each).items():
            properties[name]["description"] = text
    return made


def structs_in(struct: type[msgspec.Struct]) -> tuple[type[msgspec.Struct], ...]:
    """A struct and those in its fields, at any depth, each once."""
    found = {struct: None}
    for each in _inner(get_type_hints(struct, include_extras=True).values()):
        found.update(dict.fromkeys(structs_in(each)))
    return tuple(found)


def _inner(hints: Any) -> Iterator[type[msgspec.Struct]]:
    for hint in hints:
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield hint
        else:
            yield from _inner(get_args(hint))
