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
from tests.scenes.waiting import PATIENCE_S, until
from tests.scenes.workers import children_of

from daitn.learning.answering.host import AnsweringHost
from daitn.learning.answering.hosted_model import AnsweringProcess
from daitn.learning.answering.protocol import Generator, Message, Piece, Question
from daitn.learning.child.outside import ProcessFailed
from daitn.objects.errors import (
    DaitnError,
    InvalidInput,
    NotFound,
    QuestionFailed,
    StorageFull,
    WorkFailed,
)

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
    """One for all tests: each has to leave it usable, whatever it did to its processes."""
    host = AnsweringHost(threads=1)
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


def pieces(generator: Generator, asked: Question) -> list[Piece]:
    return [piece for piece in generator.answer(asked) if piece is not None]


async def restarted(host: AnsweringHost, model: str, before: int) -> int:
    """Id of the process that came after the one with the id `before`."""
    async with asyncio.timeout(PATIENCE_S):
        while host.pid(model) in (0, before):  # noqa: ASYNC110 - no event tells of another process
            await asyncio.sleep(0.02)
    return host.pid(model)


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
    # Long ones are embedded fewer at a time.
    long = ["x" * 10_000, "text", "x" * 100_000, *["x" * 5_000] * 4]
    assert await host.embed("quick", long) == [[float(len(text)), 1.0] for text in long]
    before = int((await said(host, "slow", "status")).split()[1])
    given_up = asyncio.create_task(host.embed("slow", ["text"] * 100_000))
    assert await said(host, "quick", "hi") == "alto heard hi"
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    embedded = int((await said(host, "slow", "status")).split()[1]) - before
    assert embedded < 100_000
    assert int((await said(host, "slow", "status")).split()[1]) - before == embedded


async def test_what_a_recipe_raises_reaches_who_asked_and_nobody_else(host: AnsweringHost) -> None:
    pid = host.pid("quick")
    other = asyncio.create_task(said(host, "slow", "count 30"))
    with pytest.raises(InvalidInput, match="not that"):
        await said(host, "quick", "refuse")
    with pytest.raises(QuestionFailed, match="failed at this question: KeyError\n"):
        await said(host, "quick", "trip")
    with pytest.raises(NotFound, match="nobody is not loaded"):
        await said(host, "nobody", "hi")
    assert (await other).endswith("29 ")
    assert host.pid("quick") == pid


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
    before = _processes()
    loading = asyncio.create_task(host.load("guest", "talker", folder, {"load": "hang"}))
    async with asyncio.timeout(PATIENCE_S):
        while _processes() == before:  # noqa: ASYNC110 - nothing tells that it is under way
            await asyncio.sleep(0.02)
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)
    assert _processes() == before
    with pytest.raises(NotFound, match="guest"):
        await said(host, "guest", "hi")


async def test_what_one_model_does_holds_up_no_other(host: AnsweringHost, folder: Path) -> None:
    """Neither loading nor reading a question nor an endless step."""
    loading = asyncio.create_task(host.load("guest", "talker", folder, {"load": "hang"}))
    reading = asyncio.create_task(said(host, "slow", "ponder"))
    await host.load("stuck", "talker", folder, {})
    stuck = asyncio.create_task(said(host, "stuck", "hang"))
    for _ in range(100):
        assert await said(host, "quick", "hi") == "alto heard hi"
    assert not any(task.done() for task in (loading, reading, stuck))
    before = host.pid("slow")
    os.kill(before, signal.SIGKILL)
    await host.unload("stuck")
    loading.cancel()
    for error in await asyncio.gather(loading, reading, stuck, return_exceptions=True):
        assert isinstance(error, WorkFailed | asyncio.CancelledError)
    await restarted(host, "slow", before)


@pytest.mark.parametrize("end", ["killed", "died"])
async def test_a_lost_process_fails_what_is_under_way_and_is_replaced_with_its_model(
    host: AnsweringHost, end: str
) -> None:
    before, others = host.pid("slow"), host.pid("quick")
    answer = await host.ask("slow", question("count 1000"))
    await anext(answer.pieces)
    waiting = asyncio.create_task(said(host, "slow", "count 1000"))
    if end == "killed":
        os.kill(before, signal.SIGKILL)
    else:
        with pytest.raises(WorkFailed, match="ended during a query"):
            await said(host, "slow", "die")
    with pytest.raises(WorkFailed):
        async for _ in answer.pieces:
            pass
    with pytest.raises(WorkFailed):
        await waiting
    # Who asks meanwhile waits for the next one.
    assert await said(host, "slow", "hi") == "alto heard hi"
    assert await restarted(host, "slow", before) != before
    assert await said(host, "quick", "hi") == "alto heard hi"
    assert host.pid("quick") == others


async def test_a_process_that_hangs_is_replaced(folder: Path) -> None:
    host = AnsweringHost(threads=1, stall_s=1.0)
    try:
        await host.load("quick", "talker", folder, {})
        await asyncio.sleep(1.5)
        before = host.pid("quick")
        assert await said(host, "quick", "hi") == "alto heard hi", "to be idle is not to hang"
        with pytest.raises(WorkFailed):
            await said(host, "quick", "hang")
        assert await said(host, "quick", "hi") == "alto heard hi"
        assert host.pid("quick") != before
        with pytest.raises(WorkFailed):
            await host.load("guest", "talker", folder, {"load": "hang"})
    finally:
        await host.close()


async def test_who_works_without_a_word_does_not_hang(folder: Path) -> None:
    """It is told from one that hangs by its steps, and by the processor that it uses."""
    host = AnsweringHost(threads=1, stall_s=1.0)
    try:
        await host.load("quick", "talker", folder, {"load": "reckon"})
        before = host.pid("quick")
        assert await said(host, "quick", "hum") == "hm"
        assert host.pid("quick") == before
    finally:
        await host.close()


