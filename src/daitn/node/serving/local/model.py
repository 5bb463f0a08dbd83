"""A facility's own model as a deployment: started, watched and restarted."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from daitn.files.state_folder import NodeState
from daitn.learning.answering.host import AnsweringHost
from daitn.learning.consultant import Consultant
from daitn.learning.memory import Loading
from daitn.learning.pulse import Pulse, processor_s
from daitn.node.config import Engine, ModelConfig, NodeConfig, OfferedConfig, UpstreamConfig
from daitn.node.serving.admission import AdmissionQueue
from daitn.node.serving.backends.embedded import EmbeddedBackend, engine_of, warm_up
from daitn.node.serving.backends.openai_server import OpenAiBackend, described
from daitn.node.serving.backends.protocol import Backend
from daitn.node.serving.backends.server_facts import NO_FACTS, ServerFacts
from daitn.node.serving.local.choosing import (
    FIX_FOR_ROOM,
    KEY_VARIABLES,
    EnginePlan,
    chosen,
    field_of,
)
from daitn.node.serving.local.folder import parts_of
from daitn.node.serving.local.process import ServerProcess
from daitn.node.serving.request import ServingRequest
from daitn.objects.deployments import Api, DeploymentDescriptor, DeploymentState, Runtime
from daitn.objects.errors import DaitnError, InvalidInput, NotFound, WorkFailed
from daitn.objects.text import hanging
from daitn.openai.errors import ApiError
from daitn.tools.http import HttpClient, HttpError, Reply, Request, read_address
from daitn.tools.ports import free_port
from daitn.tools.tasks import Tasks

__all__ = ["LocalModel"]

log = logging.getLogger(__name__)

RECIPE = "causal-lm"
"""The recipe whose engine runs folders."""
PAUSE_S, MOST_PAUSE_S = 1.0, 300.0
"""Pauses between a server's end and the next start; doubled while the model cannot be started,
which takes a machine's disk and memory each time."""
STEADY_S = 60.0
"""After being ready for this long, it is restarted after the shortest pause."""
LOOKS_EVERY_S = 0.2
"""Polling interval of a server that loads its model."""
SLOWEST_LOAD_BPS = 50e6
"""A disk's speed: a server with much to read may be silent for that much longer."""
_HEALTH_WITHIN_S = 3.0
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
"""Servers find the model locally, and report to nobody."""


class _Running(NamedTuple):
    """What currently answers for a model."""

    backend: Backend
    ended: Callable[[], Awaitable[WorkFailed]]
    """Waits until it no longer does; returns why."""


