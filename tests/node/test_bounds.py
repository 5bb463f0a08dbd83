"""Work that a site cannot do is refused before anything is fetched, unpacked or trained for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daitn.identity.keys import SigningKey
from daitn.learning.consultant import Consultant
from daitn.learning.recipe import Footprint
from daitn.learning.trainer import Trainer
from daitn.node.admission import Admission
from daitn.node.audit import AuditLog
from daitn.node.training.bounds import Capacity, check_estimate, within
from daitn.node.training.executor import Executor
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound, WorkFailed
from daitn.objects.identifiers import Digest, JobId, SiteId, VisitId
from daitn.objects.messages import ChunkRequest, RecipeQuestion, VisitWork, Work, WorkProgress
from daitn.objects.models import CHUNK_BYTES, Manifest, ModelRef, Part
from daitn.objects.wire import canonical, decode, encode
from daitn.tools.fabric.keys import site_do
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.transport import ChunkTransport
from tests.scenes.clinic_site import SITE, clinic_config, clinic_descriptor

HOLDER = SiteId("holder")
CONFIG: dict[str, object] = {"classes": ["a", "b"], "features": 2, "hidden": [4]}
MODEL = ModelRef(manifest=Digest("a" * 64), size_bytes=1000, holders=(HOLDER,))


class Clinic:
    """A data site with its real parts, and a holder that counts what it is asked for."""

    def __init__(self, folder: Path, consultant: Consultant) -> None:
        network = MemoryNetwork()
        config = clinic_config(folder, [f"{n},{-n},{'ab'[n % 2]}" for n in range(20)])
        self.state = Path(config.state)
        self.store = DiskBlobStore(self.state / "models")
        self.held: dict[Digest, bytes] = {}
        self.asked: list[Digest] = []
        self.trainer = Trainer(threads=1)
        self._holder = network.open(HOLDER)
        key = SigningKey.at(self.state / "key")
        audit = AuditLog(self.state / "audit", SITE, key)
        self._executor = Executor(
            config,
            self.trainer,
            self.store,
            ChunkTransport(network.open(SITE), SITE, self.store),
            key,
            consultant,
            Admission(audit, config.datasets),
            self._hear,
        )
        self._executor.offer(clinic_descriptor(20))

    async def prefetch(self, model: ModelRef, of: RecipeQuestion) -> None:
        await self._executor.prefetch(model, of)

    def _hear(self, progress: WorkProgress) -> None: ...

    async def start(self) -> None:
        async def give(key: str, payload: bytes) -> bytes:
            digest = decode(payload, ChunkRequest).digest
            self.asked.append(digest)
            return self.held[digest]

        await self._holder.serve(site_do(HOLDER, "chunk"), give)

    async def refusal(self, work: Work) -> DaitnError:
        """How the work is refused, with nothing left on the disk and no worker started."""
        with pytest.raises(DaitnError) as raised:
            await self._executor.perform(work)
        assert not any((self.state / "scratch").iterdir())
        assert self.trainer.waiting == 0
        assert self.trainer._worker is None
        assert raised.value.fix
        return raised.value


def visit(**changes: Any) -> VisitWork:
    facts: dict[str, Any] = {
        "visit": VisitId("v"),
        "job": JobId("j"),
        "recipe": "classifier",
        "config": CONFIG,
        "seed": 0,
        "owner": "ann",
        "dataset": "notes",
        "examples": 20,
        "model": MODEL,
        "previous": (),
    }
    return VisitWork(**facts | changes)


@pytest.fixture
async def consultant() -> AsyncIterator[Consultant]:
    asked = Consultant(("classifier",))
    await asked.start()
    yield asked
    await asked.close()


async def test_work_beyond_a_site_is_refused_before_anything_is_done_for_it(
    tmp_path: Path, consultant: Consultant
) -> None:
    clinic = Clinic(tmp_path, consultant)
    await clinic.start()
    wide = CONFIG | {"features": 100_000, "hidden": [4096]}
    for changes, field in (
        ({"config": CONFIG | {"batch": 10**12}}, "model.config.batch"),
        ({"config": wide}, "model.config"),
        ({"config": wide, "model": None}, "model.config"),
        ({"model": ModelRef(manifest=MODEL.manifest, size_bytes=2**40, holders=(HOLDER,))},
         "model.size_bytes"),
        ({"model": ModelRef(manifest=MODEL.manifest, size_bytes=-1, holders=(HOLDER,))},
         "model.size_bytes"),
        ({"examples": 10**12}, "examples"),
    ):  # fmt: skip
        refused = await clinic.refusal(visit(**changes))
        assert isinstance(refused, InvalidInput)
        assert (refused.field, clinic.asked) == (field, [])


async def test_a_recipe_is_asked_once_what_a_configuration_needs() -> None:
    asked = Consultant(("classifier",))
    await asked.start()
    first = await asked.estimate("classifier", CONFIG)
    await asked.close()  # Nobody is left who could be asked.
    assert await asked.estimate("classifier", dict(reversed(CONFIG.items()))) == first
    with pytest.raises(WorkFailed):
        await asked.estimate("classifier", CONFIG | {"hidden": [5]})


async def test_a_model_that_arrives_by_itself_is_no_larger_than_its_configuration(
    tmp_path: Path, consultant: Consultant
) -> None:
    clinic = Clinic(tmp_path, consultant)
    await clinic.start()
    large = ModelRef(manifest=MODEL.manifest, size_bytes=2**40, holders=(HOLDER,))
    small = RecipeQuestion(recipe="classifier", config=CONFIG)
    with pytest.raises(InvalidInput) as refused:
        await clinic.prefetch(large, small)
    assert refused.value.field == "model.size_bytes"
    for of in (
        msgspec.structs.replace(small, recipe="other"),
        RecipeQuestion(recipe="classifier", config={}),
    ):
        with pytest.raises(DaitnError):
            await clinic.prefetch(MODEL, of)
    assert clinic.asked == []


async def test_a_small_fetch_that_unpacks_to_much_is_refused_with_its_manifest(
    tmp_path: Path, consultant: Consultant
) -> None:
    clinic = Clinic(tmp_path, consultant)
    await clinic.start()
    scrap = DiskBlobStore(tmp_path / "scrap")
    chunk = scrap.write(b"0" * CHUNK_BYTES)
    part = Part(name="w", size_bytes=415 * CHUNK_BYTES, chunks=(chunk,) * 415)
    manifest = canonical(Manifest(recipe="classifier", parts=(part,)))
    digest = scrap.write(manifest)
    clinic.held = {digest: manifest, chunk: scrap.read(chunk)}
    for size_bytes in (CHUNK_BYTES, 415 * CHUNK_BYTES):
        bomb = ModelRef(manifest=digest, size_bytes=size_bytes, holders=(HOLDER,))
        refused = await clinic.refusal(visit(model=bomb))
        assert refused.field == "model.size_bytes"
        assert chunk not in clinic.asked


@pytest.mark.parametrize("examples", [-1, 10**12 + 1, 2**62])
def test_a_number_of_examples_without_bounds_is_no_work(examples: int) -> None:
    with pytest.raises(Corrupt, match="examples"):
        decode(encode(visit(examples=examples)), VisitWork)


async def test_work_that_takes_too_long_is_ended() -> None:
    with pytest.raises(WorkFailed, match="limit") as raised:
        async with within(0.0):
            await asyncio.Event().wait()
    assert raised.value.field == "examples"


def test_a_model_without_operations_still_takes_time() -> None:
    needed = Footprint(parameters=0, flops_per_example=0.0, memory_bytes=0, size_bytes=0)
    with pytest.raises(InvalidInput, match="examples"):
        Capacity(1, 0.0, 60.0).check(needed, None, 10**9)
    Capacity(1, 0.0, 60.0).check(needed, None, 10**6)


@pytest.mark.parametrize(("name", "there"), [("json", True), ("no_such_package", False)])
def test_a_package_that_the_model_needs_is_looked_for_before_anything_is_fetched(
    name: str, there: bool
) -> None:
    needed = Footprint(
        parameters=0, flops_per_example=0.0, memory_bytes=0, size_bytes=0, packages=(name,)
    )
    site = Capacity(1, 1.0, 60.0)
    check_estimate("recipe", needed)
    if there:
        site.check(needed, None, 1)
    else:
        with pytest.raises(NotFound, match=name) as refused:
            site.check(needed, None, 1)
        assert refused.value.field == "packages"


@pytest.mark.parametrize("name", ["json.tool", "", "a-b", "../x"])
def test_only_a_packages_name_is_one(name: str) -> None:
    needed = Footprint(
        parameters=0, flops_per_example=0.0, memory_bytes=0, size_bytes=0, packages=(name,)
    )
    with pytest.raises(WorkFailed, match="impossible"):
        check_estimate("recipe", needed)
