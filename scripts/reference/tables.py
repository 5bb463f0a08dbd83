"""The kinds of tables, by the first word of their mark. Each gives rows, the head first."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import Any, Final, get_type_hints

import msgspec

from daitn.oam.docstring_values import value_of
from daitn.oam.field_docs import field_docs
from daitn.oam.monitoring.catalogue import CATALOGUE
from daitn.objects.errors import KINDS
from daitn.objects.layout import WireField
from daitn.objects.merging import RULES, TOLERANT, OuterStep, Reduces
from daitn.openai.codes import CODES
from daitn.openai.failures import FAILURES, Cause
from daitn.steering.wire import packet
from daitn.tools.http import server_connection as http
from scripts.reference import api, commands, exports, fabric, gateway
from scripts.reference.rows import Row
from scripts.reference.words import default_words, type_words

__all__ = ["TABLES", "named"]

_HEALTH: Final[dict[Cause | None, str]] = {
    None: "no",
    Cause.FULL: "no",
    Cause.UNSUITED: "no",
    Cause.FAILED: "yes",
    Cause.REFUSED: "if another answers",
    Cause.UNREACHABLE: "yes, where no path is left",
}


def named(name: str) -> Any:
    """What a dotted name below `daitn` stands for: `node.config.NodeConfig`."""
    return value_of(name, "")


def _fields(name: str, prefix: str = "", *, wire: bool = False) -> list[Row]:
    """The fields of a struct, as a file has them."""
    struct, docs = named(name), field_docs(named(name))
    hints = get_type_hints(struct, include_extras=True)
    rows: list[Row] = [("field", "type", "default", "meaning")]
    fields = list(msgspec.structs.fields(struct))
    if not wire:
        fields.sort(key=lambda field: list(docs).index(field.name))
    for field in fields:
        words = type_words(hints[field.name], field.name, wire=wire)
        default = default_words(_default(field), field.name, wire=wire)
        rows.append((f"`{prefix}{field.name}`", words, default, docs[field.name]))
    return rows


def _array(name: str) -> list[Row]:
    """The elements of a struct that travels as a MessagePack array; its tag stands first."""
    tag = named(name).__struct_config__.tag
    head, *fields = _fields(name, wire=True)
    if tag is not None:
        fields.insert(0, ("", str(tag), "", f"Marks a message of the kind {named(name).__name__}."))
    return [("", *head), *((str(position), *field) for position, field in enumerate(fields))]


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _members(name: str) -> list[Row]:
    """The members of an enumeration: numbers by their names, texts by what they say."""
    kind, docs = named(name), field_docs(named(name))
    if not issubclass(kind, int):
        return [("value", "meaning"), *((f"`{m.value}`", docs[m.name]) for m in kind)]
    number = "bit value" if issubclass(kind, enum.IntFlag) else "number"
    rows: list[Row] = [("name", number, "meaning")]
    return [*rows, *((f"`{m.name}`", str(int(m)), docs[m.name]) for m in kind)]


def _numbered(name: str) -> list[Row]:
    """The members of an enumeration of texts, numbered from 0."""
    kind, docs = named(name), field_docs(named(name))
    rows: list[Row] = [("number", "value", "meaning")]
    return [*rows, *((str(n), f"`{m.value}`", docs[m.name]) for n, m in enumerate(kind))]


def _constants(name: str) -> list[Row]:
    """The constants of a class that holds nothing else."""
    kind = named(name)
    return [
        ("name", "meaning"),
        *((f"`{getattr(kind, constant)}`", text) for constant, text in field_docs(kind).items()),
    ]


def _errors() -> list[Row]:
    return [("name", "when"), *((f"`{kind.__name__}`", kind.__doc__ or "") for kind in KINDS)]


def _codes() -> list[Row]:
    return [
        ("HTTP", "`code`", "when"),
        *((str(code.status), f"`{code.code}`", code.when) for code in CODES),
    ]


def _merge_rules() -> list[Row]:
    """What `training.merging` changes, as each algorithm has it; left out where it does not count.

    Rows of the same numbers are one.
    """
    algorithms: dict[Row, list[str]] = {}
    for algorithm, rule in RULES.items():
        tolerates = str(rule.tolerates) if rule.reduction in TOLERANT else ""
        density = f"{rule.density:g}" if rule.reduction in (Reduces.TIES, Reduces.DARE) else ""
        adapts = rule.outer in (OuterStep.ADAM, OuterStep.YOGI)
        momentum = f"{rule.momentum:g}" if adapts or rule.outer is OuterStep.MOMENTUM else ""
        second = (f"{rule.second_momentum:g}", f"{rule.least:g}") if adapts else ("", "")
        row = (tolerates, density, f"{rule.rate:g}", momentum, *second)
        algorithms.setdefault(row, []).append(f"`{algorithm}`")
    names = ("tolerates", "density", "rate", "momentum", "second_momentum", "least")
    head: Row = ("algorithm", *(f"`{name}`" for name in names))
    return [head, *((", ".join(words), *row) for row, words in algorithms.items())]


def _failures() -> list[Row]:
    """What can go wrong at a deployment, and what follows."""
    rows: list[Row] = [
        (
            "failure",
            "when",
            "the facility says",
            "another asked",
            "health suffers",
            "the client gets",
            "`Retry-After`",
        )
    ]
    for failure in FAILURES:
        said = ", ".join(f"{status} `{code}`" for status, code in failure.statuses)
        rows.append(
            (
                failure.name,
                failure.when,
                said,
                "yes" if failure.asks_other else "no",
                _HEALTH[failure.cause],
                failure.client,
                "none" if failure.permanent else "the hint, or 1 s",
            )
        )
    return rows


def _header() -> list[Row]:
    """The head of a packet, byte by byte."""
    rows: list[Row] = [("offset", "bytes", "field", "mutable", "meaning")]
    offset = 0
    for field in packet.HEADER_FIELDS:
        mutable = "yes" if field.mutable else "no"
        rows.append((str(offset), str(field.size), f"`{field.name}`", mutable, field.meaning))
        offset += field.size
    return rows


def _layout(name: str) -> list[Row]:
    """The fields of a message that is no MessagePack, byte by byte."""
    fields: tuple[WireField, ...] = named(name)
    rows: list[Row] = [("offset", "bytes", "field", "meaning")]
    offset: int | None = 0
    for field in fields:
        at = "" if offset is None else str(offset)
        rows.append((at, str(field.size or field.varying), f"`{field.name}`", field.meaning))
        offset = offset + field.size if offset is not None and field.form else None
    return rows


def _http_timeouts() -> list[Row]:
    """What takes too long at a server of HTTP, and from when on."""
    gateway_body_s, facility_write_s = (
        named("node.gateway.api.BODY_TIMEOUT_S"),
        named("node.serving.facility.WRITE_TIMEOUT_S"),
    )
    return [
        ("what takes too long", "limit"),
        ("a request's head, from its first byte", f"{http.HEAD_TIMEOUT_S:g} s"),
        (
            "a request's body",
            f"{gateway_body_s:g} s at a gateway, {http.BODY_TIMEOUT_S:g} s at a facility",
        ),
        (
            f"a client that reads less than {http.WRITE_LEAST_BYTES >> 10} KiB of the pending "
            "data, or not all of the rest",
            f"{http.WRITE_TIMEOUT_S:g} s at a gateway, {facility_write_s:g} s at a facility; "
            "its query is `abandoned`",
        ),
        ("an idle connection", f"{http.KEEPALIVE_S:g} s"),
    ]


def _bounds() -> list[Row]:
    return [
        ("what", "at most"),
        ("`hop_limit`", str(packet.MOST_HOPS)),
        ("intent, bytes", str(packet.MOST_INTENT_BYTES)),
        ("trace, bytes", str(packet.MOST_TRACE_BYTES)),
        ("payload, bytes", str(packet.MOST_PAYLOAD_BYTES)),
        ("digest, bytes (exactly)", str(packet.DIGEST_BYTES)),
        ("summary, bytes", str(named("steering.wire.offers.MOST_UPDATE_BYTES"))),
    ]


def _metrics(part: str) -> list[Row]:
    """The metrics that a part of a process tells."""
    return [
        ("metric", "type", "labels", "meaning"),
        *(
            (
                f"`{metric.name}`",
                metric.kind.value,
                ", ".join(f"`{label}`" for label in metric.labels),
                metric.help,
            )
            for metric in CATALOGUE[part]
        ),
    ]


def _live(name: str) -> list[Row]:
    """The fields of a file that a running process takes over, by the part of the file."""
    fields: dict[str, list[str]] = {}
    for part, _, field in sorted(path.rpartition(".") for path in named(name)):
        fields.setdefault(part, []).append(f"`{field}`")
    return [
        ("section", "fields"),
        *((f"`{part}`" if part else "the file", ", ".join(each)) for part, each in fields.items()),
    ]


TABLES: Final[dict[str, Callable[..., list[Row]]]] = {
    "fields": _fields,
    "array": _array,
    "map": functools.partial(_fields, wire=True),
    "members": _members,
    "numbered": _numbered,
    "constants": _constants,
    "errors": _errors,
    "codes": _codes,
    "failures": _failures,
    "merge-rules": _merge_rules,
    "packet-header": _header,
    "packet-bounds": _bounds,
    "layout": _layout,
    "http-timeouts": _http_timeouts,
    "keys": fabric.keys_table,
    "verbs": fabric.verbs_table,
    "command": commands.command_table,
    "metrics": _metrics,
    "live": _live,
    "exports": exports.exports_table,
    "gateway-paths": gateway.paths_table,
    "needs": gateway.needs_table,
    "translated": gateway.translated_table,
    "blocks": gateway.blocks_table,
    "health": gateway.health_table,
    "api-routes": api.routes_table,
    "api-parameters": api.parameters_table,
    "api-events": api.events_table,
    "api-statuses": api.statuses_table,
}
