"""Entries of the ledger against a recount from the raw facts, with exact fractions."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.control.accounting.amounts import divided, micros, transfer
from daitn.control.accounting.checking import Checker
from daitn.control.accounting.training import pool_divided
from daitn.control.accounting.usage import Stated, applied
from daitn.control.jobs.machine import replay
from daitn.objects.accounts import (
    NETWORK,
    EntryKind,
    LedgerEntry,
    LedgerLine,
    LedgerQuestion,
    Posting,
    chained_bytes,
)
from daitn.objects.audit import START
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import JobId, OwnerId, SiteId
from daitn.objects.intents import Training
from daitn.objects.jobs import Reported
from daitn.objects.lineage import Merge, Verification, Visit
from daitn.objects.messages import WorkState
from daitn.objects.usage import Count, UsageKey, UsageRow, UsageSide, UsageStatement
from daitn.objects.value import Contributions, Credit
from daitn.objects.wire import canonical, decode, encode
from daitn.tools.journal.memory import MemoryJournal
from tests.control.jobs.prices import limit, run
from tests.control.jobs.world import INTENT, World

ACME = OwnerId("acme")


def with_pool(usd: float, contributions: Contributions = Contributions.VISITS) -> World:
    training = Training(credits_usd=usd, contributions=contributions)
    return World(msgspec.structs.replace(INTENT, training=training))


def balances(entries: list[LedgerEntry]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for entry in entries:
        for one in entry.postings:
            sums[one.account] = sums.get(one.account, 0) + one.micro_usd
    return sums


@given(st.integers(0, 10**12), st.lists(st.fractions(0, 1000), min_size=1, max_size=9))
def test_a_sum_is_divided_whole_and_nobody_is_a_unit_away_from_its_share(
    total: int, weights: list[Fraction]
) -> None:
    parts = divided(total, weights)
    if not sum(weights):
        assert set(parts) == {0}
        return
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - total * weight / sum(weights)) < 1
        assert weight or not part


@given(st.decimals(0, 10**6, places=9))
def test_a_price_counts_as_it_is_written(usd: Decimal) -> None:
    assert abs(Fraction(micros(float(usd)), 10**6) - Fraction(usd)) <= Fraction(1, 2 * 10**6)
    assert micros(0.1 + 0.2) == 300_000
    assert micros(float("nan")) == micros(float("inf")) == micros(-1.0) == 0


def test_an_entry_that_does_not_balance_is_none() -> None:
    def entry(*postings: Posting) -> LedgerEntry:
        return LedgerEntry(cause="x", at_s=0.0, kind=EntryKind.VISIT, postings=postings)

    with pytest.raises(ValueError, match="sum to zero"):
        entry(Posting("owner/a", 1))
    with pytest.raises(ValueError, match="twice"):
        entry(Posting("owner/a", 1), Posting("owner/a", -1))
    assert entry(*transfer("owner/a", "owner/a", 7)).postings == (Posting("owner/a", 0),)


def test_every_finished_piece_of_work_is_in_the_ledger_once_and_costs_what_its_plan_says() -> None:
    world = World()
    world.run()
    done = [
        event.outcome.entry.fact
        for event, _ in world.facts
        if isinstance(event, Reported)
        and event.outcome.state is WorkState.DONE
        and event.outcome.entry is not None
    ]
    counted = [fact for fact in done if isinstance(fact, Visit | Merge | Verification)]
    assert counted
    entries = {entry.cause.partition("/")[2]: entry for entry in world.job.entries}
    assert set(entries) == {fact.visit for fact in counted}
    assert len(entries) == len(world.job.entries)
    for fact in counted:
        entry = entries[fact.visit]
        accounts = {one.account for one in entry.postings}
        assert accounts == {"owner/acme", f"site/{fact.site}"}
        assert entry.quantities.compute_ms == round(1000 * fact.seconds)
        assert entry.quantities.bytes_moved == fact.bytes_in
        if isinstance(fact, Visit):
            assert entry.quantities.examples == fact.examples
    spent = -balances(world.job.entries)["owner/acme"]
    assert abs(spent - world.job.spent_usd * 1e6) <= len(counted)
    assert spent > 0


def test_a_pool_is_set_aside_and_divided_by_what_data_brought() -> None:
    world = with_pool(10.0)
    world.run()
    assert world.job.state.final
    entries = world.job.entries
    assert (entries[0].kind, entries[0].on([NETWORK])) == (EntryKind.POOL, 10_000_000)
    credited = [entry for entry in entries if entry.kind is EntryKind.CREDITS]
    assert sum(entry.on([NETWORK]) for entry in credited) == -10_000_000
    assert balances(entries)[NETWORK] == 0
    paid = [entry for entry in credited if entry.on(["owner/acme"]) == 0]
    assert paid
    assert all(len(entry.postings) == 2 for entry in credited)


@given(st.lists(st.floats(-1, 1), max_size=6), st.integers(1, 10**9))
def test_credits_follow_measured_shares_and_harm_earns_nothing(
    values: list[float], micro_usd: int
) -> None:
    credits_ = [
        Credit(
            site=SiteId(f"s{n}"),
            dataset="d",
            owner=ACME,
            visits=1,
            examples=1,
            value={"a": value},
            standard_error={"a": 0.0},
        )
        for n, value in enumerate(values)
    ]
    usd = micro_usd / 10**6
    sums = balances(list(pool_divided(ACME, JobId("j-1"), usd, credits_, 0.0)))
    held = micros(usd)
    assert sums[NETWORK] == -held
    good = sum((Fraction(repr(v)) for v in values if v > 0), Fraction(0))
    for n, value in enumerate(values):
        share = held * Fraction(repr(value)) / good if value > 0 else Fraction(0)
        assert abs(sums.get(f"site/s{n}", 0) - share) < 1
    assert sums["owner/acme"] == (0 if good else held)


def test_a_pool_needs_a_way_to_divide_it() -> None:
    with pytest.raises(ValueError, match="credits_usd"):
        Training(credits_usd=1.0, contributions=Contributions.NONE)


@pytest.mark.parametrize("seed", range(12))
def test_the_ledger_follows_from_the_facts_whatever_write_fails(seed: int) -> None:
    """Each event and its entries are written together or not at all: a crash before or after any
    write, and everything that is then done again, leaves what a rebuild from the facts gives."""
    rng = random.Random(seed)
    world = with_pool(float(rng.randint(1, 50)))
    journal = MemoryJournal()
    at = 0
    job = None
    limit(world, rng.choice([None, 2.5]))
    run(world, rng)
    while at < len(world.facts):
        known = len(journal.events(world.job.id))
        events = [decode(one, tuple) for one in journal.events(world.job.id)]
        assert [n for (n,) in events] == list(range(known))
        at = known
        # A life: it replays, goes on, and ends between any two writes.
        for number in range(at, min(len(world.facts), at + rng.randint(1, 6))):
            job = replay(world.facts[: number + 1])
            before = len(replay(world.facts[:number]).entries) if number else 0
            if rng.random() < 0.2:
                break  # Killed before the write.
            journal.append(job.id, number, [encode((number,))], 0.0, job.entries[before:])
            if rng.random() < 0.3:
                journal.post(job.entries)  # What a start does for an earlier version's facts.
            at = number + 1
    rebuilt = replay(world.facts).entries
    lines = journal.ledger(LedgerQuestion())
    assert [line.entry for line in lines] == rebuilt
    checker = Checker()
    for line in lines:
        checker.take(line)
    assert checker.ended(journal.accounts()) == ()
    assert journal.accounts() == balances(rebuilt)
    assert sum(journal.accounts().values()) == 0


def test_a_changed_ledger_is_noticed() -> None:
    journal = MemoryJournal()
    for n in (1, 2, 3):
        journal.post(
            [
                LedgerEntry(
                    cause=f"c{n}",
                    at_s=0.0,
                    kind=EntryKind.VISIT,
                    postings=transfer("owner/a", "site/b", n),
                )
            ]
        )
    first, second, third = journal.ledger(LedgerQuestion())

    def problems(*lines: LedgerLine) -> str:
        checker = Checker()
        for one in lines:
            checker.take(one)
        return "; ".join(checker.ended(journal.accounts()))

    assert problems(first, second, third) == ""
    forged = msgspec.structs.replace(second.entry, postings=transfer("owner/a", "site/b", 0))
    assert "entry 2 is not as it was written" in problems(
        first, msgspec.structs.replace(second, entry=forged), third
    )
    assert "entry 2 is missing" in problems(first, third)
    assert "owner/a has -6 micro-USD, and its entries sum to -3" in problems(first, second)


def test_a_ledger_of_a_later_release_is_checked_as_it_was_written() -> None:
    entry = LedgerEntry(
        cause="c1", at_s=0.0, kind=EntryKind.VISIT, postings=transfer("owner/a", "site/b", 1)
    )
    written = canonical({**msgspec.to_builtins(entry), "quantities": {"energy_mj": 5}})
    line = LedgerLine(number=1, entry=entry, digest=chained_bytes(START, written))
    for received, problems in ((written, 0), (b"", 1), (written.replace(b"energy", b"enermy"), 1)):
        checker = Checker()
        checker.take(line, received)
        assert len(checker.ended()) == problems


# Usage

KEYS = [
    UsageKey(OwnerId(owner), OwnerId("lab"), model, SiteId("mdf"), price_in, price_out)
    for owner in ("ann", "bob")
    for model, price_in, price_out in (("m", 0.0001, 0.0003), ("n", 0.1, 0.7))
]


@given(
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.integers(0, 5000), st.integers(0, 5000)), max_size=40
    ),
    st.randoms(use_true_random=False),
)
def test_statements_that_are_lost_repeated_and_late_are_paid_for_once(
    answers: list[tuple[UsageKey, int, int]], rng: random.Random
) -> None:
    """Against a sum over all answers, however they were stated."""
    totals: dict[UsageKey, Count] = {}
    sent: list[UsageStatement] = []
    for number, (key, tokens_in, tokens_out) in enumerate(answers, 1):
        totals[key] = totals.get(key, Count()) + Count(1, tokens_in, tokens_out)
        sent.append(statement(number, totals))
    sent.append(statement(len(answers) + 1, totals))
    arriving = [one for one in sent[:-1] if rng.random() < 0.6] * 2
    rng.shuffle(arriving)
    known, entries = Stated(), list[LedgerEntry]()
    for one in [*arriving, sent[-1], *arriving, sent[-1]]:
        known, new, _ = applied(known, one, one.digest, 0.0)
        entries += new
    assert len({entry.cause for entry in entries}) == len(entries)
    expected: dict[str, Fraction] = {}
    for key, tokens_in, tokens_out in answers:
        price = Decimal(repr(key.price_in)) * tokens_in + Decimal(repr(key.price_out)) * tokens_out
        expected[key.owner] = expected.get(key.owner, Fraction(0)) + Fraction(price) * 1000
    sums = balances(entries)
    for owner, micro_usd in expected.items():
        assert abs(-sums.get(f"owner/{owner}", 0) - micro_usd) <= 1  # Half for each of two kinds.
    assert sum(sums.values()) == 0
    assert sum(entry.quantities.answers for entry in entries) == len(answers)


def statement(number: int, totals: dict[UsageKey, Count], series: int = 1) -> UsageStatement:
    return UsageStatement(
        site=SiteId("door"),
        side=UsageSide.GATEWAY,
        series=series,
        number=number,
        at_s=0.0,
        rows=tuple(UsageRow(key, count) for key, count in totals.items()),
    )


def taken(known: Stated, one: UsageStatement) -> tuple[Stated, tuple[LedgerEntry, ...]]:
    now, entries, _ = applied(known, one, one.digest, 0.0)
    return now, entries


def test_a_series_never_goes_back_and_a_new_one_begins_at_nothing() -> None:
    known, _ = taken(Stated(), statement(1, {KEYS[0]: Count(5, 50, 50)}))
    with pytest.raises(InvalidInput, match="less than before") as caught:
        taken(known, statement(2, {KEYS[0]: Count(4, 50, 50)}))
    assert caught.value.field == "series"
    now, entries = taken(known, statement(1, {KEYS[0]: Count(2, 20, 20)}, series=2))
    assert entries[0].quantities.answers == 2
    assert taken(now, statement(9, {KEYS[0]: Count(9, 90, 90)})) == (now, ())
