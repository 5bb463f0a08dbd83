"""Counts of gateways and facilities outlive any crash, and a control centre has each once."""

from __future__ import annotations

import errno
import os
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daitn.control.accounting.usage import Stated, applied
from daitn.node.serving.metering import FacilityMeter
from daitn.node.usage import counts as counts_module
from daitn.node.usage.counts import UsageCounts, UsageRecord
from daitn.objects.accounts import LedgerEntry
from daitn.objects.deployments import DeploymentDescriptor, DeploymentState, Runtime
from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.objects.usage import Count, KeySpent, UsageKey, UsageSide, UsageStatement

NOW_S = 1_800_000_000.0
GATE = SiteId("gate")
KEYS = [
    UsageKey(OwnerId(owner), OwnerId("lab"), model, SiteId("mdf"), 0.5, 2.0)
    for owner in ("ann", "bob")
    for model in ("m", "n")
]


class Centre:
    """Applies statements as a control centre does."""

    def __init__(self) -> None:
        self.known = Stated()
        self.entries: list[LedgerEntry] = []

    def take(self, statement: UsageStatement) -> None:
        self.known, entries, _ = applied(self.known, statement, statement.digest, NOW_S)
        self.entries += entries

    def answers(self, owner: str = "") -> int:
        return sum(
            entry.quantities.answers
            for entry in self.entries
            if not owner or any(one.account == f"owner/{owner}" for one in entry.postings)
        )


def opened(folder: Path, side: UsageSide = UsageSide.GATEWAY) -> UsageCounts:
    return UsageCounts(folder, GATE, side, lambda: NOW_S)


def record(key: UsageKey, n: int = 1, api_key: str = "", nano_usd: int = 0) -> UsageRecord:
    count = Count(1, n, 2 * n)
    end_s = NOW_S + 1e6 if api_key else 0.0
    return UsageRecord(key, count, api_key, nano_usd, end_s, NOW_S)


@pytest.mark.parametrize("seed", range(40))
def test_no_answer_is_lost_or_counted_twice_whatever_ends_when(tmp_path: Path, seed: int) -> None:
    """Lives of a gateway end between any two steps, also with half a record written; statements and
    acknowledgements are lost. Against a plain list of what was counted."""
    rng = random.Random(seed)
    centre, counted = Centre(), list[tuple[UsageKey, int]]()
    spent = 0
    for _ in range(rng.randint(2, 6)):
        counts = opened(tmp_path)
        for _ in range(rng.randint(0, 30)):
            if rng.random() < 0.7:
                key, n = rng.choice(KEYS), rng.randint(0, 99)
                counts.count(record(key, n, "secret", n))
                counted.append((key, n))
                spent += n
                assert counts.spent("secret", NOW_S).total == spent
                continue
            statement, state, generation = counts.begin_statement()
            if rng.random() < 0.2:
                break  # Killed before they were kept.
            if rng.random() < 0.5:  # Answers end while counts are kept.
                key = rng.choice(KEYS)
                counts.count(record(key, 1))
                counted.append((key, 1))
            counts.keep(state, generation)
            if rng.random() < 0.8:
                centre.take(statement)
                if rng.random() < 0.7:
                    counts.acknowledged(statement, centre.known.receipt)
        counts.close()  # As the kernel does.
        if rng.random() < 0.5:
            logs = sorted(tmp_path.glob("log.*"), key=lambda path: int(path.suffix[1:]))
            if logs:
                with logs[-1].open("ab") as file:
                    file.write(rng.randbytes(rng.randint(1, 30)))
    counts = opened(tmp_path)
    while not counts.is_stated:
        statement, state, generation = counts.begin_statement()
        counts.keep(state, generation)
        centre.take(statement)
        counts.acknowledged(statement, centre.known.receipt)
    assert counts.spent("secret", NOW_S).total == spent
    for key in KEYS:
        mine = [n for one, n in counted if one == key]
        row = next((row.count for row in centre.known.rows if row.key == key), Count())
        assert row == Count(len(mine), sum(mine), 2 * sum(mine))
    assert centre.answers() == len(counted)


