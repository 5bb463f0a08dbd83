"""Authentication and rate limits of a gateway's API keys."""

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
        """Take a token. Returns 0, or the seconds until one is available."""
        passed_s = max(0.0, now_s - self._at_s)
        self._tokens = min(self._burst, self._tokens + passed_s * self._per_s)
        self._at_s = now_s
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._per_s
        self._tokens -= 1.0
        return 0.0


class ApiKeys:
    """API keys and the query rates of their owners. Without any keys, everybody is admitted."""

    def __init__(self, keys: tuple[KeyConfig, ...]) -> None:
        self._keys = {key.sha256: key.owner for key in keys}
        self._buckets = {key.owner: _Bucket(key.per_s, key.burst) for key in keys}

    def admit(self, authorization: str | None, now_s: float) -> str:
        """The owner of the key in an `authorization` header; empty if the gateway has no keys.

        Raises `ApiError`: 401 for a missing or unknown key, 429 for an owner over its rate. `now_s`
        is of any monotonic clock.
        """
        if not self._keys:
            return ""
        owner = self._owner_of(authorization or "")
        wait_s = self._buckets[owner].take(now_s)
        if wait_s > 0:
            raise ApiError(
                429,
                "rate_limited",
                f"{owner} exceeds its query rate at this gateway",
                retry_after_s=wait_s,
            )
        return owner

    def _owner_of(self, authorization: str) -> str:
        token = authorization[len(_SCHEME) :].strip()
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = [owner for known, owner in self._keys.items() if hmac.compare_digest(known, digest)]
        if not authorization[: len(_SCHEME)].lower() == _SCHEME or not found:
            raise ApiError(
                401,
                "invalid_api_key",
                "the API key is missing or unknown: send `authorization: Bearer KEY`",
            )
        return found[0]