async def test_a_model_without_memory_for_it_is_not_begun(
    host: AnsweringHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daitn.learning.memory.free_bytes", lambda: 4 << 30)
    before = _processes()
    with pytest.raises(StorageFull, match="bytes of memory, but 4294967296 are free"):
        await host.load("guest", "talker", folder, {}, size_bytes=4 << 30)
    assert _processes() == before
    # What is being loaded will take its memory, and a load that ended gives it back.
    half = {"size_bytes": 2 << 30}
    loading = asyncio.create_task(host.load("one", "talker", folder, {"load": "hang"}, **half))
    await asyncio.sleep(0)
    with pytest.raises(StorageFull):
        await host.load("two", "talker", folder, {}, **half)
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)
    await host.load("two", "talker", folder, {}, **half)
    await host.unload("two")


async def test_a_model_that_ends_its_process_is_not_loaded_again(
    host: AnsweringHost, folder: Path
) -> None:
    before = host.pid("quick")
    with pytest.raises(WorkFailed):
        await host.load("poison", "talker", folder, {"load": "die"})
    assert await said(host, "quick", "hi") == "alto heard hi"
    with pytest.raises(NotFound, match="poison"):
        await said(host, "poison", "hi")
    assert host.pid("quick") == before


async def test_who_asks_a_model_that_cannot_be_loaded_again_is_told(tmp_path: Path) -> None:
    (tmp_path / "voice").write_text("alto")
    host = AnsweringHost(threads=1)
    try:
        await host.load("quick", "talker", tmp_path, {})
        (tmp_path / "voice").unlink()
        waiting = asyncio.create_task(said(host, "quick", "ponder"))
        await asyncio.sleep(0)
        os.kill(host.pid("quick"), signal.SIGKILL)
        with pytest.raises(WorkFailed, match="ended during"):
            await waiting
        with pytest.raises(WorkFailed, match="stopped answering"):
            await said(host, "quick", "hi")
    finally:
        await host.close()


async def test_a_closed_host_lets_nobody_wait(folder: Path) -> None:
    host = AnsweringHost(threads=1)
    await host.load("slow", "talker", folder, {"pause_s": 0.01})
    waiting = asyncio.create_task(said(host, "slow", "count 1000"))
    await asyncio.sleep(0)
    os.kill(host.pid("slow"), signal.SIGKILL)
    with pytest.raises(WorkFailed):
        await waiting
    waiting = asyncio.create_task(said(host, "slow", "hi"))
    await asyncio.sleep(0)
    await host.close()
    with pytest.raises(WorkFailed, match="stopped answering"):
        await waiting
    with pytest.raises(NotFound, match="slow is not loaded"):
        await said(host, "slow", "hi")


async def test_a_child_of_uvloop_can_be_lost_as_well(folder: Path) -> None:
    async def lose() -> set[type[BaseException] | str]:
        host = AnsweringHost(threads=1)
        await host.load("quick", "talker", folder, {})
        pid = host.pid("quick")
        os.kill(pid, signal.SIGKILL)
        seen: set[type[BaseException] | str] = set()
        while host.pid("quick") in (0, pid):
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


async def test_a_message_to_a_child_that_is_gone_is_no_error_of_its_own() -> None:
    """Not on the loop that nodes use, either: `receive` tells."""

    async def talk() -> None:
        child = await AnsweringProcess.start(threads=1)
        os.kill(child.pid, signal.SIGKILL)
        await until(child._requests.is_closing)
        await asyncio.sleep(0.05)
        await child.send(question("hi", 1))
        with pytest.raises(ProcessFailed):
            await child.receive()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(talk())

    await talk()
    await asyncio.to_thread(run)


def _processes() -> int:
    """How many models have processes."""
    module = ["-m", "daitn.learning.answering.worker"]
    return sum(command[2:4] == module for _, command in children_of())


async def test_a_language_model_answers_as_it_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import torch

    from daitn.learning.causal_lm import CausalLm, evaluation, models
    from daitn.learning.causal_lm.settings import CausalLmConfig
    from daitn.learning.corpora.records import MultipleChoice
    from daitn.objects.choices import LETTERS, as_question

    config: dict[str, object] = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 300}
    config |= {"answer_tokens": 12, "question_tokens": 12}
    CausalLm().initialise(config, 5, tmp_path)
    speaker = CausalLm().open(tmp_path, config)
    options = ("fever", "a broken leg", "nothing at all", "rest and water")
    asked = "What is it?"
    (piece,) = pieces(speaker, question(as_question(asked, options)))
    item = MultipleChoice(topic="t", label="l", question=asked, options=options, answer=0)
    model = models.load(tmp_path, CausalLmConfig.of(config))
    (pick,) = evaluation.picks(model, CausalLmConfig.of(config), [item])
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

    first = pieces(speaker, question("Say something"))
    assert first == pieces(speaker, question("Say something"))
    # What it sees when it is trained: a question, an answer and two marks.
    assert speaker.most_tokens == 26
    assert sum(p.tokens for p in first) == 26 - speaker.length(question("Say something"))
    warm = [
        "".join(
            p.text
            for p in pieces(
                speaker,
                Question(
                    messages=(Message("user", "x"),), max_tokens=12, temperature=1.0, seed=seed
                ),
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
    assert "".join(p.text for p in pieces(speaker, narrow)) == "".join(p.text for p in first)
    vectors = speaker.embed(["fever", "a broken leg and more", "fever"])
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-6)
    assert [sum(x * x for x in v) for v in vectors] == pytest.approx([1.0] * 3, abs=1e-5)
