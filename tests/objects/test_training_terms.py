from __future__ import annotations

import pytest

from daitn.objects.errors import InvalidInput
from daitn.objects.intents import Training
from daitn.objects.merging import RULES, Algorithm
from daitn.objects.wire import checked


def training(**stated: object) -> Training:
    return checked(stated, Training, "training")


@pytest.mark.parametrize("algorithm", RULES)
def test_numbers_of_merging_that_are_left_out_are_the_algorithms(algorithm: Algorithm) -> None:
    own = RULES[algorithm]
    rule = training(algorithm=algorithm, merging={"momentum": 0.25}).rule
    assert rule is not None
    assert rule.momentum == 0.25
    assert training(algorithm=algorithm, merging={"momentum": own.momentum}).rule == own
    assert training(algorithm=algorithm, merging={}).rule == own
    assert (rule.rate, rule.reduction, rule.outer) == (own.rate, own.reduction, own.outer)


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"algorithm": "fedavg", "merging": {"reduction": "krum"}}, "fedavg needs reduction: mean"),
        ({"algorithm": "fedadam", "merging": {"outer": "yogi"}}, "fedadam needs outer: adam"),
        ({"algorithm": "sequential", "merging": {}}, "sequential has no rounds"),
        ({"algorithm": "ties", "merging": {"tolerates": 1}}, "ties tolerates no malicious models"),
    ],
)
def test_what_is_another_algorithms_is_refused(stated: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        training(**stated)
