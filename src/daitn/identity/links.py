"""Authenticated links between neighbours: proof of the other end, and tags on every message.

Each end draws an X25519 key for the time that it knows the neighbour, and signs it with its key in
the roster: its **proof**. From both keys follows a secret that only the two ends know. Every
message ends in a tag that is made with it, so nobody can add, change or take over a message; order
and freshness are the link's own matter (`tools/adjacency/link.py`).

A proof is worth nothing to anyone who repeats it: the secret takes the private key. An older proof
than the one that counts is ignored, so repeating it does not break the link either.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from daitn.identity.keys import SigningKey, check_raw_signature, raw_of
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.layout import WireField, packing
from daitn.objects.wire import canonical

__all__ = ["PROOF_FIELDS", "PROOF_KIND", "LinkIdentity", "LinkKeys"]

PROOF_KIND: Final = 3
"""First byte of a proof; those of other messages are in `tools/adjacency/framing.py`."""
PROOF_FIELDS: Final = (
    WireField("kind", "B", "3"),
    WireField("at_ms", "Q", "when it was made; the later of two counts"),
    WireField("public", "32s", "an X25519 key, generated for this link"),
    WireField("signer", "32s", "the site's key, as in the roster"),
    WireField("signature", "64s", "Ed25519, see below"),
)
_PROOF = packing(PROOF_FIELDS)
_DOMAIN: Final = b"daitn link 1\0"
"""Domain separation of these signatures."""
_CONTEXT: Final = "daitn link 1"
_TAG: Final = 16


@dataclass(frozen=True)
class LinkIdentity:
    """A site's identity on its links."""

    site: SiteId
    key: SigningKey
    network: str
    """The network's name."""
    key_of: Callable[[SiteId], str | None]
    """The public key of a possible neighbour."""
    now_s: Callable[[], float]
    """Monotonic, even over a restart."""

    def link_to(self, neighbour: SiteId) -> LinkKeys:
        """This site's end of a link."""
        return LinkKeys(self, neighbour)


class LinkKeys:
    """One end of one link. `seal` may be called on other threads than the rest."""

    def __init__(self, identity: LinkIdentity, neighbour: SiteId) -> None:
        self._identity = identity
        self._neighbour = neighbour
        self._private = X25519PrivateKey.generate()
        self._public = self._private.public_key().public_bytes_raw()
        at_ms = int(1000 * identity.now_s())
        signature = identity.key.sign_raw(
            self._signed(identity.site, neighbour, at_ms, self._public)
        )
        self.proof = _PROOF.pack(
            PROOF_KIND, at_ms, self._public, identity.key.public_raw, signature
        )
        """This end's proof."""
        self._signer = ""
        """The neighbour's key in the roster, against which its proof is checked."""
        self._peer_at_ms = -1
        self._sends: bytes | None = None
        self._takes: bytes | None = None

    def hear(self, proof: bytes) -> bool:
        """Process the neighbour's proof. Returns whether it is new.

        Raises `Corrupt`, and `Refused` for one by somebody else.
        """
        if len(proof) != _PROOF.size:
            raise Corrupt(f"a proof has {_PROOF.size} bytes, not {len(proof)}", field="proof")
        _, at_ms, public, signer, signature = _PROOF.unpack(proof)
        expected = self._identity.key_of(self._neighbour)
        if expected is None or raw_of(expected) != signer:
            raise Refused(
                f"{self._neighbour} is not a forwarder of this network, or has another key",
                field="proof",
                fix="check the roster of both sites",
            )
        if at_ms <= self._peer_at_ms and self._signer == expected:
            return False
        check_raw_signature(
            signer, signature, self._signed(self._neighbour, self._identity.site, at_ms, public)
        )
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise Corrupt("the proof has no usable key", field="proof") from None
        secret = blake3(shared, derive_key_context=_CONTEXT).digest()
        own, other = self._identity.site, self._neighbour
        self._signer, self._peer_at_ms = expected, at_ms
        self._sends = _direction_key(secret, own, other, self._public, public)
        self._takes = _direction_key(secret, other, own, public, self._public)
        return True

    def holds(self) -> bool:
        """Whether the neighbour's proof is still valid, if there is one; otherwise it is
        forgotten."""
        if not self._signer or self._identity.key_of(self._neighbour) == self._signer:
            return True
        self._signer, self._sends, self._takes = "", None, None
        return False

    def seal(self, message: bytes) -> bytes | None:
        """The message to send; none before the neighbour has proven itself."""
        key = self._sends
        return None if key is None else message + _tag(message, key)

    def open(self, sealed: bytes) -> bytes:
        """The neighbour's message. Raises `Corrupt` for anybody else's."""
        message, tag = sealed[:-_TAG], sealed[-_TAG:]
        if self._takes is None or not hmac.compare_digest(tag, _tag(message, self._takes)):
            raise Corrupt("the message was not sent by the authenticated neighbour", field="tag")
        return message

    def _signed(self, sender: str, receiver: str, at_ms: int, public: bytes) -> bytes:
        return _DOMAIN + canonical((self._identity.network, sender, receiver, at_ms, public))


def _direction_key(secret: bytes, sender: str, receiver: str, *publics: bytes) -> bytes:
    """The key of one direction."""
    return blake3(canonical((sender, receiver, *publics)), key=secret).digest()


def _tag(message: bytes, key: bytes) -> bytes:
    return blake3(message, key=key).digest(_TAG)
