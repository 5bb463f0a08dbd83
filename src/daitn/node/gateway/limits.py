"""UseLimits of keys and tokens: what they may spend here, how fast, and on which models.

What an answer costs is known when it has ended. So a query is let in while its key has anything
left, and those under way when that is used up are answered.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from daitn.control.accounting.money import exact, whole
from daitn.node.gateway.context import RequestContext
from daitn.node.usage.counts import KeySpent, UsageCounts, UsageRecord
from daitn.objects.accounts import Charged
from daitn.objects.grants import UseLimits, full_name
from daitn.objects.identifiers import OwnerId
from daitn.objects.usage import Count, UsageKey
from daitn.openai.errors import ApiError

__all__ = ["KeyLimits", "Metering"]

NANOS = 1_000_000_000
_MOST_FLOWS = 10_000


class _Flow:
    """Tokens per minute: a minute's may come at once. It may owe what an answer took beyond."""

    __slots__ = ("_at_s", "_left", "_per_minute")

    def __init__(self, per_minute: int, now_s: float) -> None:
        self._per_minute, self._left, self._at_s = per_minute, float(per_minute), now_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until it has anything left; 0: it has."""
        filled = self._left + max(0.0, now_s - self._at_s) * self._per_minute / 60.0
        self._left, self._at_s = min(float(self._per_minute), filled), max(now_s, self._at_s)
        return 0.0 if self._left > 0.0 else (1.0 - self._left) * 60.0 / self._per_minute

    def take(self, tokens: int) -> None:
        self._left -= tokens


class KeyLimits:
    """Enforces the limits of keys at one gateway."""

    def __init__(
        self, counts: UsageCounts, wall_s: Callable[[], float], now_s: Callable[[], float]
    ) -> None:
        """`now_s`: of a monotonic clock."""
        self._counts, self._wall_s, self._now_s = counts, wall_s, now_s
        self._flows: dict[str, _Flow] = {}

    def admit(self, query: RequestContext) -> None:
        """Raise `ApiError` for a query that its key does not allow: 403 for the model, 402 for
        money, 429 for tokens per minute."""
        key = query.caller.key
        if key is None or query.caller.relayed_by is not None:
            return
        _check_model(key.limits, query.caller.owner, query.parsed.name)
        if key.limits.spends:
            wall_s = self._wall_s()
            _check_spent(key.limits, self._counts.spent(key.secret, wall_s), wall_s)
        if key.limits.tokens_per_minute is not None:
            wait_s = self._flow(key.secret, key.limits.tokens_per_minute).wait_s(self._now_s())
            if wait_s:
                raise ApiError(
                    429,
                    "rate_limited",
                    f"this key of {query.caller.owner} has used its "
                    f"{key.limits.tokens_per_minute} tokens per minute at this gateway",
                    retry_after_s=wait_s,
                )

    def took(self, query: RequestContext) -> None:
        """A query has ended: its tokens count."""
        key = query.caller.key
        if key is not None and key.limits.tokens_per_minute is not None:
            flow = self._flow(key.secret, key.limits.tokens_per_minute)
            flow.take(sum(one.tokens_in + one.tokens_out for one in query.outcome.charged))

    def _flow(self, secret: str, per_minute: int) -> _Flow:
        flow = self._flows.get(secret)
        if flow is None:
            if len(self._flows) >= _MOST_FLOWS:
                self._flows.clear()
            flow = self._flows[secret] = _Flow(per_minute, self._now_s())
        return flow


class Metering:
    """Counts the answers of a gateway's queries."""

    def __init__(self, counts: UsageCounts, limits: KeyLimits, wall_s: Callable[[], float]) -> None:
        self.limits = limits
        self._counts, self._wall_s = counts, wall_s

    def ended(self, query: RequestContext) -> None:
        """A query has ended. One that another gateway relays is counted there."""
        if query.caller.relayed_by is not None:
            return
        self.limits.took(query)
        key, wall_s = query.caller.key, self._wall_s()
        spends = key is not None and key.limits.spends
        for one in query.outcome.charged:
            self._counts.count(
                UsageRecord(
                    key=_kind(query.caller.owner, one),
                    count=Count(1, one.tokens_in, one.tokens_out),
                    api_key=key.secret if key and spends else "",
                    nano_usd=whole(_usd(one), NANOS) if spends else 0,
                    until_s=key.until_s if key else 0.0,
                    at_s=wall_s,
                )
            )


def _kind(owner: str, charged: Charged) -> UsageKey:
    model_owner, _, model = charged.model.rpartition("/")
    owners = OwnerId(owner), OwnerId(model_owner)
    return UsageKey(*owners, model, charged.site, charged.price_in, charged.price_out)


def _usd(charged: Charged) -> Fraction:
    read = exact(charged.price_in) * charged.tokens_in
    return (read + exact(charged.price_out) * charged.tokens_out) / 1000


def _check_model(limits: UseLimits, owner: str, name: str) -> None:
    if not limits.models:
        return
    if not {name, full_name(owner, name), name.removeprefix(f"{owner}/")} & set(limits.models):
        raise ApiError(
            403,
            "model_not_allowed",
            f"this key of {owner} may ask {', '.join(limits.models)}, and not {name}: name one of "
            "these, or have a key made for it",
            param="model",
        )


def _check_spent(limits: UseLimits, spent: KeySpent, wall_s: float) -> None:
    now = datetime.fromtimestamp(wall_s, UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow = midnight + timedelta(days=1)
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    for most_usd, nano_usd, of, when in (
        (limits.usd_total, spent.total, "in all", "have another key made"),
        (limits.usd_per_month, spent.of_month, "this month", f"wait until {next_month:%Y-%m-%d}"),
        (limits.usd_per_day, spent.of_day, "today", f"wait until {tomorrow:%Y-%m-%d}"),
    ):
        if most_usd is not None and nano_usd >= exact(most_usd) * NANOS:
            raise ApiError(
                402,
                "insufficient_quota",
                f"this key has spent {nano_usd / NANOS:.6f} USD {of} at this gateway, of at most "
                f"{most_usd:g} USD: {when} (UTC), or have one made with a higher limit",
                permanent=True,
                type_="insufficient_quota",
            )
