"""What gateways serve, and what they make of requests."""

from __future__ import annotations

import importlib
from typing import get_args

from daitn.node.gateway.api import SERVED
from daitn.node.gateway.gateway import STUCK_AFTER_S
from daitn.oam.field_docs import field_docs
from daitn.objects.abilities import Need
from daitn.openai.http import HEALTH, READY
from daitn.openai.query_needs import ASKED_BY, TOKENS_PER_PART
from scripts.reference.rows import Row

__all__ = ["blocks_table", "health_table", "needs_table", "paths_table", "translated_table"]


def paths_table() -> list[Row]:
    """Every path of a gateway."""
    rows: list[Row] = [("path", "methods", "API")]
    return [*rows, *((f"`{one.path}`", ", ".join(one.methods), one.api) for one in SERVED)]


def needs_table() -> list[Row]:
    """What the model must support for a query, and how many tokens that counts as."""
    docs = field_docs(Need)
    rows: list[Row] = [("the query has", "the model", "counts as")]
    for need, asked_by in ASKED_BY.items():
        tokens = TOKENS_PER_PART.get(need)
        does = docs[need.name].removeprefix("It ").removesuffix(".")
        rows.append((asked_by, does, f"{tokens:,} tokens" if tokens else ""))
    return rows


def translated_table(module: str) -> list[Row]:
    """How each field of a request of another API is translated to a chat request."""
    reader = importlib.import_module(f"daitn.{module}")
    docs, refused = field_docs(reader._Request), ", ".join(f"`{name}`" for name in reader._NOT_HERE)
    return [
        ("field", "becomes"),
        *((f"`{field}`", _small(becomes)) for field, becomes in docs.items()),
        (refused, "refused"),
        ("any other field", "unchanged"),
    ]


def blocks_table(module: str) -> list[Row]:
    """How each kind of block of a message is translated."""
    reader = importlib.import_module(f"daitn.{module}")
    return [
        ("block", "becomes"),
        *(
            (f"`{kind.__struct_config__.tag}`", _small(" ".join((kind.__doc__ or "").split())))
            for kind in get_args(reader._AnyBlock)
        ),
    ]


def health_table() -> list[Row]:
    """The conditions for a 503, by path and kind of server."""
    return [
        ("path", "503 of a gateway", "503 of a facility"),
        (
            f"`{HEALTH}`",
            "`max_in_flight` queries are in progress, and none has begun or ended for "
            f"{STUCK_AFTER_S / 60:g} minutes",
            "all its deployments have failed",
        ),
        (
            f"`{READY}`",
            "as above; or it is stopping, out of service or full, or knows no available deployment "
            "(a gateway whose node is a forwarder need not know any)",
            "as above; or it is stopping, or no deployment is ready",
        ),
    ]


def _small(sentence: str) -> str:
    """A field's text, for a cell: a single sentence has neither a capital nor a full stop."""
    if sentence.count(". ") == 0:
        sentence = sentence.removesuffix(".")
    return sentence[:1].lower() + sentence[1:]
