"""ID tokens of OpenID Connect: JSON Web Signatures (RFC 7515) by keys of a JWK set (RFC 7517).

Only signatures with public keys count: RS256, PS256, ES256 and EdDSA. A key says itself of which
kind it is, and a token that names another algorithm is refused, so that nothing can be passed off
as a shared secret or as unsigned.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from daitn.objects.errors import Refused

__all__ = ["ID_TOKEN_BYTES", "UnknownKey", "checked_claims"]

ID_TOKEN_BYTES: Final = 16 << 10
_LEEWAY_S: Final = 60.0
"""Tolerated difference of the provider's clock."""
_LEAST_RSA_BITS: Final = 2048
_ES256_BYTES: Final = 32


class UnknownKey(Refused):
    """No key of the set made the token's signature; a newer set may have one that did."""


def checked_claims(
    token: str,
    keys: Sequence[Mapping[str, Any]],
    *,
    issuer: str,
    client: str,
    nonce: str,
    now_s: float,
) -> dict[str, Any]:
    """The claims of a token that this issuer signed for this client, just now (OpenID Connect Core,
    3.1.3.7). Raises `Refused`."""
    if len(token) > ID_TOKEN_BYTES or token.count(".") != 2:
        raise _refused("it is not a signed token")
    head, body, signature = token.split(".")
    header, claims = _json(head), _json(body)
    _check_signature(header, keys, f"{head}.{body}".encode(), _raw(signature))
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if claims.get("iss") != issuer:
        raise _refused("another provider issued it")
    if client not in audiences or (len(audiences) > 1 and claims.get("azp") != client):
        raise _refused("it is for another client")
    if claims.get("azp") not in (None, client):
        raise _refused("it is for another client")
    if not _number(claims, "exp") > now_s - _LEEWAY_S:
        raise _refused("it has expired")
    if _number(claims, "iat") > now_s + _LEEWAY_S:
        raise _refused("it was issued in the future")
    if not nonce or claims.get("nonce") != nonce:
        raise _refused("it answers another request")
    return claims


def _check_signature(
    header: Mapping[str, Any], keys: Sequence[Mapping[str, Any]], message: bytes, signature: bytes
) -> None:
    if "crit" in header:
        raise _refused("it has a part that is not understood here")
    algorithm, wanted = header.get("alg"), header.get("kid")
    fitting = [
        key
        for key in keys
        if isinstance(key, Mapping)
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (wanted is None or key.get("kid") == wanted)
    ]
    if not fitting:
        raise UnknownKey("the ID token was signed with an unknown key", field="id_token")
    for key in fitting:
        try:
            _VERIFIERS[str(algorithm), str(key.get("kty"))](key, message, signature)
        except (InvalidSignature, ValueError, KeyError, TypeError):
            continue
        return
    # Not all providers name their keys, or name a new one differently.
    raise UnknownKey("the ID token does not count: its signature is wrong", field="id_token")


def _rsa(key: Mapping[str, Any]) -> rsa.RSAPublicKey:
    numbers = rsa.RSAPublicNumbers(_integer(key["e"]), _integer(key["n"]))
    public = numbers.public_key()
    if public.key_size < _LEAST_RSA_BITS:
        raise ValueError("the key is too short")
    return public


def _rs256(key: Mapping[str, Any], message: bytes, signature: bytes) -> None:
    _rsa(key).verify(signature, message, padding.PKCS1v15(), hashes.SHA256())


def _ps256(key: Mapping[str, Any], message: bytes, signature: bytes) -> None:
    length = padding.PSS.DIGEST_LENGTH
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), length)
    _rsa(key).verify(signature, message, scheme, hashes.SHA256())


def _es256(key: Mapping[str, Any], message: bytes, signature: bytes) -> None:
    if key["crv"] != "P-256" or len(signature) != 2 * _ES256_BYTES:
        raise ValueError("not of this curve")
    point = ec.EllipticCurvePublicNumbers(_integer(key["x"]), _integer(key["y"]), ec.SECP256R1())
    halves = signature[:_ES256_BYTES], signature[_ES256_BYTES:]
    pair = encode_dss_signature(*(int.from_bytes(half) for half in halves))
    point.public_key().verify(pair, message, ec.ECDSA(hashes.SHA256()))


def _eddsa(key: Mapping[str, Any], message: bytes, signature: bytes) -> None:
    if key["crv"] != "Ed25519":
        raise ValueError("not of this curve")
    Ed25519PublicKey.from_public_bytes(_raw(key["x"])).verify(signature, message)


_VERIFIERS: Final = {
    ("RS256", "RSA"): _rs256,
    ("PS256", "RSA"): _ps256,
    ("ES256", "EC"): _es256,
    ("EdDSA", "OKP"): _eddsa,
}


def _json(part: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(_raw(part), type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise _refused("it cannot be read") from None


def _raw(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
    except ValueError:
        raise _refused("it cannot be read") from None


def _integer(part: str) -> int:
    return int.from_bytes(_raw(part))


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(f"it does not say {name}")
    return float(value)


def _refused(why: str) -> Refused:
    return Refused(
        f"the ID token is not valid: {why}",
        field="id_token",
        fix="sign in again; if that does not help, compare `api.oidc` with the provider's settings",
    )
