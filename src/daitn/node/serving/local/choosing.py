"""Chooses the backend for a facility's own model, by its kind and by what is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from daitn.learning import gpus, memory
from daitn.learning.published import (
    DESCRIPTION,
    USUAL_COPIES,
    WEIGHTS,
    check_published,
    stored_bytes,
    weights_bytes,
)
from daitn.node.config import Engine, ModelConfig
from daitn.node.serving.local.gguf import GgufFacts, read_gguf
from daitn.objects.deployments import Api
from daitn.objects.errors import InvalidInput, NotFound, StorageFull

__all__ = ["FIX_FOR_ROOM", "KEY_VARIABLES", "EnginePlan", "chosen", "field_of"]

KEY_VARIABLES = ("LLAMA_API_KEY", "VLLM_API_KEY")
"""Environment variables in which servers find the key that they must require: arguments are visible
to everybody."""
_OF_FILES = (Engine.XLLAMACPP, Engine.LLAMA_SERVER)
_SLOTS, _VLLM_SLOTS = 4, 64
_VLLM_PROCESSES_BYTES = 2 << 30
"""Main memory of vLLM, which holds its model in GPU memory."""
_USUAL_CONTEXT = 4096
"""Context for a file that states none."""
FIX_FOR_ROOM = (
    "use a smaller or more quantised model, state a smaller `context_tokens` or fewer `slots`, or "
    "end what else takes memory"
)


class EnginePlan(NamedTuple):
    """How a model is run."""

    engine: Engine
    described: str
    """The engine and its version."""
    why: str
    apis: tuple[Api, ...]
    slots: int
    size_bytes: int
    """Size of its weights: in their files, or as imported."""
    memory_bytes: int
    """Main memory that it will need; for `transformers`, while its folder is imported."""
    command: Callable[[int], tuple[str, ...]]
    """The server's arguments, to listen at a port of this machine only. None for `transformers`,
    which is not a server."""


def field_of(config: ModelConfig, name: str) -> str:
    """A field of the model's entry in the node file."""
    return f"facility.models[{config.name}].{name}"


def chosen(config: ModelConfig, threads: int) -> EnginePlan:
    """How to run a model here and now. Reads files, and queries programs.

    Raises `NotFound`, `InvalidInput`, `Corrupt` and `StorageFull`, which name the field and say
    what to do.
    """
    if config.gguf:
        return _of_file(config, threads)
    return _of_folder(config)


def _of_file(config: ModelConfig, threads: int) -> EnginePlan:
    field = field_of(config, "gguf")
    if config.backend not in (None, *_OF_FILES):
        raise _unfit(config, "a file", _OF_FILES)
    facts = read_gguf(Path(config.gguf), field)
    free = gpus.free_bytes()
    engine, why = _llama_cpp(config, bool(free) or gpus.has_gpu())
    apis = config.apis or _apis_of_file(facts)
    slots = config.slots or _SLOTS
    # What a GPU holds does not need main memory. xllamacpp's usual build does not support GPUs.
    on_gpu = sum(free) if engine is Engine.LLAMA_SERVER else 0
    context = _context(config, facts, slots, on_gpu)
    needed = facts.size_bytes + context * slots * facts.per_token_bytes
    settings: dict[str, object] = {
        "model": config.gguf,
        "name": config.name,
        "context": context * slots,
        "batch": _batch(context, apis),
        "slots": slots,
        "threads": threads,
        "embeddings": Api.EMBEDDINGS in apis,
        "ranks": Api.RERANK in apis,
        "pools": facts.embeds,
    }
    return EnginePlan(
        engine=engine,
        described=_described(engine),
        why=why,
        apis=apis,
        slots=slots,
        size_bytes=facts.size_bytes,
        memory_bytes=max(0, needed - on_gpu) + memory.PROCESS_BYTES,
        command=lambda port: _llama_cpp_command(config, engine, settings, port),
    )


def _apis_of_file(facts: GgufFacts) -> tuple[Api, ...]:
    if facts.ranks:
        return (Api.RERANK,)
    return (Api.EMBEDDINGS,) if facts.embeds else (Api.CHAT, Api.COMPLETIONS)


