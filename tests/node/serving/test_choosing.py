"""What runs a model of the facility's own, by what it is and what is there."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from daitn.learning import gpus, memory
from daitn.node.config import Engine, ModelConfig
from daitn.node.serving.local.choosing import EnginePlan, chosen
from daitn.node.serving.local.gguf import read_gguf
from daitn.objects.deployments import Api
from daitn.objects.errors import Corrupt, DaitnError, InvalidInput, NotFound, StorageFull

GIB = 1 << 30
Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Has programs, Python packages, GPUs with so much memory free, and main memory."""
    real = importlib.util.find_spec

    def make(*there: str, gpu: tuple[int, ...] = (), free: int = 64 * GIB) -> None:
        programs = tmp_path / "bin"
        programs.mkdir(exist_ok=True)
        for name in there:
            if name != "xllamacpp":
                (programs / name).write_text("#!/bin/sh\n")
                (programs / name).chmod(0o755)

        def found(name: str) -> ModuleSpec | None:
            if name not in ("xllamacpp", "vllm"):
                return real(name)
            return ModuleSpec(name, None) if name in there else None

        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.setattr("sys.executable", str(programs / "python"))
        monkeypatch.setattr(importlib.util, "find_spec", found)
        monkeypatch.setattr(gpus, "free_bytes", lambda: gpu)
        monkeypatch.setattr(gpus, "has_gpu", lambda: False)
        monkeypatch.setattr(memory, "free_bytes", lambda: free)

    return make


