"""Answers for the node's event loop: each model hosted by the site has its own process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from daitn.learning.answering.commands import Load
from daitn.learning.answering.hosted_model import AnsweringProcess, Generation, HostedModel
from daitn.learning.answering.protocol import Facts, Question, Room
from daitn.learning.memory import PROCESS_BYTES, Loading
from daitn.learning.pulse import STALL_S
from daitn.learning.recipe import Config
from daitn.learning.sandbox.linked import with_links
from daitn.learning.sandbox.policy import UNCONFINED, Limits, Sandbox
from daitn.learning.sandbox.probe import fences
from daitn.objects.errors import NotFound

__all__ = ["AnsweringHost", "Generation"]


_SIZES = 2
"""Multiple of its size that a model may take, beyond what the sandbox grants anyway: it may be held
in wider numbers than it is stored in."""


class AnsweringHost:
    """Loads models and lets them answer many questions concurrently.

    What one of them does, be it to load, to hang or to crash, holds up no other.
    """

    def __init__(
        self,
        *,
        threads: int,
        stall_s: float = STALL_S,
        sandbox: Sandbox = UNCONFINED,
        loading: Loading | None = None,
    ) -> None:
        """`threads`: per model. `stall_s`: how long a model may neither reply nor use a processor
        before it is ended. `sandbox`: the sandbox of each. `loading`: shared with whatever else
        loads models here."""
        self._sandbox = sandbox
        self._threads = threads
        self._stall_s = stall_s
        self._models: dict[str, HostedModel] = {}
        self._loading = loading or Loading()

    async def close(self) -> None:
        """End all; answers in progress fail."""
        models, self._models = self._models, {}
        await asyncio.gather(*(model.close() for model in models.values()))

    def pid(self, name: str) -> int:
        """Process id of a model's process; 0 while there is none."""
        model = self._models.get(name)
        return 0 if model is None else model.pid

    async def load(
        self,
        name: str,
        recipe: str,
        folder: Path,
        config: Config,
        *,
        size_bytes: int = 0,
        slots: int = 1,
        context_tokens: int = 0,
    ) -> Facts:
        """Load the model in `folder`, for `slots` concurrent questions of at most `context_tokens`
        each, including the answer. Returns its facts. Its process may read no data except this
        folder, and the files linked in it.

        Raises what the recipe raises, `WorkFailed`, and `StorageFull` unless there is memory for
        its `size_bytes`.
        """
        limits = self._sandbox.limits
        memory_bytes = limits.memory_bytes and limits.memory_bytes + _SIZES * size_bytes
        room = Room(memory_bytes=memory_bytes, slots=slots, context_tokens=context_tokens)
        load = Load(number=0, recipe=recipe, model=str(folder), config=dict(config), room=room)

        async def start() -> AnsweringProcess:
            return await AnsweringProcess.start(
                self._threads,
                await fences(self._sandbox),
                readable=with_links(str(folder)),
                limits=Limits(memory_bytes=memory_bytes),
                folder=self._sandbox.folder,
            )

        model = HostedModel(load, start, stall_s=self._stall_s)
        with self._loading.of(
            name,
            size_bytes + PROCESS_BYTES,
            field="facility.memory_bytes",
            fix="retire another model, or host it elsewhere",
        ):
            await model.open()
        self._models[name] = model
        return model.facts

    async def unload(self, name: str) -> None:
        """Unload a model, if it is loaded; its answers in progress fail."""
        if (model := self._models.pop(name, None)) is not None:
            await model.close()

    async def ask(self, name: str, question: Question) -> Generation:
        """Ask a model.

        Raises what the recipe raises, `WorkFailed`, `NotFound` for a model that is not loaded, and
        `InvalidInput` for a question that is too long to pass on.
        """
        return await self._loaded(name).ask(question)

    async def embed(self, name: str, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text. Raises like `ask`."""
        return await self._loaded(name).embed(texts)

    def _loaded(self, name: str) -> HostedModel:
        if (model := self._models.get(name)) is None:
            raise NotFound(f"{name} is not loaded", field="model")
        return model
