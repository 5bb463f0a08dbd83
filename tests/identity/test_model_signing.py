"""What is no signature of a folder is refused in words, whatever it is."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from daitn.identity.dsse import pae
from daitn.identity.keys import SigningKey
from daitn.identity.model_signing import _Bundle, _private, public_pem, sign_files, signed_files
from daitn.objects.errors import Corrupt

KEY = SigningKey.generate()
FILES = {"weights": "0" * 64}


def signed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A bundle whose statement was changed before it was signed: strangers have keys, too."""
    bundle = msgspec.json.decode(sign_files("qa", FILES, KEY), type=_Bundle)
    said = msgspec.json.decode(bundle.dsse_envelope.payload)
    change(said)
    payload = msgspec.json.encode(said)
    (one,) = bundle.dsse_envelope.signatures
    again = msgspec.structs.replace(
        one, sig=_private(KEY).sign(pae(payload), ec.ECDSA(hashes.SHA256()))
    )
    envelope = msgspec.structs.replace(bundle.dsse_envelope, payload=payload, signatures=(again,))
    return msgspec.json.encode(msgspec.structs.replace(bundle, dsse_envelope=envelope))


def test_what_was_signed_is_read() -> None:
    assert signed_files(signed(lambda said: None), public_pem(KEY)) == FILES


@pytest.mark.parametrize("name", ["subject", "predicate", "predicateType"])
@pytest.mark.parametrize("value", [None, 5, "x", ["x"], [{"digest": 5}], [{}], {}])
def test_a_statement_of_another_form_is_none(name: str, value: object) -> None:
    with pytest.raises(Corrupt):
        signed_files(signed(lambda said: said.update({name: value})), public_pem(KEY))


def test_a_key_on_an_unknown_curve_is_none() -> None:
    lines = public_pem(KEY).splitlines()
    der = bytearray(base64.b64decode(b"".join(lines[1:-1])))
    der[der.find(bytes.fromhex("06082a8648ce3d0301")) + 9] = 0x77
    pem = b"\n".join((lines[0], base64.b64encode(bytes(der)), lines[-1], b""))
    with pytest.raises(Corrupt, match="no signature of a folder"):
        signed_files(sign_files("qa", FILES, KEY), pem)
