"""Passes: short-lived proofs that one site identifies itself to another.

A gateway signs one pass per facility every half minute and sends it with each query, so the
facility checks one signature per pass instead of one per query.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec

from daitn.identity.keys import SigningKey, raw_of
from daitn.identity.received import check_received
from daitn.objects.errors import Corrupt, Refused
from daitn.objects.header_names import PeerHeader
from daitn.objects.identifiers import SiteId
from daitn.objects.wire import canonical, decode

__all__ = ["PASS_LASTS_S", "PassBook", "sign_pass"]

PASS_LASTS_S = 120.0
"""Long enough for clocks that differ by a minute, short enough to limit the harm of a leak."""
_MOST_BYTES = 2048
_MOST_KNOWN = 10_000


class _Claim(msgspec.Struct, frozen=True):
    holder: SiteId
    audience: SiteId
    until_s: float


class _Pass(msgspec.Struct, frozen=True):
    claim: msgspec.Raw
    """A `_Claim`."""
    signature: str


def sign_pass(holder: SiteId, audience: SiteId, now_s: float, key: SigningKey) -> str:
    """A pass that admits `holder` at `audience`, as text for an HTTP header."""
    claim = canonical(_Claim(holder, audience, now_s + PASS_LASTS_S))
    signed = _Pass(msgspec.Raw(claim), key.sign(claim))
    return base64.urlsafe_b64encode(canonical(signed)).decode()


class PassBook:
    """Checks passes presented at one site; caches valid ones until they expire."""

    def __init__(self, audience: SiteId, key_of: Callable[[SiteId], str | None]) -> None:
        """`key_of` gives the public key of an admissible site, or none."""
        self._audience = audience
        self._key_of = key_of
        self._known: dict[str, tuple[_Claim, str]] = {}
        """Claims, with the key that signed each."""

    def holder(self, shown: str, now_s: float) -> SiteId:
        """The site that holds the pass. Raises `Refused` if the pass is not valid here and now."""
        known = self._known.get(shown)
        if known is None:
            known = self._checked(shown, now_s)
            if len(self._known) >= _MOST_KNOWN:
                self._known = {s: k for s, k in self._known.items() if k[0].until_s > now_s}
            if len(self._known) < _MOST_KNOWN:
                self._known[shown] = known
        claim, public = known
        if claim.until_s <= now_s:
            self._known.pop(shown, None)
            behind_s = now_s - claim.until_s + PASS_LASTS_S
            raise self._refused(
                f"it has ended; unless it is old, the clock of {claim.holder} is about "
                f"{behind_s:.0f} s behind that of {self._audience}"
            )
        if self._key_of(claim.holder) != public:
            raise self._refused(f"{claim.holder} is not known here any more")
        return claim.holder

    def _checked(self, shown: str, now_s: float) -> tuple[_Claim, str]:
        try:
            if len(shown) > _MOST_BYTES:
                raise self._refused("it is too long")
            # Strict decoding: other spellings of the same pass must not fill the cache.
            signed = decode(raw_of(shown, b"-_"), _Pass)
            claim = decode(bytes(signed.claim), _Claim)
        except (ValueError, Corrupt):
            raise self._refused("it cannot be read") from None
        if claim.audience != self._audience:
            raise self._refused(f"it is for {claim.audience}")
        if not claim.until_s <= now_s + 2 * PASS_LASTS_S:
            ahead_s = claim.until_s - PASS_LASTS_S - now_s
            raise self._refused(
                f"it lasts too long; the clock of {claim.holder} is about {ahead_s:.0f} s ahead of "
                f"that of {self._audience}"
            )
        public = self._key_of(claim.holder)
        if public is None:
            raise self._refused(f"{claim.holder} is not known here")
        try:
            check_received(public, signed.signature, bytes(signed.claim), claim)
        except Corrupt:
            raise self._refused(f"{claim.holder} did not sign it") from None
        return claim, public

    def _refused(self, why: str) -> Refused:
        return Refused(
            f"the pass is not valid at {self._audience}: {why}",
            field=PeerHeader.PASS,
            fix="ask through a gateway of the network",
        )
