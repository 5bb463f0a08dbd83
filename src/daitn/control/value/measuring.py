"""Which rounds of a job are measured for the value of data, and their known results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from daitn.control.value.credits import MeasuredRound, Objectives, worth_of
from daitn.control.value.descent import Descent, DescentStep
from daitn.control.value.game import NOBODY, Coalition, Game, Worth
from daitn.objects.identifiers import Digest, ObjectiveName, SiteId
from daitn.objects.lineage import Merge, Verification
from daitn.objects.models import ModelRef

__all__ = ["CoalitionUnderWay", "RoundPlayed", "Valuing", "rounds_of"]


@dataclass
class RoundPlayed:
    """A round whose sites' shares are being determined."""

    step: DescentStep
    game: Game
    known: dict[Coalition, Worth]
    verifiers: Mapping[ObjectiveName, SiteId]
    """Those that measured the round's model: others have other test sets."""
    problem: str = ""
    """Why no more of it is measured."""

    @property
    def merge(self) -> Merge:
        assert isinstance(self.step.made.fact, Merge)
        return self.step.made.fact


@dataclass
class CoalitionUnderWay:
    """A coalition whose model is being made and measured."""

    round: Digest
    members: Coalition
    model: ModelRef | None = None
    measured: dict[ObjectiveName, Verification] = field(default_factory=dict)


@dataclass
class Valuing:
    """The measuring of a job's rounds."""

    rounds: dict[Digest, RoundPlayed]
    """By the entry of their merge, largest gain or loss first."""
    deadline_at_s: float
    now: CoalitionUnderWay | None = None
    ended: bool = False

    def next(self) -> CoalitionUnderWay | None:
        """The coalition to measure next; `None` means there is none left."""
        for digest, played in self.rounds.items():
            members = None if played.problem else played.game.next(played.known)
            if members is not None:
                return CoalitionUnderWay(digest, members)
        return None

    @property
    def coalitions(self) -> int:
        """Number of coalitions measured so far."""
        return sum(len(played.known) - 2 for played in self.rounds.values())

    @property
    def measured(self) -> dict[Digest, MeasuredRound]:
        return {key: MeasuredRound(one.game, one.known) for key, one in self.rounds.items()}

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.problem for one in self.rounds.values() if one.problem))


def rounds_of(
    descent: Descent,
    objectives: Objectives,
    most: int,
    before: Mapping[Digest, RoundPlayed],
) -> dict[Digest, RoundPlayed]:
    """The rounds for which `most` coalitions are enough, those with the largest effect on the model
    first.

    `before`: what is known of earlier measurements.
    """
    found = []
    for step in descent.steps:
        start, end = (worth_of(descent, at, objectives) for at in (step.before, step.after))
        if step.together and len(step.visits) > 1 and start and end:
            moved = max(abs(b - a) for a, b in zip(start.values, end.values, strict=True))
            found.append((moved, step, start, end))
    found.sort(key=lambda one: -one[0])
    games = [_game(step, most) for _, step, _, _ in found]
    parts = _divided([game.needs for game in games], most)
    rounds = {}
    for (_, step, start, end), game, part in zip(found, games, parts, strict=True):
        if part is None:
            continue
        facts = descent.measured[step.after]
        known = {NOBODY: start, game.everybody: end}
        if step.after in before:
            known |= before[step.after].known
        rounds[step.after] = RoundPlayed(
            step=step,
            game=Game(game.players, game.seed, part, game.least),
            known=known,
            verifiers={ObjectiveName(n): facts[test].site for n, test in objectives.items()},
        )
    return rounds


def _game(step: DescentStep, most: int) -> Game:
    assert isinstance(step.made.fact, Merge)
    least = step.made.fact.rule.least_models or 1
    return Game(len(step.visits), str(step.made.fact.visit), most, least)


def _divided(needs: Sequence[tuple[int, int]], most: int) -> list[int | None]:
    """Divide `most` measurements among rounds; `None` for a round that gets none.

    `needs`: of each round, the fewest coalitions from which anything follows, and the most that
    help. Earlier rounds get their fewest first. What is left is shared evenly by the rounds served.
    """
    parts: list[int | None] = []
    left = most
    for fewest, _ in needs:
        parts.append(fewest if fewest <= left else None)
        left -= parts[-1] or 0
    for number, (_, useful) in enumerate(needs):
        part = parts[number]
        if part is not None:
            sharing = sum(one is not None for one in parts[number:])
            more = min(left // sharing, useful - part)
            parts[number], left = part + more, left - more
    return parts
