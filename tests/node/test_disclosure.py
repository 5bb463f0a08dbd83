"""What may leave of a data set: nothing that describes fewer records than its owner says."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.control.attesting import Tally
from daitn.identity.keys import SigningKey
from daitn.learning.child.outside import ProcessFailed
from daitn.learning.recipe import (
    DataFault,
    DataProfile,
    Fault,
    LabelMeasured,
    Measured,
    Progress,
)
from daitn.node.disclosure import (
    Disclosure,
    LossGate,
    TrainingStep,
    coarse,
    coarse_tally,
    whole,
    withheld,
)
from daitn.objects.errors import (
    Corrupt,
    DaitnError,
    ErrorReport,
    InvalidInput,
    NotFound,
    StorageFull,
    WorkFailed,
)
from daitn.objects.identifiers import Digest, JobId, VisitId
from daitn.objects.messages import VisitWork
from daitn.objects.models import ModelRef

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
    assert gate.labels(histogram) == {k: n // 5 * 5 for k, n in histogram.items() if n >= least}
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


# ----------------------------------------------------------------------------- repeated records


def test_equal_records_count_once() -> None:
    repeated = DataProfile(samples=500, labels={"a": 500}, different={"a": 9}, quality=1.0)
    with pytest.raises(InvalidInput, match="fewer than 10 records"):
        GATE.check_profile(repeated)
    assert GATE.labels(repeated.labels, repeated.different) == {}
    some = DataProfile(
        samples=600, labels={"a": 500, "b": 100}, different={"a": 20, "b": 9}, quality=1.0
    )
    GATE.check_profile(some)
    assert GATE.labels(some.labels, some.different) == {"a": 500}


def test_a_visit_is_longer_where_records_repeat() -> None:
    once = DataProfile(samples=50, labels={}, quality=1.0)
    assert GATE.least_examples(once) == 10
    often = DataProfile(samples=50, labels={"a": 50}, different={"a": 10}, quality=1.0)
    assert GATE.least_examples(often) == 50
    with pytest.raises(InvalidInput, match="at least 50"):
        GATE.check_examples(49, GATE.least_examples(often))


# ------------------------------------------------------------------------------- measured values


def measured(hits: dict[str, tuple[int, int]], *, over_labels: bool = False) -> Measured:
    """An accuracy, from the hits and the items of each label."""
    shares = {label: LabelMeasured(value=h / n, items=n) for label, (h, n) in hits.items()}
    items = sum(n for _, n in hits.values())
    right = sum(h for h, _ in hits.values())
    mean = sum(one.value for one in shares.values()) / len(shares)
    return Measured(
        metric="accuracy",
        value=mean if over_labels else right / items,
        items=items,
        standard_error=0.123,
        by_label=shares,
        over_labels=over_labels,
    )


@given(st.integers(10, 400), st.data())
def test_a_measured_value_leaves_in_steps_of_five_items_and_is_never_better(
    items: int, data: st.DataObject
) -> None:
    hits = data.draw(st.integers(0, items))
    told = GATE.measured(measured({"a": (hits, items)}), ["a"])
    missed = round(items * (1.0 - told.value), 6)
    assert missed % 5 == 0 or told.value == 0.0
    assert hits / items - 5 / items < told.value + 1e-9
    assert told.value <= hits / items + 1e-9
    assert math.isclose(told.standard_error, math.sqrt(told.value * (1 - told.value) / items))
    assert abs(told.by_label["a"].value - hits / items) <= 2.5 / items + 1e-9


def test_two_models_that_differ_on_one_item_measure_the_same() -> None:
    told = {GATE.measured(measured({"a": (hits, 100)}), ["a"]).value for hits in range(80, 85)}
    assert told == {0.8}
    assert GATE.measured(measured({"a": (62, 62)}), []).value == 1.0, "all right stays all right"


def test_a_target_is_not_reached_by_rounding() -> None:
    assert GATE.measured(measured({"a": (79, 100)}), []).value < 0.8
    assert GATE.measured(measured({"a": (80, 100)}), []).value >= 0.8
    assert GATE.measured(measured({"a": (160, 200), "b": (20, 25)}), []).value >= 0.8


def test_one_item_of_a_rare_label_does_not_decide_a_mean_over_labels() -> None:
    common = {"a": (40, 50), "b": (30, 50)}
    for rare in ({"c": (0, 1)}, {"c": (1, 1)}, {"c": (1, 1), "d": (0, 2)}):
        told = GATE.measured(measured(common | rare, over_labels=True), ["a", "b"])
        assert told.value == pytest.approx(0.7)
        assert told.standard_error == pytest.approx(math.sqrt((0.16 + 0.24) / 50) / 2)
    pooled = {f"r{n}": (1, 2) for n in range(10)}
    told = GATE.measured(measured(common | pooled, over_labels=True), ["a", "b"])
    assert told.value == pytest.approx((0.8 + 0.6 + 0.5) / 3), "enough rare ones count as one"


def test_labels_that_are_not_published_have_no_value() -> None:
    one = measured({"a": (40, 50), "b": (30, 50)})
    assert GATE.measured(one, ["a", "b"]).by_label.keys() == {"a", "b"}
    assert GATE.measured(one, ["a"]).by_label.keys() <= {"a"}
    assert Disclosure("d", 10, label_values=False).measured(one, ["a", "b"]).by_label == {}


def test_what_is_no_share_of_items_is_clipped() -> None:
    """A loss, a perplexity: nothing that one item can move without bound."""
    for value, told in ((7.3, 1.0), (-2.0, 0.0)):
        assert coarse(value, 50) == told
    few = measured({"a": (3, 9)})
    with pytest.raises(InvalidInput, match="fewer than 10 items"):
        GATE.measured(few, ["a"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_is_a_failure_and_not_the_worst_model(
    value: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A job would go on looking for a better one, and spend its budget."""
    broken = msgspec.structs.replace(measured({"a": (40, 50)}), value=value)
    label = {"a": LabelMeasured(value=value, items=50)}
    of_label = msgspec.structs.replace(measured({"a": (40, 50)}), by_label=label)
    for one in (broken, of_label):
        with pytest.raises(WorkFailed, match="is not a finite number") as told, GATE.failures():
            GATE.measured(one, ["a"])
        assert told.value.field == "model"
    assert f"accuracy as {value}" in caplog.text
    assert f"accuracy of label a as {value}" in caplog.text


