"""Authentication at a gateway, by API key or token, and rates."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from daitn.identity.grants import TOKEN_PREFIX, split_token
from daitn.node.config import KeyConfig
from daitn.node.gateway.context import AskingKey, Caller
from daitn.node.mandates import Mandates
from daitn.objects.errors import Refused
from daitn.objects.grants import Mandate
from daitn.objects.identifiers import SiteId
from daitn.objects.rates import Bucket
from daitn.openai.errors import ApiError

__all__ = ["ApiKeys", "Authenticator", "Tokens"]

_SCHEME = "bearer "
_MOST_TOKENS = 10_000
_FOREVER_S = 1e13
"""Expiry of a key in the gateway's file."""


def _take(bucket: Bucket, now_s: float, owner: str) -> None:
    """Take a token from a bucket. Raises `ApiError` (429) if there is none."""
    wait_s = bucket.take(now_s)
    if wait_s:
        raise ApiError(
            429,
            "rate_limited",
            f"this key of {owner} exceeds its query rate at this gateway",
            retry_after_s=wait_s,
        )


class ApiKeys:
    """API keys of the gateway's file, each with its own query rate."""

    def __init__(self, keys: tuple[KeyConfig, ...]) -> None:
        self._keys = {key.sha256: key for key in keys}
        self._buckets = {key.sha256: Bucket(key.per_s, key.burst, 0.0) for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def admit(self, key: str, now_s: float) -> Caller:
        """The caller with an API key.

        Raises `ApiError`: 401 for an unknown key, 429 for one over its rate. `now_s` is of any
        monotonic clock.
        """
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        found = [known for known in self._keys if hmac.compare_digest(known, digest)]
        if not found:
            raise unknown_key()
        known_key = self._keys[found[0]]
        _take(self._buckets[found[0]], now_s, known_key.owner)
        return Caller(known_key.owner, key=AskingKey(found[0], known_key.limits, _FOREVER_S))


class Tokens:
    """Owners' tokens. Each is checked once, and again after the roster has changed."""

    def __init__(self, site: SiteId, mandates: Mandates) -> None:
        self._site = site
        self._mandates = mandates
        self._buckets: dict[str, Bucket] = {}
        """Per secret's digest."""

    def admit(self, token: str, wall_s: float, now_s: float) -> Caller:
        """The caller with a token. Raises `ApiError` like `ApiKeys.admit`."""
        try:
            secret, text = split_token(token)
            mandate = self._mandates.mandate(text, wall_s)
            if not hmac.compare_digest(mandate.secret, secret):
                raise Refused("its secret is wrong")
            if self._site not in mandate.gateways:
                raise Refused(f"it is for {', '.join(mandate.gateways)}, not for {self._site}")
        except Refused as error:
            raise ApiError(401, "invalid_api_key", f"the token: {error.problem}") from None
        _take(self._bucket(mandate), now_s, mandate.owner)
        gateways = len(set(mandate.gateways))
        key = AskingKey(mandate.secret, mandate.limits, mandate.until_s, gateways)
        return Caller(owner=mandate.owner, mandate=text, key=key)

    def _bucket(self, mandate: Mandate) -> Bucket:
        bucket = self._buckets.get(mandate.secret)
        if bucket is None:
            if len(self._buckets) >= _MOST_TOKENS:
                self._buckets.clear()
            bucket = self._buckets[mandate.secret] = Bucket(mandate.per_s, mandate.burst, 0.0)
        return bucket


class Authenticator:
    """Identifies callers by the headers `authorization` or `x-api-key` of a request."""

    def __init__(
        self,
        keys: ApiKeys,
        owner: str,
        tokens: Tokens | None,
        *,
        needs_token: bool,
        clocks: tuple[Callable[[], float], Callable[[], float]],
    ) -> None:
        """`owner`: in whose name a query without a key is asked. `tokens`: none in a network
        without a roster. `needs_token`: whether every query needs one. `clocks`: seconds since the
        epoch, and a monotonic clock."""
        self._keys = keys
        self._tokens = tokens
        self._anyone = None if needs_token or len(keys) else Caller(owner)
        self._wall_s, self._now_s = clocks

    def admit(self, authorization: str | None, api_key: str | None = None) -> Caller:
        """The caller. `api_key`: the header of Anthropic's clients. Raises `ApiError`: 401 for a
        missing or invalid key, 429 for too many queries."""
        key = authorization or (f"{_SCHEME}{api_key}" if api_key else "")
        bearer = key[: len(_SCHEME)].lower() == _SCHEME
        key = key[len(_SCHEME) :].strip()
        if bearer and self._tokens is not None and key.startswith(TOKEN_PREFIX):
            return self._tokens.admit(key, self._wall_s(), self._now_s())
        if self._anyone is not None:
            return self._anyone
        if not bearer:
            raise unknown_key()
        return self._keys.admit(key, self._now_s())


def unknown_key() -> ApiError:
    """For a missing or unknown API key."""
    return ApiError(
        401,
        "invalid_api_key",
        "the API key is missing or unknown: send `authorization: Bearer KEY` or `x-api-key: KEY`",
    )
