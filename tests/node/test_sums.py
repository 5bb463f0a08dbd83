"""Sites merge what nobody else sees: whoever is lost when, the sum is of who is left, or none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from daitn.identity.keys import SigningKey
from daitn.identity.orders import OrderBook, sign_order
from daitn.identity.signing import sign_entry
from daitn.node.training.sums import _MOST_VALUE, _POINT, SecureSums
from daitn.objects.descriptors import Role
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound, Refused, Unreachable
from daitn.objects.identifiers import Digest, JobId, OwnerId, SiteId, VisitId
from daitn.objects.intents import Training, TrainingIntent
from daitn.objects.lineage import Origin, Visit
from daitn.objects.merging import Algorithm, MergeRule
from daitn.objects.messages import MergeWork
from daitn.objects.models import ModelRef
from daitn.objects.roster import Kind, Member
from daitn.objects.secure_sum import Joined
from daitn.objects.wire import decode, encode
from daitn.tools.fabric.keys import site_do
from daitn.tools.fabric.memory import MemoryNetwork
from tests.control.jobs.world import INTENT

SITES = [SiteId(name) for name in ("east", "north", "south", "west")]
PHASES = ("join", "keys", "shares", "masked", "agreement", "reveal")
SECURE = Training(algorithm=Algorithm.FEDAVG, secure_aggregation=True)


class Scene:
    """Four sites that each trained a model, and the work of merging them at the first."""

    def __init__(self, folder: Path, training: Training = SECURE) -> None:
        self.keys = {name: SigningKey.generate() for name in (*SITES, SiteId("acme"))}
        members = [Member(name="acme", kind=Kind.OWNER, public_key=self.keys[SiteId("acme")].public,
                          until_s=2000.0, roles=())]  # fmt: skip
        members += [
            Member(name=site, kind=Kind.SITE, public_key=self.keys[site].public, until_s=2000.0,
                   roles=(Role.DATA,))
            for site in SITES
        ]  # fmt: skip
        orders = OrderBook("net", lambda: {m.public_key: m for m in members}, lambda: 1000.0)
        network = MemoryNetwork()
        self.fabrics = {site: network.open(site) for site in SITES}
        self.sums = {
            site: SecureSums(site, folder / site, self.keys[site], self.fabrics[site], orders)
            for site in SITES
        }
        self.folder = folder
        self.asked: list[tuple[SiteId, str]] = []
        self.lost: dict[SiteId, str] = {}
        self.meanwhile: dict[str, Callable[[], Awaitable[None]]] = {}
        """What happens before the first site is asked for a phase."""
        self.renamed = dict[str, str]()
        """Parts that every site says to have by another name."""
        intent = msgspec.structs.replace(INTENT, owner=OwnerId("acme"), training=training)
        self.work = self._merge_work(intent)

    def _merge_work(self, intent: TrainingIntent) -> MergeWork:
        order = sign_order(intent, "net", 2000.0, self.keys[SiteId("acme")])
        job, base = JobId(f"{intent.name}-1"), Digest("b" * 64)
        origin = sign_entry(
            Origin(job=job, visit=VisitId("v.0"), site=SITES[0], at_s=1.0, recipe="r", seed=0,
                   model=base, order=order.digest), (), self.keys[SITES[0]])  # fmt: skip
        entries, refs, shares = [origin], list[ModelRef](), list[int]()
        self.weights: dict[SiteId, dict[str, Any]] = {}
        for number, site in enumerate(SITES):
            made = self.folder / f"made-{site}"
            made.mkdir(parents=True)
            rng = np.random.default_rng(number)
            self.weights[site] = {
                "a": rng.normal(size=(3, 4)).astype(np.float32),
                "count": np.array([1e6 * number], np.float64),
            }
            save_file(self.weights[site], made / "weights.safetensors", metadata={"seen": "7"})
            (made / "features.json").write_text('["x"]')
            ref = self.sums[site].keep(made)
            fact = Visit(
                job=job, visit=VisitId(f"v.{number + 1}"), site=site, dataset="d", at_s=1.0,
                seconds=1.0, transfer_s=0.0, overhead_s=0.0, bytes_in=0,
                examples=100 * (number + 1), loss=None, model_in=base, model_out=ref.manifest,
                size_bytes=ref.size_bytes, order=order.digest,
            )  # fmt: skip
            entries.append(sign_entry(fact, (origin.digest,), self.keys[site]))
            refs.append(ref)
            shares.append(fact.examples)
        return MergeWork(
            visit=VisitId("v.9"), job=job, recipe=intent.model.recipe, config=intent.model.config,
            seed=0, owner=intent.owner, base=ModelRef(manifest=base, size_bytes=1, holders=()),
            trained=tuple(refs), shares=tuple(shares), rule=MergeRule(), secure=True,
            previous=tuple(entry.digest for entry in entries[1:]), purpose=intent.purpose,
            order=order, lineage=tuple(entries),
        )  # fmt: skip

    async def serve(self) -> None:
        for site in SITES:
            for verb, handler in self.sums[site].handlers().items():
                await self.fabrics[site].serve(site_do(site, verb), self._heard(site, handler))

    def _heard(self, site: SiteId, handler: Any) -> Any:
        async def answer(key: str, payload: bytes) -> bytes:
            tag = "join"
            if not key.endswith("/join"):
                tag = decode(payload, dict[str, Any])["type"]
            self.asked.append((site, tag))
            if tag in self.meanwhile:
                await self.meanwhile.pop(tag)()
            lost = self.lost.get(site)
            if lost and PHASES.index(tag) >= PHASES.index(lost):
                raise Unreachable(f"{site} is gone")
            told: bytes = await handler(key, payload)
            if tag == "join":
                joined = decode(told, Joined)
                parts = {self.renamed.get(name, name): part for name, part in joined.parts.items()}
                return encode(msgspec.structs.replace(joined, parts=parts))
            return told

        return answer

    async def merged(self, visit: str = "v.9") -> tuple[tuple[SiteId, ...], dict[str, Any]]:
        base, into = self.folder / "base", self.folder / f"into-{visit}"
        base.mkdir(exist_ok=True)
        (base / "tokenizer.json").write_text("{}")
        into.mkdir()
        work = msgspec.structs.replace(self.work, visit=VisitId(visit))
        summed = await self.sums[SITES[0]].gather(work, base, into)
        assert (into / "features.json").read_text() == '["x"]'
        assert (into / "tokenizer.json").is_file()
        return summed, load_file(into / "weights.safetensors")

    def mean(self, sites: list[SiteId], name: str) -> Any:
        shares = {site: 100.0 * (n + 1) for n, site in enumerate(SITES)}
        total = sum(shares[site] for site in sites)
        return sum(shares[site] / total * self.weights[site][name] for site in sites)


@pytest.mark.parametrize("phase", [None, *PHASES])
async def test_a_member_that_is_lost_in_any_phase_costs_its_own_part_at_most(
    tmp_path: Path, phase: str | None
) -> None:
    scene = Scene(tmp_path)
    await scene.serve()
    if phase:
        scene.lost[SITES[2]] = phase
    summed, found = await scene.merged()
    late = phase in (None, "agreement", "reveal")  # Its masked numbers were there.
    expected = SITES if late else [site for site in SITES if site != SITES[2]]
    assert list(summed) == expected
    np.testing.assert_allclose(found["a"], scene.mean(expected, "a"), atol=1e-6)
    np.testing.assert_allclose(found["count"], scene.mean(expected, "count"), rtol=1e-6)
    assert (found["a"].dtype, found["count"].dtype) == (np.float32, np.float64)


@pytest.mark.parametrize("phase", PHASES)
async def test_with_too_few_left_there_is_no_sum_and_another_one_only_of_what_has_not_left(
    tmp_path: Path, phase: str
) -> None:
    scene = Scene(tmp_path)
    await scene.serve()
    scene.lost = {SITES[1]: phase, SITES[2]: phase}
    with pytest.raises((Unreachable, Refused)):
        await scene.merged()
    scene.lost = {}
    if phase in PHASES[3:]:  # Two gave what they made, masked: the round is lost.
        with pytest.raises(DaitnError):
            await scene.merged("v.10")
        return
    summed, _ = await scene.merged("v.10")
    assert list(summed) == SITES


async def test_what_was_summed_once_is_in_no_other_sum(tmp_path: Path) -> None:
    """The difference of two sums would be somebody's."""
    scene = Scene(tmp_path)
    await scene.serve()
    await scene.merged()
    with pytest.raises(Unreachable):
        await scene.merged("v.10")
    assert not any((tmp_path / site / digest).exists() for site in SITES
                   for digest in [ref.manifest for ref in scene.work.trained])  # fmt: skip


