"""Signs and checks a folder as in OpenSSF Model Signing 1.0, with a key on P-256.

A bundle is the signature's file: a Sigstore bundle around a DSSE envelope, whose in-toto statement
lists every file with its SHA-256. The project's own tool, `model_signing verify key`, checks it.

That project takes no Ed25519 keys, and members of a network have no others. So a member's key on
P-256 is derived from its own: it is the same for all its exports, is kept nowhere, and a statement
that the member's own key signs says whose it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from daitn.identity.dsse import AGAIN, IN_TOTO, Dsse, DsseSignature, pae, statement
from daitn.identity.keys import SigningKey
from daitn.objects.errors import Corrupt
from daitn.objects.statements import in_toto

__all__ = ["SIGNATURE", "public_pem", "sign_files", "signed_files"]

SIGNATURE: Final = "model.sig"
"""Name of a bundle in the folder that it signs."""
_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_PURPOSE: Final = b"daitn model signing key 1\0"
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of the P-256 group."""
_KEY_BYTES: Final = 48
"""Bytes from which a private key is derived: 128 bits more than the key, so that the result is
unbiased (FIPS 186-5, A.2.1)."""


class _PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    hint: Annotated[str, msgspec.Meta(max_length=200)] = ""


class _Material(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    public_key: _PublicKey
    tlog_entries: tuple[Any, ...] = ()


class _Bundle(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: Dsse


class _Subject(msgspec.Struct, frozen=True, kw_only=True):
    digest: dict[str, str]


class _Resource(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(max_length=4096)]
    algorithm: str
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Serialization(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    hash_type: str
    allow_symlinks: bool


class _Predicate(msgspec.Struct, frozen=True, kw_only=True):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


def public_pem(key: SigningKey) -> bytes:
    """A member's P-256 public key for signing folders, PEM."""
    return _pem(_private(key).public_key())


def sign_files(name: str, files: Mapping[str, str], key: SigningKey) -> bytes:
    """The bundle of a folder of this name. `files`: the SHA-256 of each, by its path in it."""
    resources = [
        {"name": path, "algorithm": "sha256", "digest": files[path]}
        for path in sorted(files, key=PurePosixPath)
    ]
    statement = in_toto(
        name,
        {"sha256": _root([files[str(one["name"])] for one in resources])},
        _PREDICATE,
        {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": resources,
        },
    )
    payload, private = msgspec.json.encode(statement), _private(key)
    signature = DsseSignature(sig=private.sign(pae(payload), ec.ECDSA(hashes.SHA256())))
    envelope = Dsse(payload=payload, payload_type=IN_TOTO, signatures=(signature,))
    return _written(envelope, _pem(private.public_key()))


def signed_files(bundle: bytes, pem: bytes) -> dict[str, str]:
    """The SHA-256 of each file, by its path, as signed with the key in `pem`.

    Raises `Corrupt`, also for a bundle or a key with anything besides."""
    try:
        read = msgspec.json.decode(bundle, type=_Bundle)
        public = load_pem_public_key(pem)
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
            raise ValueError("its key is not on P-256")
        envelope = read.dsse_envelope
        if (read.media_type, envelope.payload_type) != (_MEDIA_TYPE, IN_TOTO):
            raise ValueError("it is another kind of bundle")
        if len(envelope.signatures) != 1:
            raise ValueError("it has more than one signature")
        if _pem(public) != pem:
            raise ValueError("its key's file holds more than the key")
        public.verify(envelope.signatures[0].sig, pae(envelope.payload), ec.ECDSA(hashes.SHA256()))
        if _rewritten(read, pem) != bundle:
            raise ValueError("it holds something that is not signed")
        return _files(statement(envelope.payload, SIGNATURE))
    except InvalidSignature:
        problem = "the signature does not match: another key made it, or it was changed"
    except (ValueError, TypeError, RecursionError, UnsupportedAlgorithm) as error:
        problem = f"no signature of a folder: {error}"
    raise Corrupt(problem, field=SIGNATURE, fix=AGAIN)


def _rewritten(bundle: _Bundle, pem: bytes) -> bytes:
    """The bundle as `sign_files` writes it: its signature does not cover what is around it."""
    envelope = bundle.dsse_envelope
    signature = DsseSignature(sig=envelope.signatures[0].sig)
    return _written(msgspec.structs.replace(envelope, signatures=(signature,)), pem)


def _written(envelope: Dsse, pem: bytes) -> bytes:
    hint = hashlib.sha256(pem).hexdigest()
    bundle = _Bundle(
        media_type=_MEDIA_TYPE,
        verification_material=_Material(public_key=_PublicKey(hint=hint)),
        dsse_envelope=envelope,
    )
    return msgspec.json.encode(bundle)


def _files(statement: dict[str, Any]) -> dict[str, str]:
    if statement.get("predicateType") != _PREDICATE:
        raise ValueError("its statement is of another kind")
    predicate = msgspec.convert(statement.get("predicate"), _Predicate)
    serialization = predicate.serialization
    if (serialization.method, serialization.hash_type, serialization.allow_symlinks) != (
        "files",
        "sha256",
        False,
    ):
        raise ValueError("it does not list files by SHA-256")
    files = {one.name: one.digest for one in predicate.resources if one.algorithm == "sha256"}
    if len(files) != len(predicate.resources):
        raise ValueError("it names a file twice, or not by SHA-256")
    subject = msgspec.convert(statement.get("subject"), tuple[_Subject, ...])
    root = {"sha256": _root([one.digest for one in predicate.resources])}
    if [one.digest for one in subject] != [root]:
        raise ValueError("its digest is not that of its files")
    return files


def _root(digests: list[str]) -> str:
    """The folder's digest: SHA-256 of its files' digests, concatenated."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _private(key: SigningKey) -> ec.EllipticCurvePrivateKey:
    secret = int.from_bytes(key.derived(_PURPOSE, _KEY_BYTES), "big")
    return ec.derive_private_key(secret % (_ORDER - 1) + 1, ec.SECP256R1())


def _pem(public: ec.EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