def _llama_cpp(config: ModelConfig, on_gpu: bool) -> tuple[Engine, str]:
    installed = {
        Engine.XLLAMACPP: importlib.util.find_spec("xllamacpp") is not None,
        Engine.LLAMA_SERVER: _program("llama-server") is not None,
    }
    if config.backend is not None:
        engine, why = config.backend, "its entry says so"
    elif installed[Engine.LLAMA_SERVER] and (on_gpu or config.options):
        reason = "there is a GPU" if on_gpu else "its entry has options"
        engine, why = Engine.LLAMA_SERVER, f"it is on PATH, and {reason}"
    elif installed[Engine.LLAMA_SERVER] and not installed[Engine.XLLAMACPP]:
        engine, why = Engine.LLAMA_SERVER, "it is on PATH, and xllamacpp is not installed"
    else:
        engine, why = Engine.XLLAMACPP, "the model is a file of llama.cpp"
    if not installed[engine]:
        is_package = engine is Engine.XLLAMACPP
        raise NotFound(
            "xllamacpp is not installed" if is_package else "there is no llama-server on PATH",
            field=field_of(config, "backend"),
            fix="`pip install 'daitn[gguf]'` in the node's Python, or put llama.cpp's "
            "`llama-server` on its PATH",
        )
    if config.options and engine is Engine.XLLAMACPP:
        raise InvalidInput(
            "xllamacpp takes no arguments",
            field=field_of(config, "options"),
            fix="put `llama-server` on the node's PATH, and state `backend: llama-server`",
        )
    return engine, why


def _context(config: ModelConfig, facts: GgufFacts, slots: int, on_gpu: int) -> int:
    """Context of each answer: as stated, else as the model was trained, as far as memory permits.

    Raises `StorageFull` where there is none.
    """
    trained = facts.context_tokens or _USUAL_CONTEXT
    if config.context_tokens is not None:
        return config.context_tokens
    if not facts.per_token_bytes:
        return min(trained, _USUAL_CONTEXT)
    left = memory.free_bytes() + on_gpu - facts.size_bytes - memory.PROCESS_BYTES
    room = int(memory.CACHE_SHARE * max(0, left) / (facts.per_token_bytes * slots))
    if room < min(trained, memory.LEAST_CACHE_TOKENS):
        raise StorageFull(
            f"{config.name} has {facts.size_bytes} bytes of weights, and {max(0, left)} bytes "
            f"would be left for {slots} answers",
            field=field_of(config, "gguf"),
            fix=FIX_FOR_ROOM,
        )
    return min(trained, room)


def _batch(context: int, apis: tuple[Api, ...]) -> int | None:
    """Tokens that llama.cpp reads at once; `None` means its default. It embeds or ranks a text in
    one batch."""
    whole = Api.EMBEDDINGS in apis or Api.RERANK in apis
    return max(_LEAST_BATCH, min(context, _MOST_BATCH)) if whole else None


def _llama_cpp_command(
    config: ModelConfig, engine: Engine, settings: Mapping[str, object], port: int
) -> tuple[str, ...]:
    if engine is Engine.XLLAMACPP:
        stated = json.dumps({**settings, "port": port})
        return (sys.executable, "-P", "-m", "daitn.node.serving.local.llama_cpp", stated)
    program = _program("llama-server")
    assert program is not None
    flags = {
        "--model": settings["model"],
        "--alias": settings["name"],
        "--host": "127.0.0.1",
        "--port": port,
        "--ctx-size": settings["context"],
        "--parallel": settings["slots"],
        "--threads": settings["threads"],
    }
    if settings["batch"] is not None:
        flags |= {"--batch-size": settings["batch"], "--ubatch-size": settings["batch"]}
    if settings["embeddings"] and not settings["pools"]:
        flags["--pooling"] = "mean"
    words = tuple(str(word) for pair in flags.items() for word in pair)
    also = [f"--{what}" for what in ("embeddings", "reranking") if settings[_WANTED[what]]]
    return (program, *words, "--jinja", *also, *config.options)


_LEAST_BATCH, _MOST_BATCH = 512, 8192
"""The memory for computing a batch grows with it."""
_WANTED = {"embeddings": "embeddings", "reranking": "ranks"}


def _of_folder(config: ModelConfig) -> EnginePlan:
    folder, field = Path(config.folder), field_of(config, "folder")
    if config.backend in _OF_FILES:
        raise _unfit(config, "a folder", (Engine.VLLM, Engine.TRANSFORMERS))
    check_published(
        folder,
        field,
        (DESCRIPTION, WEIGHTS),
        otherwise="; for a file of llama.cpp state `gguf`",
    )
    free, program = gpus.free_bytes(), _vllm()
    if config.backend is not None:
        use_vllm, why = config.backend is Engine.VLLM, "its entry says so"
    elif not free:
        use_vllm, why = False, "there is no NVIDIA GPU"
    elif not program:
        use_vllm, why = False, "vLLM is not installed"
    else:
        use_vllm, why = True, "it is installed, and there is a GPU"
    return _by_vllm(config, program, sum(free), why) if use_vllm else _embedded(config, why)


