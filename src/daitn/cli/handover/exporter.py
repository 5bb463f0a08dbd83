"""The exporter of a model: a member of a network, by its key in the roster."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final

import msgspec

from daitn.cli.handover.folder import EXPORTER, EXPORTER_KEY, other_line_ends, read_bytes
from daitn.identity.dsse import AGAIN, opened, read_dsse, sealed
from daitn.identity.keys import SigningKey
from daitn.identity.model_signing import SIGNATURE, public_pem, sign_files, signed_files
from daitn.objects.errors import Corrupt
from daitn.objects.identifiers import Digest, Word
from daitn.objects.roster import Kind, Member
from daitn.objects.statements import STATEMENT, in_toto

__all__ = ["Exporter", "read_exporter", "signature_of", "write_exporter"]

_TYPE: Final = "urn:daitn:exporter:1"
_MOST_BYTES: Final = 1 << 16
_MOST_SIGNATURE_BYTES: Final = 32 << 20


class Exporter(msgspec.Struct, frozen=True, kw_only=True):
    """The exporter's statement on one model."""

    network: Word
    kind: Kind
    name: Word
    """By the roster."""
    public_key: Word
    """In the roster; Ed25519, base64."""
    model: Digest
    form: Word
    """`parts`, which sites signed, or another, which the exporter made from them."""
    at_s: Annotated[float, msgspec.Meta(ge=0, le=1e11)]


def write_exporter(
    folder: Path, key: SigningKey, member: Member, network: str, of: tuple[Digest, str], at_s: float
) -> None:
    """State whose key signs a folder. `of`: the model, and its form."""
    pem = public_pem(key)
    exporter = Exporter(
        network=network,
        kind=member.kind,
        name=member.name,
        public_key=key.public,
        model=of[0],
        form=of[1],
        at_s=at_s,
    )
    digest = {"sha256": hashlib.sha256(pem).hexdigest()}
    stated = in_toto(EXPORTER_KEY, digest, _TYPE, msgspec.to_builtins(exporter))
    (folder / EXPORTER_KEY).write_bytes(pem)
    (folder / EXPORTER).write_bytes(sealed(stated, key) + b"\n")


def signature_of(name: str, hashes: dict[str, str], key: SigningKey) -> bytes:
    """The signature of all files of a folder, by their SHA-256."""
    return sign_files(name, hashes, key) + b"\n"


def read_exporter(folder: Path) -> tuple[Exporter, dict[str, str]]:
    """The exporter of a folder, and the SHA-256 of each of its files, as signed with the key that
    this statement names, whoever owns it. Raises `NotFound` and `Corrupt`."""
    pem = read_bytes(folder / EXPORTER_KEY, EXPORTER_KEY, _MOST_BYTES)
    pem = pem.replace(b"\r\n", b"\n")  # It is the same key; the files' hashes tell of other ends.
    hashes = signed_files(_bundle(folder), pem)
    envelope = read_dsse(read_bytes(folder / EXPORTER, EXPORTER, _MOST_BYTES), EXPORTER)
    public = envelope.signatures[0].keyid
    statement = opened(envelope, public, EXPORTER)
    subject = [{"name": EXPORTER_KEY, "digest": {"sha256": hashlib.sha256(pem).hexdigest()}}]
    if (statement.get("_type"), statement.get("predicateType")) != (STATEMENT, _TYPE):
        raise Corrupt("it does not state who exported", field=EXPORTER, fix=AGAIN)
    if statement.get("subject") != subject:
        raise Corrupt(
            f"it is about a key other than {EXPORTER_KEY}, which signed the folder",
            field=EXPORTER,
            fix=AGAIN,
        )
    try:
        exporter = msgspec.convert(statement.get("predicate"), Exporter)
    except msgspec.ValidationError as error:
        raise Corrupt(str(error), field=EXPORTER, fix=AGAIN) from None
    if exporter.public_key != public:
        raise Corrupt("signed with a key other than the one it names", field=EXPORTER, fix=AGAIN)
    return exporter, hashes


def _bundle(folder: Path) -> bytes:
    """The signature of a folder, which alone nothing signs: it is one line."""
    data = read_bytes(folder / SIGNATURE, SIGNATURE, _MOST_SIGNATURE_BYTES)
    if data.endswith(b"\r\n"):
        raise other_line_ends(SIGNATURE)
    if not data.endswith(b"\n"):
        raise Corrupt("its end is missing", field=SIGNATURE, fix=AGAIN)
    return data[:-1]
