"""What may leave of a data set: nothing that describes fewer records than its owner says."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.learning.child.outside import ProcessFailed
from daitn.learning.recipe import (
    DataFault,
    DataProfile,
    Fault,
    LabelMeasured,
    Measured,
    Progress,
)
from daitn.node.disclosure import Disclosure, LossGate, withheld
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    ErrorReport,
    InvalidInput,
    NotFound,
    StorageFull,
    WorkFailed,
)

SECRET = "MRN-4711"
GATE = Disclosure("data set notes", 10)


@pytest.mark.parametrize("kind", [*DaitnError.__subclasses__(), DaitnError])
def test_no_word_of_a_recipe_leaves(kind: type[DaitnError]) -> None:
    told = withheld(kind(f"bad {SECRET}", field=f"row {SECRET}", fix=f"drop {SECRET}"))
    assert SECRET not in str(ErrorReport.of(told))
    assert told.problem
    assert told.fix


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_leaves_as_a_sentence_with_counts(fault: Fault) -> None:
    counts = dict.fromkeys(("labels", "missing", "unexpected", "model", "problems", "line"), 37)
    error = DataFault(fault, f"bad {SECRET}", counts, field=SECRET, fix=SECRET)
    told = ErrorReport.of(withheld(error))
    assert SECRET not in str(told)
    assert told.code in ("InvalidInput", "WorkFailed")
    assert "{" not in told.problem
    assert withheld(DataFault(fault, "without any count")).problem


def test_kinds_stay_and_the_node_speaks_for_itself() -> None:
    for kind in (Corrupt, InvalidInput, NotFound, StorageFull, WorkFailed):
        assert type(withheld(kind("x"))) is kind
    told = withheld(ProcessFailed("the training worker was killed", fix="see the log"))
    assert told.problem == "the training worker was killed"
    assert ErrorReport.of(told).code == "WorkFailed"


def test_the_site_keeps_the_whole_story_in_its_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidInput) as caught, GATE.failures():
        raise InvalidInput(f"no number: {SECRET}", field="mrn", fix="mend it")
    assert SECRET not in str(caught.value)
    assert SECRET in str(caught.value.__cause__), "for whoever runs the process"
    assert SECRET in caplog.text


def test_too_little_is_not_described_and_not_trained_on() -> None:
    GATE.check_profile(DataProfile(samples=10, labels={}, quality=1.0))
    GATE.check_examples(10)
    with pytest.raises(InvalidInput, match="fewer than 10 records"):
        GATE.check_profile(DataProfile(samples=9, labels={}, quality=1.0))
    with pytest.raises(InvalidInput, match="at least 10"):
        GATE.check_examples(9)


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 30)), st.integers(10, 25))
def test_labels_with_few_records_are_not_told(histogram: dict[str, int], least: int) -> None:
    gate = Disclosure("d", least)
    assert gate.labels(histogram) == {k: n for k, n in histogram.items() if n >= least}
    scores = {k: LabelMeasured(value=0.5, items=n) for k, n in histogram.items()}
    items = sum(histogram.values())
    measured = Measured(
        metric="accuracy", value=0.5, items=items, standard_error=0.1, by_label=scores
    )
    told = gate.by_label(measured).keys()
    others = items - sum(histogram[label] for label in told)
    assert told <= gate.labels(histogram).keys()
    assert others == 0 or others >= least or not told, "the others cannot be worked out"


def test_a_sketch_shows_words_of_enough_texts_alone() -> None:
    shared = [f"what is asthma {n}" for n in range(12)]
    rare = [f"of {SECRET} and others {n}" for n in range(9)]
    assert GATE.sketch(rare).buckets == ()
    assert min(GATE.sketch(shared).counts) >= 10


# ------------------------------------------------------------------------------------ losses


def losses(batches: list[tuple[int, float]], least: int = 10) -> tuple[list[Progress], LossGate]:
    """What leaves of batches of so many examples with such a loss."""
    total, done, told, gate = sum(n for n, _ in batches), 0, [], LossGate(least)
    for examples, loss in batches:
        done += examples
        left = gate.take(Progress(examples=done, of_examples=total, loss=loss))
        told += [left] if left else []
    return told, gate


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.0, 50.0)), min_size=1, max_size=120),
    st.integers(10, 50),
)
def test_a_loss_is_a_mean_over_enough_examples(
    batches: list[tuple[int, float]], least: int
) -> None:
    told, gate = losses(batches, least)
    total, before = sum(n for n, _ in batches), 0
    each = [loss for examples, loss in batches for _ in range(examples)]
    assert len(told) <= 20
    for left in told:
        assert left.examples - before >= max(least, total / 20)
        mean = sum(each[before : left.examples]) / (left.examples - before)
        assert math.isclose(left.loss, mean, rel_tol=0.01, abs_tol=1e-9)
        before = left.examples
    last = gate.loss()
    assert (last is None) == (total < least)
    if last is not None:
        assert min(each) * 0.99 - 1e-9 <= last <= max(each) * 1.01 + 1e-9


def test_the_loss_of_one_record_never_leaves() -> None:
    """Records one by one at a learning rate of nearly 0: each batch is one record's loss."""
    told, gate = losses([(1, float(record)) for record in range(60)])
    assert [left.examples for left in told] == [10, 20, 30, 40, 50, 60]
    assert [left.loss for left in told] == [4.5, 14.5, 24.5, 34.5, 44.5, 54.5]
    assert gate.loss() == 54.5
    assert losses([(1, 3.0)] * 9)[1].loss() is None


def test_a_loss_is_rounded() -> None:
    told, gate = losses([(10, 1.23456), (10, 0.000123456), (10, 12345.6)])
    assert [left.loss for left in told] == [1.23, 0.000123, 12300.0]
    assert gate.loss() == 12300.0
    assert math.isnan(losses([(10, math.nan)])[0][0].loss)
    assert Counter(left.loss for left in losses([(10, 0.0)])[0]) == {0.0: 1}
