"""Models at work in their own process: turns, cancellation, and what outlives a crash."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop
from tests.scenes.recipes import installed_talker
from tests.scenes.waiting import PATIENCE_S

from daitn.learning.answering.host import AnsweringHost
from daitn.learning.answering.protocol import Message, Question
from daitn.objects.errors import DaitnError, InvalidInput, NotFound, WorkFailed

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model of the recipe `talker`, which is installed meanwhile."""
    model = tmp_path_factory.mktemp("model")
    (model / "voice").write_text("alto")
    with installed_talker(tmp_path_factory.mktemp("site") / "packages"):
        yield model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(folder: Path) -> AsyncIterator[AnsweringHost]:
    """One for all tests: each has to leave it usable, whatever it did to its worker."""
    host = AnsweringHost(threads=1, models=folder)
    await host.start()
    await host.load("quick", "talker", folder, {})
    await host.load("slow", "talker", folder, {"pause_s": 0.01})
    yield host
    await host.close()


def question(text: str, max_tokens: int = 1000) -> Question:
    return Question(
        messages=(Message("user", text),), max_tokens=max_tokens, temperature=0.0, seed=0
    )


async def said(host: AnsweringHost, model: str, text: str, max_tokens: int = 1000) -> str:
    async with asyncio.timeout(PATIENCE_S):
        answer = await host.ask(model, question(text, max_tokens))
        return "".join([piece.text async for piece in answer.pieces])


async def restarted(host: AnsweringHost, before: int) -> int:
    """Process id of the worker that came after the one with the id `before`."""
    async with asyncio.timeout(PATIENCE_S):
        while host.pid in (0, before):  # noqa: ASYNC110 - no event tells of another process
            await asyncio.sleep(0.02)
    return host.pid


async def test_an_answer_comes_piece_by_piece_and_says_how_long_it_may_get(
    host: AnsweringHost,
) -> None:
    answer = await host.ask("quick", question("how are you", max_tokens=2))
    assert (answer.tokens_in, answer.most_tokens) == (3, 2)
    assert [piece.text async for piece in answer.pieces] == ["alto ", "heard "]
    assert (await host.ask("quick", question("hi", max_tokens=5000))).most_tokens == 1000


async def test_answers_take_turns(host: AnsweringHost) -> None:
    long = await host.ask("slow", question("count 300"))
    first = await anext(long.pieces)
    seen = 1
    short = asyncio.create_task(said(host, "slow", "count 5"))
    async for _ in long.pieces:
        seen += 1
        if short.done():
            break
    assert first.text == "0 "
    assert short.result() == "0 1 2 3 4 "
    assert seen < 100
    await long.pieces.aclose()  # type: ignore[attr-defined]


async def test_an_answer_that_nobody_wants_is_not_computed(host: AnsweringHost) -> None:
    answer = await host.ask("quick", question("count 1000"))
    await anext(answer.pieces)
    await answer.pieces.aclose()  # type: ignore[attr-defined]
    assert (await said(host, "quick", "status")).startswith("0 ")

    async def wait() -> None:
        async for _ in (await host.ask("slow", question("count 1000"))).pieces:
            pass

    waiting = asyncio.create_task(wait())
    while not (await said(host, "slow", "status")).startswith("1 "):
        assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (await said(host, "slow", "status")).startswith("0 ")


async def test_many_texts_to_embed_hold_nobody_up_and_can_be_given_up(host: AnsweringHost) -> None:
    vectors = asyncio.create_task(host.embed("slow", ["text"] * 3000))
    assert await said(host, "quick", "hi") == "alto heard hi"
    assert not vectors.done()
    assert len(await vectors) == 3000
    before = int((await said(host, "slow", "status")).split()[1])
    given_up = asyncio.create_task(host.embed("slow", ["text"] * 100_000))
    assert await said(host, "quick", "hi") == "alto heard hi"
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    embedded = int((await said(host, "slow", "status")).split()[1]) - before
    assert embedded < 100_000
    assert int((await said(host, "slow", "status")).split()[1]) - before == embedded


