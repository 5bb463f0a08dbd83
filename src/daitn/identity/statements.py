"""Lineage entries as signed in-toto statements: by the site that signed the entry, or, without one,
by the exporter of the model."""

from __future__ import annotations

from daitn.identity.dsse import opened, read_dsse, sealed
from daitn.identity.keys import SigningKey
from daitn.objects.errors import Corrupt
from daitn.objects.lineage import Entry
from daitn.objects.models import DO_NOT_USE
from daitn.objects.statements import agrees, statement_of

__all__ = ["check_statement", "sign_statement"]


def sign_statement(entry: Entry, network: str, key: SigningKey) -> bytes:
    """An entry as a statement in a DSSE envelope, JSON on one line."""
    return sealed(statement_of(entry, network), key)


def check_statement(
    data: bytes, entry: Entry, network: str | None, also: str = "", field: str = "statement"
) -> str:
    """Raise `Corrupt` unless a statement matches an entry, and was made in this network (none means
    any). The entry's own key signed it, or the key `also`; returns which one."""
    envelope = read_dsse(data, field)
    signer = envelope.signatures[0].keyid
    if signer not in {entry.public_key, also} - {""}:
        raise Corrupt(
            f"signed neither by {entry.fact.site}, which the entry is of, nor by the exporter",
            field=field,
            fix=DO_NOT_USE,
        )
    statement = opened(envelope, signer, field)
    predicate = statement.get("predicate")
    stated = predicate.get("network") if isinstance(predicate, dict) else None
    if network is not None and stated != network:
        raise Corrupt(
            f"made in the network {str(stated)[:100]!r}, and not in {network!r}",
            field=field,
            fix=DO_NOT_USE,
        )
    if not agrees(statement, statement_of(entry, str(stated))):
        raise Corrupt(
            f"it contradicts the lineage of {entry.fact.visit}",
            field=field,
            fix=DO_NOT_USE,
        )
    return signer
