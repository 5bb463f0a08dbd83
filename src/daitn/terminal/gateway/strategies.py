"""How many models answer: one, a cheap one before a better one, or several that vote."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from daitn.objects.queries import Strategy
from daitn.terminal.gateway.answer import Answer, AnswerBroken
from daitn.terminal.gateway.bodies import confidence, with_logprobs, without_logprobs
from daitn.terminal.gateway.course import Course
from daitn.terminal.gateway.delivery import Delivery
from daitn.terminal.gateway.hedge import drop
from daitn.terminal.gateway.refusals import unavailable
from daitn.terminal.gateway.search import FAILED, Asking, Search, late_after_s
from daitn.terminal.gateway.voting import winner
from daitn.terminal.http import Reply
from daitn.terminal.openai_api import ApiError
from daitn.topology.qrrt.filters import passing
from daitn.topology.qrrt.load import Load
from daitn.topology.qrrt.relevance import relevant_to

__all__ = ["Strategies"]

_WHOLE: dict[str, object] = {"stream": False, "stream_options": None}
"""Of a request whose answer is looked at before it is given."""


class Strategies:
    """Carries a plan out."""

    def __init__(self, asking: Asking, load: Load) -> None:
        self._asking = asking
        self._load = load

    async def answer(self, course: Course, delivery: Delivery) -> Reply:
        """Raises `ApiError` where no deployment answers."""
        if course.plan.strategy is Strategy.ENSEMBLE:
            return await self._ensemble(course, delivery)
        if course.plan.strategy is Strategy.CASCADE:
            sure = await self._if_sure(course, delivery)
            return sure or await self._single(course, delivery, course.plan.better)
        return await self._single(course, delivery, course.plan.rows)

    async def _single(self, course: Course, delivery: Delivery, rows: Sequence[int]) -> Reply:
        search = Search(self._asking, course, rows, stream=course.asked.stream)
        answer = await search.answer()
        if not answer.streams:
            return delivery.whole(answer)

        async def resume(broken: Answer, why: AnswerBroken) -> Answer:
            return await self._resumed(search, delivery, broken, why)

        return await delivery.stream(answer, resume)

    async def _resumed(
        self, search: Search, delivery: Delivery, broken: Answer, why: AnswerBroken
    ) -> Answer:
        """After a stream broke off: another one that begins anew. Where something of it was given
        out already, it must be the same answer byte by byte."""
        course = broken.course
        deployed = course.snapshot.rows[broken.row]
        course.failed.add(broken.row)
        self._asking.topology.observe(deployed.site, deployed.name, FAILED)
        broken_off = ApiError(502, "broken_off", f"{deployed.id}: {why.reason}")
        if delivery.begun:
            search.go_on_with(self._replicas(course, broken.row))
        try:
            answer = await search.answer()
        except ApiError as error:
            raise broken_off if delivery.begun else error from None
        if answer.streams:
            return answer
        raise broken_off

    def _replicas(self, course: Course, row: int) -> list[int]:
        """Rows that give the same answer and may, the fastest first."""
        rows, intent = course.snapshot.rows, course.intent
        broken = rows[row].descriptor
        if not (broken.deterministic and broken.manifest and intent.repeatable):
            return []
        cut = relevant_to(
            course.snapshot,
            msgspec.structs.replace(intent, model=broken.name),
            course.paths,
            self._load.of(course.snapshot),
            time.time(),
            tuple(course.failed),
        )
        same = [
            (float(cut.seconds[at]), int(number))
            for at, (number, passes) in enumerate(zip(cut.numbers, passing(cut), strict=True))
            if passes
            and rows[number].descriptor.deterministic
            and rows[number].descriptor.manifest == broken.manifest
        ]
        return [number for _, number in sorted(same)]

    async def _if_sure(self, course: Course, delivery: Delivery) -> Reply | None:
        """The cheap stage of a cascade: its answer, or none where it is not sure enough."""
        asked = course.asked
        changes = _WHOLE if asked.logprobs else {**_WHOLE, **with_logprobs(asked.api)}
        search = Search(self._asking, course, course.plan.rows, stream=False, changes=changes)
        try:
            answer = await search.answer()
        except ApiError:
            return None
        if answer.status != 200:
            return None
        delivery.count(answer)
        sure = confidence(answer.body)
        if sure is None or sure < asked.wishes.escalate_below:
            return None
        body = answer.body if asked.logprobs else without_logprobs(answer.body)
        return delivery.counted(answer, body)

    async def _ensemble(self, course: Course, delivery: Delivery) -> Reply:
        away_s, began_s = course.away_s, time.perf_counter()
        answers = await self._members(course)
        course.away_s = away_s + time.perf_counter() - began_s
        good = [answer for answer in answers if answer.status == 200]
        if not good:
            if answers:
                return delivery.whole(answers[0])
            raise unavailable("no member of the ensemble answered")
        for answer in good:
            delivery.count(answer)
        best = winner(course, [(answer.row, answer.body) for answer in good])
        return delivery.counted(good[best], good[best].body)

    async def _members(self, course: Course) -> list[Answer]:
        """What the members answer; one that fails is replaced, one that is unusually late is not
        waited for once most have answered."""
        plan, wishes = course.plan, course.intent.wishes
        spare = deque(plan.rows[plan.members :])
        first = plan.rows[: plan.members]
        tasks = [asyncio.create_task(self._member(course, row, spare)) for row in first]
        late_s = max(late_after_s(course, row, stream=False) for row in first)
        try:
            done, late = await asyncio.wait(tasks, timeout=late_s if wishes.hedge else None)
            while late and 2 * sum(task.result() is not None for task in done) <= plan.members:
                more, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            # In the order of the plan, so that equal votes are decided the same way every time.
            ended = [task.result() for task in tasks if task in done]
            return [answer for answer in ended if answer is not None]
        finally:
            for task in tasks:
                task.cancel()
                task.add_done_callback(drop)

    async def _member(self, course: Course, row: int, spare: deque[int]) -> Answer | None:
        while True:
            search = Search(self._asking, course, (row,), stream=False, changes=_WHOLE)
            try:
                return await search.answer()
            except ApiError:
                if not spare or not self._asking.budget.spend(time.monotonic()):
                    return None
                row = spare.popleft()
