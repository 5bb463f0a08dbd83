"""Blobs that nobody needs any more stay a while: who says so may be wrong, or lie."""

from __future__ import annotations

from collections.abc import Iterable

from daitn.objects.identifiers import Digest

__all__ = ["Leases"]


class Leases:
    """Since when each blob of a store is not needed. A restart begins anew."""

    def __init__(self) -> None:
        self._unneeded_at_s: dict[Digest, float] = {}

    def ended(self, unneeded: Iterable[Digest], now_s: float, grace_s: float) -> list[Digest]:
        """Those of the blobs that are not needed now which were not for `grace_s`. Blobs that are
        not among them are needed, and have all of that time again."""
        before = self._unneeded_at_s
        self._unneeded_at_s = {digest: before.get(digest, now_s) for digest in unneeded}
        ended = [d for d, at_s in self._unneeded_at_s.items() if now_s - at_s >= grace_s]
        for digest in ended:
            del self._unneeded_at_s[digest]
        return ended

    def renew(self, digest: Digest) -> None:
        """A blob was brought here again."""
        self._unneeded_at_s.pop(digest, None)
