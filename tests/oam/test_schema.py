"""The API does what its description says, whatever is asked: requests that schemathesis makes of
the description, good and bad ones, find no fault of the server and no answer of another form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.scenes.described_api import open_room, schema, tried

few = schema()
few.config.phases.coverage.enabled = False


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with open_room(tmp_path_factory.mktemp("room")) as at:
        yield at


@few.parametrize()
@settings(max_examples=6, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_request_finds_a_fault(case: Any, url: str) -> None:
    tried(case, url)
