"""What compressed updates lost stays at its site, is bounded, and goes with the job."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from daitn.node.training.feedback import Feedback
from daitn.objects.identifiers import Digest, JobId, VisitId
from daitn.objects.messages import VisitWork
from daitn.objects.models import ModelRef


def work(job: str = "qa-1", dataset: str = "qa", model: str = "a") -> VisitWork:
    ref = ModelRef(manifest=Digest(model * 64), size_bytes=1, holders=())
    return VisitWork(
        visit=VisitId(f"{job}.1"), job=JobId(job), recipe="classifier", config={}, seed=0,
        owner="acme", dataset=dataset, examples=1, model=ref, previous=(),
    )  # fmt: skip


def lost(folder: Path, text: str) -> Path:
    path = folder / "lost"
    path.write_text(text)
    return path


def test_the_latest_of_each_job_and_data_set_is_kept_for_nobody_else(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "feedback")
    assert feedback.before(work()) is None
    feedback.keep(work(), lost(tmp_path, "first"))
    feedback.keep(work(model="b"), lost(tmp_path, "second"))
    feedback.keep(work(dataset="other"), lost(tmp_path, "other's"))
    feedback.keep(work(), tmp_path / "nothing was lost")
    again = Feedback(tmp_path / "feedback")
    before = again.before(work(model="c"))
    assert before is not None
    assert before.read_text() == "second"
    assert again.before(work(job="qa-2")) is None
    assert (tmp_path / "feedback").stat().st_mode & 0o077 == 0


def test_what_was_lost_without_privacy_is_in_no_private_update(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "feedback")
    feedback.keep(work(), lost(tmp_path, "open"))
    assert feedback.before(work(), private=True) is None
    feedback.keep(work(), lost(tmp_path, "noisy"), private=True)
    told = [feedback.before(work(), private=private) for private in (True, False)]
    assert [path.read_text() for path in told if path] == ["noisy", "open"]
    assert feedback.before(msgspec.structs.replace(work(), owner="globex")) is None


def test_it_goes_with_the_job_and_there_is_never_much_of_it(tmp_path: Path) -> None:
    now_s = [1e9]
    feedback = Feedback(tmp_path / "feedback", lambda: now_s[0])
    for number in range(20):
        now_s[0] += 1.0
        feedback.keep(work(job=f"qa-{number}"), lost(tmp_path, str(number)))
    kept = [number for number in range(20) if feedback.before(work(job=f"qa-{number}"))]
    assert kept == list(range(4, 20)), "the oldest went"
    feedback.retain(frozenset())
    assert feedback.before(work(job="qa-19")), "a round may be about to begin"
    now_s[0] += 3600.0
    feedback.keep(work(job="qa-19", model="b"), lost(tmp_path, "needed"))
    now_s[0] += 3600.0
    feedback.retain(frozenset({Digest("b" * 64)}))
    assert [n for n in range(20) if feedback.before(work(job=f"qa-{n}"))] == [19]


def test_a_wish_is_no_form_of_work() -> None:
    raw = msgspec.to_builtins(work())
    with pytest.raises(msgspec.ValidationError, match="auto is a wish"):
        msgspec.convert({**raw, "compression": "auto"}, VisitWork)
