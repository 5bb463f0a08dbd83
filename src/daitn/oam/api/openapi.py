"""The description of the API as OpenAPI 3.1, generated from its table.

`python -m daitn.oam.api.openapi` prints it.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec

from daitn import __version__
from daitn.oam.api.answers import MapDelta, Problem, SiteNews
from daitn.oam.api.events import EVENT_KINDS
from daitn.oam.api.routes import ROUTES, ApiRoute, Parameter, Special
from daitn.oam.field_docs import field_docs
from daitn.objects.http_api import OCTETS, PREFIX

__all__ = ["any_value", "described", "document"]

_REFERENCE: Final = "#/components/schemas/{name}"
_OF_EVENTS: Final = (MapDelta, SiteNews)
_IDEMPOTENCY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text that is new for each thing wanted: the same request sent again with "
    "it is answered as before, and does nothing.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
}

_making: Final = threading.Lock()
"""Python 3.11 cannot make two syntax trees at the same time, in two threads."""


def document() -> bytes:
    """The description as JSON."""
    with _making:
        return _document()


@functools.cache
def _document() -> bytes:
    return msgspec.json.format(msgspec.json.encode(described()), indent=1)


def described() -> dict[str, Any]:
    """The description."""
    kinds = tuple(dict.fromkeys([*_types(), *_OF_EVENTS, Problem]))
    schemas, components = msgspec.json.schema_components(
        kinds, schema_hook=any_value, ref_template=_REFERENCE
    )
    schema_of = dict(zip(kinds, schemas, strict=True))
    for struct in _structs(kinds):
        _describe(struct, components)
    _plain_patterns([schema_of, components])
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(
            route, schema_of
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DA-ITN control centre",
            "version": __version__,
            "summary": "See a network, and steer it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Of `daitn token create --center-api`.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "daitn-session",
                    "description": "Set by `POST /session`; its name ends with the server's port.",
                },
            },
        },
    }


def _types() -> Iterator[Any]:
    for route in ROUTES:
        for kind in (route.answer, route.body):
            if kind not in (None, bytes):
                yield kind
        yield from (parameter.kind for parameter in route.query)


def _operation(route: ApiRoute, schema_of: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.id,
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "parameters": [_in_path(name) for name in route.names]
        + [_in_query(parameter, schema_of) for parameter in route.query],
        "responses": {
            str(route.status): _answer(route, schema_of),
            "default": {
                "description": "Why it was not answered.",
                "content": {"application/problem+json": {"schema": schema_of[Problem]}},
            },
        },
        "security": [] if route.least is None else [{"token": []}, {"session": []}, {}],
    }
    if route.least is not None:
        operation["x-least-role"] = str(route.least)
    if route.do == Special.EVENTS:
        operation["parameters"].append(
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "Id of the last event that was seen, or `event` of a map; as the "
                "parameter `after` too.",
                "schema": {"type": "string", "maxLength": 64, "pattern": "^[!-~]*$"},
            }
        )
        operation["description"] = "\n".join(
            f"- `{kind}`: {text}" for kind, text in EVENT_KINDS.items()
        )
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {OCTETS: {}}
            if route.body is bytes
            else {"application/json": {"schema": schema_of[route.body]}},
        }
    if route.method in ("POST", "DELETE") and route.least and route.do is not Special.RELAY:
        operation["parameters"].append(_IDEMPOTENCY)
    return operation


def _answer(route: ApiRoute, schema_of: dict[Any, Any]) -> dict[str, Any]:
    if route.answer is None:
        return {"description": "Done."}
    form = {} if route.answer is bytes else {"schema": schema_of[route.answer]}
    return {"description": "The answer.", "content": {route.media: form}}


def _in_path(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    }


def _in_query(parameter: Parameter, schema_of: dict[Any, Any]) -> dict[str, Any]:
    schema = dict(schema_of[parameter.kind])
    options = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1:
        schema = dict(options[0])  # Requests that do not name it leave it out.
    if parameter.default not in (None, msgspec.NODEFAULT):
        schema["default"] = parameter.default
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.default is msgspec.NODEFAULT,
        "description": parameter.text,
        "schema": schema,
    }


def _structs(kinds: Any, seen: set[type] | None = None) -> Iterator[type]:
    """Structs among types and in their fields, at any depth, each once."""
    seen = set() if seen is None else seen
    for kind in kinds:
        bare = get_origin(kind) or kind
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct) and bare not in seen:
            seen.add(bare)
            yield bare
            yield from _structs(get_type_hints(bare, include_extras=True).values(), seen)
        yield from _structs([one for one in get_args(kind) if not isinstance(one, str)], seen)


def _describe(struct: type, components: dict[str, Any]) -> None:
    """Add each field's docstring to its schema."""
    for name, schema in components.items():
        if name != struct.__name__ and not name.startswith(f"{struct.__name__}_"):
            continue
        properties = schema.get("properties", {})
        for field, text in field_docs(struct).items():
            if field in properties:
                properties[field] = {**properties[field], "description": text}


def _plain_patterns(schema: Any) -> None:
    """Write patterns as in ECMA-262, which lacks Python's end-of-text anchor."""
    for part in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(part, dict) and isinstance(part.get("pattern"), str):
            part["pattern"] = part["pattern"].replace(r"\Z", "$")
        if isinstance(part, dict | list):
            _plain_patterns(part)


def any_value(kind: type) -> dict[str, object]:
    """The schema of fields of type `object`, such as a recipe's configuration."""
    return {"description": "any value"}


if __name__ == "__main__":
    sys.stdout.write(document().decode() + "\n")
