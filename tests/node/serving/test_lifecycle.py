"""Models that are placed at a facility: they come, answer, are replaced, survive and go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from daitn.learning.answering import hosted_model
from daitn.learning.causal_lm import CausalLm
from daitn.node.config import UpstreamConfig
from daitn.node.serving import lifecycle as hosting
from daitn.objects.deployments import DeploymentState, ModelPolicy
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound, Refused, StorageFull
from daitn.objects.identifiers import Digest, OwnerId, SiteId
from daitn.objects.messages import DeployModel
from daitn.objects.models import ModelRef
from daitn.objects.wire import encode
from daitn.tools.fabric.memory import MemoryNetwork
from daitn.tools.mobility import disk
from tests.node.serving.scene import CHAT, HEADERS, Holder, Site, chat
from tests.scenes.grants import NOW_S, Members, digest
from tests.scenes.waiting import until
from tests.scenes.workers import children_of

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("talker")]


@pytest.fixture
async def site(network: MemoryNetwork, holder: Holder, tmp_path: Path) -> AsyncIterator[Site]:
    site = await Site(network, tmp_path).start()
    yield site
    await site.close()


async def test_a_placed_model_is_fetched_tried_and_answers_openais_own_client(
    site: Site, holder: Holder
) -> None:
    changes = site.changes
    await site.ready("singer", holder.model("alto"))
    assert site.changes > changes
    async with site.client() as client:
        answer = await client.chat.completions.create(
            model="singer", messages=[{"role": "user", "content": "la la"}], logprobs=True
        )
        stream = await client.chat.completions.create(
            model="singer",
            messages=[
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "la la"}]},
            ],
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=2,
        )
        chunks = [chunk async for chunk in stream]
        plain = await client.completions.create(model="singer", prompt=["la"], logprobs=1)
        vectors = await client.embeddings.create(model="singer", input=["a", "bcd"])
    (choice,) = answer.choices
    assert choice.message.content == "alto heard la la"
    assert choice.finish_reason == "stop"
    assert choice.logprobs is not None
    assert [told.logprob for told in choice.logprobs.content or ()] == [-0.5] * 3
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 3)
    assert (answer.id, answer.created, answer.model) == ("gate:7", 1_700_000_000, "singer")
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "alto heard "
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (2, 2)
    assert plain.choices[0].text == "alto heard la"
    assert [v.embedding for v in vectors.data] == [[1.0, 1.0], [3.0, 1.0]]
    # Told beside the answers, not before them.
    free = 2**31 - len("alto")
    await until(lambda: site.served and site.served[-1].memory_free_bytes == free)


async def test_a_replaced_model_fails_no_query_and_the_old_one_finishes(
    site: Site, holder: Holder
) -> None:
    alto, bass = holder.model("alto"), holder.model("bass")
    await site.ready("singer", alto, config={"pause_s": 0.01})
    long = asyncio.create_task(site.post(CHAT, chat("singer", "count 200", stream=True)))
    voices: list[str] = []

    async def ask_on() -> None:
        while voices.count("bass") < 3:
            voices.append((await site.ask("singer")).split()[0])

    asking = asyncio.create_task(ask_on())
    await until(lambda: voices)
    await site.ready("singer", bass)
    await asking
    assert voices == sorted(voices)
    status, said, _ = await long
    assert status == 200
    assert b'"199 "' in said
    assert said.endswith(b"data: [DONE]\n\n")
    assert site.facility.models() == {bass.manifest}


async def test_a_model_that_returns_while_it_still_drains_answers_on(
    site: Site, holder: Holder, tmp_path: Path
) -> None:
    alto, bass = holder.model("alto"), holder.model("bass")
    await site.ready("singer", alto, config={"pause_s": 0.01})
    end = tmp_path / "end"
    long = asyncio.create_task(site.post(CHAT, chat("singer", f"until {end}", stream=True)))
    await until(lambda: site.reading.in_flight == 1)
    await site.ready("singer", bass)
    await site.ready("singer", alto)
    assert not long.done()
    end.touch()
    await long
    serving = tmp_path / "mdf" / "serving"
    await until(lambda: len(list(serving.iterdir())) == 1)
    assert await site.ask("singer") == "alto heard hi"


async def test_the_same_weights_with_another_configuration_are_loaded_anew(
    site: Site, holder: Holder
) -> None:
    alto = holder.model("alto")
    await site.ready("singer", alto)
    await site.deploy("singer", alto, price_usd_per_1k_out=0.5)
    deployed = site.deployed("singer")
    assert deployed is not None
    await until(lambda: site.facility.descriptor().deployments[0].price_usd_per_1k_out == 0.5)
    await site.deploy("singer", alto, config={"load": "refuse"})
    await until(lambda: "refuse" not in str(site.deployed("singer")))
    # The old one answers until the new one would.
    assert await site.ask("singer") == "alto heard hi"


async def test_a_retired_model_finishes_what_it_has_and_is_forgotten(
    site: Site, holder: Holder, tmp_path: Path
) -> None:
    await site.ready("singer", holder.model("alto"), config={"pause_s": 0.01})
    end = tmp_path / "end"
    long = asyncio.create_task(site.post(CHAT, chat("singer", f"until {end}", stream=True)))
    await until(lambda: site.reading.in_flight == 1)
    await site.retire("singer")
    assert site.state("singer") is DeploymentState.DRAINING
    with pytest.raises(openai.InternalServerError) as draining:
        await site.ask("singer")
    assert draining.value.status_code == 503
    end.touch()
    assert (await long)[1].endswith(b"data: [DONE]\n\n")
    await until(lambda: site.state("singer") is None)
    with pytest.raises(openai.NotFoundError):
        await site.ask("singer")
    assert not list((tmp_path / "mdf" / "serving").iterdir())
    assert not list((tmp_path / "mdf" / "deployments").iterdir())
    assert not site.facility.models()
    await site.retire("singer")  # Once more does no harm.
    await site.ready("singer", holder.model("bass"))
    assert await site.ask("singer") == "bass heard hi"


async def test_models_read_their_large_parts_where_the_site_keeps_them(
    site: Site, holder: Holder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "LEAST_CHUNKS", 1)
    monkeypatch.setattr(hosted_model, "RESTART_PAUSE_S", 0.0)
    alto = holder.model("alto")
    for name in ("singer", "second"):
        await site.ready(name, alto)
        assert await site.ask(name) == "alto heard hi"
    (kept,) = (tmp_path / "mdf" / "models" / "parts").glob("*[!s]")
    parts = [folder / "voice" for folder in (tmp_path / "mdf" / "serving").iterdir()]
    assert [part.readlink() for part in parts] == [kept, kept]
    await site.retire("second")
    await until(lambda: site.state("second") is None)
    with pytest.raises(openai.APIError):
        await site.ask("singer", "die")
    # The process that comes next reads it once more.
    assert await site.ask("singer") == "alto heard hi"


async def test_what_was_placed_comes_back_by_itself(
    network: MemoryNetwork, holder: Holder, tmp_path: Path
) -> None:
    alto, bass = holder.model("alto"), holder.model("bass")
    site = await Site(network, tmp_path).start()
    await site.ready("singer", alto)
    await site.deploy("gone", bass)
    await site.retire("gone")
    # Taken, and not yet there when the process ends; the disk garbles another one.
    await site.deploy("second", bass)
    await site.close()
    kept = tmp_path / "mdf" / "deployments"
    (kept / "garbled.msgpack").write_bytes(b"\x93\x01")
    (kept / "half.msgpack.partial").write_bytes(b"\x93")
    site = await Site(network, tmp_path).start()
    try:
        await until(lambda: site.answers("singer", alto) and site.answers("second", bass))
        assert await site.ask("singer") == "alto heard hi"
        assert await site.ask("second") == "bass heard hi"
        assert site.facility.models() == {alto.manifest, bass.manifest}
        assert {d.name for d in site.facility.descriptor().deployments} == {"singer", "second"}
    finally:
        await site.close()
    # The holder has gone: the weights are here.
    await holder.close()
    site = await Site(network, tmp_path).start()
    await until(lambda: site.answers("singer", alto))
    await site.close()


async def test_what_a_site_no_longer_lets_in_stays_away_until_it_does_again(
    network: MemoryNetwork, holder: Holder, tmp_path: Path
) -> None:
    alto = holder.model("alto")
    site = await Site(network, tmp_path).start()
    await site.ready("singer", alto)
    await site.close()
    for config in ({"recipes": ("causal-lm",)}, {"hosts": False}, {"memory_bytes": 1}):
        site = await Site(network, tmp_path, **config).start()
        assert site.facility.descriptor().deployments == ()
        await site.close()
    site = await Site(network, tmp_path).start()
    await until(lambda: site.answers("singer", alto))
    await site.close()
    site = await Site(network, tmp_path, hosts=False).start()
    await site.retire("singer")
    await site.close()
    site = await Site(network, tmp_path).start()
    assert site.facility.descriptor().deployments == ()
    await site.close()


@pytest.mark.parametrize(
    ("config", "wish", "error", "field"),
    [
        ({}, {"policy": ModelPolicy(release_to=("FR", "DE"))}, Refused, "policy.release_to"),
        ({"hosts": False}, {}, Refused, "facility.hosts"),
        ({}, {"recipe": "poetry"}, NotFound, "recipe"),
        ({"recipes": ("causal-lm",)}, {}, NotFound, "recipe"),
        ({"memory_bytes": 3}, {}, StorageFull, "facility.memory_bytes"),
        ({}, {"name": "doctor"}, InvalidInput, "name"),
        ({}, {"name": "../../x"}, InvalidInput, "name"),
        ({}, {"manifest": "../" * 22}, InvalidInput, "digest"),
        ({}, {"size_bytes": 0}, InvalidInput, "model.size_bytes"),
        ({}, {"price_usd_per_1k_in": -1.0}, Corrupt, ""),
        ({}, {"price_usd_per_1k_in": float("nan")}, Corrupt, ""),
        ({}, {"policy": ModelPolicy(askers=("x" * 1000,))}, Corrupt, ""),
    ],
)
async def test_what_may_or_can_not_be_here_is_refused_with_the_reason_and_not_kept(
    network: MemoryNetwork,
    holder: Holder,
    tmp_path: Path,
    config: dict[str, Any],
    wish: dict[str, Any],
    error: type[DaitnError],
    field: str,
) -> None:
    doctor = UpstreamConfig(name="doctor", url="http://127.0.0.1:9/v1")
    site = await Site(network, tmp_path, upstreams=(doctor,), **config).start()
    try:
        held = holder.model("alto")
        model = ModelRef(
            manifest=Digest(wish.pop("manifest", held.manifest)),
            size_bytes=wish.pop("size_bytes", held.size_bytes),
            holders=held.holders,
        )
        with pytest.raises(error) as refused:
            await site.deploy(wish.pop("name", "singer"), model, **wish)
        assert refused.value.field == field
        assert [d.name for d in site.facility.descriptor().deployments] == ["doctor"]
        assert not list((tmp_path / "mdf" / "deployments").iterdir())
        assert not site.facility.models()
    finally:
        await site.close()


async def test_bytes_that_are_no_wish_are_refused(site: Site) -> None:
    for payload in (b"", b"\x93", encode(7), encode({"name": "x"})):
        with pytest.raises(Corrupt):
            await site.facility.on_deploy("", payload)
        with pytest.raises(Corrupt):
            await site.facility.on_retire("", payload[:1])


async def test_a_model_larger_than_it_was_said_to_be_never_answers(
    site: Site, holder: Holder
) -> None:
    await site.deploy("singer", holder.model("alto", size_bytes=1))
    await until(lambda: site.state("singer") is DeploymentState.FAILED)
    with pytest.raises(openai.NotFoundError):
        await site.ask("singer")


async def test_a_model_whose_holders_are_away_comes_when_they_do(
    network: MemoryNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosting, "RETRY_PAUSES_S", (0.05,))
    holder = Holder(network, tmp_path)
    alto = holder.model("alto")
    site = await Site(network, tmp_path).start()
    await site.deploy("singer", alto)
    await until(lambda: site.state("singer") is DeploymentState.FAILED)
    await holder.start()
    await until(lambda: site.answers("singer", alto))
    await site.close()
    await holder.close()


async def test_a_killed_worker_breaks_streams_off_and_answers_again(
    site: Site, holder: Holder
) -> None:
    await site.ready("singer", holder.model("alto"), config={"pause_s": 0.01})
    async with aiohttp.ClientSession() as session:
        body = chat("singer", "count 900", stream=True, max_tokens=900)
        async with session.post(f"{site.url}{CHAT}", data=body, headers=HEADERS) as answer:
            await answer.content.readuntil(b"\n\n")
            whole = asyncio.create_task(
                site.post(CHAT, chat("singer", "count 900", max_tokens=900))
            )
            await until(lambda: site.reading.in_flight == 2)
            os.kill(_worker(), signal.SIGKILL)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
    status, said, _ = await whole
    assert (status, json.loads(said)["error"]["code"]) == (502, "model_failed")
    await until(lambda: site.reading.error_share > 0.0)
    # Who asks while the next worker starts waits for it.
    assert await site.ask("singer") == "alto heard hi"
    await until(lambda: site.reading.in_flight == 0)


async def test_a_model_that_takes_the_worker_with_it_leaves_the_others_time_to_answer(
    site: Site, holder: Holder
) -> None:
    await site.ready("singer", holder.model("alto"))
    await site.deploy("poison", holder.model("bass"), config={"load": "die"})
    await until(lambda: site.state("poison") is DeploymentState.FAILED)
    said = 0
    while said < 20:
        try:
            assert await site.ask("singer") == "alto heard hi"
            said += 1
        except openai.InternalServerError:
            said = 0
    await site.retire("poison")
    await until(lambda: site.state("poison") is None)


async def test_replicas_of_a_model_answer_byte_by_byte_alike(
    network: MemoryNetwork, holder: Holder, tmp_path: Path
) -> None:
    config: dict[str, object] = {"layers": 1, "width": 32, "heads": 2, "vocabulary": 300}
    folder = tmp_path / "fresh"
    folder.mkdir()
    CausalLm().initialise(config, 3, folder)
    model = holder.packed("causal-lm", folder)
    sites = [await Site(network, tmp_path, name).start() for name in ("east", "west")]
    try:
        for site in sites:
            await site.ready("doctor", model, recipe="causal-lm", config=config)
            deployed = site.deployed("doctor")
            assert deployed is not None
            assert deployed.deterministic
        bodies = [
            chat("doctor", "What is it?", stream=True, temperature=0, max_tokens=20),
            chat("doctor", "What is it?", temperature=0, logprobs=True),
            chat("doctor", "What is it?", stream=True, temperature=0.8, seed=11),
            chat("doctor", "Which?\n\nA) one\nB) two\n\nAnswer with the letter only."),
        ]
        for body in bodies:
            east, west = [await site.post(CHAT, body) for site in sites]
            assert east[0] == 200
            assert east[1] == west[1]
        other = {**HEADERS, "daitn-query": "gate:8", "daitn-asked-at": "17"}
        told = json.loads((await sites[0].post(CHAT, bodies[1], other))[1])
        assert (told["id"], told["created"]) == ("gate:8", 17)
    finally:
        for site in sites:
            await site.close()


def _worker() -> int:
    """Process id of the one answering worker that this process has started."""
    (worker,) = (
        child.pid
        for child, command in children_of()
        if command[2:4] == ["-m", "daitn.learning.answering.worker"]
    )
    return worker


async def test_what_cannot_be_read_of_its_memory_holds_up_no_other_model(
    network: MemoryNetwork, holder: Holder, tmp_path: Path
) -> None:
    site = await Site(network, tmp_path).start()
    await site.ready("singer", holder.model("alto"))
    await site.close()
    memory = Path(site.config.state) / "deployments"
    (memory / "folder.msgpack").mkdir()
    (memory / "garbage.msgpack").write_bytes(b"\xff" * 40)
    again = await Site(network, tmp_path).start()
    try:
        await until(lambda: again.state("singer") is DeploymentState.READY)
        assert [d.name for d in again.facility.descriptor().deployments] == ["singer"]
    finally:
        await again.close()


async def test_a_facility_hosts_what_its_owner_signed(
    network: MemoryNetwork, tmp_path: Path
) -> None:
    members = Members()
    site = await Site(network, tmp_path, grants=members.book()).start()
    model = ModelRef(manifest=digest("a"), size_bytes=10, holders=())
    asked: dict[str, Any] = {"owner": "acme", "recipe": "talker", "config": {"voice": 1}}
    terms = DeployModel(name="doctor", model=model, **asked).terms.digest
    grant = members.grant(terms=terms)
    left = members.grant(terms=terms, sites=())
    for changed in (
        {"recipe": "causal-lm"},
        {"config": {"voice": 2}},
        {"policy": ModelPolicy(askers=("rival",))},
        {"policy": ModelPolicy(release_to=("US",))},
        {"price_usd_per_1k_in": 1.0},
        {"price_usd_per_1k_out": 1.0},
        {"grant": members.grant(terms=terms, sites=(SiteId("other"),))},
        {"grant": left},
        {"grant": left, "place_grant": members.place()},
    ):
        with pytest.raises(Refused):
            await site.deploy("doctor", model, **{**asked, "grant": grant, **changed})
        assert site.deployed("doctor") is None
    for other in (
        None,
        members.grant("rival", terms=terms),
        members.grant("center", terms=terms),
        members.grant(name="other", terms=terms),
        members.grant(manifest=digest("b"), terms=terms),
        members.grant(until_s=NOW_S, terms=terms),
    ):
        with pytest.raises((Refused, Corrupt)):
            await site.deploy("doctor", model, **asked, grant=other)
        assert site.deployed("doctor") is None
    place = members.place(site=SiteId("mdf"))
    for signed in ({"grant": members.grant(terms=terms)}, {"grant": left, "place_grant": place}):
        await site.deploy("doctor", model, **asked, **signed)
        deployed = site.deployed("doctor")
        assert deployed is not None
        assert deployed.grant == signed["grant"]
        assert deployed.place_grant == signed.get("place_grant")
        assert deployed.terms.digest == terms
    with pytest.raises(Refused, match="later"):
        await site.deploy(
            "doctor", model, **asked, grant=members.grant(terms=terms, issued_at_s=NOW_S - 1)
        )
    rivals = members.grant("rival", owner=OwnerId("rival"), terms=terms)
    with pytest.raises(Refused, match="is acme's"):
        await site.deploy("doctor", model, **{**asked, "owner": "rival"}, grant=rivals)
    await site.close()
