"""What owners order of a control centre: a job's start, end and resumption."""

from __future__ import annotations

from collections.abc import Callable

from daitn.center.estimates import Estimates
from daitn.center.executor import JobExecutor
from daitn.center.jobs import JobService
from daitn.control.jobs.job import Job
from daitn.control.jobs.quota import check_quota
from daitn.identity.orders import OrderBook
from daitn.objects.descriptors import ANY
from daitn.objects.errors import InvalidInput, NotFound
from daitn.objects.identifiers import Digest, JobId, OwnerId, checked_name
from daitn.objects.intents import MOST_JOB_NAME, TrainingIntent
from daitn.objects.jobs import Submitted, model_left
from daitn.objects.requests import AssessIntent, JobQuery, SubmitIntent
from daitn.objects.wire import decode, encode
from daitn.tools.fabric.caller import check_owner
from daitn.tools.mobility.releases import Releases

__all__ = ["JobCommands"]


class JobCommands:
    """Handlers of the verbs that change jobs."""

    def __init__(
        self,
        jobs: JobService,
        own: Callable[[JobId], Job],
        estimates: Estimates,
        executor: JobExecutor,
        releases: Releases,
        orders: OrderBook | None,
        open_jobs: int,
    ) -> None:
        """`own`: a job that the caller may command. `orders`: checks owners' signatures; none on a
        fabric without. `open_jobs`: limit per owner."""
        self._jobs = jobs
        self._own = own
        self._estimates = estimates
        self._executor = executor
        self._releases = releases
        self._orders = orders
        self._open_jobs = open_jobs

    def allow(self, open_jobs: int) -> None:
        """Set the limit per owner from now on; open jobs continue."""
        self._open_jobs = open_jobs

    async def on_submit(self, key: str, payload: bytes) -> bytes:
        """`SubmitIntent` -> `JobView`: start a job; resubmitting the same order gives the same
        job."""
        request = decode(payload, SubmitIntent)
        name = checked_name(request.intent.name, "name", MOST_JOB_NAME)
        self._check_order(request)
        if (known := self._jobs.ordered(request.order)) is not None:
            return encode(known)
        self._check_quota(request.intent.owner)
        needs = await self._estimates.needs(request.intent)
        if (known := self._jobs.ordered(request.order)) is not None:
            return encode(known)
        self._check_quota(request.intent.owner)
        self._check_start(request)
        left = self._jobs.left(request.start, request.intent.owner)
        submitted = Submitted(
            job=self._jobs.new_id(name),
            intent=request.intent,
            needs=needs,
            start=left.model if left else request.start,
            insist=request.insist,
            order=request.order,
            release_to=left.release_to if left else (ANY,),
        )
        return encode(self._jobs.submit(submitted))

    async def on_assess(self, key: str, payload: bytes) -> bytes:
        """`AssessIntent` -> `Assessment`: check whether an intent is feasible, without starting
        anything."""
        intent = decode(payload, AssessIntent).intent
        checked_name(intent.name, "name", MOST_JOB_NAME)
        check_owner(intent.owner, f"an intent of {intent.owner}")
        self._named_start(intent)
        return encode(await self._executor.assess(intent, await self._estimates.needs(intent)))

    async def on_cancel(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `JobView`: stop a job."""
        return encode(self._jobs.cancel(self._own(decode(payload, JobQuery).job).id))

    async def on_resume(self, key: str, payload: bytes) -> bytes:
        """`JobQuery` -> `JobView`: continue an ended job from its best model, with the rest of its
        budget."""
        job = self._own(decode(payload, JobQuery).job)
        self._check_quota(job.intent.owner)
        if self._orders is not None:
            self._orders.read(job.order)
        return encode(self._jobs.resume(job.id))

    def _check_order(self, request: SubmitIntent) -> None:
        """Raise `Refused` or `Corrupt` unless the caller may submit what its owner ordered."""
        check_owner(request.intent.owner, f"an intent of {request.intent.owner}")
        if self._orders is not None:
            self._orders.check(request.order, request.intent, request.start)
            start, owner = request.start, request.intent.owner
            if start is not None and self._jobs.left(start, owner) is None:
                self._releases.check_own(start.manifest, owner)

    def _check_start(self, request: SubmitIntent) -> None:
        """Raise `InvalidInput` unless a request names the weights from which its intent starts;
        also raises like `_named_start`."""
        wanted, start = request.intent.model.start, request.start
        named = self._named_start(request.intent)
        if not wanted or (start is not None and named in (None, start.manifest)):
            return
        raise InvalidInput(
            f"the intent starts from {wanted}, and the request names "
            + (f"the model {start.manifest}" if start else "no weights"),
            field="start",
            fix=f"name the `model` of that job: {named}" if named else "let `daitn train` bring it",
        )

    def _named_start(self, intent: TrainingIntent) -> Digest | None:
        """The model left by the job from which an intent starts; none if it names no job. Raises
        `NotFound`, also for another owner's job, and like `model_left`."""
        job = intent.model.from_job
        if job is None:
            return None
        if not self._jobs.has(job) or self._jobs.owner(job) != intent.owner:
            raise NotFound(
                f"there is no job {job} of {intent.owner}",
                field="model.start",
                fix="see `daitn get jobs`",
            )
        return model_left(self._jobs.view(job), intent.model.recipe).manifest

    def _check_quota(self, owner: OwnerId) -> None:
        """Raise `Refused` if the owner has as many open jobs as it may."""
        unfinished = [job for job in self._jobs.unfinished() if not job.state.final]
        open_ = sum(job.intent.owner == owner for job in unfinished)
        check_quota(owner, open_, self._open_jobs)
