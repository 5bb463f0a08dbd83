"""What jobs taught, read back."""

from __future__ import annotations

from daitn.center.experience import _MOST_JOBS, Experience
from daitn.control.route.experience import Lesson, PastJob
from daitn.objects.identifiers import JobId
from daitn.objects.wire import encode
from daitn.tools.journal.memory import MemoryJournal
from tests.control.jobs.world import NEEDS


def past(number: int, recipe: str = "classifier") -> PastJob:
    """The later a job, the more it says of how long learning takes."""
    return PastJob(recipe=recipe, parameters=100, lessons={"tau": Lesson(float(number), 0.1)})


def taught(numbers: range) -> Experience:
    """By jobs of these numbers, one after the other."""
    journal = MemoryJournal()
    for number in numbers:
        journal.append(JobId(f"qa-{number}"), 0, [b"submitted"], 0.0)
        journal.put("experience", f"qa-{number}", encode(past(number)))
        journal.put("experience", f"other-{number}", encode(past(number, "causal-lm")))
    experience = Experience(journal)
    experience.start()
    return experience


def test_the_latest_jobs_count_in_whatever_order_their_names_are() -> None:
    for many in (_MOST_JOBS - 1, _MOST_JOBS, _MOST_JOBS + 1, 2 * _MOST_JOBS + 7):
        latest = range(max(0, many - _MOST_JOBS), many)
        found = taught(range(many)).of("classifier", NEEDS)
        assert found["tau"] == taught(latest).of("classifier", NEEDS)["tau"]
