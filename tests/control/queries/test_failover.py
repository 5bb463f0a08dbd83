"""The failover machine over all histories: what it may never do, and that it always ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.control.queries.attempts import (
    Answered,
    Ask,
    Attempts,
    Begun,
    BrokenOff,
    Cause,
    Command,
    Fact,
    Failed,
    GiveUp,
    Late,
    ReportFailed,
    ReportLate,
    Stop,
)
from daitn.control.queries.failover import Failover
from daitn.control.queries.retry_budget import LEAST_PER_S, WINDOW_S, RetryBudget
from daitn.objects.errors import IllegalTransition
from daitn.objects.identifiers import SiteId
from daitn.topology.qrrt.snapshot import Paths

ROWS = 5
LATE_S = 1.0
HUB = SiteId("hub")


def paths(*unreachable: int, relayed: tuple[int, ...] = ()) -> Paths:
    rtt_s = np.array([math.inf if row in unreachable else 0.01 for row in range(ROWS)])
    relay = np.array([0 if row in relayed else -1 for row in range(ROWS)])
    return Paths(rtt_s, rtt_s, relay, (HUB,), np.ones(ROWS, np.bool_))


@dataclass
class Scene:
    """A machine, and what it commanded so far."""

    rows: tuple[int, ...] = tuple(range(ROWS))
    most: int = 10
    hedges: bool = True
    relays: bool = True
    budget: RetryBudget = field(default_factory=RetryBudget)
    said: list[tuple[Command, ...]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    under_way: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    answered: int | None = None
    given_up: GiveUp | None = None

    def __post_init__(self) -> None:
        self.account = Attempts(paths())
        self.machine = Failover(
            self.rows,
            self.account,
            self.budget,
            most=self.most,
            late_after_s=(lambda row: LATE_S) if self.hedges else None,
            relays=self.relays,
        )

    def take(self, fact: Fact, now_s: float = 0.0) -> tuple[Command, ...]:
        """Hand in a fact, and hold its commands against what holds of all machines."""
        match fact:
            case Answered(row=row):
                if row in self.under_way:
                    self.answered = row
                self.under_way.discard(row)
            case Failed(row=row):
                self.under_way.discard(row)
            case Late(row=row):
                self.late.add(row)
            case BrokenOff():
                self.answered = None
        commands = self.machine.handle(fact, now_s)
        for command in commands:
            self._check(command)
        assert len(self.under_way) <= (2 if self.hedges else 1)
        assert self.answered is None or not self.under_way
        assert self.account.count == len(self.asked) <= self.most
        self.said.append(commands)
        return commands

    @property
    def ended(self) -> bool:
        return self.answered is not None or self.given_up is not None

    def _check(self, command: Command) -> None:
        match command:
            case Ask(row=row):
                assert not self.ended
                assert row not in self.under_way
                assert not self.asked or math.isfinite(self.account.paths.rtt_s[row])
                self.asked.append(row)
                self.under_way.add(row)
            case Stop(row=row):
                assert self.answered is not None
                self.under_way.remove(row)
            case ReportLate(row=row, waited_s=waited_s):
                assert row in self.late or waited_s >= LATE_S
            case ReportFailed(row=row):
                assert row in self.account.failed
            case GiveUp():
                assert not self.under_way
                self.given_up = command


@dataclass(frozen=True)
class Step:
    """What happens next, to one of those that are under way."""

    what: str
    which: int
    cause: Cause
    broken: tuple[int, ...]
    relayed: tuple[int, ...]
    after_s: float


some_rows = st.lists(st.integers(0, ROWS - 1), unique=True).map(tuple)
steps = st.builds(
    Step,
    what=st.sampled_from(["answered", "failed", "failed", "failed", "late", "stale"]),
    which=st.integers(0, 1),
    cause=st.sampled_from(Cause),
    broken=some_rows,
    relayed=some_rows,
    after_s=st.floats(0.0, 3.0),
)
scenes = st.builds(
    Scene, rows=some_rows, most=st.integers(1, 10), hedges=st.booleans(), relays=st.booleans()
)


def fact_of(step: Step, scene: Scene) -> Fact:
    row = sorted(scene.under_way)[step.which % len(scene.under_way)]
    match step.what:
        case "answered":
            return Answered(row)
        case "late":
            return Late(row)
        case "stale":
            return Failed((row + 1) % ROWS, step.cause) if len(scene.under_way) == 1 else Late(row)
    unreachable = step.cause is Cause.UNREACHABLE
    left = paths(*step.broken, relayed=step.relayed) if unreachable else None
    return Failed(row, step.cause, paths=left)


def lived(scene: Scene, life: list[Step]) -> Scene:
    """Steps until it ends; where they end before, all that is under way fails."""
    now_s = 0.0
    scene.take(Begun(), now_s)
    for step in life:
        if scene.ended:
            break
        now_s += step.after_s
        scene.take(fact_of(step, scene), now_s)
    while not scene.ended:
        scene.take(Failed(min(scene.under_way), Cause.FAILED), now_s)
    return scene


@given(scenes, st.lists(steps, max_size=30))
def test_it_keeps_its_bounds_and_ends(scene: Scene, life: list[Step]) -> None:
    lived(scene, life)

    assert not scene.under_way
    # A row is asked again only where another path leads there.
    assert all(scene.asked.count(row) <= (2 if scene.relays else 1) for row in scene.asked)
    assert set(scene.asked) <= set(scene.rows)


@given(some_rows, st.integers(1, 10), st.booleans(), st.lists(steps, max_size=30))
def test_the_same_facts_give_the_same_commands(
    rows: tuple[int, ...], most: int, hedges: bool, life: list[Step]
) -> None:
    first, again = (lived(Scene(rows, most, hedges), life) for _ in range(2))

    assert repr(first.said) == repr(again.said)  # Arrays in them cannot be compared as a whole.
    assert (first.account.count, first.account.hedged, first.account.failed) == (
        again.account.count,
        again.account.hedged,
        again.account.failed,
    )


@given(st.integers(0, 8), st.lists(st.lists(steps, max_size=6), min_size=1, max_size=8))
def test_queries_together_stay_within_the_budget(left: int, lives: list[list[Step]]) -> None:
    """What follows comes within the budget's window, and is too little to earn a retry."""
    budget = RetryBudget()
    for _ in range(LEAST_PER_S * WINDOW_S - left):
        assert budget.spend(0.0)
    scenes_ = [Scene(budget=budget) for _ in lives]
    for scene, life in zip(scenes_, lives, strict=True):
        scene.take(Begun())
        for step in life:
            if not scene.ended:
                scene.take(fact_of(step, scene))
        while not scene.ended:
            scene.take(Failed(min(scene.under_way), Cause.FAILED))

    assert sum(len(scene.asked) - 1 for scene in scenes_) <= left


