"""How many models answer: one, a cheap one before a better one, or several that vote."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from daitn.control.queries.engine import late_after_s
from daitn.control.queries.retry_budget import RetryBudget
from daitn.node.gateway.answer import Answer
from daitn.node.gateway.attempts import AttemptRunner, drop
from daitn.node.gateway.context import RequestContext
from daitn.node.gateway.errors import unavailable
from daitn.node.gateway.failover import FailoverProxy
from daitn.node.gateway.response import ResponseWriter
from daitn.node.gateway.voting import winner
from daitn.node.http import Reply
from daitn.objects.queries import Strategy
from daitn.openai.errors import ApiError
from daitn.openai.events import AnswerBroken
from daitn.openai.responses import confidence, with_logprobs, without_logprobs
from daitn.tools import clock
from daitn.topology.qrrt.filters import passing
from daitn.topology.qrrt.load import GatewayLoad
from daitn.topology.qrrt.relevance import relevant_to

__all__ = ["PlanExecutor"]

_WHOLE: dict[str, object] = {"stream": False, "stream_options": None}
"""Of a request whose answer is looked at before it is given."""


class PlanExecutor:
    """Carries a plan out."""

    def __init__(self, proxy: FailoverProxy, budget: RetryBudget, load: GatewayLoad) -> None:
        self._proxy = proxy
        self._budget = budget
        self._load = load

    async def answer(self, query: RequestContext, writer: ResponseWriter) -> Reply:
        """Raises `ApiError` where no deployment answers."""
        plan = query.plan
        if plan.strategy is Strategy.ENSEMBLE:
            return await self._ensemble(query, writer)
        if plan.strategy is Strategy.CASCADE:
            sure = await self._if_sure(query, writer)
            return sure or await self._single(query, writer, plan.better)
        return await self._single(query, writer, plan.rows)

    async def _single(
        self, query: RequestContext, writer: ResponseWriter, rows: Sequence[int]
    ) -> Reply:
        attempts = self._proxy.begin(query, rows, stream=query.parsed.stream)
        with query.waiting:
            answer = await attempts.answer()
        if not answer.streams:
            return writer.whole(answer)

        async def resume(broken: Answer, why: AnswerBroken) -> Answer:
            return await self._resumed(attempts, writer, broken, why)

        return await writer.stream(answer, resume)

    async def _resumed(
        self, attempts: AttemptRunner, writer: ResponseWriter, broken: Answer, why: AnswerBroken
    ) -> Answer:
        """After a stream broke off: another one that begins anew. Where something of it was given
        out already, it must be the same answer byte by byte."""
        query, row = broken.query, broken.row
        broken_off = ApiError(502, "broken_off", f"{query.snapshot.rows[row].id}: {why.reason}")
        rows = self._replicas(query, row) if writer.begun else None
        try:
            with query.waiting:
                answer = await attempts.again(row, rows)
        except ApiError as error:
            raise broken_off if writer.begun else error from None
        if answer.streams:
            return answer
        raise broken_off

    def _replicas(self, query: RequestContext, row: int) -> tuple[int, ...]:
        """Rows that give the same answer as one that broke off and may, the fastest first."""
        rows, intent = query.snapshot.rows, query.intent
        broken = rows[row].descriptor
        if not (broken.deterministic and broken.manifest and intent.repeatable):
            return ()
        cut = relevant_to(
            query.snapshot,
            msgspec.structs.replace(intent, model=broken.name),
            query.paths,
            self._load.of(query.snapshot),
            clock.now_s(),
            (row, *query.attempts.failed),
        )
        same = [
            (float(cut.seconds[at]), int(number))
            for at, (number, passes) in enumerate(zip(cut.numbers, passing(cut), strict=True))
            if passes
            and rows[number].descriptor.deterministic
            and rows[number].descriptor.manifest == broken.manifest
        ]
        return tuple(number for _, number in sorted(same))

    async def _if_sure(self, query: RequestContext, writer: ResponseWriter) -> Reply | None:
        """The cheap stage of a cascade: its answer, or none where it is not sure enough."""
        parsed = query.parsed
        changes = _WHOLE if parsed.logprobs else {**_WHOLE, **with_logprobs(parsed.api)}
        attempts = self._proxy.begin(query, query.plan.rows, stream=False, changes=changes)
        try:
            with query.waiting:
                answer = await attempts.answer()
        except ApiError:
            return None
        if answer.status != 200:
            return None
        writer.count(answer)
        sure = confidence(answer.body)
        if sure is None or sure < parsed.constraints.escalate_below:
            return None
        body = answer.body if parsed.logprobs else without_logprobs(answer.body)
        return writer.counted(answer, body)

    async def _ensemble(self, query: RequestContext, writer: ResponseWriter) -> Reply:
        with query.waiting:
            answers = await self._members(query)
        good = [answer for answer in answers if answer.status == 200]
        if not good:
            if answers:
                return writer.whole(answers[0])
            raise unavailable("no member of the ensemble answered")
        for answer in good:
            writer.count(answer)
        best = winner(query, [(answer.row, answer.body) for answer in good])
        return writer.counted(good[best], good[best].body)

    async def _members(self, query: RequestContext) -> list[Answer]:
        """What the members answer; one that fails is replaced, one that is unusually late is not
        waited for once most have answered."""
        plan, constraints = query.plan, query.intent.constraints
        spare = deque(plan.rows[plan.members :])
        first = plan.rows[: plan.members]
        tasks = [asyncio.create_task(self._member(query, row, spare)) for row in first]
        late_s = max(late_after_s(plan, query.context, row, stream=False) for row in first)
        try:
            done, late = await asyncio.wait(tasks, timeout=late_s if constraints.hedge else None)
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

    async def _member(self, query: RequestContext, row: int, spare: deque[int]) -> Answer | None:
        while True:
            attempts = self._proxy.begin(query, (row,), stream=False, changes=_WHOLE)
            try:
                return await attempts.answer()
            except ApiError:
                if not spare or not self._budget.spend(time.monotonic()):
                    return None
                row = spare.popleft()
