"""Errors about a request name the option that a person typed, not the field sent."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from daitn.objects.accounts import AccountQuestion
from daitn.objects.cordons import CordonQuestion
from daitn.objects.errors import DaitnError
from daitn.objects.placement import DeployIntent, RetireIntent
from daitn.objects.requests import CutQuery, ExplainQuery, QueriesWanted
from daitn.objects.steering import Probe, Steer
from daitn.objects.value import ValueQuestion

__all__ = ["OPTIONS", "naming", "naming_options"]

OPTIONS: Final[Mapping[type, Mapping[str, str]]] = {
    AccountQuestion: {"from_s": "--from", "to_s": "--to"},
    CordonQuestion: {"reason": "--reason"},
    CutQuery: {
        "intent.origin": "--gateway",
        "intent.model": "--model",
        "intent.topic": "--topic",
        "intent.constraints.topic": "--topic",
        "intent.constraints.min_accuracy": "--min-accuracy",
        "intent.constraints.trust": "--trust",
        "intent.constraints.max_cost_usd": "--max-cost",
        "intent.constraints.jurisdictions": "--jurisdiction",
    },
    DeployIntent: {
        "name": "--as",
        "to": "--to",
        "replicas": "--replicas",
        "price_usd_per_1k_in": "--price-in",
        "price_usd_per_1k_out": "--price-out",
        "askers": "--asker",
    },
    ExplainQuery: {"query": "job"},
    Probe: {"timeout_s": "--within"},
    QueriesWanted: {"limit": "--limit", "owner": "--owner"},
    RetireIntent: {"site": "--from"},
    Steer: {"prefer": "--prefer", "reset": "--reset"},
    ValueQuestion: {"measure": "--measure", "coalitions": "--coalitions", "within_s": "--minutes"},
}
"""Where options have another name than the fields that they fill. An argument has its field's."""

_PLACE = re.compile(r"\[[^]]*\]")


def naming_options(question: object) -> contextlib.AbstractContextManager[None]:
    """Rename the fields of a request in errors about it, whoever raises them."""
    return naming(OPTIONS.get(type(question), {}))


@contextlib.contextmanager
def naming(options: Mapping[str, str]) -> Iterator[None]:
    """Rename these fields in errors. One item of a list has the option of all."""
    try:
        yield
    except DaitnError as error:
        error.field = options.get(_PLACE.sub("", error.field), error.field)
        raise