def test_a_label_without_items_has_no_metric() -> None:
    """Recipes give NaN for it, as scikit-learn does."""
    labels = {
        "a": LabelMeasured(value=0.9, items=100),
        "never": LabelMeasured(value=math.nan, items=0),
    }
    for over_labels in (True, False):
        found = msgspec.structs.replace(
            measured({"a": (90, 100)}), by_label=labels, over_labels=over_labels
        )
        given = GATE.measured(found, ["a", "never"])
        assert given.value == 0.9
        assert set(given.by_label) == {"a"}


def test_the_sites_own_log_has_the_full_error() -> None:
    """Advice to read that log would point to itself."""
    full = NotFound("/data/notes.csv does not exist", fix="restore it")
    with pytest.raises(NotFound, match="a file is missing") as told, GATE.failures():
        raise full
    assert whole(told.value) is full
    own = WorkFailed("the worker was killed", fix="try again")
    assert whole(own) is own


def test_quality_leaves_in_steps() -> None:
    def quality(usable: int) -> float:
        return GATE.quality(DataProfile(samples=100, labels={}, quality=usable / 100))

    assert {quality(n) for n in range(90, 95)} == {0.9}
    assert quality(100) == 1.0


def test_a_tally_of_a_deployed_model_is_coarse() -> None:
    assert {coarse_tally(Tally(right, 24)) for right in range(19, 24)} == {Tally(19, 24)}
    assert coarse_tally(Tally(24, 24)) == Tally(24, 24)


# ------------------------------------------------------------------------------------ losses

GUESS = math.log(2)


