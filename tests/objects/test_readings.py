"""What sites say of themselves in numbers is finite and bounded where it is decoded."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from daitn.objects.descriptors import ComputeDescriptor, TopicSketch
from daitn.objects.errors import Corrupt
from daitn.objects.readings import Reading, ServingReading
from daitn.objects.wire import decode, encode

READING = {"value": 0.02, "at_s": 1e9, "origin": "north"}
SERVING = {"deployment": "m", "in_flight": 1, "waiting": 0, "per_token_s": 0.01}
COMPUTE = {"device": "cpu", "memory_bytes": 1 << 33, "speed_flops": 1e9, "recipes": []}
SKETCH = {"texts": 40, "buckets": [1, 7], "counts": [10, 20]}
ABSURD = (math.nan, math.inf, -math.inf, -1.0, 1e300)


def refused(kind: type[msgspec.Struct], plain: dict[str, Any], **changes: object) -> None:
    decode(encode(plain), kind)
    with pytest.raises(Corrupt):
        decode(encode({**plain, **changes}), kind)


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("field", ["value", "at_s"])
def test_a_reading_is_a_number(field: str, value: float) -> None:
    refused(Reading, READING, **{field: value})


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("field", ["first_token_s", "per_token_s", "error_share"])
def test_a_speed_is_a_number(field: str, value: float) -> None:
    refused(ServingReading, SERVING, **{field: value})


@pytest.mark.parametrize("value", [-1, -(2**62), 2**62])
def test_counts_are_bounded(value: int) -> None:
    refused(ComputeDescriptor, COMPUTE, memory_bytes=value)
    refused(ServingReading, SERVING, waiting=value)
    refused(TopicSketch, SKETCH, texts=value)
    refused(TopicSketch, SKETCH, counts=[10, value])
    refused(TopicSketch, SKETCH, buckets=[value, 7])
    refused(TopicSketch, SKETCH, counts=[10])
