"""An exported model is the one that its lineage says, by keys from elsewhere than the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from daitn.cli.app import app
from daitn.cli.handover.signers import Signers
from daitn.cli.handover.verifying import verify_folder
from daitn.cli.models import added_in, export_model, recipes_here
from daitn.cli.session import Session
from daitn.control.jobs.view import view
from daitn.identity.keys import SigningKey
from daitn.identity.roster import ROSTER, RosterFile, sign_roster, write_roster
from daitn.identity.signing import sign_advert, sign_entry
from daitn.learning.recipe import Form
from daitn.objects.descriptors import NodeDescriptor, Role
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound
from daitn.objects.identifiers import Digest, JobId, OwnerId, SiteId, VisitId
from daitn.objects.lineage import Entry, Lineage, Origin, Visit
from daitn.objects.models import Manifest, ModelRef
from daitn.objects.requests import TrainedModel
from daitn.objects.roster import Kind, Member, Roster
from daitn.objects.wire import encode
from daitn.tools.fabric import keys
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.mobility.memory import MemoryBlobStore
from daitn.tools.mobility.server import ChunkServer
from daitn.topology.snapshot import NodeList, SiteState
from tests.control.jobs.world import World

JOB, CLINIC = JobId("qa-1"), SiteId("clinic")


class Stage:
    """A site that holds a model, and a control centre that says what a test wants."""

    def __init__(self, folder: Path) -> None:
        self.network = MemoryNetwork()
        self.key, self.liar = SigningKey.at(folder / "clinic"), SigningKey.at(folder / "liar")
        self.store = MemoryBlobStore()
        self.fresh, _ = self.packed(folder / "fresh", {"weights.safetensors": b"0" * 10})
        self.model, self.manifest = self.packed(
            folder / "trained", {"weights.safetensors": b"1" * 3_000_000, "tokenizer.json": b"{}"}
        )
        self.entries = self.signed(self.key, self.model)
        self.directory = {CLINIC: self.key.public}
        self.answer: Callable[[], TrainedModel] = lambda: self.trained(self.model, self.entries)

    def packed(self, folder: Path, parts: dict[str, bytes]) -> tuple[ModelRef, Manifest]:
        folder.mkdir()
        for name, data in parts.items():
            (folder / name).write_bytes(data)
        digest, manifest = self.store.pack("classifier", folder)
        return ModelRef(
            manifest=digest, size_bytes=manifest.size_bytes, holders=(CLINIC,)
        ), manifest

    def signed(self, key: SigningKey, model: ModelRef) -> tuple[Entry, ...]:
        """The lineage of `model`, as if `key` were the clinic's."""
        origin = Origin(
            job=JOB, visit=VisitId("qa-1.1"), site=CLINIC, at_s=1.0, recipe="classifier", seed=0,
            model=self.fresh.manifest,
        )  # fmt: skip
        visit = Visit(
            job=JOB, visit=VisitId("qa-1.2"), site=CLINIC, dataset="notes", at_s=2.0, seconds=1.0,
            transfer_s=0.0, overhead_s=0.0, bytes_in=0, examples=20, loss=None,
            model_in=self.fresh.manifest, model_out=model.manifest, size_bytes=model.size_bytes,
        )  # fmt: skip
        first = sign_entry(origin, (), key)
        return first, sign_entry(visit, (first.digest,), key)

    def trained(self, model: ModelRef | None, entries: tuple[Entry, ...]) -> TrainedModel:
        world = World()
        world.run()
        shown = msgspec.structs.replace(view(world.job, world.now_s), job=JOB, model=model)
        return TrainedModel(job=shown, lineage=Lineage(job=JOB, entries=entries))

    def descriptor(self, key: str) -> NodeDescriptor:
        return NodeDescriptor(
            site=CLINIC, owner=OwnerId("clinic"), roles=(Role.DATA,), jurisdiction="US",
            public_key=key, started_at_s=1.0, version=1, software="daitn",
        )  # fmt: skip

    async def start(self) -> Session:
        fabric = self.network.open("center")

        async def lineage(key: str, payload: bytes) -> bytes:
            return encode(self.answer())

        async def nodes(key: str, payload: bytes) -> bytes:
            found = (
                SiteState(descriptor=self.descriptor(key), alive=True, changed_at_s=1.0)
                for key in self.directory.values()
            )
            return encode(NodeList(nodes=tuple(found)))

        async def describe(key: str, payload: bytes) -> bytes:
            return encode(sign_advert(self.descriptor(self.key.public), self.key))

        await fabric.serve(keys.center_do("lineage"), lineage)
        await fabric.serve(keys.center_do("nodes"), nodes)
        site = self.network.open(CLINIC)
        await site.serve(keys.site_do(CLINIC, "describe"), describe)
        await ChunkServer(site, CLINIC, self.store).start()
        return Session(self.network.open("owner"))


