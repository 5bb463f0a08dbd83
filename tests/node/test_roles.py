"""What a site's file states, and its roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daitn.node.config import check_node_config
from daitn.objects.errors import InvalidInput

VERIFIER: dict[str, Any] = {
    "site": "mpvu",
    "owner": "lab",
    "jurisdiction": "CH",
    "state": "state",
    "center": ["tcp/127.0.0.1:7447"],
    "insecure": True,
    "roles": ["verifier"],
    "tests": [{"name": "exam", "path": "exam.csv", "topic": "x", "test_schema": "table/1"}],
}


def test_a_price_that_nobody_would_pay_is_refused(tmp_path: Path) -> None:
    priced = {**VERIFIER, "compute": {"price_usd_per_hour": 36.0}}
    forwards = {"roles": ["forwarder"], "forwarder": {"listen": ["127.0.0.1:0"]}, "tests": []}
    with pytest.raises(InvalidInput, match="the role compute or verifier") as refused:
        check_node_config({**priced, **forwards}, tmp_path)
    assert refused.value.field == "compute.price_usd_per_hour"
    for roles in (["verifier"], ["verifier", "compute"]):
        read = check_node_config({**priced, "roles": roles}, tmp_path)
        assert read.compute.price_usd_per_hour == 36.0
