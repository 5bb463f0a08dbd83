"""The benchmark of route policies runs, and its pieces do not depend on how they are spread."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace

import pytest

from benchmarks import route_worlds
from daitn.control.jobs.job import Job
from daitn.control.route.question import RouteQuestion
from daitn.objects.randomness import Rng
from daitn.sim.learning.baselines.ring import Ring
from daitn.sim.learning.families.seeds import DEVELOPMENT, VALIDATION
from daitn.sim.learning.policy import VisitChosen

NAMES = tuple(route_worlds.OBVIOUS)


@dataclass
class Counting:
    """A ring that remembers how many jobs it has seen."""

    name: str = "counting"
    seen: list[str] = field(default_factory=list)

    def next_visit(self, question: RouteQuestion, rng: Rng) -> VisitChosen | None:
        return Ring().next_visit(question, rng)

    def finished(self, job: Job, question: RouteQuestion) -> None:
        self.seen.append(str(job.state))


def test_it_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "route_worlds --json --episodes 4 --family tiny plain --policies mtrce"
    monkeypatch.setattr(sys, "argv", command.split())
    route_worlds.main()
    found = json.loads(capsys.readouterr().out)
    assert found["first_seed"] == DEVELOPMENT
    assert set(found["groups"]) == {"tiny", "plain", "all"}
    rows = {row["policy"]: row for row in found["groups"]["all"]}
    assert set(rows) == {*NAMES, "mtrce"}
    assert rows["mtrce"]["episodes"] == 4
    assert rows["mtrce"]["decision_median_s"] > 0.0


def test_a_piece_is_the_same_however_it_is_cut() -> None:
    seeds = (DEVELOPMENT, DEVELOPMENT + 1)
    whole = route_worlds.led(route_worlds.Piece("tiny", seeds, NAMES, oracle=True))
    parts = [
        judged
        for seed in seeds
        for judged in route_worlds.led(route_worlds.Piece("tiny", (seed,), NAMES, oracle=True))
    ]
    for one, other in zip(whole, parts, strict=True):
        assert one.oracle_s == other.oracle_s
        for name in NAMES:
            assert replace(one.episodes[name], decision_s=()) == replace(
                other.episodes[name], decision_s=()
            )


def test_ranges_of_seeds_share_nothing() -> None:
    cut = route_worlds.pieces(["tiny", "plain"], 10, DEVELOPMENT, NAMES, oracle=False)
    for name in ("tiny", "plain"):
        assert sum(len(piece.seeds) for piece in cut if piece.family == name) == 5
    assert [piece.family for piece in cut[:2]] == ["tiny", "plain"]
    assert all(seed < VALIDATION for piece in cut for seed in piece.seeds)
    with pytest.raises(SystemExit, match="at most"):
        route_worlds.pieces(["tiny"], 10**7, DEVELOPMENT, NAMES, oracle=False)


def test_a_policy_with_experience_sees_a_family_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Counting] = []

    def counting() -> Counting:
        made.append(Counting())
        return made[-1]

    monkeypatch.setitem(route_worlds.POLICIES, "counting", counting)
    cut = route_worlds.pieces(["tiny"], 20, DEVELOPMENT, ["counting"], oracle=False)
    assert [len(piece.seeds) for piece in cut] == [20]
    route_worlds.led(replace(cut[0], seeds=cut[0].seeds[:3]))
    assert len(made[-1].seen) == route_worlds.EARLIER + 3