async def test_of_two_sums_that_began_one_gets_what_sites_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene, other = Scene(tmp_path), list[SiteId]()
    await scene.serve()

    async def merge_too() -> None:
        summed, _ = await scene.merged("v.10")
        other.extend(summed)

    scene.meanwhile["shares"] = merge_too
    with pytest.raises(Unreachable):
        await scene.merged()
    assert other == SITES
    assert not [record for record in caplog.records if record.exc_info]
    assert "this update is already part of another sum" in caplog.text


@pytest.mark.parametrize(
    ("array", "says"), [(np.ones(3, np.uint16), "kind U16"), (np.ones(9, np.float32), "9 numbers")]
)
def test_what_no_sum_can_have_is_refused_where_it_was_made(
    array: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge would only say that no site is left for it."""
    scene = Scene(tmp_path)
    monkeypatch.setattr("daitn.node.training.sums._MOST_NUMBERS", 8)
    (made := tmp_path / "made").mkdir()
    save_file({"trees": array}, made / "trees.safetensors")
    with pytest.raises(InvalidInput, match=says) as refused:
        scene.sums[SITES[0]].keep(made)
    assert refused.value.field == "training.secure_aggregation"
    assert refused.value.fix


@pytest.mark.parametrize(
    ("name", "error"),
    [(name, Corrupt) for name in ("../x", "..", "", "a/b", "a\\b", "\u00e9" * 130)]
    + [(name, Unreachable) for name in ("a\0b", "a\nb", "x" * 300)],
)
async def test_a_part_that_is_no_file_of_a_model_is_not_written(
    name: str, error: type[DaitnError], tmp_path: Path
) -> None:
    """What is no name at all is not even read."""
    scene = Scene(tmp_path)
    await scene.serve()
    scene.renamed = {"features.json": name}
    with pytest.raises(error):
        await scene.merged()
    assert not (tmp_path / "x").exists()
    assert [path.name for path in (tmp_path / "into-v.9").iterdir()] in (
        [], ["weights.safetensors"]
    )  # fmt: skip


def test_a_mean_of_many_is_as_exact_as_that_of_few() -> None:
    rng = np.random.default_rng(0)
    for members in (2, 256):
        shares = rng.dirichlet(np.ones(members))
        rows = rng.normal(size=(members, 500))
        total = np.zeros(500, np.uint64)
        for share, row in zip(shares, rows, strict=True):
            total += _POINT.words(share * _POINT.within(row))
        assert np.abs(_POINT.numbers(total) - shares @ rows).max() < members * 1e-8
    most = np.full(1, _MOST_VALUE)
    total = sum((_POINT.words(most / 256) for _ in range(256)), np.zeros(1, np.uint64))
    assert _POINT.numbers(total) == most
    with pytest.raises(InvalidInput):
        _POINT.within(2 * most)


def test_what_is_not_summed_within_a_day_goes(tmp_path: Path) -> None:
    """Also where no further secure visit comes."""
    scene = Scene(tmp_path)
    site = scene.sums[SITES[1]]
    site.forget_old()
    site.join(scene.work)
    kept = tmp_path / SITES[1] / scene.work.trained[1].manifest
    a_day_ago = kept.stat().st_mtime - 90_000.0
    os.utime(kept, (a_day_ago, a_day_ago))
    site.forget_old()
    assert not kept.exists()
    with pytest.raises(NotFound):
        site.join(scene.work)


async def test_a_site_joins_no_sum_that_its_owner_did_not_order(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    site = scene.sums[SITES[1]]
    for changes in (
        {"secure": False},
        {"order": None},
        {"lineage": scene.work.lineage[:3]},
        {"shares": (1, 1, 1, 1)},
        {"trained": scene.work.trained[:1] * 4},
    ):
        with pytest.raises(DaitnError):
            site.join(msgspec.structs.replace(scene.work, **changes))
    plain = Scene(tmp_path / "plain", Training(algorithm=Algorithm.FEDAVG))
    with pytest.raises(Refused):
        plain.sums[SITES[1]].join(plain.work)
    with pytest.raises(NotFound):
        await site._on_sum("", encode({"type": "keys", "sum": "v.9", "numbers": 13}))


async def test_no_models_numbers_pass_the_fabric(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    said: list[bytes] = []

    def overheard(handler: Any) -> Any:
        async def answer(key: str, payload: bytes) -> bytes:
            told: bytes = await handler(key, payload)
            said.extend((payload, told))
            return told

        return answer

    for site in SITES:
        for verb, handler in scene.sums[site].handlers().items():
            await scene.fabrics[site].serve(site_do(site, verb), overheard(handler))
    await scene.merged()
    heard = b"".join(said)
    for weights in scene.weights.values():
        for value in weights["a"].ravel():
            assert value.tobytes() not in heard
            assert np.float64(value).tobytes() not in heard
    await asyncio.sleep(0)


@pytest.mark.parametrize("algorithm", ["sequential", "median", "krum", "ties"])
def test_an_algorithm_that_looks_at_single_models_is_in_conflict(algorithm: str) -> None:
    with pytest.raises(ValueError, match="secure_aggregation"):
        Training(algorithm=Algorithm(algorithm), secure_aggregation=True)
