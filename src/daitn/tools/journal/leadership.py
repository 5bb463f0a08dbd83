"""Determines which of several control centres with one database leads: the others stand by.

Each counts beats in a row of its own. A leader that stands still by another one's clock for
`TAKEN_AFTER_S` is replaced: in one transaction its row, which it must renew, is taken from it, and
the number of the leadership, its *epoch*, rises. So no clock is compared with another one, and a
database's that is set does no harm. (Leases: Gray and Cheriton, SOSP 1989; fencing: "sequencers" of
Burrows, OSDI 2006.)

A leader counts itself as one for `LASTS_S` from when it began its last renewal, and is silent from
then on. That alone does not suffice: it may stop between looking at its clock and acting. So

- every write of the journal holds the epoch's row while it looks whether that is still its own
  (`Term.fence`): what a former leader writes is refused, and a new one waits for what is under way;
- every message carries the epoch, and who has heard a newer one takes no older one (`signed.py`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from daitn import __version__
from daitn.objects.errors import DaitnError, InvalidInput, Unreachable
from daitn.objects.requests import ReplicaView
from daitn.tools import clock
from daitn.tools.journal.opening import open_database, plain_errors
from daitn.tools.journal.shared import LEADERSHIP, REPLICAS
from daitn.tools.throttled import ThrottledLog

__all__ = [
    "BEAT_S",
    "LASTS_S",
    "TAKEN_AFTER_S",
    "Leadership",
    "LeadershipTurn",
    "Term",
    "check_alone",
    "read_replicas",
]

log = logging.getLogger(__name__)

BEAT_S: Final = 0.5
LASTS_S: Final = 4.0
"""A leader that cannot renew for this long loses its leadership."""
TAKEN_AFTER_S: Final = LASTS_S + 0.5
"""A leader that is silent for this long is replaced."""
_ABANDONED: Final = "3s"
"""The database aborts a write that its leader abandons for this long: a new one waits for it."""

_ROW: Final = 1
_NOW_S: Final = sa.func.extract("epoch", sa.func.clock_timestamp())


class Term:
    """One leadership of one control centre. Thread-safe."""

    def __init__(self, epoch: int, elapsed_s: Callable[[], float] = clock.elapsed_s) -> None:
        self.epoch = epoch
        """Higher than that of any earlier leader."""
        self._elapsed_s = elapsed_s
        self._until_s = 0.0

    def renew(self, from_s: float) -> None:
        """Extend it by `LASTS_S`."""
        self._until_s = from_s + LASTS_S

    def end(self) -> None:
        """End it."""
        self._until_s = 0.0

    @property
    def holds(self) -> bool:
        """Whether its holder may act now."""
        return self._elapsed_s() < self._until_s

    def speaking(self) -> int:
        """The epoch for messages sent now. Raises `Unreachable` when it is over."""
        if not self.holds:
            raise _over("it has not renewed its leadership in time")
        return self.epoch

    def fence(self, connection: sa.Connection) -> None:
        """Let a transaction commit only within this leadership. Raises `Unreachable` when it is
        over."""
        row = connection.execute(_FENCE).one_or_none()
        if row is None or row.epoch != self.epoch:
            self.end()
            raise _over(f"{row.replica} leads since" if row else "the database knows no leader")


@dataclass(frozen=True)
class LeadershipTurn:
    """A control centre's knowledge about its leadership, and about who would take over."""

    term: Term
    replicas: Callable[[], tuple[ReplicaView, ...]]


@dataclass(frozen=True)
class _Seen:
    """A leader as found, and since when it is unchanged by this process's clock."""

    epoch: int
    replica: str
    beat: int
    since_s: float