@pytest.fixture
async def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def refusal(stage: Stage, folder: Path, **pinned: Any) -> Corrupt:
    """How the export is refused, with nothing written."""
    out = folder / "out"
    with pytest.raises(Corrupt) as raised:
        await export_model(await stage.start(), JOB, out, **pinned)
    assert not out.exists()
    assert raised.value.field
    assert raised.value.fix
    return raised.value


async def test_an_export_is_checked_and_can_be_checked_again(stage: Stage, tmp_path: Path) -> None:
    out = tmp_path / "out"
    await export_model(await stage.start(), JOB, out)
    lineage = verify_folder(out, Signers({CLINIC: stage.key.public}))
    assert lineage.entries == stage.entries


async def test_a_site_that_the_directory_does_not_know_is_asked_itself(
    stage: Stage, tmp_path: Path
) -> None:
    stage.directory = {}
    await export_model(await stage.start(), JOB, tmp_path / "out")
    stage.entries = stage.signed(stage.liar, stage.model)
    assert "clinic" in (await refusal(elsewhere(stage), tmp_path / "other")).problem


def elsewhere(stage: Stage) -> Stage:
    """The same parts on a network of their own."""
    stage.network = MemoryNetwork()
    return stage


async def test_a_lineage_that_another_key_signed_is_refused(stage: Stage, tmp_path: Path) -> None:
    stage.entries = stage.signed(stage.liar, stage.model)
    assert "key that is not clinic's" in (await refusal(stage, tmp_path)).problem


async def test_pinned_keys_count_more_than_the_directory(stage: Stage, tmp_path: Path) -> None:
    stage.entries = stage.signed(stage.liar, stage.model)
    stage.directory = {CLINIC: stage.liar.public}
    assert await refusal(stage, tmp_path, keys_={CLINIC: stage.key.public})


async def test_a_model_without_a_lineage_is_refused(stage: Stage, tmp_path: Path) -> None:
    stage.entries = ()
    assert (await refusal(stage, tmp_path)).field == "lineage"


async def test_a_model_with_the_lineage_of_another_is_refused(stage: Stage, tmp_path: Path) -> None:
    stage.answer = lambda: stage.trained(
        msgspec.structs.replace(stage.model, manifest=Digest("e" * 64)), stage.entries
    )
    assert (await refusal(stage, tmp_path)).field == "lineage"
    stage.answer = lambda: stage.trained(None, stage.entries)
    assert await refusal(elsewhere(stage), tmp_path)


async def test_a_visit_that_was_given_another_model_is_refused(
    stage: Stage, tmp_path: Path
) -> None:
    first, second = stage.entries
    assert isinstance(second.fact, Visit)
    swapped = msgspec.structs.replace(second.fact, model_in=Digest("d" * 64))
    stage.entries = (first, sign_entry(swapped, (first.digest,), stage.key))
    assert "another model" in (await refusal(stage, tmp_path)).problem


async def test_only_the_entries_of_the_exported_model_are_exported(
    stage: Stage, tmp_path: Path
) -> None:
    first, second = stage.entries
    assert isinstance(second.fact, Visit)
    other = msgspec.structs.replace(second.fact, model_out=Digest("c" * 64), examples=99)
    stage.entries = (first, second, sign_entry(other, (first.digest,), stage.key))
    await export_model(await stage.start(), JOB, tmp_path / "out")
    assert verify_folder(tmp_path / "out").entries == (first, second)


