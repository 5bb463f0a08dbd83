"""Answers of a pretrained model, many concurrently: the continuous batching of transformers.

Each step reads a bounded number of tokens, of prompts and of answers alike; keys and values lie in
blocks that conversations with the same beginning share. The library decides what a step reads;
which token follows is drawn here, because every answer has its own seed and its own wishes.
"""

from __future__ import annotations

import itertools
import traceback
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from daitn.learning.causal_lm.sampling import Drawn, Sampler, draw
from daitn.objects.errors import WorkFailed

__all__ = ["Batcher", "step_tokens"]

_PAGE_TOKENS = 32
_SPARE_PAGES = 2
"""Per answer: part of its last page is empty, and one more may be begun."""


def step_tokens(device: torch.device) -> int:
    """Maximum number of tokens that one step reads, which bounds the others' wait for their next
    one."""
    return 1024 if device.type == "cuda" else 128


class _Answer:
    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.drawn: deque[Drawn] = deque()
        self.ended = False
        self.error: str | None = None


class Batcher:
    """Drives the library's batches step by step, whichever answer has its turn."""

    def __init__(self, network: Any, *, cache_tokens: int, slots: int) -> None:
        """`cache_tokens`: tokens cached for all answers together. `slots`: concurrent answers.

        Raises what the library raises where it does not know the architecture.
        """
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        pages = -(-cache_tokens // _PAGE_TOKENS) + _SPARE_PAGES * slots
        config = ContinuousBatchingConfig(
            page_size=_PAGE_TOKENS,
            num_blocks=pages,
            max_batch_tokens=step_tokens(network.device),
            max_requests_per_batch=slots,
            # Drawing a token is Python code, and cannot be part of a captured graph.
            use_cuda_graph=False,
            use_async_batching=False,
            auto_switch_to_flash=False,
            safety_margin=0.0,
        )
        self._network = network
        self._numbers = itertools.count()
        self._answers: dict[str, _Answer] = {}
        self._manager = network.init_continuous_batching(
            GenerationConfig(do_sample=False, eos_token_id=-1), config
        )
        # The library would run its own thread. Steps are taken here instead, so that they take
        # turns with everything else, and cancelled answers cost nothing.
        self._processor = self._manager._create_batch_processor()
        self._processor.model_runner._sample = self._sample

    def answer(
        self, tokens: Sequence[int], sampler: Sampler, most: int
    ) -> Generator[Drawn | None, None, None]:
        """At most `most` tokens that follow `tokens`; none for a step without any. Closing it
        cancels it. Raises `WorkFailed`."""
        name = str(next(self._numbers))
        answer = self._answers[name] = _Answer(sampler)
        self._manager.add_request(
            list(tokens), request_id=name, max_new_tokens=most, eos_token_id=sorted(sampler.ends)
        )
        try:
            while True:
                if answer.drawn:
                    yield answer.drawn.popleft()
                elif answer.error is not None:
                    raise WorkFailed(f"the model failed: {answer.error}")
                elif answer.ended:
                    return
                else:
                    self._step()
                    if not (answer.drawn or answer.ended):
                        yield None
        finally:
            del self._answers[name]
            self._manager.cancel_request(name)

    @torch.no_grad()
    def _step(self) -> None:
        processor = self._processor
        try:
            if processor.prepare_next_batch():
                processor._generation_step(self._network)
                processor.update_batch()
        except Exception as error:
            # The message may quote a query, and stays in the node's log.
            traceback.print_exc()
            # The state of the batch is unknown.
            processor.reset()
            for answer in self._answers.values():
                answer.ended, answer.error = True, type(error).__name__
        ended = self._manager.output_router.output_queue
        while not ended.empty():
            output = ended.get()
            if (failed := self._answers.get(output.request_id)) is not None:
                failed.ended, failed.error = True, output.error

    def _sample(self, scores: Tensor, chosen: Tensor) -> None:
        """Replaces the library's: draws from `scores` (1 x answers x vocabulary) into the first row
        of `chosen`."""
        batch = self._processor.inputs_and_outputs.requests_in_batch
        names = [future.state.request_id for future in batch if future.has_new_token]
        if not names:
            return
        # A cancelled answer may still be in the batch; its output is ignored.
        answers = [self._answers.get(name) for name in names]
        rows = [row for row, answer in enumerate(answers) if answer is not None]
        live = [answer for answer in answers if answer is not None]
        tokens = [0] * len(names)
        if live:
            drawn = draw(scores[0, rows], [answer.sampler for answer in live])
            for row, answer, one in zip(rows, live, drawn, strict=True):
                tokens[row] = one.token
                if one.token not in answer.sampler.ends:
                    answer.drawn.append(one)
        chosen[0, : len(tokens)].copy_(torch.tensor(tokens))
