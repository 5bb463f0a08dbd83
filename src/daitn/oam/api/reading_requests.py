"""Parses a request: its parameters and its body, as its route defines them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from daitn.oam.api.problems import HttpProblem
from daitn.oam.api.routes import ApiRoute
from daitn.objects.errors import InvalidInput
from daitn.objects.text import typed
from daitn.tools.http import BodyTooLarge, Request

__all__ = ["MOST_BODY", "read_body", "read_query", "struct_of", "whole_body"]

MOST_BODY: Final = 2 << 20
"""In bytes: an order may have 1 MiB, and a third more as JSON."""
_BODY_TIMEOUT_S: Final = 30.0
_MOST_PATH: Final = 200


def read_query(route: ApiRoute, request: Request) -> dict[str, Any]:
    """Every parameter of the route, with its value or default. Raises `HttpProblem` (400).

    An empty one is refused: a program whose variable is empty does not mean the default, such as
    all facilities.
    """
    known = {parameter.name: parameter for parameter in route.query}
    given: dict[str, str] = {}
    for name, stated in request.parameters:
        if name not in known:
            raise _bad(
                f"there is no parameter {name!r} here", name, f"use one of: {', '.join(known)}"
            )
        if not stated:
            raise _bad("it is empty", name, "state a value, or leave the parameter out")
        if name in given:
            raise _bad("it is stated twice", name, "state it once")
        given[name] = stated
    values: dict[str, Any] = {}
    for name, parameter in known.items():
        text = given.get(name)
        if text is None:
            if parameter.default is msgspec.NODEFAULT:
                raise _bad("it is missing", name, "state it")
            values[name] = parameter.default
            continue
        try:
            values[name] = msgspec.convert(text, parameter.kind, strict=False)
        except msgspec.ValidationError as error:
            raise _bad(typed(str(error)), name, "state another value") from None
    return values


async def read_body(route: ApiRoute, request: Request) -> tuple[Any, bytes]:
    """The body in the route's type, and as bytes. Raises `HttpProblem`."""
    text = await whole_body(request)
    if route.body is None:
        if text.strip() not in (b"", b"{}", b"null"):
            raise _bad("this takes no body", "body", "send none")
        return None, b""
    assert issubclass(route.body, msgspec.Struct)
    return struct_of(text, route.body, request), text


def struct_of(text: bytes, kind: type[msgspec.Struct], request: Request) -> Any:
    """A JSON body as a struct. Raises `HttpProblem`."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise HttpProblem(
            415, "InvalidInput", "the body is not JSON", field="content-type",
            fix="send `content-type: application/json`",
        )  # fmt: skip
    try:
        body = msgspec.json.decode(text, type=kind)
        unknown = next(_unknown(msgspec.json.decode(text), body), None)
    except InvalidInput as error:
        raise HttpProblem(
            422, "InvalidInput", error.problem, field=error.field, fix=error.fix
        ) from None
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `")
        field = path.rstrip("`").removeprefix("$").removeprefix(".") or "body"
        raise HttpProblem(
            422, "InvalidInput", typed(problem), field=field, fix="correct this value"
        ) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _bad(f"the body is not JSON: {error}", "body", "correct it") from None
    if unknown is not None:
        raise HttpProblem(
            422, "InvalidInput", "there is no such field", field=unknown,
            fix="correct its name, or leave it out",
        )  # fmt: skip
    return body


def _unknown(plain: Any, read: Any, path: str = "") -> Iterator[str]:
    """Paths of fields that were not read. Messages between processes ignore them, as later releases
    may add some; in a request written by hand they are misspelt."""
    if isinstance(read, msgspec.Struct) and isinstance(plain, dict):
        fields = dict(zip(read.__struct_encode_fields__, read.__struct_fields__, strict=True))
        for name, value in plain.items():
            if name in fields:
                if isinstance(value, dict | list):
                    yield from _unknown(value, getattr(read, fields[name]), f"{path}{name}.")
            elif name != read.__struct_config__.tag_field:
                yield f"{path}{name}"[:_MOST_PATH]
    elif isinstance(read, list | tuple) and isinstance(plain, list):
        for at, (value, inner) in enumerate(zip(plain, read, strict=False)):
            if isinstance(value, dict | list):
                yield from _unknown(value, inner, f"{path.removesuffix('.')}[{at}].")


async def whole_body(request: Request, most: int = MOST_BODY) -> bytes:
    """The body as bytes. Raises `HttpProblem`."""
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            return await request.body(most)
    except BodyTooLarge:
        raise HttpProblem(
            413, "InvalidInput", f"a body has at most {most} bytes here", field="body",
            fix="send less",
        ) from None  # fmt: skip
    except TimeoutError:
        raise HttpProblem(
            408, "InvalidInput", f"the body did not arrive within {_BODY_TIMEOUT_S:.0f} s",
            field="body", fix="send all that `content-length` announces, and faster",
        ) from None  # fmt: skip


def _bad(problem: str, field: str, fix: str) -> HttpProblem:
    return HttpProblem(400, "InvalidInput", problem, field=field, fix=fix)
