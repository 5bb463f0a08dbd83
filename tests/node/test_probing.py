"""Single questions before an examination, and facilities that answer those worse."""

from __future__ import annotations

import random
from collections.abc import Callable

from daitn.learning.corpora.records import MultipleChoice
from daitn.node.verifier.probing import MARKED_FOR_S, PROBES, Probing

EVERY_S = 60.0


def items(count: int) -> list[MultipleChoice]:
    return [
        MultipleChoice(
            topic="t", label="l", question=f"q{number}", options=("a", "b", "c", "d"), answer=0
        )
        for number in range(count)
    ]


def rounds(
    alone: Callable[[MultipleChoice], bool | None],
    together: Callable[[MultipleChoice], bool | None],
    count: int = 60,
) -> tuple[Probing[str], list[float]]:
    """Rounds of one facility that answers so; and how long after each the questions came."""
    probing, moments = Probing[str](random.Random(1), str), list[float]()
    deck, rng = items(200), random.Random(2)
    for number in range(count):
        began_s = number * EVERY_S
        probing.plan("it", rng.sample(deck, 24), began_s, EVERY_S)
        for second in range(int(EVERY_S) + 1):
            for moment_s, target, item in probing.due(began_s + second):
                assert second - 1 <= moment_s - began_s <= second
                moments.append(second)
                probing.answered(target, item, alone(item))
        asked = probing.round_of("it")
        probing.compared("it", [(item, together(item)) for item in asked], began_s, anew=False)
    return probing, moments


def test_a_facility_that_recognises_rounds_is_marked() -> None:
    rng = random.Random(3)
    probing, _ = rounds(lambda item: rng.random() < 0.5, lambda item: rng.random() < 0.95)
    found = probing.paired["it"]
    assert found.marked
    assert found.answered().value < 0.6


def test_one_that_is_wrong_about_the_same_items_always_is_not() -> None:
    probing, moments = rounds(
        lambda item: len(item.question) > 2, lambda item: len(item.question) > 2
    )
    assert not probing.paired["it"].marked
    assert len(moments) == 60 * PROBES
    assert max(moments) > 50, "they come at any moment between rounds"
    assert min(moments) < 10


def test_silence_is_no_answer_and_is_told() -> None:
    probing, _ = rounds(lambda item: None, lambda item: True, count=5)
    assert probing.paired["it"].alone.items == 0
    assert not probing.paired["it"].unanswered, "it may have been away for a while"
    probing, _ = rounds(lambda item: None, lambda item: True, count=12)
    assert probing.paired["it"].unanswered
    assert not probing.paired["it"].marked
    probing, _ = rounds(lambda item: None, lambda item: None)
    assert not probing.paired["it"].unanswered, "who answers nothing at all is silent, or lost"
    rng = random.Random(4)
    probing, _ = rounds(lambda item: rng.random() < 0.8 or None, lambda item: True)
    assert not probing.paired["it"].unanswered


def test_a_mark_outlives_the_model_and_the_name() -> None:
    """What the same facility advertises next begins marked, for a week or until it is acquitted."""
    rng = random.Random(5)
    probing = Probing[str](rng, lambda name: name.partition("/")[0])
    deck = items(200)

    def round_of(target: str, now_s: float, *, two_faced: bool, anew: bool = False) -> bool:
        probing.plan(target, rng.sample(deck, 24), 0.0, 1.0)
        for _, asked, item in list(probing.due(1.0)):
            probing.answered(asked, item, not two_faced)
        grades = [(item, True) for item in probing.round_of(target)]
        return probing.compared(target, grades, now_s, anew=anew).marked

    while not round_of("liar/quack", 0.0, two_faced=True):
        pass
    assert round_of("liar/quack", 60.0, two_faced=False, anew=True), "another manifest"
    assert round_of("liar/doctor", 60.0, two_faced=False), "another name"
    assert not round_of("honest/doctor", 60.0, two_faced=False), "another facility"
    assert not round_of("liar/nurse", 60.0 + MARKED_FOR_S, two_faced=False), "for a week"
    assert not probing.marked_at_s, "what is over is forgotten"
    rounds = 0
    while round_of("liar/doctor", 60.0, two_faced=False):
        rounds += 1
    assert 60 < rounds < 70, "acquitted by as many pairs as any other"
    probing.forget("liar/doctor")
    assert "liar/doctor" not in probing.paired


def test_an_answer_that_comes_after_its_round_does_not_count() -> None:
    probing = Probing[str](random.Random(1), str)
    probing.plan("it", items(24), 0.0, EVERY_S)
    (late, *_) = [item for _, _, item in probing.due(EVERY_S)]
    asked = probing.round_of("it")
    probing.answered("it", late, True)
    assert (
        probing.compared("it", [(item, True) for item in asked], 0.0, anew=False).alone.items == 0
    )
