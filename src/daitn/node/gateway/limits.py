"""Limits of keys and tokens: spending here, rate, and models.

What an answer costs is known when it has ended. So a query is let in while its key has anything
left, and those under way when that is used up are answered.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from daitn.control.accounting.amounts import exact, whole
from daitn.node.gateway.context import AskingKey, Caller, RequestContext
from daitn.node.usage.counts import UsageCounts, UsageRecord
from daitn.objects.accounts import Charged
from daitn.objects.grants import UseLimits, full_name
from daitn.objects.identifiers import OwnerId
from daitn.objects.text import decimals
from daitn.objects.usage import Count, KeySpent, UsageKey
from daitn.openai.errors import ApiError

__all__ = ["KeyLimits", "Metering"]

NANOS = 1_000_000_000
_MOST_FLOWS = 10_000


class _Flow:
    """Tokens per minute: a minute's worth may come at once. It may go into debt for an answer."""

    __slots__ = ("_at_s", "_left", "_per_minute")

    def __init__(self, per_minute: int, now_s: float) -> None:
        self._per_minute, self._left, self._at_s = per_minute, float(per_minute), now_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until anything is left; 0 if something is."""
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
        """`now_s`: a monotonic clock."""
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
            self.check_money(key)
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

    def check_money(self, key: AskingKey) -> None:
        """Raise `ApiError` (402) for a key that has reached its spending limit. For a key of
        several gateways, a control centre reports the spending at the others; without a report,
        each gateway has a share of what was left at the last one."""
        wall_s = self._wall_s()
        own = self._counts.spent(key.secret, wall_s)
        if key.gateways == 1:
            _check_spent(key.limits, own, wall_s, "at this gateway")
            return
        report, fresh = self._counts.shared.report_on(key.secret)
        then, others = (report.own, report.others) if report else (KeySpent(), KeySpent())
        then, others = then.at(wall_s), others.at(wall_s)
        _check_spent(key.limits, own + others, wall_s, "at all its gateways")
        if not fresh:
            _check_part(key, own, then, others)

    def take(self, key: AskingKey, tokens: int) -> None:
        """Count an answer's tokens."""
        if key.limits.tokens_per_minute is not None:
            self._flow(key.secret, key.limits.tokens_per_minute).take(tokens)

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

    def count(self, caller: Caller, charged: Charged) -> None:
        """Count an answer. If another gateway relays to this one, the query keeps its id and is
        counted there.

        Verifiers examine deployments through gateways: facilities cannot tell and count that, so it
        is counted here too, at no price.
        """
        if caller.query:
            return
        key = caller.key
        spends = key is not None and key.limits.spends
        if key is not None:
            self.limits.take(key, charged.tokens_in + charged.tokens_out)
            if spends and key.gateways > 1:
                self._counts.shared.mark_used(key.secret)
        self._counts.count(
            UsageRecord(
                key=_kind(caller, charged),
                count=Count(1, charged.tokens_in, charged.tokens_out),
                api_key=key.secret if key and spends else "",
                nano_usd=whole(_usd(charged), NANOS) if spends else 0,
                until_s=key.until_s if key else 0.0,
                at_s=self._wall_s(),
            )
        )


def _kind(caller: Caller, charged: Charged) -> UsageKey:
    model_owner, _, model = charged.model.rpartition("/")
    owners = OwnerId(caller.owner), OwnerId(model_owner)
    examines = caller.relayed_by is not None and not caller.owner
    prices = (0.0, 0.0) if examines else (charged.price_in, charged.price_out)
    return UsageKey(*owners, model, charged.site, *prices)


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
            f"this key of {owner} may query {', '.join(limits.models)}, but not {name}: name one "
            f"of these, or get a key for it",
            param="model",
        )


def _check_part(key: AskingKey, own: KeySpent, then: KeySpent, others: KeySpent) -> None:
    """Raise `ApiError` for a key that has spent this gateway's share of what was left when a
    control centre last reported the spending of `others`, and here `then`."""
    limits = key.limits
    for most_usd, now, before, elsewhere in (
        (limits.usd_total, own.total, then.total, others.total),
        (limits.usd_per_month, own.of_month, then.of_month, others.of_month),
        (limits.usd_per_day, own.of_day, then.of_day, others.of_day),
    ):
        if most_usd is not None and (now - before) * key.gateways >= (
            exact(most_usd) * NANOS - before - elsewhere
        ):
            raise ApiError(
                402,
                "insufficient_quota",
                f"this key has spent this gateway's part, one of {key.gateways}, of what was left "
                f"of {decimals(most_usd)} USD, and no control centre says now what it spent at the "
                "others: ask another of its gateways, or wait until one does",
                type_="insufficient_quota",
            )


def _check_spent(limits: UseLimits, spent: KeySpent, wall_s: float, where: str) -> None:
    now = datetime.fromtimestamp(wall_s, UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow = midnight + timedelta(days=1)
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    for most_usd, nano_usd, of, until in (
        (limits.usd_total, spent.total, "in all", None),
        (limits.usd_per_month, spent.of_month, "this month", next_month),
        (limits.usd_per_day, spent.of_day, "today", tomorrow),
    ):
        if most_usd is not None and nano_usd >= exact(most_usd) * NANOS:
            wait = "" if until is None else f"wait until {until:%Y-%m-%d} (UTC), or "
            raise ApiError(
                402,
                "insufficient_quota",
                f"this key has spent {decimals(nano_usd / NANOS)} USD {of} {where}, of at most "
                f"{decimals(most_usd)} USD: {wait}get one with a higher limit",
                permanent=True,
                type_="insufficient_quota",
            )
