import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from tests.scenes.waiting import PATIENCE_S, until
from tests.scenes.workers import has_ended

from daitn.learning.child.outside import ProcessFailed
from daitn.learning.recipe import Progress, Selection
from daitn.learning.trainer import Trainer
from daitn.objects.errors import InvalidInput, NotFound, WorkFailed

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def odd_recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the recipe `odd` where workers look, as pip would."""
    site = tmp_path_factory.mktemp("site")
    info = site / "odd-1.0.dist-info"
    info.mkdir()
    shutil.copy(Path(__file__).with_name("odd_recipe.py"), site)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[daitn.recipes]\nodd = odd_recipe:Odd\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trainer(odd_recipe: None) -> AsyncIterator[Trainer]:
    """One for all tests: each has to leave it usable, whatever it did to its worker."""
    trainer = Trainer(threads=1)
    await trainer.start()
    yield trainer
    await trainer.close()


async def train(
    trainer: Trainer, do: str, watch: Callable[[Progress], None] = lambda _: None, examples: int = 3
) -> int:
    nowhere = Path("/nowhere")
    trained = await trainer.train("odd", nowhere, {"do": do}, nowhere, examples, 0, nowhere, watch)
    return trained.examples


def visit_pid(trainer: Trainer) -> int:
    """The process of the visit that is under way."""
    return psutil.Process(trainer.pid).children(recursive=True)[-1].pid


async def hanging(trainer: Trainer) -> asyncio.Task[int]:
    """A training that has begun and will not end."""
    begun = asyncio.Event()
    task = asyncio.create_task(train(trainer, "hang", lambda _: begun.set()))
    async with asyncio.timeout(PATIENCE_S):
        await begun.wait()
    return task


async def gone(pid: int) -> None:
    """Wait for the end of a process; one that nobody has reaped yet has ended too."""
    await until(lambda: has_ended(pid))


async def test_every_call_reaches_the_recipe_and_brings_its_result(
    trainer: Trainer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.write_text("12345")
    assert (await trainer.inspect("odd", data)).samples == 5
    assert (await trainer.inspect_test("odd", data)).labels == {"test": 1}
    await trainer.initialise("odd", {}, 42, tmp_path)
    assert (tmp_path / "part").read_text() == "42"
    measured = await trainer.evaluate("odd", tmp_path, {}, data, "accuracy")
    assert measured.metric == "accuracy"
    assert measured.items == 1, "the engine computes on as many threads as were asked for"


async def test_every_call_has_a_process_of_its_own_and_the_worker_stays_warm(
    trainer: Trainer,
) -> None:
    warm = trainer.pid
    visits = [(await trainer.estimate("odd", {})).parameters for _ in range(50)]
    assert len(set(visits)) == 50
    assert trainer.pid == warm
    assert len(psutil.Process(warm).children(recursive=True)) == 1, "visits end"


async def test_the_probe_measures_a_plausible_speed(trainer: Trainer) -> None:
    probed = await trainer.probe()
    assert probed.speed_flops > 1e7
    assert probed.memory_bytes > 1 << 26
    assert probed.device


async def test_a_worker_that_does_not_get_on_is_ended_and_the_next_call_gets_another(
    odd_recipe: None, caplog: pytest.LogCaptureFixture
) -> None:
    impatient = Trainer(threads=1, stall_s=1.0)
    try:
        assert await train(impatient, "spin") == 3, "who computes gets on"
        stopped = impatient.pid
        with pytest.raises(WorkFailed, match="made no progress and used no processor for") as ended:
            await train(impatient, "stop")
        assert "stall_s" in ended.value.fix
        assert "killing the training worker" in caplog.text
        await gone(stopped)
        assert await train(impatient, "report") == 3
        assert impatient.pid != stopped
    finally:
        await impatient.close()


async def test_progress_arrives_in_order_before_the_result(trainer: Trainer) -> None:
    seen: list[int] = []
    assert await train(trainer, "report", lambda p: seen.append(p.examples), examples=500) == 500
    assert seen == list(range(1, 501))


async def test_cancelling_ends_the_work_at_once_and_the_next_call_works(trainer: Trainer) -> None:
    task = await hanging(trainer)
    pid, visit = trainer.pid, visit_pid(trainer)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(pid)
    await gone(visit)
    assert await train(trainer, "report") == 3
    assert trainer.pid != pid


async def test_a_watcher_that_raises_ends_the_work_and_its_error_is_not_hidden(
    trainer: Trainer,
) -> None:
    pid = trainer.pid

    def refuse(_: Progress) -> None:
        raise LookupError("nobody watches")

    with pytest.raises(LookupError):
        await train(trainer, "hang", refuse)
    await gone(pid)
    assert await train(trainer, "report") == 3


async def test_calls_take_turns_and_say_how_many_wait(trainer: Trainer) -> None:
    running = await hanging(trainer)
    queued = [asyncio.create_task(train(trainer, "report")) for _ in range(2)]
    await until(lambda: trainer.waiting == 2)
    queued[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued[0]
    assert trainer.waiting == 1
    assert not running.done(), "cancelling a queued call does not touch the one that runs"
    running.cancel()
    assert await queued[1] == 3
    assert trainer.waiting == 0


@pytest.mark.parametrize("victim", [visit_pid, lambda trainer: trainer.pid])
async def test_a_killed_worker_is_told_and_replaced(
    trainer: Trainer, victim: Callable[[Trainer], int]
) -> None:
    task = await hanging(trainer)
    visit = visit_pid(trainer)
    os.kill(victim(trainer), signal.SIGKILL)
    with pytest.raises(WorkFailed, match=r"killed by signal 9 \(SIGKILL\): out of memory\?"):
        await task
    await gone(visit)
    assert await train(trainer, "report") == 3


async def test_a_worker_that_dies_idle_is_replaced(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await trainer.start()
    pid = trainer.pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: f"training worker {pid} ended" in caplog.text)
    assert await train(trainer, "report") == 3
    assert trainer.pid != pid


async def test_the_last_words_of_a_recipe_that_exits_stay_in_the_log(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(WorkFailed, match=r"exit code 7\n"):
        await train(trainer, "leave")
    assert "the disk is on fire" in caplog.text
    assert await train(trainer, "report") == 3


async def test_what_a_recipe_prints_and_reads_does_not_touch_the_stream(trainer: Trainer) -> None:
    assert await train(trainer, "chat") == 3
    assert await train(trainer, "chat") == 3


async def test_an_error_of_ours_crosses_intact(trainer: Trainer) -> None:
    pid = trainer.pid
    with pytest.raises(InvalidInput) as caught:
        await train(trainer, "refuse")
    assert (caught.value.problem, caught.value.field, caught.value.fix) == (
        "a bad row",
        "age",
        "correct row 3",
    )
    with pytest.raises(NotFound, match="'od' is not installed"):
        await trainer.estimate("od", {})
    assert trainer.pid == pid, "an error is no reason for a new worker"


async def test_any_other_error_crosses_without_its_traceback(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(WorkFailed) as caught:
        await train(trainer, "trip")
    assert caught.value.problem == "a recipe failed: KeyError", "its words may be a record's"
    assert "odd_recipe.py" not in str(caught.value)
    assert "odd_recipe.py" in caplog.text, "the node's log says where"
    assert "no such layer" in caplog.text


@pytest.mark.parametrize(
    ("do", "complaint"),
    [
        ("babble", "sent a malformed reply"),
        ("mumble", "sent a malformed reply"),
        ("hush", "closed its output"),
        pytest.param("stall", "began a reply and did not end it", marks=pytest.mark.slow),
    ],
)
async def test_a_visit_that_talks_nonsense_is_ended(
    do: str, complaint: str, trainer: Trainer
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(WorkFailed, match=complaint):
            await train(trainer, do)
    assert len(psutil.Process(trainer.pid).children(recursive=True)) == 1
    assert await train(trainer, "report") == 3


@pytest.mark.parametrize("do", ["disguise", "quote"])
async def test_a_recipe_cannot_pass_its_words_off_as_the_worker_s(
    do: str, trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ProcessFailed) as caught:
            await train(trainer, do)
    assert "patient" not in f"{caught.value} {caught.value.field}", "these words leave the site"
    assert await train(trainer, "report") == 3


async def test_what_a_visit_says_after_its_answer_is_no_answer_to_the_next_call(
    trainer: Trainer,
) -> None:
    assert await train(trainer, "forge", examples=9) == 1, "what it said first is its answer"
    assert await train(trainer, "report", examples=5) == 5


async def test_a_recipe_that_returns_something_else_fails(trainer: Trainer) -> None:
    with pytest.raises(WorkFailed, match="a recipe returned no Footprint"):
        await trainer.estimate("odd", {"give": [1, 2]})


async def test_a_selection_is_never_left_aside(trainer: Trainer, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("x,secret,ill\n" + "".join(f"{n},{n},{n % 2}\n" for n in range(20)))
    selection = Selection(label="ill", ignore=("secret",))
    for call in (trainer.inspect, trainer.inspect_test):
        assert (await call("classifier", data, selection)).columns == ("x",)
        with pytest.raises(InvalidInput, match="cannot limit which columns"):
            await call("odd", data, selection)
    config = {"classes": ["0", "1"]}
    for name in ("fresh", "out"):
        (tmp_path / name).mkdir()
    await trainer.initialise("classifier", config, 0, tmp_path / "fresh")
    arguments = (tmp_path / "fresh", config, data, 20, 0, tmp_path / "out", lambda _: None)
    await trainer.train("classifier", *arguments, selection=selection)
    assert b"secret" not in (tmp_path / "out" / "features.json").read_bytes()
    with pytest.raises(InvalidInput, match="unexpected: secret"):
        await trainer.evaluate(
            "classifier", tmp_path / "out", config, data, "accuracy", Selection(label="ill")
        )
    measured = await trainer.evaluate(
        "classifier", tmp_path / "out", config, data, "accuracy", selection
    )
    assert measured.items == 20
    with pytest.raises(InvalidInput, match="cannot limit which columns"):
        await trainer.evaluate("odd", tmp_path, {}, data, "accuracy", selection)


async def test_two_workers_train_the_same_model_from_the_same_arguments(tmp_path: Path) -> None:
    config: dict[str, object] = {"classes": ["low", "high"], "hidden": [64]}
    data = tmp_path / "data.csv"
    rows = [f"{n % 17},{n % 5},{'high' if n % 17 > 8 else 'low'}" for n in range(200)]
    data.write_text("\n".join(["x,y,label", *rows]))
    models: list[dict[str, bytes]] = []
    for number in range(2):
        fresh, out = tmp_path / f"fresh-{number}", tmp_path / f"out-{number}"
        fresh.mkdir()
        out.mkdir()
        trainer = Trainer(threads=2)
        await trainer.initialise("classifier", config, 3, fresh)
        await trainer.train("classifier", fresh, config, data, 2000, 4, out, lambda _: None)
        measured = await trainer.evaluate("classifier", out, config, data, "accuracy")
        await trainer.close()
        assert measured.value > 0.9
        models.append({part.name: part.read_bytes() for part in out.iterdir()})
    assert models[0] == models[1]


async def test_closing_ends_the_running_call_and_refuses_more(odd_recipe: None) -> None:
    trainer = Trainer(threads=1)
    task = await hanging(trainer)
    await trainer.close()
    with pytest.raises(WorkFailed, match="killed by its node"):
        await task
    with pytest.raises(WorkFailed, match="stopped training"):
        await trainer.estimate("odd", {})


async def test_the_worker_ends_when_its_input_does() -> None:
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "daitn.learning.worker", "--threads", "1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert worker.stdin is not None
    worker.stdin.close()
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()


@pytest.mark.parametrize("state", ["idle", "busy"])
async def test_the_worker_dies_with_its_node(state: str, odd_recipe: None) -> None:
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NODE, state, stdout=subprocess.PIPE
    )
    assert node.stdout is not None
    try:
        pid = int(await node.stdout.readline())
        assert psutil.pid_exists(pid)
        assert await node.stdout.readline() == f"{state}\n".encode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            node.kill()
        await node.wait()
    await gone(pid)


NODE = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from daitn.learning.trainer import Trainer

    async def main():
        trainer = Trainer(threads=1)
        await trainer.start()
        print(trainer.pid, flush=True)
        nowhere = Path("/nowhere")
        if sys.argv[1] == "idle":
            print("idle", flush=True)
            await asyncio.sleep(600)
        await trainer.train("odd", nowhere, {"do": "hang"}, nowhere, 1, 0, nowhere,
                            lambda _: print("busy", flush=True))

    asyncio.run(main())
    """
)