class Leadership:
    """One control centre's part in it: on a separate thread, however busy the others are."""

    def __init__(
        self,
        url: str,
        replica: str,
        endpoints: tuple[str, ...],
        *,
        elapsed_s: Callable[[], float] = clock.elapsed_s,
        wall_s: Callable[[], float] = clock.wall_s,
    ) -> None:
        """`replica`: its name among those with this database. Raises `InvalidInput` for a database
        that several cannot share, and like `SqlJournal`."""
        self._engine = open_database(url, LASTS_S)
        if self._engine.dialect.name != "postgresql":
            self._engine.dispose()
            raise InvalidInput(
                "several control centres cannot share this database",
                field="database",
                fix="name one of PostgreSQL: postgresql+psycopg://USER@HOST/NAME; or leave replica "
                "out, where this is the only control centre",
            )
        self._replica = replica
        self._endpoints = endpoints
        self._elapsed_s, self._wall_s = elapsed_s, wall_s
        self._seen: _Seen | None = None
        self._term: Term | None = None
        self._led = 0
        """Epoch of its latest leadership."""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = ThrottledLog(log)

    @property
    def term(self) -> Term | None:
        """Its own term, if it leads."""
        term = self._term
        return term if term is not None and term.holds else None

    def turn(self) -> LeadershipTurn | None:
        """Like `term`, with what is known about the others."""
        term = self.term
        return None if term is None else LeadershipTurn(term, self.replicas)

    def start(self) -> None:
        """Start as a standby."""
        self._thread = threading.Thread(target=self._run, name="leadership", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. A leadership passes to a standby."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(BEAT_S + LASTS_S)
        self.resign()
        self._engine.dispose()

    def resign(self) -> None:
        """Give up the leadership, so that another one can begin at once. Call it when nothing acts
        any more."""
        term, self._term = self._term, None
        if term is None:
            return
        term.end()
        try:
            with plain_errors(self._engine.url), self._engine.begin() as connection:
                connection.execute(
                    sa.update(REPLICAS)
                    .where(REPLICAS.c.replica == self._replica, REPLICAS.c.epoch == term.epoch)
                    .values(epoch=0)
                )
        except DaitnError as error:
            log.warning("the leadership ends by itself: %s", error)

    def step(self) -> None:
        """Renew the leadership; or check that of another one, and take it over if it is silent.
        Raises `DaitnError` if the database does not answer."""
        term = self._term
        if term is not None and term.holds:
            self._renew(term)
            return
        self._term = None
        with plain_errors(self._engine.url), self._engine.begin() as connection:
            self._show_up(connection)
            row = connection.execute(_LEADER).one_or_none()
            now_s = self._elapsed_s()
        if row is None:
            self._take(None)
            return
        seen = self._seen
        if seen is None or (seen.epoch, seen.beat) != (row.epoch, row.beat or 0):
            seen = self._seen = _Seen(row.epoch, row.replica, row.beat or 0, now_s)
        resigned = row.leads != row.epoch
        own = row.replica == self._replica
        if own and row.epoch > self._led > 0:
            own = False  # It would be taken back and forth.
            problem = f"another control centre is called {self._replica}, and leads"
            self._failures.warning(problem, "%s: give each a `replica` of its own", problem)
        if own or resigned or now_s - seen.since_s >= TAKEN_AFTER_S:
            self._take(seen)

    def replicas(self) -> tuple[ReplicaView, ...]:
        """All control centres that share the database, by name."""
        return _replicas(self._engine)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.step()
            except DaitnError as error:
                self._failures.warning(error.problem, "the leader is unknown: %s", error)
            except Exception:
                log.exception("the leader is unknown")
            self._ended.wait(BEAT_S)

    def _renew(self, term: Term) -> None:
        began_s = self._elapsed_s()
        with plain_errors(self._engine.url), self._engine.begin() as connection:
            renewed = connection.execute(
                sa.update(REPLICAS)
                .where(REPLICAS.c.replica == self._replica, REPLICAS.c.epoch == term.epoch)
                .values(beat=REPLICAS.c.beat + 1, seen_s=_NOW_S)
            )
            if renewed.rowcount == 1:
                term.renew(began_s)
            else:
                term.end()

    def _show_up(self, connection: sa.Connection) -> None:
        """Record that this one is alive, without counting as a sign of a leader."""
        stated = {
            "seen_s": _NOW_S,
            "endpoints": " ".join(self._endpoints),
            "software": __version__,
        }
        own = sa.update(REPLICAS).where(REPLICAS.c.replica == self._replica).values(**stated)
        if connection.execute(own).rowcount == 0:
            connection.execute(
                sa.insert(REPLICAS).values(replica=self._replica, epoch=0, beat=0, **stated)
            )

    def _take(self, seen: _Seen | None) -> None:
        """Begin to lead, unless another one did, or the leader has reappeared."""
        began_s = self._elapsed_s()
        try:
            with plain_errors(self._engine.url), self._engine.begin() as connection:
                epoch = self._taken(connection, seen)
        except sa.exc.IntegrityError:  # Two began at the same time with an empty database.
            return
        if epoch is None:
            return
        self._seen = None
        self._led = epoch
        term = Term(epoch, self._elapsed_s)
        term.renew(began_s)
        self._term = term
        log.info("%s leads, epoch %d", self._replica, epoch)

    def _taken(self, connection: sa.Connection, seen: _Seen | None) -> int | None:
        before = 0 if seen is None else seen.epoch
        # The wall clock keeps it increasing if the database is recreated.
        epoch = max(before + 1, int(self._wall_s()))
        if seen is None:
            values = {"id": _ROW, "epoch": epoch, "replica": self._replica}
            connection.execute(sa.insert(LEADERSHIP).values(values))
        else:
            connection.execute(
                sa.update(REPLICAS)
                .where(
                    REPLICAS.c.replica == seen.replica,
                    REPLICAS.c.epoch == seen.epoch,
                    REPLICAS.c.beat == seen.beat,
                )
                .values(epoch=0)
            )
            shown = sa.select(REPLICAS.c.epoch).where(
                REPLICAS.c.replica == seen.replica, REPLICAS.c.epoch == seen.epoch
            )
            if connection.execute(shown).first() is not None:
                return None  # It has beaten once more.
            taken = connection.execute(
                sa.update(LEADERSHIP)
                .where(LEADERSHIP.c.id == _ROW, LEADERSHIP.c.epoch == seen.epoch)
                .values(epoch=epoch, replica=self._replica)
            )
            if taken.rowcount == 0:
                return None  # Another one was faster.
        connection.execute(
            sa.update(REPLICAS)
            .where(REPLICAS.c.replica == self._replica)
            .values(epoch=epoch, beat=REPLICAS.c.beat + 1, seen_s=_NOW_S)
        )
        return epoch


def check_alone(url: str) -> None:
    """Raise `InvalidInput` if several control centres share a database: nothing stops a writer
    without leadership. Raises like `SqlJournal`."""
    running = [one.replica for one in read_replicas(url) if not one.is_silent]
    if running:
        raise InvalidInput(
            f"control centres that take turns have this database: {', '.join(running)}",
            field="replica",
            fix="state a name of its own for this one, which is none of theirs; or stop them, and "
            "start this one once they have been silent for a while",
        )


def read_replicas(url: str) -> tuple[ReplicaView, ...]:
    """All control centres that share a database, by name. Raises like `SqlJournal`."""
    engine = open_database(url)
    try:
        return _replicas(engine)
    finally:
        engine.dispose()


def _replicas(engine: sa.Engine) -> tuple[ReplicaView, ...]:
    query = sa.select(
        REPLICAS,
        LEADERSHIP.c.epoch.label("newest"),
        (_NOW_S - REPLICAS.c.seen_s).label("for_s"),
    ).select_from(REPLICAS.outerjoin(LEADERSHIP, LEADERSHIP.c.id == _ROW))
    with plain_errors(engine.url), engine.begin() as connection:
        rows = connection.execute(query).all()
    return tuple(
        ReplicaView(
            replica=row.replica,
            leads=row.epoch != 0 and row.epoch == row.newest,
            silent_s=max(0.0, float(row.for_s)),
            endpoints=tuple(row.endpoints.split()),
            version=row.software,
        )
        for row in sorted(rows, key=lambda row: row.replica)
    )


_FENCE: Final = (
    sa.select(
        LEADERSHIP.c.epoch,
        LEADERSHIP.c.replica,
        sa.func.set_config("idle_in_transaction_session_timeout", _ABANDONED, True),
    )
    .where(LEADERSHIP.c.id == _ROW)
    .with_for_update(read=True)
)
_LEADER: Final = (
    sa.select(
        LEADERSHIP.c.epoch, LEADERSHIP.c.replica, REPLICAS.c.epoch.label("leads"), REPLICAS.c.beat
    )
    .select_from(LEADERSHIP.outerjoin(REPLICAS, REPLICAS.c.replica == LEADERSHIP.c.replica))
    .where(LEADERSHIP.c.id == _ROW)
)


def _over(why: str) -> Unreachable:
    return Unreachable(
        f"this control centre is no longer the leader: {why}",
        field="database",
        fix="ask the one that leads: name all of them in --center (DAITN_CENTER), with commas",
    )
