"""A site's progress reports on running work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from daitn.learning.recipe import Progress
from daitn.node.disclosure import LossGate
from daitn.node.training.work_queue import FETCHING
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Work, WorkProgress

__all__ = ["OnProgress", "ProgressReporter"]

OnProgress = Callable[[WorkProgress], None]


class ProgressReporter:
    """Reports the progress of work to `on_progress`."""

    def __init__(self, site: SiteId, on_progress: OnProgress) -> None:
        self._site = site
        self._on_progress = on_progress

    def tell(
        self, work: Work, phase: str, done: int = 0, total: int = 0, loss: float | None = None
    ) -> None:
        """Report the phase of work, and how much of it is done."""
        self._on_progress(
            WorkProgress(
                job=work.job,
                visit=work.visit,
                site=self._site,
                phase=phase,
                done=done,
                total=total,
                loss=loss,
            )
        )

    def fetching(self, work: Work) -> Callable[[int, int], None]:
        """A callback for the bytes that arrived, and the total."""
        return partial(self.tell, work, FETCHING)

    def training(self, work: Work, losses: LossGate, progress: Progress) -> None:
        """Report the part of progress that the gate lets out."""
        step = losses.take(progress)
        if step is not None:
            self.tell(work, "training", step.examples, step.of_examples, step.loss)