def test_which_records_a_visit_draws_is_the_sites_secret() -> None:
    here, there = SigningKey.generate(), SigningKey.generate()
    work = VisitWork(
        visit=VisitId("a-1.1"), job=JobId("a-1"), recipe="classifier", config={"batch": 8}, seed=7,
        owner="acme", dataset="notes", examples=20, model=None, previous=(),
    )  # fmt: skip

    def drawn(**changes: Any) -> int:
        return GATE.drawn(msgspec.structs.replace(work, **changes), here)

    assert drawn() == drawn(), "the same work is the same work again"
    assert drawn() == drawn(visit="b-7.9", job="b-7", owner="rival"), "it tells nothing new"
    model = ModelRef(manifest=Digest("a" * 64), size_bytes=1, holders=())
    others = {
        GATE.drawn(work, there),
        Disclosure("other", 10).drawn(work, here),
        drawn(seed=8),
        drawn(examples=21),
        drawn(model=model),
        drawn(config={"batch": 9}),
        drawn(recipe="another"),
        7,
    }
    assert drawn() not in others
    assert len(others) == 8
    assert all(0 <= seed < 2**63 for seed in others)


def losses(
    batches: list[tuple[int, float]], least: int = 10, sensitivity: float = 1e-9, seed: int = 0
) -> tuple[list[TrainingStep], LossGate]:
    """What leaves of batches of so many examples with such a loss."""
    gate = LossGate(least, b"%d" % seed)
    total, done, told = sum(n for n, _ in batches), 0, []
    for examples, loss in batches:
        done += examples
        progress = Progress(examples=done, of_examples=total, loss=loss, sensitivity=sensitivity)
        left = gate.take(progress)
        told += [left] if left else []
    return told, gate


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.0, 50.0)), min_size=1, max_size=120),
    st.integers(10, 50),
)
def test_a_loss_is_a_mean_over_half_of_the_visit(
    batches: list[tuple[int, float]], least: int
) -> None:
    told, gate = losses(batches, least)
    total, before = sum(n for n, _ in batches), 0
    each = [loss for _, loss in batches]
    assert len(told) <= 20
    assert len({left.loss for left in told} - {None}) <= 2
    for left in told:
        assert left.examples - before >= max(least, total / 20)
        assert left.loss is not None or left.examples < max(least, total / 2)
        before = left.examples
    last = gate.loss()
    assert (last is None) == (total < least)
    if last is not None:
        assert min(each) - 1e-6 <= last <= max(each) + 1e-6


def test_the_loss_of_one_record_never_leaves() -> None:
    """Records one by one at a learning rate of nearly 0: each batch is one record's loss."""
    told, gate = losses([(1, float(record)) for record in range(60)])
    assert [left.examples for left in told] == [10, 20, 30, 40, 50, 60]
    assert [left.loss for left in told] == pytest.approx([None, None, 14.5, 14.5, 14.5, 44.5])
    assert gate.loss() == pytest.approx(44.5)
    assert losses([(1, 3.0)] * 9)[1].loss() is None


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_visit_that_goes_on_tells_every_loss_once(cut: int) -> None:
    """Wherever its latest savepoint was, and whatever was told after it."""
    batches = [(20, 0.4 + n / 100) for n in range(20)]
    whole, gate = losses(batches, sensitivity=GUESS)
    for kept in range(cut + 1):
        persisted: list[tuple[float | None, ...]] = [()]
        first = LossGate(10, b"0", tell=persisted.append)
        steps: dict[int, TrainingStep] = {}
        state = first.state
        for number in range(cut):
            if number == kept:
                state = first.state
            steps |= {step.examples: step for step in taken(first, batches, number)}
        state = first.state if kept == cut else state
        # On a GPU nothing comes out twice: the means differ, and what was told stays.
        again = [(examples, loss + 1e-4) for examples, loss in batches]
        second = LossGate(10, b"0", state, persisted[-1], persisted.append)
        for number in range(kept, 20):
            for step in taken(second, again if number < cut else batches, number):
                assert steps.setdefault(step.examples, step) == step
        assert len(persisted) == 3, "nothing at first, and two losses"
        assert second.loss() == persisted[-1][1]
        if kept == cut:
            assert list(steps.values()) == whole
            assert second.loss() == gate.loss()


def taken(gate: LossGate, batches: list[tuple[int, float]], number: int) -> list[TrainingStep]:
    """The step that a batch makes a gate publish."""
    done, total = (sum(n for n, _ in part) for part in (batches[: number + 1], batches))
    progress = Progress(
        examples=done, of_examples=total, loss=batches[number][1], sensitivity=GUESS
    )
    step = gate.take(progress)
    return [] if step is None else [step]