@pytest.mark.parametrize(
    "name", ["README.md", "lineage.json", "manifest.json", "model.sig", "provenance"]
)
async def test_a_part_does_not_take_the_place_of_what_an_export_adds(
    name: str, stage: Stage, tmp_path: Path
) -> None:
    stage.model, _ = stage.packed(tmp_path / "odd", {name: b"{}", "weights": b"1"})
    stage.entries = stage.signed(stage.key, stage.model)
    with pytest.raises(Corrupt) as raised:
        await export_model(await stage.start(), JOB, tmp_path / "out")
    assert raised.value.field == "manifest"
    assert not any((tmp_path / "out").iterdir())


def flipped(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def renamed(path: Path) -> None:
    path.write_text(path.read_text().replace("tokenizer.json", "tokenizer.jsom"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a part": lambda out: flipped(out / "weights.safetensors"),
    "a longer part": lambda out: (out / "tokenizer.json").write_bytes(b"{}" * 2_000_000),
    "one part less": lambda out: (out / "tokenizer.json").unlink(),
    "one part more": lambda out: (out / "run.py").write_text(""),
    "the manifest": lambda out: renamed(out / "manifest.json"),
    "a file in the folder of what is added": lambda out: (out / "provenance" / "run.py").touch(),
    "no manifest": lambda out: (out / "manifest.json").unlink(),
    "a manifest that is none": lambda out: (out / "manifest.json").write_text("[" * 100_000),
    "an empty lineage": lambda out: (out / "lineage.json").write_text(
        '{"job": "qa-1", "entries": []}'
    ),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_an_exported_folder_that_was_changed_is_found(
    what: str, stage: Stage, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await export_model(await stage.start(), JOB, out)
    CHANGES[what](out)
    with pytest.raises((Corrupt, NotFound)) as raised:
        verify_folder(out, Signers({CLINIC: stage.key.public}))
    assert isinstance(raised.value, DaitnError)
    assert raised.value.fix


def test_the_command_verifies_a_folder_with_keys_that_the_reader_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # No network is known, by whatever test.
    stage, out = Stage(tmp_path), tmp_path / "out"

    async def exported() -> None:
        await export_model(await stage.start(), JOB, out)

    asyncio.run(exported())
    known, other = tmp_path / "keys.json", tmp_path / "other.json"
    known.write_text(json.dumps({CLINIC: stage.key.public}))
    other.write_text(json.dumps({CLINIC: stage.liar.public}))
    run = CliRunner().invoke
    assert run(app, ["model", "verify", str(out), "--keys", str(known)]).exit_code == 0
    shown = run(app, ["model", "verify", str(out)])
    assert stage.key.public in shown.output.replace("\n", "")
    assert run(app, ["model", "verify", str(out), "--keys", str(other)]).exit_code == 5
    other.write_text("[]")
    assert run(app, ["model", "verify", str(out), "--keys", str(other)]).exit_code == 2


async def test_in_a_network_the_roster_says_whose_a_key_is(stage: Stage, tmp_path: Path) -> None:
    """A control centre that lied about a key gave a lineage of its own for a true one."""
    clinic = Member(
        name=CLINIC, kind=Kind.SITE, public_key=stage.key.public, until_s=1e12, roles=(Role.DATA,)
    )
    identity = Identity(stage.key, "net", lambda: {clinic.public_key: clinic})
    session = await stage.start()
    session.identity = identity
    await export_model(session, JOB, tmp_path / "true")
    stage.entries = stage.signed(stage.liar, stage.model)
    stage.directory = {CLINIC: stage.liar.public}
    with pytest.raises(Corrupt, match="clinic"):
        await export_model(session, JOB, tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_a_folder_is_verified_by_the_roster(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    await export_model(await stage.start(), JOB, out)
    for signer, code in ((stage.key, 0), (stage.liar, 5)):
        clinic = Member(
            name=CLINIC, kind=Kind.SITE, public_key=signer.public, until_s=1e12, roles=(Role.DATA,)
        )
        roster = Roster(network="net", version=1, issued_at_s=0.0, until_s=1e12, members=(clinic,))
        folder = tmp_path / signer.public[:4].replace("/", "_")
        file = RosterFile(root=stage.key.public, signed=sign_roster(roster, stage.key))
        write_roster(folder / ROSTER, file)
        monkeypatch.setenv("DAITN_NETWORK", str(folder))
        verify = ["model", "verify", str(out), "--unsigned"]
        ended = await asyncio.to_thread(CliRunner().invoke, app, verify)
        assert ended.exit_code == code, ended.output


CLASSIFIER = {"classes": ["a", "b"], "hidden": [4]}


@pytest.fixture
def learnt(stage: Stage, tmp_path: Path) -> Stage:
    """A site that holds a classifier which has learnt from a table."""
    pytest.importorskip("torch")
    from daitn.learning.classifier import Classifier

    rows = "".join(f"{n % 5},{n % 3},{'ab'[n % 2]}\n" for n in range(60))
    (tmp_path / "data.csv").write_text("x,y,label\n" + rows)
    made, left = tmp_path / "made", tmp_path / "left"
    for folder in (made, left):
        folder.mkdir()
    Classifier().initialise(CLASSIFIER, 0, made)
    Classifier().train(made, CLASSIFIER, tmp_path / "data.csv", 60, 0, left, lambda _: None)
    parts = {path.name: path.read_bytes() for path in left.iterdir()}
    stage.model, stage.manifest = stage.packed(tmp_path / "parts", parts)
    stage.entries = stage.signed(stage.key, stage.model)
    shown = stage.trained(stage.model, stage.entries)
    job = msgspec.structs.replace(shown.job, recipe="classifier", config=CLASSIFIER)
    stage.answer = lambda: msgspec.structs.replace(shown, job=job)
    return stage


@pytest.mark.processes
async def test_an_exported_classifier_brings_what_asks_it(learnt: Stage, tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with recipes_here() as recipes:
        await export_model(await learnt.start(), JOB, out, recipes=recipes)
        assert verify_folder(out).entries == learnt.entries
        assert json.loads((out / "config.json").read_text())["classes"] == ["a", "b"]
        assert "## Use" in (out / "README.md").read_text()
        assert "predict.py" in (out / "README.md").read_text()
        added = {path.name for path in out.iterdir()} & added_in(out)
        assert added == {
            "README.md", "lineage.json", "manifest.json", "provenance", "config.json", "predict.py"
        }  # fmt: skip
        with pytest.raises(InvalidInput, match="cannot be written as peft"):
            await export_model(
                await elsewhere(learnt).start(), JOB, tmp_path / "peft", form=Form.PEFT,
                recipes=recipes,
            )  # fmt: skip
    assert not any((tmp_path / "peft").iterdir())


@pytest.mark.processes
async def test_a_model_that_no_recipe_here_reads_is_exported_as_it_is(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    async with recipes_here() as recipes:
        await export_model(await stage.start(), JOB, out, recipes=recipes)
    assert verify_folder(out).entries == stage.entries
    assert "## Use" not in (out / "README.md").read_text()
    assert "the parts are all that is exported" in capsys.readouterr().err


async def test_a_part_called_as_what_a_recipe_may_add_is_a_part(
    stage: Stage, tmp_path: Path
) -> None:
    stage.model, _ = stage.packed(tmp_path / "odd", {"config.json": b"{}", "weights": b"1"})
    stage.entries = stage.signed(stage.key, stage.model)
    out = tmp_path / "out"
    await export_model(await stage.start(), JOB, out)
    assert "config.json" not in added_in(out)
    (out / "config.json").write_text("[]")
    with pytest.raises(Corrupt):
        verify_folder(out)


async def test_the_card_tells_of_the_exported_model_alone(stage: Stage, tmp_path: Path) -> None:
    first, second = stage.entries
    assert isinstance(second.fact, Visit)
    other = msgspec.structs.replace(second.fact, model_out=Digest("c" * 64), examples=99)
    stage.entries = (first, second, sign_entry(other, (first.digest,), stage.key))
    await export_model(await stage.start(), JOB, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "over 1 visit to 1 site" in card
    assert "| clinic | notes | 20 |" in card
    assert "99" not in card.split("## Where it learned")[1]
