from __future__ import annotations

from pathlib import Path

import pytest

from daitn.node.incarnation import MARKED_EVERY_S, mark, started_at_s
from daitn.objects.errors import StorageFull


def test_a_start_is_later_than_the_one_before_even_where_the_clock_went_back(
    tmp_path: Path,
) -> None:
    first = started_at_s(tmp_path, 10_000.0)
    back = started_at_s(tmp_path, 6_400.0)
    again = started_at_s(tmp_path, 6_401.0)
    assert first == 10_000.0
    assert first < back < again < first + 3 * MARKED_EVERY_S
    assert started_at_s(tmp_path, 20_000.0) == 20_000.0


def test_a_start_is_later_than_all_that_was_said_in_the_life_before(tmp_path: Path) -> None:
    first = started_at_s(tmp_path, 10_000.0)
    mark(tmp_path, first + 7200.0)
    assert started_at_s(tmp_path, 13_600.0) >= first + 7200.0 + MARKED_EVERY_S


@pytest.mark.parametrize("content", ["", "yesterday", "nan", "inf"])
def test_an_unreadable_start_time_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "started").write_text(content)
    assert started_at_s(tmp_path, 5.0) == 5.0


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="cannot be written"):
        started_at_s(tmp_path / "nowhere", 5.0)
