"""A site whose executor makes a model and trains it once, with savepoints all the time.

As a program it does so in a process of its own, and kills itself or its worker in mid-visit:
`python -m tests.scenes.visited_site FOLDER node|worker|nothing [privately]`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil

from daitn.identity.keys import SigningKey
from daitn.learning.consultant import Consultant
from daitn.learning.trainer import Trainer
from daitn.node.admission import Admission
from daitn.node.audit import AuditLog
from daitn.node.training.begun import BegunVisits
from daitn.node.training.executor import Executor
from daitn.objects.identifiers import JobId, VisitId
from daitn.objects.lineage import Visit
from daitn.objects.messages import VisitWork, WorkProgress
from daitn.objects.privacy import PrivacyDemand, PrivacySpent, PrivacyWish
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.transport import ChunkTransport
from tests.scenes.clinic_site import SITE, clinic_config, clinic_descriptor

__all__ = ["CONFIG", "EXAMPLES", "Told", "VisitedSite"]

EXAMPLES = 6000
_ROWS = 400
CONFIG: dict[str, object] = {
    "classes": ["a", "b"], "features": 2, "hidden": [64, 64], "batch": 8, "learning_rate": 1e-3
}  # fmt: skip


class Told(msgspec.Struct, frozen=True):
    """What leaves of a visit."""

    model: str
    loss: float | None
    steps: list[tuple[int, float | None]]
    privacy: PrivacySpent | None = None


class VisitedSite:
    """A data site with its real parts, in `folder`."""

    def __init__(
        self, folder: Path, kills: str = "nothing", demand: PrivacyDemand | None = None
    ) -> None:
        """`demand`: of privacy, by the data's owner."""
        rows = [f"{n % 7},{-n % 5},{'ab'[n % 7 // 4]}" for n in range(_ROWS)]
        config = clinic_config(folder, rows, save_every_s=0.02)
        (notes,) = config.datasets
        policy = msgspec.structs.replace(notes.terms, privacy=demand)
        notes = msgspec.structs.replace(notes, policy=policy)
        config = msgspec.structs.replace(config, datasets=(notes,))
        state = Path(config.state)
        self._kills = kills
        self.begun = BegunVisits(state / "visits")
        self.steps: list[tuple[int, float | None]] = []
        self.audit = AuditLog(state / "audit", SITE, key := SigningKey.at(state / "key"))
        self.trainer = Trainer(threads=1)
        self.consultant = Consultant(("classifier",))
        store = DiskBlobStore(state / "models")
        self.executor = Executor(
            config,
            self.trainer,
            store,
            ChunkTransport(MemoryNetwork().open(SITE), SITE, store),
            key,
            self.consultant,
            Admission(self.audit, config.datasets),
            self._hear,
            begun=self.begun,
        )
        self.executor.offer(clinic_descriptor(_ROWS))

    def _hear(self, progress: WorkProgress) -> None:
        if progress.phase != "training":
            return
        self.steps.append((progress.done, progress.loss))
        begun = self.begun.get(progress.visit)
        if begun is None or not begun.got_on or progress.done * 5 < EXAMPLES * 3:
            return
        if self._kills == "node":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kills == "worker":
            self._kills = "nothing"
            os.kill(psutil.Process(self.trainer.pid).children(recursive=True)[-1].pid, 9)

    async def visit(self, **changes: Any) -> Told:
        """Make a model, and train it."""
        await self.consultant.start()
        try:
            work = VisitWork(
                visit=VisitId("j-1.1"), job=JobId("j-1"), recipe="classifier", config=CONFIG,
                seed=1, owner="ann", dataset="notes", examples=0, model=None, previous=(),
            )  # fmt: skip
            made = await self.executor.perform(work)
            again = {"visit": "j-1.2", "examples": EXAMPLES, "model": made.model} | changes
            done = await self.executor.perform(msgspec.structs.replace(work, **again))
        finally:
            await self.trainer.close()
            await self.consultant.close()
            self.audit.close()
        fact = done.entry.fact
        assert isinstance(fact, Visit)
        assert fact.examples == EXAMPLES
        return Told(fact.model_out, fact.loss, self.steps, fact.privacy)


if __name__ == "__main__":
    wish = PrivacyWish(epsilon=3.0) if sys.argv[3:] == ["privately"] else None
    config = CONFIG | ({"ranges": {"*": [-7, 7]}} if wish else {})
    site = VisitedSite(Path(sys.argv[1]), sys.argv[2])
    told = asyncio.run(site.visit(privacy=wish, config=config))
    sys.stdout.write(msgspec.json.encode(told).decode())
