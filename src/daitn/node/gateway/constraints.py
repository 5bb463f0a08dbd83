"""A query's wishes, from the `daitn` object of its body and from headers `daitn-*`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from daitn.node.gateway.headers import PeerHeader
from daitn.objects.queries import QueryConstraints
from daitn.openai.errors import bad_request, fault

__all__ = ["PREFIX", "read_constraints"]

PREFIX = b"daitn-"
FIELDS = frozenset(QueryConstraints.__struct_fields__)
_LISTS = frozenset({"jurisdictions", "owners"})
_OF_GATEWAYS = frozenset(
    name.removeprefix("daitn-").replace("-", "_")
    for constant, name in vars(PeerHeader).items()
    if constant.isupper()
)
"""Headers between gateways and facilities; no constraints."""
_BODY = msgspec.json.Decoder(QueryConstraints)
_PLAIN = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NONE = QueryConstraints()


def read_constraints(
    raw: msgspec.Raw | None, headers: Iterable[tuple[bytes, bytes]]
) -> QueryConstraints:
    """Where both name a wish, the body's counts. Raises `ApiError` naming the field."""
    said = _from_headers(headers)
    if not said:
        if raw is None:
            return _NONE
        try:
            return _BODY.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise fault(error, "daitn") from None
    try:
        over = _PLAIN.decode(raw) if raw is not None else {}
        left = {name: value for name, value in said.items() if name not in over}
        wished = msgspec.json.decode(msgspec.json.encode({**_plain(left), **over}))
        return msgspec.convert(wished, QueryConstraints)
    except (msgspec.DecodeError, RecursionError) as error:
        raise fault(error, "daitn") from None


def _from_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    said = {}
    for raw_name, value in headers:
        if raw_name[:6].lower() != PREFIX:
            continue
        name = raw_name[6:].decode("ascii", "replace").lower().replace("-", "_")
        if name in _OF_GATEWAYS:
            continue
        if name not in FIELDS:
            known = ", ".join(sorted(field.replace("_", "-") for field in FIELDS))
            raise bad_request("there is no such wish", f"daitn.{name}", fix=f"wishes: {known}")
        said[name] = value.decode("utf-8", "replace").strip()
    return said


def _plain(said: dict[str, str]) -> dict[str, Any]:
    """Headers are text: numbers and truth values are read by the wishes' own types."""
    plain: dict[str, Any] = {}
    for name, text in said.items():
        if name in _LISTS:
            plain[name] = _parts(text)
        elif name == "prefer":
            pairs = (part.partition("=") for part in _parts(text))
            plain[name] = {scorer.strip(): weight.strip() for scorer, _, weight in pairs}
        else:
            plain[name] = text
    try:
        read = msgspec.convert(plain, QueryConstraints, strict=False)
    except msgspec.ValidationError as error:
        raise fault(error, "daitn") from None
    return {name: msgspec.to_builtins(getattr(read, name)) for name in plain}


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