def write_head(path: Path, kind: str = "llama", **more: Callable[[Any], None]) -> Path:
    """The head of a file, of 32 layers of 8 heads of 128 that read 8,192 tokens: 128 KiB each."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(8192)
    writer.add_block_count(32)
    writer.add_embedding_length(4096)
    writer.add_head_count(32)
    writer.add_head_count_kv([8] * 32)
    writer.add_token_list(["a", "b"])
    for add in more.values():
        add(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def pooling(name: str) -> Callable[[Any], None]:
    return lambda writer: writer.add_pooling_type(
        getattr(importlib.import_module("gguf").PoolingType, name)
    )


def write_folder(folder: Path, architecture: str = "LlamaForCausalLM", **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(bytes(1000))
    return folder


def plan(**stated: Any) -> EnginePlan:
    for key in stated.keys() & {"gguf", "folder"}:
        stated[key] = str(stated[key])
    return chosen(ModelConfig(name="m", **stated), threads=2)


def test_a_file_is_run_by_what_is_there(tmp_path: Path, machine: Machine) -> None:
    file = write_head(tmp_path / "m.gguf")
    machine("xllamacpp")
    assert plan(gguf=file).engine is Engine.XLLAMACPP
    machine("xllamacpp", "llama-server")
    assert plan(gguf=file).engine is Engine.XLLAMACPP
    assert plan(gguf=file, options=("--flash-attn", "on")).engine is Engine.LLAMA_SERVER
    assert plan(gguf=file, backend=Engine.LLAMA_SERVER).engine is Engine.LLAMA_SERVER
    machine("xllamacpp", "llama-server", gpu=(GIB,))
    assert plan(gguf=file).engine is Engine.LLAMA_SERVER
    machine("llama-server")
    assert plan(gguf=file).engine is Engine.LLAMA_SERVER


def test_nothing_for_a_file_is_said_with_what_to_install(tmp_path: Path, machine: Machine) -> None:
    file = write_head(tmp_path / "m.gguf")
    machine()
    (tmp_path / "bin" / "llama-server").unlink(missing_ok=True)
    with pytest.raises(NotFound, match="xllamacpp is not installed") as absent:
        plan(gguf=file)
    assert "pip install 'daitn[gguf]'" in absent.value.fix
    assert absent.value.field == "facility.models[m].backend"
    with pytest.raises(NotFound, match="no llama-server on PATH"):
        plan(gguf=file, backend=Engine.LLAMA_SERVER)
    machine("xllamacpp")
    with pytest.raises(InvalidInput, match="takes no arguments"):
        plan(gguf=file, options=("--flash-attn",))


def test_llama_server_gets_the_model_and_its_bounds(tmp_path: Path, machine: Machine) -> None:
    file = write_head(tmp_path / "m.gguf")
    machine("llama-server")
    command = plan(gguf=file, slots=2, context_tokens=1024, options=("--mlock",)).command(1234)
    assert command == (
        *(str(tmp_path / "bin" / "llama-server"), "--model", str(file), "--alias", "m"),
        *("--host", "127.0.0.1", "--port", "1234", "--ctx-size", "2048", "--parallel", "2"),
        *("--threads", "2", "--jinja", "--mlock"),
    )


def test_what_is_embedded_is_read_in_one_batch(tmp_path: Path, machine: Machine) -> None:
    file = write_head(tmp_path / "m.gguf")
    machine("llama-server")
    for context, batch in ((64, "512"), (2048, "2048"), (8192, "8192"), (32768, "8192")):
        stated = plan(gguf=file, context_tokens=context, apis=(Api.EMBEDDINGS,)).command(1)
        assert stated[stated.index("--batch-size") + 1] == batch
        assert stated[stated.index("--ubatch-size") + 1] == batch
    assert "--batch-size" not in plan(gguf=file, context_tokens=2048).command(1)
    machine("xllamacpp")
    settings = json.loads(plan(gguf=file, context_tokens=2048, apis=(Api.RERANK,)).command(1)[-1])
    assert settings["batch"] == 2048


def test_the_context_is_what_the_model_reads_as_far_as_there_is_memory(
    tmp_path: Path, machine: Machine
) -> None:
    file = write_head(tmp_path / "m.gguf")
    facts = read_gguf(file, "gguf")
    assert facts.context_tokens == 8192
    assert facts.per_token_bytes == 128 << 10
    machine("xllamacpp")
    settings = json.loads(plan(gguf=file).command(1)[-1])
    assert settings["context"] == 4 * 8192
    machine("xllamacpp", free=2 * GIB)
    settings = json.loads(plan(gguf=file).command(1)[-1])
    assert 4 * 1024 < settings["context"] < 4 * 2048
    machine("xllamacpp", free=GIB // 2)
    with pytest.raises(StorageFull, match="bytes would be left for 4 answers"):
        plan(gguf=file)
    machine("llama-server", gpu=(40 * GIB,), free=GIB // 2)
    on_gpu = plan(gguf=file)
    assert on_gpu.memory_bytes < GIB // 2, "its GPU holds it"


def test_a_file_that_embeds_is_served_for_that(tmp_path: Path, machine: Machine) -> None:
    machine("xllamacpp")
    pooled = write_head(tmp_path / "m.gguf", add=pooling("MEAN"))
    assert plan(gguf=pooled).apis == (Api.EMBEDDINGS,)
    bert = write_head(tmp_path / "b.gguf", "nomic-bert")
    assert plan(gguf=bert).apis == (Api.EMBEDDINGS,)
    usual = write_head(tmp_path / "u.gguf")
    assert plan(gguf=usual).apis == (Api.CHAT, Api.COMPLETIONS)
    settings = json.loads(plan(gguf=usual, apis=(Api.CHAT, Api.EMBEDDINGS)).command(1)[-1])
    assert (settings["embeddings"], settings["pools"]) == (True, False)


def test_a_file_that_ranks_is_served_for_that(tmp_path: Path, machine: Machine) -> None:
    machine("xllamacpp")
    ranker = write_head(tmp_path / "r.gguf", add=pooling("RANK"))
    found = plan(gguf=ranker)
    assert found.apis == (Api.RERANK,)
    settings = json.loads(found.command(1)[-1])
    assert (settings["ranks"], settings["embeddings"]) == (True, False)
    folder = write_folder(tmp_path / "ranker", "XLMRobertaForSequenceClassification")
    machine("vllm")
    assert plan(folder=folder, backend=Engine.VLLM).apis == (Api.RERANK,)


def test_all_files_of_a_model_count(tmp_path: Path) -> None:
    first = write_head(tmp_path / "m-00001-of-00002.gguf")
    with pytest.raises(NotFound, match=r"m-00002-of-00002\.gguf"):
        read_gguf(first, "gguf")
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(bytes(5000))
    assert read_gguf(first, "gguf").size_bytes == 5000 + first.stat().st_size


def test_a_head_that_is_cut_anywhere_is_said_to_be(tmp_path: Path) -> None:
    whole = write_head(tmp_path / "m.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for size in (*range(9), *range(9, len(whole), 11)):
        path.write_bytes(whole[:size])
        with pytest.raises(InvalidInput if size < 4 else Corrupt):
            read_gguf(path, "gguf")


def test_numbers_beyond_belief_are_no_reason_to_take_memory(tmp_path: Path) -> None:
    whole = bytearray(write_head(tmp_path / "m.gguf").read_bytes())
    path = tmp_path / "odd.gguf"
    for place in range(4, len(whole), 11):
        odd = whole.copy()
        odd[place] = 0xFF
        path.write_bytes(odd)
        try:
            read_gguf(path, "gguf")
        except DaitnError as error:
            assert error.field == "gguf"


def test_a_folder_is_run_by_vllm_where_there_is_a_gpu(tmp_path: Path, machine: Machine) -> None:
    folder = write_folder(tmp_path / "m", chat_template="{{ messages }}")
    machine("vllm")
    assert plan(folder=folder).engine is Engine.TRANSFORMERS
    assert plan(folder=folder, backend=Engine.VLLM).engine is Engine.VLLM
    machine("vllm", gpu=(GIB,))
    assert plan(folder=folder).engine is Engine.VLLM
    assert plan(folder=folder).apis == (Api.CHAT, Api.COMPLETIONS)
    assert plan(folder=folder, backend=Engine.TRANSFORMERS).engine is Engine.TRANSFORMERS
    machine("vllm", gpu=(10,))
    with pytest.raises(StorageFull, match="the GPUs have 10 free"):
        plan(folder=folder)


def test_what_vllm_answers_is_as_the_folder_is_made(tmp_path: Path, machine: Machine) -> None:
    machine("vllm", gpu=(GIB,))
    assert plan(folder=write_folder(tmp_path / "base")).apis == (Api.COMPLETIONS,)
    assert plan(folder=write_folder(tmp_path / "bert", "BertModel")).apis == (Api.EMBEDDINGS,)


def test_a_folder_in_few_bits_takes_what_it_is_imported_to(
    tmp_path: Path, machine: Machine
) -> None:
    folder = write_folder(tmp_path / "m")
    described = {"architectures": ["LlamaForCausalLM"], "quantization_config": {}}
    machine("vllm", gpu=(GIB,))
    for bits, times in ((4, 4), (8, 2)):
        described["quantization_config"] = {f"load_in_{bits}bit": True}
        (folder / "config.json").write_text(json.dumps(described))
        ours = plan(folder=folder, backend=Engine.TRANSFORMERS)
        assert ours.size_bytes == times * 1000
        assert ours.memory_bytes > 2 * times * 1000
        assert plan(folder=folder, backend=Engine.VLLM).size_bytes == 1000, "it runs it as it is"


def test_free_memory_of_gpus_is_asked_of_their_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.free_bytes() == ()
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 1000\necho 2000\n")
    program.chmod(0o755)
    assert gpus.free_bytes() == (1000 << 20, 2000 << 20)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus.free_bytes() == (2000 << 20,)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus.free_bytes() == ()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    program.write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    assert gpus.free_bytes() == ()