def test_a_site_that_lost_its_counts_begins_anew_and_charges_nothing_twice(tmp_path: Path) -> None:
    centre = Centre()

    def state(counts: UsageCounts) -> None:
        statement, kept, generation = counts.begin_statement()
        counts.keep(kept, generation)
        try:
            centre.take(statement)
        except InvalidInput as error:
            assert error.field == "series"
            counts.refused()
            return
        counts.acknowledged(statement, centre.known.receipt)

    first = opened(tmp_path / "a")
    for _ in range(5):
        first.count(record(KEYS[0]))
    state(first)
    backup = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    for _ in range(5):
        first.count(record(KEYS[0]))
    state(first)
    first.close()
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    for name, data in backup.items():
        (tmp_path / "a" / name).write_bytes(data)
    again = opened(tmp_path / "a")
    again.count(record(KEYS[0]))
    state(again)  # The centre has a later number of this series: what is in it does not count.
    assert centre.answers() == 10
    again.count(record(KEYS[0]))
    state(again)
    again.count(record(KEYS[1]))
    state(again)
    assert centre.answers() == 12
    empty = opened(tmp_path / "b")
    empty.count(record(KEYS[2]))
    state(empty)
    state(empty)
    assert centre.answers() == 13


def test_kinds_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts_module, "MOST_KINDS", 3)
    counts = opened(tmp_path)
    for n in range(50):
        counts.count(record(UsageKey(OwnerId("a"), OwnerId("b"), f"m{n}", SiteId("s"), 1.0, 1.0)))
    statement, _, _ = counts.begin_statement()
    assert [row.key.model for row in statement.rows] == ["m0", "m1", "m2", "*"]
    assert sum(row.count.answers for row in statement.rows) == 50


def test_days_and_months_begin_with_nothing_and_never_go_back() -> None:
    def at(*date: int) -> float:
        return datetime(*date, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]

    spent = KeySpent().plus(5, at(2026, 1, 31, 23, 59), 0.0)
    assert (spent.of_day, spent.of_month, spent.total) == (5, 5, 5)
    later = spent.plus(7, at(2026, 2, 1, 0, 1), 0.0)
    assert (later.of_day, later.of_month, later.total) == (7, 7, 12)
    next_day = later.at(at(2026, 2, 2))
    assert (next_day.of_day, next_day.of_month, next_day.total) == (0, 7, 12)
    set_back = later.plus(1, at(2026, 1, 15), 0.0)
    assert (set_back.of_day, set_back.of_month, set_back.total) == (8, 8, 13)


def test_hosting_is_paid_to_the_facility_by_the_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    counts, centre = opened(tmp_path, UsageSide.FACILITY), Centre()
    ready = DeploymentDescriptor(
        name="m",
        owner=OwnerId("lab"),
        runtime=Runtime.EMBEDDED,
        apis=(),
        state=DeploymentState.READY,
    )
    meter = FacilityMeter(counts, lambda: NOW_S, 3.6, lambda: [ready])
    for _ in range(4):
        now_s += 450.0
        meter.host()
        statement, _, _ = counts.begin_statement()
        centre.take(statement)
        centre.take(statement)
        counts.acknowledged(statement, centre.known.receipt)
    paid = sum(entry.on(["facility/gate"]) for entry in centre.entries)
    assert (paid, sum(e.quantities.hosted_ms for e in centre.entries)) == (1_800_000, 1_800_000)
    assert sum(entry.on(["owner/lab"]) for entry in centre.entries) == -1_800_000


@pytest.mark.parametrize("opens", [True, False], ids=["no room for records", "nor for names"])
def test_a_full_disk_costs_no_answer_and_fills_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: bool
) -> None:
    counts = opened(tmp_path)
    counts.count(record(KEYS[0]))
    statement, state, generation = counts.begin_statement()
    counts.keep(state, generation)
    before = {path.name for path in tmp_path.iterdir()}

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(descriptor: int, data: bytes) -> int:
        write(descriptor, data[: len(data) // 2])
        monkeypatch.setattr(os, "write", full)
        return len(data) // 2

    write, open_ = os.write, os.open
    monkeypatch.setattr(os, "write", half)
    if not opens:
        monkeypatch.setattr(os, "open", full)
    for _ in range(200):
        counts.count(record(KEYS[0]))
    assert {path.name for path in tmp_path.iterdir()} == before
    statement, state, generation = counts.begin_statement()
    assert statement.rows[0].count.answers == 201

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "open", open_)
    statement, state, generation = counts.begin_statement()
    counts.count(record(KEYS[0]))
    counts.keep(state, generation)
    counts.close()
    assert opened(tmp_path).begin_statement()[0].rows[0].count.answers == 202
