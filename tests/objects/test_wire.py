from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.objects import errors
from daitn.objects.errors import Corrupt, DaitnError, ErrorReport, InvalidInput
from daitn.objects.intents import Quantity, Requirement, TrainingIntent
from daitn.objects.jobs import JobEvent
from daitn.objects.lineage import Entry
from daitn.objects.messages import Advert, Sensed, Work, WorkOutcome
from daitn.objects.models import Manifest
from daitn.objects.wire import canonical, checked, decode, encode, to_json

KINDS = (TrainingIntent, Manifest, Advert, Sensed, WorkOutcome, Entry, ErrorReport)

INTENT: dict[str, Any] = {
    "name": "qa",
    "owner": "acme",
    "model": {"recipe": "classifier"},
    "objectives": [{"name": "broad", "topic": "medicine", "at_least": 0.8}],
    "data": {"topics": ["medicine"]},
}


@given(st.sampled_from(errors.KINDS), st.binary(max_size=400))
def test_bytes_from_the_network_are_a_value_or_corrupt(kind: type, data: bytes) -> None:
    try:
        decode(data, kind)
    except Corrupt as error:
        assert kind.__name__ in error.problem


@given(st.binary(max_size=400))
def test_unions_from_the_network_are_a_value_or_corrupt(data: bytes) -> None:
    for kind in (Work, JobEvent):
        try:
            decode(data, kind)
        except Corrupt as error:
            assert error.fix


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from([*INTENT, "budget", "requirements", "route"]), json_like)
def test_a_malformed_intent_names_a_field_and_a_fix(name: str, value: object) -> None:
    try:
        checked({**INTENT, name: value}, TrainingIntent, "intent")
    except InvalidInput as error:
        assert error.field
        assert error.fix


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"objectives": []}, "objectives"),
        ({"objectives": [INTENT["objectives"][0]] * 2}, "intent"),
        ({"model": {"recipe": "classifier", "seed": 2**60}}, "model.seed"),
        ({"name": "x" * 41}, "name"),
        ({"objectives": [{"name": "b", "topic": "m", "at_least": 80}]}, "objectives[0].at_least"),
        ({"objective": []}, "intent"),
        ({"budget": {"cost_usd": "cheap"}}, "budget.cost_usd"),
        ({"requirements": [{"quantity": "size", "at_least": 1}]}, "requirements[0].quantity"),
        ({"requirements": [{"quantity": "samples"}]}, "requirements[0]"),
        ({"requirements": [{"quantity": "samples", "one_of": ["x"]}]}, "requirements[0]"),
    ],
)
def test_the_named_field_is_the_wrong_one(change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked({**INTENT, **change}, TrainingIntent, "intent")
    assert caught.value.field == field


@given(st.dictionaries(st.text(max_size=4), st.integers(0, 9), min_size=2, max_size=6))
def test_canonical_bytes_do_not_depend_on_the_order_of_insertion(labels: dict[str, int]) -> None:
    other = dict(reversed(labels.items()))
    assert canonical(labels) == canonical(other)
    assert decode(encode(labels), dict) == labels


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("\ud800", "not Unicode"),
        ({"a": ["x\udfff"]}, "not Unicode"),
        (2**64, "ints"),
        ({1: 1}, "str keys"),
    ],
)
def test_what_cannot_be_written_is_refused(value: object, words: str) -> None:
    for write in (canonical, encode):
        if write is encode and words == "str keys":
            continue
        with pytest.raises(InvalidInput, match=words) as refused:
            write(value)
        assert refused.value.fix
    if words == "not Unicode":
        with pytest.raises(InvalidInput, match=words):
            to_json(value)


@given(
    st.sampled_from(errors.KINDS),
    st.text(max_size=20),
    st.text(max_size=20),
    st.text(max_size=20),
)
def test_errors_cross_the_network_whole(
    kind: type[DaitnError], problem: str, field: str, fix: str
) -> None:
    """Within a site; what others hear of it names no folder."""
    made = kind(problem, field=field, fix=fix)
    error = decode(encode(ErrorReport.inside(made)), ErrorReport).error()
    assert type(error) is kind
    assert (error.problem, error.field, error.fix) == (problem, field, fix)


@pytest.mark.parametrize("kind", [errors.Unserved, errors.ClocksDiffer])
def test_earlier_releases_read_what_they_know_of_a_cause(kind: type[DaitnError]) -> None:
    """They decide by the code: whether a job asks again, for instance."""

    class Earlier(msgspec.Struct):
        code: str
        problem: str

    sent = encode(ErrorReport.of(kind("no answer")))
    assert decode(sent, Earlier) == Earlier("Unreachable", "no answer")
    old = {"code": "Unreachable", "problem": "no answer"}
    assert type(decode(encode(old), ErrorReport).error()) is errors.Unreachable


def test_a_cause_is_one_of_its_code() -> None:
    report = ErrorReport(code="Refused", problem="no", cause="Unserved")
    assert type(report.error()) is errors.Refused


def test_an_error_of_a_newer_peer_is_still_an_error() -> None:
    assert type(ErrorReport(code="Quantum", problem="decohered").error()) is DaitnError


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_a_shortfall_is_what_is_missing_and_no_more(bound: float, value: float) -> None:
    least = Requirement(quantity=Quantity.SAMPLES, at_least=bound)
    most = Requirement(quantity=Quantity.SAMPLES, at_most=bound)
    assert (least.shortfall(value) == 0) == (value >= bound)
    assert (most.shortfall(value) == 0) == (value <= bound)
    assert least.shortfall(value) + most.shortfall(value) == pytest.approx(abs(value - bound))


def test_values_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Requirement(quantity=Quantity.QUALITY, at_least=0.5).at_least = 0.1  # type: ignore[misc]
    assert msgspec.structs.replace(Requirement(quantity=Quantity.QUALITY, at_least=0.5))


def structs_of(kind: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """The structs of the network's objects."""
    for one in kind.__subclasses__():
        if one.__module__.startswith("daitn.objects."):
            yield one
        yield from structs_of(one)


def unions(each: object, seen: set[type]) -> Iterator[tuple[msgspec.inspect.Type, ...]]:
    """The unions in a type, of which a struct has those of its fields."""
    if isinstance(each, tuple):
        for one in each:
            yield from unions(one, seen)
    elif isinstance(each, msgspec.inspect.StructType):
        if each.cls not in seen:
            seen.add(each.cls)
            yield from unions(tuple(field.type for field in each.fields), seen)
    elif isinstance(each, msgspec.inspect.Type):
        if isinstance(each, msgspec.inspect.UnionType):
            yield each.types
        yield from unions(tuple(getattr(each, name) for name in each.__struct_fields__), seen)


def test_no_field_is_a_text_with_a_pattern_or_a_collection() -> None:
    """msgspec 0.22 crashes when such a type is collected, which a process does at its end."""
    objects = importlib.import_module("daitn.objects")
    for module in pkgutil.iter_modules(objects.__path__, "daitn.objects."):
        importlib.import_module(module.name)
    several = msgspec.inspect.CollectionType | msgspec.inspect.DictType
    kinds = tuple(map(msgspec.inspect.type_info, structs_of(msgspec.Struct)))
    found = [
        one
        for one in unions(kinds, set())
        if any(isinstance(each, msgspec.inspect.StrType) and each.pattern for each in one)
        and any(isinstance(each, several) for each in one)
    ]
    assert not found
