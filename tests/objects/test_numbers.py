"""Numbers that members state are in a range, wherever they are decoded: NaN is in none."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import msgspec
import pytest

from daitn.objects import (
    agents,
    deployments,
    descriptors,
    findings,
    messages,
    models,
    readings,
    usage,
)
from daitn.objects.messages import WorkState, WorkStatus
from daitn.objects.wire import decode, encode

STATED = (agents, deployments, descriptors, findings, messages, models, readings, usage)
"""Modules of what members send. A lineage's facts are checked with the work that they are about,
so that a report says what is wrong: see `control/jobs/reports.py`."""
OWN = {
    "ProbeRequest.size_bytes",  # Checked with words that say what is possible.
    "VisitWork.seed",
    "MergeWork.seed",
    "RosterQuestion.version",
    "RosterAnswer.version",
}
"""Any number will do, or whoever reads it says why not."""


def unbounded(module: ModuleType) -> Iterator[str]:
    """The fields that take any number."""
    for name, kind in inspect.getmembers(module, inspect.isclass):
        if not issubclass(kind, msgspec.Struct) or kind.__module__ != module.__name__:
            continue
        for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
            if any(_takes_any(one) for one in _parts(field.type)):
                yield f"{name}.{field.name}"


def _parts(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    yield kind
    match kind:
        case msgspec.inspect.UnionType(types=parts) | msgspec.inspect.TupleType(item_types=parts):
            for part in parts:
                yield from _parts(part)
        case (
            msgspec.inspect.VarTupleType(item_type=part) | msgspec.inspect.DictType(value_type=part)
        ):
            yield from _parts(part)


def _takes_any(kind: msgspec.inspect.Type) -> bool:
    return isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType) and (
        (kind.ge is None and kind.gt is None) or (kind.le is None and kind.lt is None)
    )


@pytest.mark.parametrize("module", STATED, ids=lambda module: module.__name__)
def test_every_number_that_a_member_states_has_a_range(module: ModuleType) -> None:
    assert set(unbounded(module)) - OWN == set()


@pytest.mark.parametrize("number", [-1, 2**64 - 1])
def test_a_status_with_a_number_that_cannot_be_is_not_decoded(number: int) -> None:
    status = WorkStatus(state=WorkState.RUNNING, done=1)
    odd = msgspec.structs.replace(status, done=number)
    with pytest.raises(Exception, match="done"):
        decode(encode(odd), WorkStatus)
    assert decode(encode(status), WorkStatus) == status
