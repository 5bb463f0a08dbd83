"""A server of somebody else's: Hugging Face's `transformers serve`, with a model made here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.scenes.breast_cancer import free_port
from tests.scenes.clinic import facility, gateway

from .conftest import build
from .test_forwarders import wait_until
from .test_inference import HELLO

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

CHAT_TEMPLATE = "{% for m in messages %}<u>{{ m['content'] }}{% endfor %}<a>"


def write_model(folder: Path) -> None:
    """A Llama of 120,000 random weights."""
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<u>", "<a>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bare.train_from_iterator(["rest and water help against the fever "] * 50, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bare, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)


class Server:
    """The server's process."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = Path(sys.executable).with_name("transformers")
        options = ["--device", "cpu", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "serve", *options],
                stdout=log,
                stderr=log,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
        until_s = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except OSError:
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < until_s, self.log.read_text()
                time.sleep(0.2)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_model(tmp_path / "llama")
    started = Server(tmp_path)
    try:
        started.start()
        yield started
    finally:
        started.kill()


def test_it_answers_through_the_network(tmp_path: Path, server: Server) -> None:
    upstream = {
        "name": "llama",
        "url": f"http://127.0.0.1:{server.port}/v1",
        "model": str(tmp_path / "llama"),
        "slots": 1,
    }
    door = gateway("gate")
    network = build(tmp_path, [facility("hall", upstream), door])
    url = f"http://{door['gateway']['listen']}/v1"
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)

    def whole() -> str:
        answer = client.chat.completions.create(
            model="llama", messages=HELLO, max_tokens=8, temperature=0
        )
        assert answer.model == "llama", "what the server calls it stays at its facility"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8
        return answer.choices[0].message.content or ""

    def known() -> bool:
        return "llama" in {model.id for model in client.models.list().data}

    try:
        wait_until(known, 60)
        pieces = client.chat.completions.create(
            model="llama", messages=HELLO, max_tokens=8, temperature=0, stream=True
        )
        said = [piece.choices[0] for piece in pieces if piece.choices]
        # Of characters in several tokens, this server streams whole ones only.
        streamed = "".join(one.delta.content or "" for one in said)
        assert streamed
        assert whole().startswith(streamed)
        assert said[-1].finish_reason == "length"
        server.kill()
        with pytest.raises(openai.APIStatusError) as gone:
            whole()
        assert gone.value.status_code in (502, 503)
        server.start()

        def back() -> bool:
            try:
                return bool(whole())
            except openai.APIStatusError:
                return False

        wait_until(back, 60)
    finally:
        network.processes.stop()