async def test_what_a_recipe_raises_reaches_who_asked_and_nobody_else(host: AnsweringHost) -> None:
    pid = host.pid
    other = asyncio.create_task(said(host, "slow", "count 30"))
    with pytest.raises(InvalidInput, match="not that"):
        await said(host, "quick", "refuse")
    with pytest.raises(WorkFailed, match="a recipe failed: KeyError\n"):
        await said(host, "quick", "trip")
    with pytest.raises(NotFound, match="nobody is not loaded"):
        await said(host, "nobody", "hi")
    assert (await other).endswith("29 ")
    assert host.pid == pid


async def test_a_question_too_long_to_hand_over_is_the_askers_fault(host: AnsweringHost) -> None:
    with pytest.raises(InvalidInput, match="exceeds"):
        await said(host, "quick", "x" * (17 << 20))
    assert await said(host, "quick", "hi") == "alto heard hi"


async def test_models_come_and_go(host: AnsweringHost, folder: Path) -> None:
    await host.load("guest", "talker", folder, {})
    assert await said(host, "guest", "hi") == "alto heard hi"
    await host.unload("guest")
    with pytest.raises(NotFound, match="guest"):
        await said(host, "guest", "hi")
    with pytest.raises(InvalidInput, match="does not fit"):
        await host.load("guest", "talker", folder, {"load": "refuse"})
    with pytest.raises(NotFound, match="not installed"):
        await host.load("guest", "poet", folder, {})
    with pytest.raises(WorkFailed, match="FileNotFoundError"):
        await host.load("guest", "talker", folder / "nowhere", {})


async def test_a_load_that_is_given_up_leaves_nothing(host: AnsweringHost, folder: Path) -> None:
    loading = asyncio.create_task(host.load("guest", "talker", folder, {"load_s": 0.3}))
    await asyncio.sleep(0.05)  # The command is on its way; nothing tells that it is under way.
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)
    with pytest.raises(NotFound, match="guest"):
        await said(host, "guest", "hi")


@pytest.mark.parametrize("end", ["killed", "died"])
async def test_a_lost_worker_fails_what_is_under_way_and_is_replaced_with_its_models(
    host: AnsweringHost, end: str
) -> None:
    before = host.pid
    answer = await host.ask("slow", question("count 1000"))
    await anext(answer.pieces)
    waiting = asyncio.create_task(said(host, "slow", "count 1000"))
    if end == "killed":
        os.kill(before, signal.SIGKILL)
    else:
        with pytest.raises(WorkFailed, match="ended while it was at work"):
            await said(host, "quick", "die")
    with pytest.raises(WorkFailed):
        async for _ in answer.pieces:
            pass
    with pytest.raises(WorkFailed):
        await waiting
    # Who asks meanwhile waits for the next one.
    assert await said(host, "quick", "hi") == "alto heard hi"
    assert await restarted(host, before) != before
    assert await said(host, "slow", "hi") == "alto heard hi"


async def test_a_worker_that_hangs_is_replaced(folder: Path) -> None:
    host = AnsweringHost(threads=1, models=folder, silent_s=2.0)
    await host.start()
    try:
        await host.load("quick", "talker", folder, {})
        await asyncio.sleep(3.0)
        before = host.pid
        assert await said(host, "quick", "hi") == "alto heard hi", "to be idle is not to hang"
        with pytest.raises(WorkFailed):
            await said(host, "quick", "hang")
        assert await said(host, "quick", "hi") == "alto heard hi"
        assert host.pid != before
    finally:
        await host.close()


async def test_a_model_that_ends_the_worker_is_not_loaded_again(
    host: AnsweringHost, folder: Path
) -> None:
    before = host.pid
    with pytest.raises(WorkFailed):
        await host.load("poison", "talker", folder, {"load": "die"})
    after = await restarted(host, before)
    assert await said(host, "quick", "hi") == "alto heard hi"
    with pytest.raises(NotFound, match="poison"):
        await said(host, "poison", "hi")
    assert host.pid == after