class LocalModel:
    """See `Backend`. It calls `changed` when its descriptor changes.

    What runs it is chosen anew at each start. If nothing can, for instance for lack of memory, the
    log says why, and it is tried again later.
    """

    def __init__(
        self,
        config: ModelConfig,
        node: NodeConfig,
        host: AnsweringHost,
        recipes: Consultant,
        loading: Loading,
        changed: Callable[[], None],
    ) -> None:
        """`host` runs folders without a server, with the knowledge of `recipes`. `loading`: other
        models being loaded here."""
        self._config = config
        self._node = node
        self._host = host
        self._recipes = recipes
        self._loading = loading
        self._changed = changed
        self._folder = Path(node.state) / NodeState.OWN_MODELS / config.name
        self._state = DeploymentState.LOADING
        self._backend: Backend | None = None
        entry = _entry(config, config.apis or (Api.CHAT,), config.slots or 1)
        self.admission = AdmissionQueue(entry.slots, entry.queue)
        self._last = described(entry, node.owner, NO_FACTS, self._state)
        self._engine = ""
        self.pid = 0
        """Process id of its server's keeper; 0 while there is none."""
        self._tasks = Tasks()

    @property
    def descriptor(self) -> DeploymentDescriptor:
        """See `Backend.descriptor`."""
        if self._backend is None:
            return msgspec.structs.replace(self._last, state=self._state)
        now = self._backend.descriptor
        self._last = msgspec.structs.replace(now, engine=now.engine or self._engine)
        return self._last

    async def answer(self, request: Request, query: ServingRequest, waited_s: float) -> Reply:
        """See `Backend.answer`."""
        if (backend := self._backend) is None:
            message = f"{self._config.name} is {self._state}"
            raise ApiError(503, "unavailable", message, retry_after_s=PAUSE_S)
        return await backend.answer(request, query, waited_s)

    def start(self) -> None:
        """Start it, and restart it whenever it ends."""
        self._tasks.spawn(self._keep_running(), f"model {self._config.name}")

    async def close(self) -> None:
        """End its processes."""
        await self._tasks.close()

    async def _keep_running(self) -> None:
        pause_s, name = PAUSE_S, self._config.name
        while True:
            state = DeploymentState.FAILED
            try:
                plan = await asyncio.to_thread(chosen, self._config, self._node.threads)
                log.info("model %s is run by %s: %s", name, plan.described, plan.why)
                run = self._in_engine if plan.engine is Engine.TRANSFORMERS else self._by_server
                async with run(plan) as running:
                    self._set(DeploymentState.READY, running.backend)
                    ready_s, state = time.monotonic(), DeploymentState.LOADING
                    log.info("model %s is ready: %s", name, self._words())
                    try:
                        raise await running.ended()
                    finally:
                        if time.monotonic() - ready_s >= STEADY_S:
                            pause_s = PAUSE_S
                        self._set(state)  # Ending it may take a while.
            except Exception as error:
                expected = isinstance(error, DaitnError | OSError)
                log.error(
                    "model %s does not run, the next try follows in %.0f s: %s",
                    name,
                    pause_s,
                    hanging(str(error)),
                    exc_info=None if expected else error,
                )
            self._set(state)
            await asyncio.sleep(pause_s)
            pause_s = min(2.0 * pause_s, MOST_PAUSE_S)

    def _set(self, state: DeploymentState, backend: Backend | None = None) -> None:
        if (state, backend) != (self._state, self._backend):
            self._state, self._backend = state, backend
            self._changed()

    def _words(self) -> str:
        descriptor = self.descriptor
        words = (
            descriptor.engine,
            f"{', '.join(descriptor.apis)}",
            f"context of {descriptor.context_tokens} tokens",
            f"up to {descriptor.slots} answers at once",
        )
        return "; ".join(words)

    def _planned(self, plan: EnginePlan, apis: tuple[Api, ...]) -> UpstreamConfig:
        """The model's entry, in the form of an upstream server's."""
        entry = _entry(self._config, apis, plan.slots)
        self._engine = plan.described
        if self.admission.slots != entry.slots:
            self.admission = AdmissionQueue(entry.slots, entry.queue)
        return entry

    @asynccontextmanager
    async def _by_server(self, plan: EnginePlan) -> AsyncIterator[_Running]:
        """Run a server, wait until it is ready, and end it."""
        assert self._node.facility is not None
        port, key = free_port(), secrets.token_urlsafe(32)
        environment = {**_ENVIRONMENT, **dict.fromkeys(KEY_VARIABLES, key)}
        entry = msgspec.structs.replace(
            self._planned(plan, plan.apis), url=f"http://127.0.0.1:{port}/v1"
        )
        async with AsyncExitStack() as stack:
            with self._memory(plan.memory_bytes):
                process = await ServerProcess.start(plan.command(port), environment, self._folder)
                stack.push_async_callback(process.stop)
                self.pid = process.pid
                await self._until_well(process, entry.url, plan)
            backend = OpenAiBackend(
                entry,
                self._node.owner,
                self._changed,
                self._node.facility.max_answer_bytes,
                key=key,
                admission=self.admission,
            )
            stack.push_async_callback(backend.close)
            await backend.start()
            yield _Running(backend, lambda: self._end_of(process, backend))

    def _memory(self, needed_bytes: int) -> AbstractContextManager[None]:
        """Reserve the memory for loading. Raises `StorageFull`."""
        field = field_of(self._config, "gguf" if self._config.gguf else "folder")
        return self._loading.of(self._config.name, needed_bytes, field=field, fix=FIX_FOR_ROOM)

    async def _until_well(self, process: ServerProcess, url: str, plan: EnginePlan) -> None:
        """Raises `WorkFailed` if it ends, or shows no sign of life for too long: prints nothing and
        uses no processor."""
        stall_s = self._node.stall_s + plan.size_bytes / SLOWEST_LOAD_BPS
        pulse = Pulse(time.monotonic(), processor_s(process.pid, below=1), stall_s=stall_s)
        look_at_s, lines = time.monotonic() + pulse.every_s, process.lines
        client = HttpClient(connect_timeout_s=_HEALTH_WITHIN_S, keepalive_s=0.0)
        ended = asyncio.create_task(process.ended())
        try:
            while not await _is_well(client, url):
                await asyncio.wait({ended}, timeout=LOOKS_EVERY_S)
                if ended.done():
                    raise self._failed(process, ended.result())
                if process.lines != lines:
                    lines = process.lines
                    pulse.progressed()
                if (now_s := time.monotonic()) >= look_at_s:
                    look_at_s = now_s + pulse.every_s
                    if why := pulse.check(now_s, processor_s(process.pid, below=1)):
                        raise self._failed(process, why)
        finally:
            ended.cancel()
            client.close()

    async def _end_of(self, process: ServerProcess, backend: OpenAiBackend) -> WorkFailed:
        """Wait until a server ends or hangs: does not answer, and uses no processor."""
        pulse = Pulse(time.monotonic(), 0.0, stall_s=self._node.stall_s)
        ended = asyncio.create_task(process.ended())
        try:
            while True:
                await asyncio.wait({ended}, timeout=pulse.every_s)
                if ended.done():
                    return self._failed(process, ended.result())
                if backend.descriptor.state is DeploymentState.READY:
                    pulse.progressed()
                    continue
                used_s = await asyncio.to_thread(processor_s, process.pid, below=1)
                if why := pulse.check(time.monotonic(), used_s):
                    return self._failed(process, why)
        finally:
            ended.cancel()

    def _failed(self, process: ServerProcess, how: str) -> WorkFailed:
        output = f", after it said:\n{process.tail}" if process.tail else ""
        return WorkFailed(f"its server {how}{output}", fix=f"see {process.log}")

    @asynccontextmanager
    async def _in_engine(self, plan: EnginePlan) -> AsyncIterator[_Running]:
        """Load a folder with the recipe's engine, like models trained by the network."""
        if RECIPE not in self._recipes.recipes:
            raise NotFound(
                f"the recipe {RECIPE} cannot be used here",
                field=field_of(self._config, "backend"),
                fix="`pip install 'daitn[train]'` in the node's Python, or vLLM on a machine with "
                "a GPU; and if the file has `recipes`, name it there",
            )
        of_recipe = self._recipes.facts(RECIPE)
        if unknown := set(plan.apis) - set(of_recipe.apis):
            raise InvalidInput(
                f"the recipe {RECIPE} does not answer {', '.join(sorted(unknown))}",
                field=field_of(self._config, "apis"),
                fix="leave it out, or state `backend: vllm`",
            )
        loaded_as = f"{self._config.name} of its own"  # Not the name of a placed model.
        parts = await parts_of(
            Path(self._config.folder),
            self._folder,
            RECIPE,
            plan.size_bytes,
            self._node.recipe_sandbox,
            self._node.threads,
            self._memory(plan.memory_bytes),
        )
        facts = await self._host.load(
            loaded_as,
            RECIPE,
            parts.folder,
            parts.config,
            size_bytes=parts.size_bytes,
            slots=plan.slots,
            context_tokens=self._config.context_tokens or 0,
        )
        try:
            await warm_up(self._host, loaded_as)
            able = of_recipe.abilities
            stated = ServerFacts(
                context_tokens=facts.context_tokens,
                reads=able.reads,
                says=able.says,
                tools="tools" in facts.honours,
                json_schema=able.json_schema,
            )
            entry = self._planned(plan, plan.apis or of_recipe.apis)
            entry = msgspec.structs.replace(entry, context_tokens=facts.context_tokens)
            descriptor = msgspec.structs.replace(
                described(entry, self._node.owner, stated, DeploymentState.READY),
                runtime=Runtime.EMBEDDED,
                deterministic=facts.deterministic,
                engine=engine_of(facts),
            )
            backend = EmbeddedBackend(descriptor, loaded_as, self._host, self.admission, facts)
            # Its process is replaced within the host.
            yield _Running(backend, asyncio.Future)
        finally:
            await self._host.unload(loaded_as)


def _entry(config: ModelConfig, apis: tuple[Api, ...], slots: int) -> UpstreamConfig:
    stated = {name: getattr(config, name) for name in OfferedConfig.__struct_fields__}
    return UpstreamConfig(**stated, name=config.name, url="", apis=apis, slots=slots)


async def _is_well(client: HttpClient, url: str) -> bool:
    """Whether a server reports that it is ready: not while it loads its model."""
    address = read_address(url.removesuffix("/v1"))
    try:
        answer = await client.request(
            "GET", address, "/health", {}, silence_timeout_s=_HEALTH_WITHIN_S
        )
    except HttpError:
        return False
    answer.close()
    return answer.status == 200
