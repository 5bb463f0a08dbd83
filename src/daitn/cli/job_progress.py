"""A live view of one job."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from daitn.cli.session import Session, errors, screen
from daitn.cli.tables import job_table
from daitn.objects.errors import DaitnError, Unreachable
from daitn.objects.identifiers import JobId
from daitn.objects.jobs import JobView
from daitn.objects.messages import WorkProgress
from daitn.objects.requests import JobList, JobQuery
from daitn.objects.wire import decode
from daitn.tools import clock
from daitn.tools.fabric import keys
from daitn.tools.fabric.protocol import Registration
from daitn.tools.tasks import Tasks

if TYPE_CHECKING:
    from daitn.client import AsyncClient

__all__ = ["watch_job"]

ASK_AGAIN_S = 2.0
"""Poll as well as subscribe: a publication may be lost while the control centre restarts."""
REPORTED_EVERY_S = 10.0
"""Interval of progress lines in a pipe while nothing else changes."""


async def watch_job(session: Session, job: JobId, quiet: bool) -> JobView:
    """Follow a job until it has ended; the job continues when the watcher leaves."""
    follower = _Follower(session, job)
    await follower.start()
    try:
        if quiet or not screen.is_terminal:
            return await follower.plain(quiet)
        return await follower.live()
    finally:
        await follower.close()


class _Follower:
    def __init__(self, session: Session, job: JobId) -> None:
        self._session = session
        self._job = job
        self._view: JobView | None = None
        self._changed = asyncio.Event()
        self._progress: dict[str, WorkProgress] = {}
        """Latest progress of each site that is working."""
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._registrations: list[Registration] = []
        self._news = Tasks()

    async def start(self) -> None:
        if (client := self._session.client) is not None:
            self._news.spawn(self._follow(client), "events")
        else:
            fabric = self._session.fabric
            self._registrations = [
                await fabric.subscribe(self._session.events(self._job), self._on_view),
                await fabric.subscribe(keys.job_progress(self._job), self._on_progress),
            ]
        await self._look()

    async def close(self) -> None:
        for registration in self._registrations:
            await registration.close()
        await self._news.close()

    async def _follow(self, client: AsyncClient) -> None:
        """Poll whenever the control centre reports a change of the job."""
        with contextlib.suppress(DaitnError):  # It is looked at nevertheless, now and then.
            async for event in client.events():
                if event.kind == "job" and event.data.job == self._job:
                    with contextlib.suppress(DaitnError):
                        await self._look()

    async def plain(self, quiet: bool) -> JobView:
        """A line for each change, plus occasional progress lines, for logs and pipes."""
        shown, shown_s = "", clock.elapsed_s()
        while True:
            view, now_s = self._known(), clock.elapsed_s()
            line = f"{view.job} {view.state}: {view.detail or view.sentence}"
            late = now_s - shown_s >= REPORTED_EVERY_S
            if not quiet and (line != shown or late):
                words = f"{line} ({self._how_far()})" if late and line == shown else line
                errors.print(words, highlight=False, markup=False)
                shown, shown_s = line, now_s
            if view.state.final:
                return view
            await self._wait()

    def _how_far(self) -> str:
        parts = [
            f"{site} {progress.phase} {progress.done} of {progress.total}"
            for site, progress in sorted(self._progress.items())
            if progress.total
        ]
        return ", ".join([*parts, f"{self._known().seconds:.0f} s"])

    async def live(self) -> JobView:
        """A table that updates in place."""
        with Live(self._picture(), console=screen, refresh_per_second=8) as live:
            while not self._known().state.final:
                await self._wait()
                live.update(self._picture())
            live.update(Group())
        return self._known()

    def _picture(self) -> RenderableType:
        return Group(job_table(self._known()), self._bars)

    def _known(self) -> JobView:
        assert self._view is not None
        return self._view

    async def _wait(self) -> None:
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), ASK_AGAIN_S)
        except TimeoutError:
            try:
                await self._look()
            except Unreachable as error:
                errors.print(f"waiting for the control centre: {error.problem}", highlight=False)

    async def _look(self) -> None:
        answer = await self._session.ask("jobs", JobQuery(job=self._job), JobList)
        self._show(answer.jobs[0])

    async def _on_view(self, key: str, payload: bytes) -> None:
        view = decode(payload, JobView)
        if view.job == self._job:
            self._show(view)

    def _show(self, view: JobView) -> None:
        self._view = view
        self._progress = {s: p for s, p in self._progress.items() if s in view.working}
        for site in list(self._tasks):
            if site not in view.working:
                self._bars.remove_task(self._tasks.pop(site))
        self._changed.set()

    async def _on_progress(self, key: str, payload: bytes) -> None:
        try:
            progress = decode(payload, WorkProgress)
        except DaitnError:
            return
        if (progress.job, progress.site) != (self._job, keys.site_of(key)):
            return
        if self._view is None or progress.site not in self._view.working:
            return
        self._progress[progress.site] = progress
        task = self._tasks.get(progress.site)
        if task is None:
            task = self._bars.add_task(progress.site, total=None, note="")
            self._tasks[progress.site] = task
        note = (
            progress.phase
            if progress.loss is None
            else f"{progress.phase}, loss {progress.loss:.3f}"
        )
        self._bars.update(
            task,
            description=progress.site,
            total=progress.total or None,
            completed=progress.done,
            note=note,
        )
        self._changed.set()