async def test_a_closed_host_lets_nobody_wait(folder: Path) -> None:
    host = AnsweringHost(threads=1, models=folder)
    await host.start()
    await host.load("slow", "talker", folder, {"pause_s": 0.01})
    waiting = asyncio.create_task(said(host, "slow", "count 1000"))
    os.kill(host.pid, signal.SIGKILL)
    with pytest.raises(WorkFailed):
        await waiting
    waiting = asyncio.create_task(said(host, "slow", "hi"))
    await asyncio.sleep(0)
    await host.close()
    with pytest.raises(WorkFailed, match="stopped answering"):
        await waiting
    with pytest.raises(WorkFailed, match="stopped answering"):
        await said(host, "slow", "hi")


async def test_a_child_of_uvloop_can_be_lost_as_well(folder: Path) -> None:
    async def lose() -> set[type[BaseException] | str]:
        host = AnsweringHost(threads=1, models=folder)
        await host.start()
        await host.load("quick", "talker", folder, {})
        pid = host.pid
        os.kill(pid, signal.SIGKILL)
        seen: set[type[BaseException] | str] = set()
        while host.pid in (0, pid):
            try:
                seen.add(await said(host, "quick", "hi"))
            except DaitnError as error:
                seen.add(type(error))
        seen.add(await said(host, "quick", "hi"))
        await host.close()
        return seen

    def run() -> set[type[BaseException] | str]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(lose())

    assert await asyncio.to_thread(run) == {WorkFailed, "alto heard hi"}


async def test_a_language_model_answers_as_it_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import torch

    from daitn.learning.causal_lm import CausalLm, measuring, models
    from daitn.learning.causal_lm.settings import CausalLmConfig
    from daitn.learning.corpora.records import MultipleChoice
    from daitn.objects.choices import LETTERS, as_question

    config: dict[str, object] = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 300}
    config |= {"answer_tokens": 12, "question_tokens": 12}
    CausalLm().initialise(config, 5, tmp_path)
    speaker = CausalLm().open(tmp_path, config)
    options = ("fever", "a broken leg", "nothing at all", "rest and water")
    asked = "What is it?"
    (piece,) = speaker.answer(question(as_question(asked, options)))
    item = MultipleChoice(topic="t", label="l", question=asked, options=options, answer=0)
    model = models.load(tmp_path, CausalLmConfig.of(config))
    (pick,) = measuring.picks(model, CausalLmConfig.of(config), [item])
    assert piece.text == LETTERS[pick]
    assert math.log(0.25) <= piece.logprob <= 0.0

    # Reading token by token gives what reading everything at once gives.
    from daitn.learning.causal_lm.rows import TokenRow, tensors

    tokens = [2, 60, 61, 62, 1, 80, 81]
    rows = tensors([TokenRow(tokens, [])])
    with torch.inference_mode():
        whole = rows.hidden(model.network)[0]
        begun, memory = model.network.following(torch.tensor(tokens[:4]), None)
        steps = [begun]
        for token in tokens[4:]:
            hidden, memory = model.network.following(torch.tensor([token]), memory)
            steps.append(hidden)
    assert torch.allclose(torch.cat(steps), whole, atol=1e-5)

    first = list(speaker.answer(question("Say something")))
    assert first == list(speaker.answer(question("Say something")))
    assert sum(p.tokens for p in first) <= speaker.most_tokens == 12
    warm = [
        "".join(
            p.text
            for p in speaker.answer(
                Question(
                    messages=(Message("user", "x"),), max_tokens=12, temperature=1.0, seed=seed
                )
            )
        )
        for seed in (1, 1, 2)
    ]
    assert warm[0] == warm[1] != warm[2]
    narrow = Question(
        messages=(Message("user", "Say something"),),
        max_tokens=12,
        temperature=1.0,
        seed=5,
        top_p=1e-6,
    )
    assert "".join(p.text for p in speaker.answer(narrow)) == "".join(p.text for p in first)
    vectors = speaker.embed(["fever", "a broken leg and more", "fever"])
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-6)
    assert [sum(x * x for x in v) for v in vectors] == pytest.approx([1.0] * 3, abs=1e-5)
