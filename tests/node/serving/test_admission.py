"""Slots and the queue before them, whoever comes, ends or goes away in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.node.serving.admission import AdmissionQueue
from daitn.openai.errors import ApiError


class Visitor:
    """One query: it comes in, stays until it is told to end, and leaves."""

    def __init__(self, admission: AdmissionQueue, came_in: Callable[[Visitor], None]) -> None:
        self.end = asyncio.Event()
        self.turned_away = False
        self._came_in = came_in
        self.task = asyncio.create_task(self._visit(admission))

    async def _visit(self, admission: AdmissionQueue) -> None:
        try:
            await admission.acquire()
        except ApiError as error:
            assert error.status == 429
            self.turned_away = True
            return
        self._came_in(self)
        try:
            await self.end.wait()
        finally:
            admission.release()


STEPS = st.lists(
    st.tuples(st.sampled_from(["come", "end", "cancel", "pause"]), st.integers(0, 5)),
    max_size=60,
)


@settings(deadline=None)
@given(slots=st.integers(1, 2), queue=st.integers(0, 3), steps=STEPS)
async def test_slots_are_never_exceeded_and_never_lost(
    slots: int, queue: int, steps: list[tuple[str, int]]
) -> None:
    admission = AdmissionQueue(slots, queue)
    visitors: list[Visitor] = []
    served: list[Visitor] = []
    for step, number in steps:
        if step == "come":
            visitors.append(Visitor(admission, served.append))
        elif step == "pause":
            await asyncio.sleep(0)
        elif visitors:
            chosen = visitors[number % len(visitors)]
            # Both happen before anybody gets to run: that is where slots get lost.
            chosen.end.set() if step == "end" else chosen.task.cancel()
        assert admission.in_flight <= slots
        assert admission.waiting <= queue
    came = [v for v in visitors if v in served]
    assert came == served, "in order of arrival"
    for visitor in visitors:
        visitor.end.set()
    ended = await asyncio.gather(*(v.task for v in visitors), return_exceptions=True)
    assert all(e is None or isinstance(e, asyncio.CancelledError) for e in ended)
    assert (admission.in_flight, admission.waiting, admission.idle.is_set()) == (0, 0, True)


async def test_who_leaves_the_queue_as_a_slot_comes_passes_it_on() -> None:
    admission = AdmissionQueue(1, 2)
    await admission.acquire()
    second, third = (asyncio.create_task(admission.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    assert admission.waiting == 2
    # The slot becomes free and its next owner goes away before anybody gets to run.
    second.cancel()
    admission.release()
    await third
    await asyncio.gather(second, return_exceptions=True)
    assert second.cancelled()
    assert (admission.in_flight, admission.waiting) == (1, 0)


async def test_whole_answers_that_are_quicker_than_the_streams_before_have_a_speed() -> None:
    """Each counted as 0 s a token: after some dozens, the model wrote 10^24 tokens a second."""
    admission = AdmissionQueue(1, 0)
    for _ in range(6):
        admission.record_answer(0.5, 0.8, 7)
    for _ in range(300):
        admission.record_answer(None, 0.3, 4)
    reading = admission.reading("doctor")
    assert reading.first_token_s is not None
    assert reading.per_token_s is not None
    assert reading.first_token_s + 3 * reading.per_token_s == pytest.approx(0.3)
    assert 0.001 < reading.per_token_s < 0.1


async def test_the_speed_of_whole_answers_is_known_once_it_can_be() -> None:
    admission = AdmissionQueue(1, 0)
    for _ in range(3):
        admission.record_answer(None, 0.5, 1)
    for seconds, per_token_s in ((0.4, None), (0.4, None), (1.4, 0.1)):
        admission.record_answer(None, seconds, 11)
        found = admission.reading("doctor").per_token_s
        assert found == (None if per_token_s is None else pytest.approx(per_token_s, rel=0.1))


async def test_figures_follow_what_is_measured() -> None:
    admission = AdmissionQueue(1, 0)
    for _ in range(50):
        admission.record_answer(0.2, 1.2, 11)
    reading = admission.reading("doctor")
    assert reading.first_token_s == pytest.approx(0.2)
    assert reading.per_token_s == pytest.approx(0.1)
    assert reading.error_share == 0.0
    for _ in range(20):
        admission.record_failure()
    assert admission.reading("doctor").error_share > 0.9
    admission.reset_errors()
    assert admission.reading("doctor").error_share == 0.0
    await admission.acquire()
    with pytest.raises(ApiError) as full:
        await admission.acquire()
    # One answer takes 1.2 s, and there is one slot.
    assert full.value.retry_after_s == pytest.approx(1.2)