def test_the_same_mean_has_the_same_noise_and_no_other() -> None:
    """Neither repeating a visit averages its noise out, nor is it in the difference of two."""

    def told(loss: float, secret: bytes = b"0") -> float | None:
        gate = LossGate(10, secret)
        taken(gate, [(400, loss)], 0)
        return gate.loss()

    assert told(0.4) == told(0.4)
    gaps = {round((told(0.4 + n / 1000) or 0.0) - n / 1000, 3) for n in range(50)}
    assert len(gaps) > 10
    assert len({told(0.4, b"%d" % n) for n in range(50)}) > 10


def test_a_loss_without_a_bound_does_not_leave() -> None:
    for sensitivity in (0.0, -1.0, math.nan, math.inf):
        told, gate = losses([(10, 0.5)] * 8, sensitivity=sensitivity)
        assert gate.loss() is None
        assert {left.loss for left in told} == {None}
    assert losses([(10, math.nan)] * 4)[1].loss() is None


def test_the_noise_of_a_loss_is_what_a_record_can_add_and_more() -> None:
    """Over many visits of 400 examples: the deviation of Laplace noise at epsilon 0.5."""
    last = [losses([(20, 0.4)] * 20, sensitivity=GUESS, seed=n)[1].loss() for n in range(2000)]
    told = np.array(last, float)
    scale = GUESS / (200 * 0.5)
    assert told.std() == pytest.approx(scale * math.sqrt(2), rel=0.1)
    assert told.mean() == pytest.approx(0.4, abs=0.001)
    assert all(round(loss, 3) == loss for loss in told), "no digits that mean nothing"


def solved(visits: int, *, gate: bool, known: bool = True, seed: int = 0) -> float:
    """How well losses of 60 records are solved for, as correlation, from as many visits of an
    epoch at a learning rate of nearly 0, by whoever knows (or does not) which records each mean
    is over."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.0, GUESS, 60)
    rows, means = [], []
    for visit in range(visits):
        order = rng.permutation(60)
        batches = [(1, float(truth[record])) for record in order]
        told, _ = losses(batches, sensitivity=GUESS, seed=1000 * seed + visit)
        believed = order if known else rng.permutation(60)
        for half, left in enumerate([told[2], told[5]]):
            own = slice(30 * half, 30 * half + 30)
            rows.append(np.bincount(believed[own], minlength=60) / 30)
            means.append(left.loss if gate else truth[order[own]].mean())
    against = np.array(means, float) - np.mean(np.array(means, float))
    system = np.array(rows)
    found = [
        np.linalg.solve(system.T @ system + damped * np.eye(60), system.T @ against)
        for damped in (1e-9, 0.01, 0.1, 1.0)
    ]
    return max(float(np.corrcoef(guess, truth)[0, 1]) for guess in found)


def mean_solved(visits: int, *, gate: bool, known: bool = True) -> float:
    return float(np.mean([solved(visits, gate=gate, known=known, seed=n) for n in range(8)]))


def test_least_squares_over_many_visits_do_not_find_the_losses_of_records() -> None:
    """The attack works on exact means, and finds next to nothing in what leaves."""
    assert mean_solved(60, gate=False) > 0.99
    assert mean_solved(60, gate=True) < 0.6
    assert mean_solved(60, gate=True, known=False) < 0.25, "a site draws by a secret of its own"


def test_a_model_made_for_one_record_does_not_show_whether_it_is_there() -> None:
    """All others have a loss of 0, or nearly that of a guess: one mean would show it."""
    for others in (0.0, GUESS * 0.5):
        told = []
        for own in (others, GUESS):
            runs = [
                losses([(1, own), *[(1, others)] * 59], sensitivity=GUESS, seed=n)[0][2].loss
                for n in range(400)
            ]
            told.append(np.array(runs, float))
        without, there = told
        best = max(
            np.mean(there >= cut) - np.mean(without >= cut) for cut in np.linspace(0, 1, 101)
        )
        assert best < math.tanh(0.5 / 2) + 0.1, "as much as epsilon allows"
