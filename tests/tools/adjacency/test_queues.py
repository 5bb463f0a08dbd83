from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daitn.tools.adjacency.queues import Queue


def test_the_oldest_go_first_when_it_overflows() -> None:
    queue = Queue[int](1000)
    for item in range(100):
        queue.put(item, 36)
    assert queue.take(1 << 20) == list(range(90, 100))
    assert queue.dropped == 90


def test_an_item_above_the_bound_of_a_take_is_taken_alone() -> None:
    queue = Queue[str](10_000)
    queue.put("large", 5000)
    queue.put("small", 1)
    assert queue.take(1000) == ["large"]
    assert queue.take(1000) == ["small"]
    assert queue.take(1000) == []


@given(st.lists(st.integers(0, 500)), st.integers(64, 2000))
def test_takes_bring_everything_in_order(sizes: list[int], most: int) -> None:
    queue = Queue[int]()
    for number, size in enumerate(sizes):
        queue.put(number, size)
    taken: list[int] = []
    while batch := queue.take(most):
        assert len(batch) == 1 or sum(sizes[one] + 64 for one in batch) <= most
        taken += batch
    assert taken == list(range(len(sizes)))
    assert not queue


def test_what_is_cleared_counts_as_dropped() -> None:
    queue = Queue[int]()
    queue.put(1, 1)
    queue.clear()
    assert (queue.dropped, queue.take(100)) == (1, [])
