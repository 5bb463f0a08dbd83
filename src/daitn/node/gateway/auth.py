"""Who may ask at a gateway, and how often."""

from __future__ import annotations

import hashlib
import hmac

from daitn.node.config import KeyConfig
from daitn.openai.errors import ApiError

__all__ = ["ApiKeys"]

_SCHEME = "bearer "


class _Bucket:
    """A token bucket: `burst` at once, `per_s` in the long run."""

    __slots__ = ("_at_s", "_burst", "_per_s", "_tokens")

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._at_s = 0.0

    def take(self, now_s: float) -> float:
        """Seconds until a token is there; 0: it was there and is taken."""
        passed_s = max(0.0, now_s - self._at_s)
        self._tokens = min(self._burst, self._tokens + passed_s * self._per_s)
        self._at_s = now_s
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._per_s
        self._tokens -= 1.0
        return 0.0


class ApiKeys:
    """The query owners that a gateway knows. Without any, everybody may ask."""

    def __init__(self, keys: tuple[KeyConfig, ...]) -> None:
        self._keys = {key.sha256: key.owner for key in keys}
        self._buckets = {key.owner: _Bucket(key.per_s, key.burst) for key in keys}

    def admit(self, authorization: str | None, now_s: float) -> str:
        """The owner of the key in an `authorization` header; empty where keys are not wanted.

        Raises `ApiError`: 401 for no or an unknown key, 429 where its owner asks too often.
        `now_s` is of any clock that never goes back.
        """
        if not self._keys:
            return ""
        owner = self._known(authorization or "")
        wait_s = self._buckets[owner].take(now_s)
        if wait_s > 0:
            raise ApiError(
                429,
                "rate_limited",
                f"{owner} asks more often than this gateway allows",
                retry_after_s=wait_s,
            )
        return owner

    def _known(self, authorization: str) -> str:
        token = authorization[len(_SCHEME) :].strip()
        shown = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = [
            owner for digest, owner in self._keys.items() if hmac.compare_digest(digest, shown)
        ]
        if not authorization[: len(_SCHEME)].lower() == _SCHEME or not found:
            raise ApiError(
                401,
                "invalid_api_key",
                "this gateway answers to known API keys only: send `authorization: Bearer KEY`",
            )
        return found[0]