def _by_vllm(
    config: ModelConfig, program: tuple[str, ...], free_bytes: int, why: str
) -> EnginePlan:
    """`program`: vLLM's, empty if there is none. `free_bytes`: of all GPUs, 0 without any."""
    if not program:
        raise NotFound(
            "vLLM is neither on PATH nor installed",
            field=field_of(config, "backend"),
            fix="`pip install vllm` in the node's Python or in one whose programs are on its "
            "PATH, or leave `backend` out",
        )
    folder = Path(config.folder)
    size_bytes = stored_bytes(folder)  # It computes with the weights as they were published.
    if free_bytes and size_bytes > free_bytes:
        raise StorageFull(
            f"{config.name} has {size_bytes} bytes of weights, and the GPUs have {free_bytes} free",
            field=field_of(config, "folder"),
            fix=FIX_FOR_ROOM,
        )
    slots = config.slots or _VLLM_SLOTS

    def command(port: int) -> tuple[str, ...]:
        context = config.context_tokens
        length = () if context is None else ("--max-model-len", str(context))
        return (
            *(*program, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)),
            *("--served-model-name", config.name, "--max-num-seqs", str(slots), *length),
            *config.options,
        )

    return EnginePlan(
        engine=Engine.VLLM,
        described=_described(Engine.VLLM),
        why=why,
        apis=config.apis or _apis(folder),
        slots=slots,
        size_bytes=size_bytes,
        memory_bytes=_VLLM_PROCESSES_BYTES if free_bytes else size_bytes + _VLLM_PROCESSES_BYTES,
        command=command,
    )


def _embedded(config: ModelConfig, why: str) -> EnginePlan:
    if config.options:
        raise InvalidInput(
            "transformers takes no arguments",
            field=field_of(config, "options"),
            fix="leave it out, or state `backend: vllm`",
        )
    size_bytes = weights_bytes(Path(config.folder))
    return EnginePlan(
        engine=Engine.TRANSFORMERS,
        described=_described(Engine.TRANSFORMERS),
        why=why,
        apis=config.apis or (),
        slots=config.slots or _SLOTS,
        size_bytes=size_bytes,
        memory_bytes=USUAL_COPIES * size_bytes + memory.PROCESS_BYTES,
        command=lambda port: (),
    )


class _Description(msgspec.Struct, frozen=True):
    architectures: list[str] = []


class _Tokenizing(msgspec.Struct, frozen=True):
    chat_template: object = None


def _apis(folder: Path) -> tuple[Api, ...]:
    """What vLLM can do with a model: it ranks with one that has a classification head, and embeds
    with one that has none."""
    try:
        described = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Description)
    except (OSError, msgspec.DecodeError):
        described = _Description()
    speaks = [name for name in described.architectures if "ForCausal" in name or "ForCond" in name]
    if any("ForSequenceClassification" in name for name in described.architectures):
        return (Api.RERANK,)
    if described.architectures and not speaks:
        return (Api.EMBEDDINGS,)
    return (Api.CHAT, Api.COMPLETIONS) if _has_template(folder) else (Api.COMPLETIONS,)


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    try:
        stated = (folder / "tokenizer_config.json").read_bytes()
        return msgspec.json.decode(stated, type=_Tokenizing).chat_template is not None
    except (OSError, msgspec.DecodeError):
        return False


def _vllm() -> tuple[str, ...]:
    """The path of the program; empty if it is not installed."""
    if (program := _program("vllm")) is not None:
        return (program,)
    if importlib.util.find_spec("vllm") is not None:
        return (sys.executable, "-P", "-m", "vllm.entrypoints.cli.main")
    return ()


def _program(name: str) -> str | None:
    """A program on PATH, or beside the node's Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _described(engine: Engine) -> str:
    package = None if engine is Engine.LLAMA_SERVER else engine.value
    try:
        version = importlib.metadata.version(package) if package else ""
    except importlib.metadata.PackageNotFoundError:
        version = ""
    named = f"{engine} {version}".strip()
    return f"llama.cpp ({named})" if engine in _OF_FILES else named


def _unfit(config: ModelConfig, what: str, fitting: tuple[Engine, ...]) -> InvalidInput:
    return InvalidInput(
        f"{config.backend} does not run {what}",
        field=field_of(config, "backend"),
        fix=f"leave it out, or state {' or '.join(fitting)}",
    )