@given(scenes, st.lists(steps, max_size=30), some_rows)
def test_a_broken_answer_is_asked_for_among_those_that_may_give_it(
    scene: Scene, life: list[Step], replicas: tuple[int, ...]
) -> None:
    lived(scene, life)
    if scene.answered is None:
        return
    before, broken = len(scene.asked), scene.answered
    rows = tuple(row for row in replicas if row != broken)

    commands = scene.take(BrokenOff(broken, rows), 100.0)

    assert commands[0] == ReportFailed(broken)
    while not scene.ended:
        scene.take(Failed(min(scene.under_way), Cause.FAILED), 100.0)
    assert set(scene.asked[before:]) <= set(rows)
    # What was stopped may still end.
    for row in scene.rows:
        for fact in (Answered(row), Failed(row, Cause.FAILED), Late(row)):
            assert scene.machine.handle(fact, 200.0) == ()


def test_a_late_row_is_overtaken() -> None:
    scene = Scene()

    assert scene.take(Begun(), 0.0) == (Ask(0, LATE_S),)
    assert scene.take(Late(0), 1.0) == (Ask(1),)
    assert scene.take(Answered(1), 1.5) == (Stop(0), ReportLate(0, 1.5))
    assert scene.account.hedged


def test_a_row_that_was_asked_just_now_is_not_late() -> None:
    scene = Scene()
    scene.take(Begun(), 0.0)
    scene.take(Late(0), 1.0)

    assert scene.take(Answered(0), 1.5) == (Stop(1),)


