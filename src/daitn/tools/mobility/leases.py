"""Unneeded blobs are kept for a while, since the statement that they are unneeded may be wrong or a
lie."""

from __future__ import annotations

from collections.abc import Iterable

from daitn.objects.identifiers import Digest

__all__ = ["Leases"]


class Leases:
    """Since when each blob of a store has been unneeded. A restart starts over."""

    def __init__(self) -> None:
        self._unneeded_at_s: dict[Digest, float] = {}

    def ended(self, unneeded: Iterable[Digest], now_s: float, grace_s: float) -> list[Digest]:
        """The blobs that have been unneeded for `grace_s`. Blobs that are needed get the full time
        again."""
        before = self._unneeded_at_s
        self._unneeded_at_s = {digest: before.get(digest, now_s) for digest in unneeded}
        ended = [d for d, at_s in self._unneeded_at_s.items() if now_s - at_s >= grace_s]
        for digest in ended:
            del self._unneeded_at_s[digest]
        return ended

    def renew(self, digest: Digest) -> None:
        """A blob was stored here again."""
        self._unneeded_at_s.pop(digest, None)
