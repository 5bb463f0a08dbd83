"""DSSE envelopes (secure-systems-lab/dsse, protocol 1.0.2) around in-toto statements.

A signature covers the statement's very bytes, so that a verifier never encodes anything
again, and a statement with fields that a reader does not know is as good as any.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import msgspec

from daitn.identity.keys import SigningKey, check_raw_signature, raw_of
from daitn.objects.errors import Corrupt

__all__ = [
    "AGAIN",
    "IN_TOTO",
    "Dsse",
    "DsseSignature",
    "opened",
    "pae",
    "plain_json",
    "read_dsse",
    "sealed",
    "statement",
]

IN_TOTO: Final = "application/vnd.in-toto+json"
"""The payload's type."""
_MOST_BYTES: Final = 8 << 20
"""Size limit of a statement; that of a merge names up to 256 models."""
AGAIN: Final = "get the export again from whom you have it; if that does not help, do not use it"
"""What to do about an exported folder that differs from what was signed."""


class DsseSignature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature of an envelope."""

    sig: Annotated[bytes, msgspec.Meta(max_length=256)]
    keyid: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """An unsigned hint: for an Ed25519 key, the public key, base64."""


class Dsse(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A payload with its signatures, as in JSON."""

    payload: Annotated[bytes, msgspec.Meta(max_length=_MOST_BYTES)]
    payload_type: str
    signatures: Annotated[tuple[DsseSignature, ...], msgspec.Meta(min_length=1, max_length=16)]


def pae(payload: bytes) -> bytes:
    """The signed bytes: DSSE's pre-authentication encoding of an in-toto statement."""
    return b"DSSEv1 %d %s %d %s" % (len(IN_TOTO), IN_TOTO.encode(), len(payload), payload)


def sealed(statement: dict[str, Any], key: SigningKey) -> bytes:
    """A statement in an envelope signed by an Ed25519 key, as JSON on one line."""
    payload = msgspec.json.encode(statement, order="deterministic")
    signature = DsseSignature(sig=key.sign_raw(pae(payload)), keyid=key.public)
    envelope = Dsse(payload=payload, payload_type=IN_TOTO, signatures=(signature,))
    return msgspec.json.encode(envelope)


def read_dsse(data: bytes, field: str) -> Dsse:
    """Decode an envelope with one signature, without checking it. Raises `Corrupt`."""
    try:
        envelope = msgspec.json.decode(data, type=Dsse)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"no DSSE envelope: {error}", field=field, fix=AGAIN) from None
    if envelope.payload_type != IN_TOTO or len(envelope.signatures) != 1:
        raise Corrupt(
            f"not one signature of {IN_TOTO}, but {len(envelope.signatures)} "
            f"of {envelope.payload_type[:100]!r}",
            field=field,
            fix=AGAIN,
        )
    return envelope


def opened(envelope: Dsse, public: str, field: str) -> dict[str, Any]:
    """The statement in an envelope, if this Ed25519 key signed it. Raises `Corrupt`."""
    try:
        raw = raw_of(public)
    except ValueError:
        raise Corrupt("its key is none", field=field, fix=AGAIN) from None
    try:
        check_raw_signature(raw, envelope.signatures[0].sig, pae(envelope.payload))
    except Corrupt:
        raise Corrupt("the signature does not match", field=field, fix=AGAIN) from None
    return statement(envelope.payload, field)


def statement(payload: bytes, field: str) -> dict[str, Any]:
    """The JSON object in a payload. Raises `Corrupt`, as `plain_json` does."""
    statement = plain_json(payload, field, "statement")
    if not isinstance(statement, dict):
        raise Corrupt("no statement, but another value", field=field, fix=AGAIN)
    return statement


def plain_json(data: bytes, field: str, kind: str = "JSON") -> Any:
    """The value of a JSON text of some kind. Raises `Corrupt`, also for duplicate keys, on which
    readers would differ."""
    try:
        return json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"no {kind}: {error}", field=field, fix=AGAIN) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ValueError("a name occurs twice")
    return named
