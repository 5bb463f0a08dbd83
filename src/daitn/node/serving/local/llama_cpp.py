"""llama.cpp's own HTTP server, included in the package `xllamacpp`, as a process: `python -m
daitn.node.serving.local.llama_cpp SETTINGS`.

Settings are one JSON object. The key that it is to ask for comes in its environment.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import msgspec

__all__ = ["Settings", "main"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it runs a model."""

    model: str
    """Path of its file."""
    name: str
    """In queries."""
    port: int
    context: int
    """Tokens of all answers together."""
    batch: int | None
    """Tokens that are read at once; `None` means the server's default."""
    slots: int
    threads: int
    embeddings: bool
    """Whether to embed texts as well."""
    ranks: bool
    """Whether to score documents."""
    pools: bool
    """Whether the model itself states its pooling."""


def main(stated: str) -> None:
    """Serve until a signal comes."""
    import xllamacpp

    settings = msgspec.json.decode(stated, type=Settings)
    parameters: Any = xllamacpp.CommonParams()
    parameters.model.path = settings.model
    parameters.model_alias = {settings.name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = settings.port
    parameters.api_keys = [os.environ.pop("LLAMA_API_KEY")]
    parameters.n_ctx, parameters.n_parallel = settings.context, settings.slots
    if settings.batch is not None:
        parameters.n_batch = parameters.n_ubatch = settings.batch
    parameters.kv_unified = False  # Each answer has a context of its own.
    parameters.cpuparams.n_threads = settings.threads
    parameters.ui = False
    parameters.embedding = settings.embeddings or settings.ranks
    if settings.ranks:
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    elif settings.embeddings and not settings.pools:
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(parameters)
    print(f"listens at {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
