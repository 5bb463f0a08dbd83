"""Entries of a job: its visits, merges and measurements, and the pool of its data's owners."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from daitn.control.accounting.amounts import divided, exact, micros, transfer, whole
from daitn.objects.accounts import (
    MICROS,
    NETWORK,
    EntryKind,
    LedgerEntry,
    Quantities,
    owner_account,
    site_account,
)
from daitn.objects.decisions import PlannedVisit
from daitn.objects.identifiers import JobId, OwnerId
from daitn.objects.lineage import Merge, Verification, Visit
from daitn.objects.value import Credit

__all__ = [
    "credits_cause",
    "of_merge",
    "of_verification",
    "of_visit",
    "pool_divided",
    "pool_held",
    "price_of_time",
    "price_of_visit",
]

_HOUR_S = 3600


def price_of_visit(
    stop: PlannedVisit, visit: Visit, longest_s: float, left_usd: Fraction | None
) -> Fraction:
    """Price of a visit in USD, by the prices in its plan: for the examples, and for the time of
    training on them.

    Its site measures that time itself: it counts for no more than `longest_s`. A visit costs no
    more than `left_usd`, what is left to pay it with; `None` means whatever it costs.
    """
    data = max(Fraction(0), exact(stop.expected_cost_usd) - exact(stop.computing_usd))
    data *= Fraction(visit.examples, stop.examples)
    computing = price_of_time(stop.price_usd_per_hour, visit.seconds, longest_s, None)
    return _with_what_is_left(data + computing, left_usd)


def price_of_time(
    price_usd_per_hour: float, seconds: float, longest_s: float, left_usd: Fraction | None
) -> Fraction:
    """Price of computing in USD; `longest_s` and `left_usd` as in `price_of_visit`."""
    counted_s = exact(min(max(0.0, seconds), longest_s))
    return _with_what_is_left(exact(price_usd_per_hour) * counted_s / _HOUR_S, left_usd)


def _with_what_is_left(usd: Fraction, left_usd: Fraction | None) -> Fraction:
    return usd if left_usd is None else min(usd, max(Fraction(0), left_usd))


def of_visit(owner: OwnerId, visit: Visit, usd: Fraction, at_s: float) -> LedgerEntry:
    """Entry of a visit at its price, see `price_of_visit`."""
    spent = visit.privacy
    quantities = Quantities(
        compute_ms=whole(visit.seconds, 1000),
        bytes_moved=whole(Fraction(visit.bytes_in)),
        examples=whole(Fraction(visit.examples)),
        micro_epsilon=whole(spent.epsilon, MICROS) if spent else 0,
    )
    return LedgerEntry(
        cause=f"visit/{visit.visit}",
        at_s=at_s,
        kind=EntryKind.VISIT,
        postings=transfer(owner_account(owner), site_account(visit.site), micros(usd)),
        quantities=quantities,
        job=visit.job,
        what=visit.dataset,
    )


def of_merge(owner: OwnerId, merge: Merge, usd: Fraction, at_s: float) -> LedgerEntry:
    """Entry of a merge at its price."""
    return LedgerEntry(
        cause=f"merge/{merge.visit}",
        at_s=at_s,
        kind=EntryKind.MERGE,
        postings=transfer(owner_account(owner), site_account(merge.site), micros(usd)),
        quantities=Quantities(
            compute_ms=whole(merge.seconds, 1000), bytes_moved=whole(Fraction(merge.bytes_in))
        ),
        job=merge.job,
    )


def of_verification(
    owner: OwnerId, measured: Verification, usd: Fraction, at_s: float
) -> LedgerEntry:
    """Entry of a measurement at its price."""
    return LedgerEntry(
        cause=f"measurement/{measured.visit}",
        at_s=at_s,
        kind=EntryKind.MEASUREMENT,
        postings=transfer(owner_account(owner), site_account(measured.site), micros(usd)),
        quantities=Quantities(
            compute_ms=whole(measured.seconds, 1000),
            bytes_moved=whole(Fraction(measured.bytes_in)),
            items=whole(Fraction(measured.items)),
        ),
        job=measured.job,
        what=measured.topic,
    )


def pool_held(owner: OwnerId, job: JobId, usd: float, at_s: float) -> LedgerEntry:
    """The amount that an owner sets aside at a job's start."""
    return LedgerEntry(
        cause=f"pool/{job}",
        at_s=at_s,
        kind=EntryKind.POOL,
        postings=transfer(owner_account(owner), NETWORK, micros(usd)),
        job=job,
    )


def credits_cause(job: JobId) -> str:
    """Prefix of the causes of all entries that divide a job's pool."""
    return f"credits/{job}/"


def pool_divided(
    owner: OwnerId, job: JobId, usd: float, credits_: Sequence[Credit], at_s: float
) -> tuple[LedgerEntry, ...]:
    """Divide a job's pool at its end by each data set's contribution: the sum of its shares of all
    gains, if positive. The owner gets the rest back: everything, if no data set contributed.

    Each site has an entry of its own, and does not see what others got.
    """
    held = micros(usd)
    brought = (sum(map(exact, one.value.values()), Fraction(0)) for one in credits_)
    parts = divided(held, [max(Fraction(0), value) for value in brought])
    paid = [
        (f"{one.site}/{one.dataset}", site_account(one.site), one.dataset, part)
        for one, part in zip(credits_, parts, strict=True)
        if part
    ]
    paid.append(("rest", owner_account(owner), "", held - sum(parts)))
    return tuple(
        LedgerEntry(
            cause=f"{credits_cause(job)}{name}",
            at_s=at_s,
            kind=EntryKind.CREDITS,
            postings=transfer(NETWORK, payee, part),
            job=job,
            what=dataset,
        )
        for name, payee, dataset, part in paid
    )
