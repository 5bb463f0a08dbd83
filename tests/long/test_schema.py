"""The API does what its description says, whatever is asked, at length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.scenes.described_api import open_room, schema, tried

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with open_room(tmp_path_factory.mktemp("room")) as at:
        yield at


@schema().parametrize()
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_no_request_of_very_many_finds_a_fault(case: Any, url: str) -> None:
    tried(case, url)
