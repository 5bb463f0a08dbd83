"""How a rejection proposes a change to the intent, and how that change is applied.

`Rejection.field` is a path in the intent (`requirements[0].at_least`), `relax_to` the JSON of the
new value there (`1200`, `["CA", "US"]`), which is also valid YAML. `null` drops a list item
(`requirements[0]` to `null`: the owner gives up that requirement). Bounds are rounded to three
digits in the direction that lets more pass.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

import msgspec

from daitn.objects.decisions import Rejection
from daitn.objects.errors import InvalidInput
from daitn.objects.intents import Requirement, TrainingIntent
from daitn.objects.wire import checked

__all__ = [
    "DROPPED",
    "as_value",
    "relaxed",
    "relaxed_requirement",
    "rounded_down",
    "rounded_up",
]

DROPPED = "null"
"""The value that removes an item from its list."""

_STEP = re.compile(r"\.?([a-z_]+)|\[(\d+)\]")
_DIGITS = 3


def as_value(value: object) -> str:
    """A value in the form of `relax_to`."""
    return msgspec.json.encode(value).decode()


def relaxed_requirement(
    requirement: Requirement, index: int, value: float | str
) -> tuple[str, str]:
    """Field and `relax_to` with which the intent's requirement `index` would admit `value`."""
    path = f"requirements[{index}]"
    if isinstance(value, str):
        if requirement.one_of:
            return f"{path}.one_of", as_value(sorted({*requirement.one_of, value}))
        left = [name for name in requirement.none_of if name != value]
        return (f"{path}.none_of", as_value(left)) if left else (path, DROPPED)
    if requirement.at_least is not None:
        return f"{path}.at_least", rounded_down(value)
    return f"{path}.at_most", rounded_up(value)


def rounded_down(value: float) -> str:
    """A lower bound, in the form of `relax_to`, that admits `value`."""
    return _rounded(value, ROUND_FLOOR)


def rounded_up(value: float) -> str:
    """An upper bound, in the form of `relax_to`, that admits `value`."""
    return _rounded(value, ROUND_CEILING)


def relaxed(intent: TrainingIntent, rejection: Rejection) -> TrainingIntent:
    """The intent with the single change that `rejection` proposes.

    Raises `InvalidInput` if it proposes none or the result is not a valid intent.
    """
    if not rejection.relax_to:
        raise InvalidInput(
            f"no value of the intent lets {rejection.candidate} pass {rejection.filter}",
            field=rejection.field,
            fix="see the rejection's reason: the intent cannot fix it",
        )
    # Via JSON, because `to_builtins` keeps tuples, which cannot be changed in place.
    plain: Any = msgspec.json.decode(msgspec.json.encode(intent))
    steps = [name or int(index) for name, index in _STEP.findall(rejection.field)]
    holder = plain
    for step in steps[:-1]:
        holder = holder[step]
    if rejection.relax_to == DROPPED:
        del holder[steps[-1]]
    else:
        holder[steps[-1]] = msgspec.json.decode(rejection.relax_to)
    return checked(plain, TrainingIntent, "intent")


def _rounded(value: float, direction: str) -> str:
    # Rounds outward. Converting to float is not a step inward, because rounding to nearest keeps
    # order.
    bound = float(Context(prec=_DIGITS, rounding=direction).create_decimal(Decimal(repr(value))))
    return as_value(int(bound) if bound.is_integer() else bound)
