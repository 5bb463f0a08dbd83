"""A site's privacy: charged before anything is trained, and refused when it is spent."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.control.privacy_accounting import epsilon, spent_by
from daitn.identity.keys import SigningKey
from daitn.node.audit import entries
from daitn.node.config import DatasetConfig
from daitn.node.training.privacy_ledger import PrivacyLedger, ledgers
from daitn.objects.audit import AuditEvent
from daitn.objects.errors import Corrupt, Refused, StorageFull
from daitn.objects.identifiers import VisitId
from daitn.objects.messages import VisitWork
from daitn.objects.privacy import PrivacyDemand, PrivacyWish
from tests.node.test_bounds import visit
from tests.scenes.clinic_site import clinic_config, clinic_descriptor
from tests.scenes.visited_site import CONFIG, Told, VisitedSite

DEMAND = PrivacyDemand(epsilon_total=3.0, epsilon_per_visit=1.0)


def site(
    folder: Path, demand: PrivacyDemand | None = DEMAND
) -> tuple[PrivacyLedger, DatasetConfig]:
    (notes,) = clinic_config(folder, []).datasets
    notes = msgspec.structs.replace(
        notes, policy=msgspec.structs.replace(notes.terms, privacy=demand)
    )
    state = folder / "state"
    return PrivacyLedger(state / "privacy", SigningKey.at(state / "key")), notes


def begun(
    ledger: PrivacyLedger, dataset: DatasetConfig, work: VisitWork, *, resumes: bool = False
) -> Any:
    private = ledger.planned(work, dataset, 400)
    assert private is not None
    return ledger.begin(work, dataset, private, f"{work.visit} on it", resumes=resumes)


def named(number: int, **changes: Any) -> VisitWork:
    return visit(visit=VisitId(f"j-1.{number}"), examples=4000, **changes)


def test_a_budget_is_spent_over_jobs_and_then_refused_also_after_a_restart(tmp_path: Path) -> None:
    ledger, notes = site(tmp_path)
    visits = 7  # Each tells 1, and less is told together.
    for number in range(visits):
        begun(ledger, notes, named(number, job=f"j-{number}"))
    with pytest.raises(Refused) as refused:
        begun(ledger, notes, named(visits, job=f"j-{visits}"))
    assert refused.value.field == "training.privacy.epsilon"
    assert refused.value.fix
    (kept,) = ledgers(tmp_path / "state")
    told = [each.mechanism for each in kept.charges]
    assert len(told) == visits
    assert epsilon(spent_by(told), DEMAND.delta) <= DEMAND.epsilon_total
    again, notes = site(tmp_path)
    with pytest.raises(Refused):
        begun(again, notes, named(101))
    (described,) = again.described(clinic_descriptor(400), [notes]).datasets
    assert described.private_visits_left == 0


def test_a_job_spends_no_more_than_it_wishes(tmp_path: Path) -> None:
    ledger, notes = site(tmp_path, None)
    wish = PrivacyWish(epsilon=2.0, visits=2)
    for number in (1, 2):
        begun(ledger, notes, named(number, privacy=wish))
    with pytest.raises(Refused) as refused:
        begun(ledger, notes, named(3, privacy=wish))
    assert refused.value.field == "training.privacy.visits"
    begun(ledger, notes, named(4, job="other-1", privacy=wish))


def test_a_visit_that_goes_on_draws_as_before_and_is_charged_once(tmp_path: Path) -> None:
    ledger, notes = site(tmp_path)
    first = begun(ledger, notes, named(1))
    again, _ = site(tmp_path)
    assert begun(again, notes, named(1), resumes=True) == first
    assert len(ledgers(tmp_path / "state")[0].charges) == 1
    anew = begun(again, notes, named(1))
    assert anew.secret != first.secret
    assert len(ledgers(tmp_path / "state")[0].charges) == 2
    # Nothing to go on from: it is charged.
    begun(again, notes, named(2), resumes=True)
    assert len(ledgers(tmp_path / "state")[0].charges) == 3


def no_room(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "no space left")


def test_what_cannot_be_charged_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, notes = site(tmp_path)
    (tmp_path / "state" / "privacy").write_text("no folder")
    with pytest.raises(Corrupt):
        begun(ledger, notes, named(1))
    (tmp_path / "state" / "privacy").unlink()
    with monkeypatch.context() as full:
        full.setattr("daitn.node.training.privacy_ledger.replace_file", no_room)
        with pytest.raises(StorageFull):
            begun(ledger, notes, named(1))
    assert not ledgers(tmp_path / "state")
    begun(ledger, notes, named(1))
    (file,) = (tmp_path / "state" / "privacy").iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    damaged, notes = site(tmp_path)
    with pytest.raises(Corrupt) as raised:
        begun(damaged, notes, named(2))
    assert raised.value.fix
    (described,) = damaged.described(clinic_descriptor(400), [notes]).datasets
    assert described.private_visits_left == 0


def test_who_asks_for_no_privacy_is_charged_nothing(tmp_path: Path) -> None:
    ledger, notes = site(tmp_path, None)
    assert ledger.planned(named(1), notes, 400) is None
    (described,) = ledger.described(clinic_descriptor(400), [notes]).datasets
    assert described.private_visits_left is None


def run(folder: Path, kills: str) -> subprocess.CompletedProcess[bytes]:
    command = (sys.executable, "-m", "tests.scenes.visited_site", str(folder), kills, "privately")
    return subprocess.run(command, capture_output=True, check=False, timeout=300)


def test_a_private_visit_whose_node_is_killed_is_charged_once_and_makes_the_same(
    tmp_path: Path,
) -> None:
    """Its entry says what it may tell; no loss is told."""
    assert run(tmp_path, "node").returncode == -9
    (killed,) = ledgers(tmp_path / "state")
    assert len(killed.charges) == 1  # Before anything was trained.
    one, other = tmp_path / "one", tmp_path / "other"
    told = list[Told]()
    for folder in (one, other):
        folder.mkdir()
        shutil.copytree(tmp_path / "state", folder / "state")
        shutil.copy(tmp_path / "data.csv", folder)
        ended = run(folder, "nothing")
        assert ended.returncode == 0, ended.stderr.decode()
        told.append(msgspec.json.decode(ended.stdout, type=Told))
        assert ledgers(folder / "state") == [killed]
        assert AuditEvent.RESUMED in [each.event for each in entries(folder / "state" / "audit")]
    assert told[0].model == told[1].model
    assert told[0].loss is None
    assert all(loss is None for _, loss in told[0].steps)
    spent = told[0].privacy
    assert spent is not None
    assert spent.mechanism == killed.charges[0].mechanism
    assert spent.epsilon == epsilon(spent_by([spent.mechanism]), spent.delta) <= 3.0


async def test_a_demand_refuses_a_model_that_cannot_be_private(tmp_path: Path) -> None:
    clinic = VisitedSite(tmp_path, demand=DEMAND)
    with pytest.raises(Exception, match="cannot train this configuration") as raised:
        await clinic.visit(config=CONFIG)
    assert getattr(raised.value, "field", "") == "model.config"
    assert not ledgers(tmp_path / "state")
