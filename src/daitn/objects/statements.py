"""Lineage entries as in-toto statements, which can be read without DA-ITN.

Source: in-toto Attestation Framework, Statement v1. The subject is the model that an entry leaves
or measured, by the digest of its manifest; the predicate is the entry's fact, with the network in
which it was signed. ::

    {"_type": "https://in-toto.io/Statement/v1",
     "subject": [{"name": "model", "digest": {"blake3": DIGEST}}],
     "predicateType": "urn:daitn:visit:1",
     "predicate": {"network": ..., "entry": DIGEST, "previous": [...], "fact": {...}}}

What a later release adds to an entry is in `more` beside the fact.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from daitn.objects.lineage import Entry, LineageFact, Merge, Origin, Verification, Visit, left_by

__all__ = ["MEASUREMENT", "STATEMENT", "VISIT", "agrees", "in_toto", "statement_of"]

STATEMENT: Final = "https://in-toto.io/Statement/v1"
VISIT: Final = "urn:daitn:visit:1"
MEASUREMENT: Final = "urn:daitn:measurement:1"
_TYPES: Final[dict[type[LineageFact], str]] = {
    Origin: "urn:daitn:origin:1",
    Visit: VISIT,
    Merge: "urn:daitn:merge:1",
    Verification: MEASUREMENT,
}


def in_toto(
    name: str, digest: dict[str, str], kind: str, predicate: dict[str, Any]
) -> dict[str, Any]:
    """A statement about one subject."""
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": digest}],
        "predicateType": kind,
        "predicate": predicate,
    }


def statement_of(entry: Entry, network: str) -> dict[str, Any]:
    """The content of an entry, in plain JSON values. `network`: where it was signed; empty on a
    fabric without signatures."""
    predicate = {
        "network": network,
        "entry": entry.digest,
        "previous": list(entry.previous),
        "fact": _in_json(entry.fact),
    }
    if entry.more is not msgspec.UNSET:
        predicate["more"] = _in_json(entry.more)
    subject = {"blake3": str(left_by(entry.fact))}
    return in_toto("model", subject, _TYPES[type(entry.fact)], predicate)


def _in_json(value: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def agrees(stated: Any, expected: Any) -> bool:
    """Whether a statement says all that is expected: a later version may add to a fact."""
    if isinstance(expected, dict):
        return isinstance(stated, dict) and all(
            name in stated and agrees(stated[name], value) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(stated, list)
            and len(stated) == len(expected)
            and all(map(agrees, stated, expected))
        )
    return isinstance(stated, bool) == isinstance(expected, bool) and bool(stated == expected)
