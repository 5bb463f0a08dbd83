"""What a site says of work while it does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from daitn.learning.recipe import Progress
from daitn.node.disclosure import LossGate
from daitn.node.training.work_queue import FETCHING
from daitn.objects.identifiers import SiteId
from daitn.objects.messages import Work, WorkProgress

__all__ = ["OnProgress", "WorkTeller"]

OnProgress = Callable[[WorkProgress], None]


class WorkTeller:
    """Tells `on_progress` how far work is."""

    def __init__(self, site: SiteId, on_progress: OnProgress) -> None:
        self._site = site
        self._on_progress = on_progress

    def tell(
        self, work: Work, phase: str, done: int = 0, total: int = 0, loss: float | None = None
    ) -> None:
        """Say that work is in a phase, of which so much is done."""
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
        """What to call with the bytes that arrived, and all."""
        return partial(self.tell, work, FETCHING)

    def training(self, work: Work, losses: LossGate, progress: Progress) -> None:
        """Say of progress what the gate lets out."""
        step = losses.take(progress)
        if step is not None:
            self.tell(work, "training", step.examples, step.of_examples, step.loss)
