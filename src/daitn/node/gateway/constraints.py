"""A query's constraints, from the `daitn` object of its body and from `daitn-*` headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from daitn.objects.header_names import PeerHeader
from daitn.objects.queries import QueryConstraints
from daitn.openai.errors import bad_request, from_decode_error

__all__ = ["PREFIX", "read_constraints"]

PREFIX = b"daitn-"
_FIELDS = frozenset(QueryConstraints.__struct_fields__)
_LIST_FIELDS = frozenset({"jurisdictions", "owners"})
_PEER_HEADERS = frozenset(
    name.removeprefix("daitn-").replace("-", "_")
    for constant, name in vars(PeerHeader).items()
    if constant.isupper()
)
"""Names of headers between gateways and facilities, which are not constraints."""
_DECODER = msgspec.json.Decoder(QueryConstraints)
_FIELDS_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NO_CONSTRAINTS = QueryConstraints()


def read_constraints(
    raw: msgspec.Raw | None, headers: Iterable[tuple[bytes, bytes]]
) -> QueryConstraints:
    """Read the constraints of a query; the body overrides the headers. Raises `ApiError` with the
    field at fault."""
    texts = _from_headers(headers)
    if not texts:
        if raw is None:
            return _NO_CONSTRAINTS
        try:
            return _DECODER.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise from_decode_error(error, "daitn") from None
    try:
        stated = _FIELDS_DECODER.decode(raw) if raw is not None else {}
        remaining = {name: value for name, value in texts.items() if name not in stated}
        merged = msgspec.json.decode(msgspec.json.encode({**_converted(remaining), **stated}))
        return msgspec.convert(merged, QueryConstraints)
    except (msgspec.DecodeError, RecursionError) as error:
        raise from_decode_error(error, "daitn") from None


def _from_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    texts = {}
    for raw_name, value in headers:
        if raw_name[:6].lower() != PREFIX:
            continue
        name = raw_name[6:].decode("ascii", "replace").lower().replace("-", "_")
        if name in _PEER_HEADERS:
            continue
        if name not in _FIELDS:
            known = ", ".join(sorted(field.replace("_", "-") for field in _FIELDS))
            raise bad_request(
                "there is no such constraint", f"daitn.{name}", fix=f"use one of: {known}"
            )
        texts[name] = value.decode("utf-8", "replace").strip()
    return texts


def _converted(texts: dict[str, str]) -> dict[str, Any]:
    """Convert header texts by the types of the constraints."""
    plain: dict[str, Any] = {}
    for name, text in texts.items():
        if name in _LIST_FIELDS:
            plain[name] = _parts(text)
        elif name == "prefer":
            pairs = (part.partition("=") for part in _parts(text))
            plain[name] = {scorer.strip(): weight.strip() for scorer, _, weight in pairs}
        else:
            plain[name] = text
    try:
        converted = msgspec.convert(plain, QueryConstraints, strict=False)
    except msgspec.ValidationError as error:
        raise from_decode_error(error, "daitn") from None
    return {name: msgspec.to_builtins(getattr(converted, name)) for name in plain}


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
