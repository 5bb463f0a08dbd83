"""Of control centres with one database one leads at a time, and no other one writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daitn.objects.errors import InvalidInput, Unreachable
from daitn.objects.identifiers import JobId
from daitn.tools.journal.leadership import (
    LASTS_S,
    TAKEN_AFTER_S,
    Leadership,
    Term,
    check_alone,
)
from daitn.tools.journal.opening import open_database
from daitn.tools.journal.protocol import failed_storage
from daitn.tools.journal.sql import SqlJournal
from tests.scenes.postgres import PostgresServer, postgres_server
from tests.scenes.waiting import wait_until

JOB = JobId("job")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def standing(url: str, replica: str, clock: Clock) -> Leadership:
    return Leadership(url, replica, (f"tls/{replica}:7447",), elapsed_s=clock, wall_s=lambda: 7.0)


def test_the_first_leads_and_another_one_takes_over_once_it_falls_silent(
    postgres: PostgresServer,
) -> None:
    url, clock = postgres.database(), Clock()
    with closing(standing(url, "a", clock)) as a, closing(standing(url, "b", clock)) as b:
        a.step()
        b.step()
        assert a.term is not None
        assert b.term is None
        for _ in range(20):
            clock.now_s += LASTS_S / 2
            a.step()
            b.step()
        assert a.term is not None
        assert b.term is None
        first = a.term
        clock.now_s += LASTS_S
        assert a.term is None  # By its own clock, whatever the database says.
        b.step()
        assert b.term is None
        clock.now_s += TAKEN_AFTER_S - LASTS_S
        b.step()
        assert b.term is not None
        assert b.term.epoch > first.epoch
        a.step()
        assert a.term is None
        assert [(r.replica, r.leads) for r in a.replicas()] == [("a", False), ("b", True)]


def test_who_resigns_is_followed_at_once_and_who_restarts_leads_again_at_once(
    postgres: PostgresServer,
) -> None:
    url, clock = postgres.database(), Clock()
    a, b = standing(url, "a", clock), standing(url, "b", clock)
    a.step()
    b.step()
    a.close()
    b.step()
    assert b.term is not None
    before = b.term.epoch
    again = standing(url, "b", clock)
    again.step()
    assert again.term is not None
    assert again.term.epoch > before
    again.close()
    b.close()


def test_of_two_that_have_one_name_by_mistake_the_later_leads_and_the_earlier_says_why_it_waits(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    url, clock = postgres.database(), Clock()
    with closing(standing(url, "a", clock)) as first, closing(standing(url, "a", clock)) as twin:
        first.step()
        twin.step()
        assert twin.term is not None
        for _ in range(10):
            clock.now_s += 1.0
            twin.step()
            first.step()
            assert first.term is None
            assert twin.term is not None
        assert "another control centre is called a, and leads" in caplog.text
        for _ in range(6):
            clock.now_s += 1.0
            first.step()
        assert first.term is not None, "its twin has fallen silent"


def test_a_control_centre_that_takes_no_turns_leaves_the_database_of_those_who_do(
    postgres: PostgresServer,
) -> None:
    url, clock = postgres.database(), Clock()
    check_alone(url)
    with closing(standing(url, "a", clock)) as a:
        a.step()
        with pytest.raises(InvalidInput, match="take turns have this database: a") as refused:
            check_alone(url)
        assert refused.value.field == "replica"


def test_what_a_former_leader_writes_is_refused_and_is_no_loss_to_it(
    postgres: PostgresServer,
) -> None:
    url, clock = postgres.database(), Clock()
    with closing(standing(url, "a", clock)) as a, closing(standing(url, "b", clock)) as b:
        a.step()
        term = a.term
        assert term is not None
        with closing(SqlJournal(url, term.fence)) as journal:
            journal.append(JOB, 0, [b"1"], 1.0)
            b.step()
            clock.now_s += TAKEN_AFTER_S
            b.step()
            term.renew(clock.now_s)  # It does not know yet.
            with pytest.raises(Unreachable, match="b leads since") as refused:
                journal.append(JOB, 1, [b"2"], 2.0)
            assert failed_storage(refused.value)
            assert not term.holds
            with pytest.raises(Unreachable, match="leads since"):
                journal.put("kind", "name", b"x")
            assert journal.events(JOB) == (b"1",)
        with pytest.raises(Unreachable, match="not renewed"):
            term.speaking()


def test_a_leader_whose_row_was_deleted_says_so_and_writes_nothing(
    postgres: PostgresServer,
) -> None:
    url = postgres.database()
    with closing(standing(url, "a", Clock())) as a:
        a.step()
        term = a.term
        assert term is not None
        with closing(open_database_of(url)) as connection, connection.begin():
            connection.execute(sa.text("DELETE FROM leadership"))
        with closing(SqlJournal(url, term.fence)) as journal:
            with pytest.raises(Unreachable, match="knows no leader") as refused:
                journal.append(JOB, 0, [b"1"], 1.0)
            assert failed_storage(refused.value)
            assert not term.holds
            assert journal.events(JOB) == ()


def open_database_of(url: str) -> sa.Connection:
    return open_database(url).connect()


def test_a_write_that_stands_still_is_ended_and_keeps_nobody_from_leading(
    postgres: PostgresServer,
) -> None:
    """As of a process that is stopped within it: its transaction has the row that a new leader
    needs."""
    url = postgres.database()
    a = Leadership(url, "a", ())
    a.step()
    term = a.term
    assert term is not None
    engine = open_database(url)
    stopped = engine.connect()
    term.fence(stopped)
    stopped.execute(sa.text("INSERT INTO records VALUES ('kind', 'name', 'x')"))
    b = Leadership(url, "b", ())
    b.start()
    wait_until(lambda: b.term is not None)
    with pytest.raises(sa.exc.DBAPIError, match="idle"):
        stopped.execute(sa.text("INSERT INTO records VALUES ('kind', 'other', 'x')"))
    stopped.close()
    engine.dispose()
    b.close()
    a.close()
    with closing(SqlJournal(url)) as journal:
        assert journal.all("kind") == {}


def test_a_busy_journal_and_its_leader_do_not_hinder_each_other(postgres: PostgresServer) -> None:
    url = postgres.database()
    with closing(standing(url, "a", Clock())) as a:
        a.step()
        term = a.term
        assert term is not None
        with closing(SqlJournal(url, term.fence)) as journal:
            ended = threading.Event()

            def write() -> None:
                while not ended.is_set():
                    journal.put("kind", "name", b"x")

            writers = [threading.Thread(target=write) for _ in range(3)]
            for one in writers:
                one.start()
            for _ in range(50):
                a.step()
            ended.set()
            for one in writers:
                one.join()
        assert a.term is term


def test_replicas_need_a_database_that_they_can_share(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot share"):
        Leadership(f"sqlite:///{tmp_path / 'jobs.db'}", "a", ())


class Turns(RuleBasedStateMachine):
    """Three control centres that are stopped, cut off, restarted and wake up in any order.

    The oracle is a list of what was acknowledged: what any leader reads at its beginning is all of
    it, and nothing that another one writes later is acknowledged.
    """

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        engine = open_database(self.url)
        with engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE leadership, replicas, events, jobs"))
        engine.dispose()
        self.names = ("a", "b", "c")
        self.seats = {name: standing(self.url, name, self.clock) for name in self.names}
        self.terms: dict[str, Term] = {}
        """As each one knows it: one that was stopped goes on with an old one."""
        self.journals: dict[str, SqlJournal] = {}
        self.acknowledged: list[bytes] = []
        self.newest = 0

    @rule(name=st.sampled_from("abc"))
    def looks(self, name: str) -> None:
        self.seats[name].step()
        term = self.seats[name].term
        if term is not None and term is not self.terms.get(name):
            assert term.epoch > self.newest
            self.newest = term.epoch
            self.terms[name] = term
            if name in self.journals:
                self.journals.pop(name).close()
            self.journals[name] = SqlJournal(self.url, term.fence)
            assert list(self.journals[name].events(JOB)) == self.acknowledged

    @precondition(lambda self: self.terms)
    @rule(name=st.sampled_from("abc"))
    def writes(self, name: str) -> None:
        """Also when its leadership is over by its clock: it was stopped just before."""
        if name not in self.terms:
            return
        fact, count = f"{name} {len(self.acknowledged)}".encode(), len(self.acknowledged)
        leads = self.terms[name].epoch == self.newest
        try:
            self.journals[name].append(JOB, count, [fact], 1.0)
        except Unreachable:
            assert not leads
        else:
            assert leads
            self.acknowledged.append(fact)

    @rule(seconds=st.sampled_from([0.5, LASTS_S / 2, LASTS_S, TAKEN_AFTER_S]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule(name=st.sampled_from("abc"))
    def restarts(self, name: str) -> None:
        """As after kill -9."""
        self.seats[name] = standing(self.url, name, self.clock)
        if name in self.terms:
            del self.terms[name]
            self.journals.pop(name).close()

    @rule(name=st.sampled_from("abc"))
    def resigns(self, name: str) -> None:
        self.seats[name].resign()

    @invariant()
    def one_acts(self) -> None:
        acting = [name for name, term in self.terms.items() if term.holds]
        assert len(acting) <= 1

    def teardown(self) -> None:
        for journal in self.journals.values():
            journal.close()
        for seat in self.seats.values():
            seat.close()


def test_one_acts_at_a_time_and_sees_all_that_others_were_told_is_kept(
    postgres: PostgresServer,
) -> None:
    Turns.url = postgres.database()
    case = Turns.TestCase
    case.settings = settings(max_examples=8, stateful_step_count=30, deadline=None)
    case().runTest()
