"""Executes plans: a single model, a cascade of a cheap and a better one, or an ensemble that
votes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from daitn.control.queries.hedging import late_after_s
from daitn.control.queries.retry_budget import RetryBudget
from daitn.node.gateway.answer_writer import ResponseWriter
from daitn.node.gateway.attempts import AttemptRunner, close_unused
from daitn.node.gateway.context import RequestContext
from daitn.node.gateway.deployment_answer import Answer
from daitn.node.gateway.errors import unavailable
from daitn.node.gateway.failover import FailoverProxy
from daitn.node.gateway.voting import winner
from daitn.objects.queries import Strategy
from daitn.openai.errors import ApiError
from daitn.openai.events import AnswerBroken
from daitn.openai.responses import confidence, with_logprobs, without_logprobs
from daitn.tools import clock
from daitn.tools.http import Reply
from daitn.topology.qrrt.filters import passing
from daitn.topology.qrrt.load import GatewayLoad
from daitn.topology.qrrt.relevance import relevant_to

__all__ = ["PlanExecutor"]

_UNSTREAMED: dict[str, object] = {"stream": False, "stream_options": None}
"""Changes to a request whose answer is examined before it is returned."""


class PlanExecutor:
    """Executes the plan of a query."""

    def __init__(self, proxy: FailoverProxy, budget: RetryBudget, load: GatewayLoad) -> None:
        self._proxy = proxy
        self._budget = budget
        self._load = load

    async def answer(self, query: RequestContext, writer: ResponseWriter) -> Reply:
        """Answer the query. Raises `ApiError` if no deployment answers."""
        plan = query.plan
        if plan.strategy is Strategy.ENSEMBLE:
            return await self._ensemble(query, writer)
        if plan.strategy is Strategy.CASCADE:
            cheap = await self._cheap_stage(query, writer)
            return cheap or await self._single(query, writer, plan.better)
        return await self._single(query, writer, plan.rows)

    async def _single(
        self, query: RequestContext, writer: ResponseWriter, rows: Sequence[int]
    ) -> Reply:
        attempts = self._proxy.begin(query, rows, stream=query.parsed.stream)
        with query.waiting:
            answer = await attempts.answer()
        if not answer.streams:
            return writer.respond_whole(answer)

        async def resume(broken: Answer, why: AnswerBroken) -> Answer:
            return await self._resume(attempts, writer, broken, why)

        return await writer.stream(answer, resume)

    async def _resume(
        self, attempts: AttemptRunner, writer: ResponseWriter, broken: Answer, why: AnswerBroken
    ) -> Answer:
        """Replace an answer that broke off. If part of it was already sent, the replacement must be
        identical, byte by byte."""
        query, row = broken.query, broken.row
        id_ = query.snapshot.rows[row].id
        reason = why.reason.removeprefix(f"{id_}: ")  # A gateway that relays names it, too.
        broken_off = ApiError(502, "broken_off", f"{id_}: {reason}")
        rows = self._replicas(query, row) if writer.started else None
        try:
            with query.waiting:
                answer = await attempts.replace(row, why.reason, rows)
        except ApiError as error:
            raise broken_off if writer.started else error from None
        if answer.streams:
            return answer
        raise broken_off

    def _replicas(self, query: RequestContext, row: int) -> tuple[int, ...]:
        """Rows that may answer, with the same answer as the broken one, fastest first."""
        rows, intent = query.snapshot.rows, query.intent
        broken = rows[row].descriptor
        if not (broken.deterministic and broken.manifest and intent.repeatable):
            return ()
        relevant = relevant_to(
            query.snapshot,
            msgspec.structs.replace(intent, model=rows[row].key),
            query.paths,
            self._load.of(query.snapshot),
            clock.now_s(),
            (row, *query.attempts.failed),
        )
        replicas = [
            (float(relevant.seconds[at]), int(candidate))
            for at, (candidate, passes) in enumerate(
                zip(relevant.numbers, passing(relevant), strict=True)
            )
            if passes
            and rows[candidate].descriptor.deterministic
            and rows[candidate].descriptor.manifest == broken.manifest
        ]
        return tuple(row for _, row in sorted(replicas))

    async def _cheap_stage(self, query: RequestContext, writer: ResponseWriter) -> Reply | None:
        """The cheap stage of a cascade: its answer, or none if its confidence is too low."""
        parsed = query.parsed
        changes = _UNSTREAMED if parsed.logprobs else {**_UNSTREAMED, **with_logprobs(parsed.api)}
        attempts = self._proxy.begin(query, query.plan.rows, stream=False, changes=changes)
        try:
            with query.waiting:
                answer = await attempts.answer()
        except ApiError:
            return None
        if answer.status != 200:
            return None
        writer.record(answer)
        certainty = confidence(answer.body)
        if certainty is None or certainty < parsed.constraints.escalate_below:
            return None
        body = answer.body if parsed.logprobs else without_logprobs(answer.body)
        return writer.respond(answer, body)

    async def _ensemble(self, query: RequestContext, writer: ResponseWriter) -> Reply:
        with query.waiting:
            ended = await self._members(query)
        answers = [one for one in ended if isinstance(one, Answer)]
        valid = [answer for answer in answers if answer.status == 200]
        if not valid:
            if answers:
                return writer.respond_whole(answers[0])
            raise _most_hopeful([one for one in ended if isinstance(one, ApiError)])
        for answer in valid:
            writer.record(answer)
        best = winner(query, [(answer.row, answer.body) for answer in valid])
        return writer.respond(valid[best], valid[best].body)

    async def _members(self, query: RequestContext) -> list[Answer | ApiError]:
        """The members' answers, or errors. A member that fails is replaced; once most have
        answered, unusually late members are not awaited."""
        plan, constraints = query.plan, query.intent.constraints
        spare = deque(plan.rows[plan.members :])
        first = plan.rows[: plan.members]
        tasks = [asyncio.create_task(self._member(query, row, spare)) for row in first]
        late_s = max(late_after_s(plan, query.context, row, stream=False) for row in first)
        try:
            done, late = await asyncio.wait(tasks, timeout=late_s if constraints.hedge else None)
            while (
                late and 2 * sum(isinstance(task.result(), Answer) for task in done) <= plan.members
            ):
                more, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            # In the order of the plan, so that ties are always resolved alike.
            return [task.result() for task in tasks if task in done]
        finally:
            for task in tasks:
                task.cancel()
                task.add_done_callback(close_unused)

    async def _member(
        self, query: RequestContext, row: int, spare: deque[int]
    ) -> Answer | ApiError:
        while True:
            attempts = self._proxy.begin(query, (row,), stream=False, changes=_UNSTREAMED)
            try:
                return await attempts.answer()
            except ApiError as error:
                if not spare or not self._budget.spend(time.monotonic()):
                    return error
                row = spare.popleft()


def _most_hopeful(errors: Sequence[ApiError]) -> ApiError:
    """The error to return if no member answered: one after which a retry may succeed, if there is
    one."""
    passing = [error for error in errors if error.retry_after_s is not None]
    return next(iter([*passing, *errors]), unavailable("no member of the ensemble answered"))
