"""The control centre's HTTP API, from its table of routes."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import msgspec

from daitn.oam.api.events import EVENT_KINDS
from daitn.oam.api.problems import STATUSES
from daitn.oam.api.routes import ROUTES
from scripts.reference.rows import Row

__all__ = ["events_table", "parameters_table", "routes_table", "statuses_table"]


def routes_table() -> list[Row]:
    """Every route, in the order of the table."""
    rows: list[Row] = [("request", "body", "answer", "least role", "what")]
    for route in ROUTES:
        body = f"`{route.body.__name__}`" if route.body else ""
        least = str(route.least) if route.least else "none"
        rows.append(
            (
                f"`{route.method} {route.path}`",
                body,
                _type(route.answer, route.media),
                least,
                route.summary,
            )
        )
    return rows


def parameters_table() -> list[Row]:
    """Every parameter in a query string."""
    rows: list[Row] = [("request", "parameter", "default", "meaning")]
    for route in ROUTES:
        for parameter in route.query:
            default = "" if parameter.default is None else str(parameter.default)
            if parameter.default is msgspec.NODEFAULT:
                default = "required"
            asked = f"`{route.method} {route.path}`"
            rows.append((asked, f"`{parameter.name}`", default, parameter.text))
    return rows


def events_table() -> list[Row]:
    """Kinds of events, and what each carries."""
    return [("event", "data"), *((f"`{kind}`", text) for kind, text in EVENT_KINDS.items())]


def statuses_table() -> list[Row]:
    """What each error of the network becomes."""
    rows: list[Row] = [("code", "status", "when")]
    for kind, status in STATUSES.items():
        said = " ".join((kind.__doc__ or "").split())
        rows.append((f"`{kind.__name__}`", str(status), said))
    return rows


def _type(answer: Any, media: str) -> str:
    if answer is None:
        return ""
    if media == "text/event-stream":
        return "events, see below"
    if get_origin(answer) is dict:
        return "JSON"
    inner = get_args(answer)
    return f"page of `{inner[0].__name__}`" if inner else f"`{answer.__name__}`"
