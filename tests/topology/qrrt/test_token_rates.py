"""How many tokens a prompt has for a deployment: as it says, and as it reports."""

from __future__ import annotations

import pytest

from daitn.objects.tokens import USUAL_RATES, Characters
from daitn.topology.qrrt.observation import Observation, PromptSize
from daitn.topology.qrrt.state import QrrtState

from .world import NOW_S, deployment, facility

MEASURED = (0.5, 0.5, 1.5, 3.0)


def state_of(*said: dict[str, object], version: int = 1) -> QrrtState:
    state = QrrtState()
    tell(state, *said, version=version)
    return state


def tell(state: QrrtState, *said: dict[str, object], version: int) -> None:
    models = (deployment(f"m{n}", **each) for n, each in enumerate(said))
    node = facility("mdf", *models, version=version)
    state.described(node, NOW_S)
    state.came(node.site, NOW_S)


def rates(state: QrrtState, name: str) -> tuple[float, ...]:
    snapshot = state.snapshot()
    row = snapshot.row_of[f"{name}@mdf"]
    return tuple(float(column[row]) for column in snapshot.columns.token_rates)


def reports(state: QrrtState, name: str, characters: Characters, tokens: float) -> None:
    for _ in range(50):
        seen = Observation(failed=False, prompt=PromptSize(characters, tokens))
        state.observe("mdf", name, seen, NOW_S)


def test_a_deployment_has_the_rates_that_it_says_or_the_usual() -> None:
    state = state_of({"tokens_per_character": MEASURED}, {})
    assert (rates(state, "m0"), rates(state, "m1")) == (MEASURED, USUAL_RATES)


def test_reports_teach_about_the_deployment_that_made_them() -> None:
    state = state_of({}, {})
    before = state.snapshot().columns.token_rates
    reports(state, "m0", (4000, 0, 0, 0), 2000)
    assert rates(state, "m0")[0] == pytest.approx(0.5, rel=0.02)
    assert rates(state, "m0")[1:] == USUAL_RATES[1:]
    assert rates(state, "m1") == USUAL_RATES
    assert [column[0] for column in before] == [*USUAL_RATES], "a version never changes"


def test_what_was_learned_stays_until_the_tokenizer_is_another() -> None:
    state = state_of({})
    reports(state, "m0", (4000, 0, 0, 0), 2000)
    learned = rates(state, "m0")
    tell(state, {"slots": 9}, version=2)
    assert rates(state, "m0") == learned
    tell(state, {"tokens_per_character": MEASURED}, version=3)
    assert rates(state, "m0") == MEASURED
    tell(state, {}, version=4)
    assert rates(state, "m0") == USUAL_RATES


def test_rates_go_with_their_rows() -> None:
    state = state_of({}, {"tokens_per_character": MEASURED})
    state.described(
        facility("mdf", deployment("m1", tokens_per_character=MEASURED), version=2), NOW_S
    )
    assert rates(state, "m1") == MEASURED


def test_small_changes_copy_no_column() -> None:
    state = state_of({})
    before = state.snapshot().columns
    seen = Observation(failed=False, prompt=PromptSize((4000, 0, 0, 0), 1005.0))
    state.observe("mdf", "m0", seen, NOW_S)
    assert state.snapshot().columns.tokens_per_1 is before.tokens_per_1