def test_another_path_is_tried_once_and_only_where_queries_are_relayed() -> None:
    around = Failed(0, Cause.UNREACHABLE, paths=paths(relayed=(0,)))
    for relays, then in ((True, (Ask(0, LATE_S),)), (False, (ReportFailed(0), Ask(1, LATE_S)))):
        scene = Scene(relays=relays)
        scene.take(Begun())
        assert scene.take(around) == then
    scene = Scene()
    scene.take(Begun())
    scene.take(around)
    assert scene.take(around) == (ReportFailed(0), Ask(1, LATE_S))


def test_who_refuses_is_told_of_once_another_row_answered() -> None:
    scene = Scene(rows=(0, 1))
    scene.take(Begun())
    assert scene.take(Failed(0, Cause.REFUSED)) == (Ask(1),)
    assert scene.take(Answered(1)) == (ReportFailed(0),)

    alone = Scene(rows=(0,))
    alone.take(Begun())
    refused = Failed(0, Cause.REFUSED)
    assert alone.take(refused) == (GiveUp((refused,)),)


def test_who_refuses_is_told_of_where_another_machine_of_the_query_had_an_answer() -> None:
    first, second, third = (Scene(rows=(row,)) for row in (0, 1, 2))
    for scene in (second, third):
        scene.account = first.account
        scene.machine._account = first.account
    for scene in (first, second, third):
        scene.machine.handle(Begun(), 0.0)
    first.machine.handle(Failed(0, Cause.REFUSED), 0.0)

    assert second.machine.handle(Answered(1), 0.0) == (ReportFailed(0),)
    assert third.machine.handle(Failed(2, Cause.REFUSED), 0.0)[0] == ReportFailed(2)


def test_it_gives_up_for_load_where_all_are_full() -> None:
    scene = Scene(rows=(0, 1))
    scene.take(Begun())
    scene.take(Failed(0, Cause.FULL, retry_after_s=7.0))
    scene.take(Failed(1, Cause.FULL, retry_after_s=3.0))

    assert scene.given_up is not None
    assert (scene.given_up.full, scene.given_up.retry_after_s) == (True, 3.0)
    assert not scene.account.failed.isdisjoint({0, 1})
    empty = Scene(rows=())
    empty.take(Begun())
    assert empty.given_up == GiveUp(())
    assert not empty.given_up.full


def test_who_is_not_suited_is_not_unwell_and_does_not_hide_load() -> None:
    scene = Scene(rows=(0, 1))
    scene.take(Begun())
    assert scene.take(Failed(0, Cause.UNSUITED, permanent=True)) == (Ask(1),)
    scene.take(Failed(1, Cause.FULL, retry_after_s=7.0))

    assert scene.given_up is not None
    assert (scene.given_up.full, scene.given_up.permanent) == (True, False)

    alone = Scene(rows=(0,))
    alone.take(Begun())
    alone.take(Failed(0, Cause.UNSUITED, permanent=True))
    assert alone.given_up is not None
    assert (alone.given_up.full, alone.given_up.permanent) == (False, True)


def test_it_tells_why_an_answer_broke_off() -> None:
    scene = Scene(rows=(0,))
    scene.take(Begun())
    scene.take(Answered(0))

    scene.take(BrokenOff(0, reason="it ended too early"))

    assert scene.given_up is not None
    assert [failed.reason for failed in scene.given_up.failures] == ["it ended too early"]


def test_it_says_how_many_it_was_not_allowed_to_ask() -> None:
    few = Scene(rows=(0, 1, 2), most=1)
    few.take(Begun())
    few.take(Failed(0, Cause.FAILED, "broken"))
    assert few.given_up is not None
    assert few.given_up.untried == 2
    budget = RetryBudget()
    while budget.spend(0.0):
        pass
    spent = Scene(rows=(0, 1), budget=budget)
    spent.take(Begun())
    spent.take(Failed(0, Cause.FAILED, "broken"))
    assert spent.given_up is not None
    assert spent.given_up.untried == 1


def test_a_fact_that_cannot_be_is_told_with_what_came_before() -> None:
    scene = Scene()
    scene.take(Begun())
    with pytest.raises(
        IllegalTransition, match=r"is asking cannot take Begun\(\); so far: Begun\(\)"
    ):
        scene.take(Begun())
