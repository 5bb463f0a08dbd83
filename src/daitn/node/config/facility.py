"""A facility in the node file."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.abilities import Reads, Says
from daitn.objects.deployments import Api, ModelPolicy
from daitn.objects.descriptors import Share
from daitn.objects.identifiers import Word
from daitn.objects.text import plain

__all__ = ["Engine", "FacilityConfig", "ModelConfig", "OfferedConfig", "UpstreamConfig"]


class OfferedConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be stated of each model that a facility offers by itself."""

    context_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Context length in tokens, prompt and answer together; absent: as the server tells, else
    4096."""
    reads: tuple[Reads, ...] | None = None
    """What the model reads; absent: as the server tells, else text."""
    says: tuple[Says, ...] | None = None
    """What it answers with; absent: as the server tells, else text, vectors with the API
    `embeddings` and scores with `rerank`."""
    tools: bool | None = None
    """Whether it calls tools; absent: as the server tells, else it may be asked to."""
    json_schema: bool | None = None
    """Whether its answers can be held to a JSON schema; absent: as the server tells, else it may be
    asked to."""
    languages: tuple[Word, ...] = ()
    """ISO 639 codes of the languages that it knows, for instance `[en, fr]`; empty: any."""
    queue: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Queries that may wait; more are rejected."""
    price_usd_per_1k_in: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Price of 1,000 prompt tokens."""
    price_usd_per_1k_out: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Price of 1,000 answer tokens."""
    claimed: dict[str, Share] = {}
    """Accuracy per topic, as you claim it. It is displayed; routing uses what verifiers measure."""
    policy: ModelPolicy = ModelPolicy()
    """Who may query it, and where, see below; by default everybody, everywhere."""

    def __post_init__(self) -> None:
        claimed = {plain(topic): share for topic, share in self.claimed.items()}
        msgspec.structs.force_setattr(self, "claimed", claimed)


class UpstreamConfig(OfferedConfig, frozen=True, kw_only=True):
    """A server of OpenAI's HTTP API, offered to the network as one deployment."""

    name: str
    """The model's name in queries."""
    url: str
    """Base URL of its API, for instance `http://127.0.0.1:8000/v1`. Never published."""
    model: str = ""
    """The model's name on the server; empty: `name`. Never published."""
    apis: tuple[Api, ...] | None = None
    """APIs that the server supports; absent: `rerank` alone if the server ranks, else `chat`."""
    key_env: str = ""
    """Environment variable that holds the server's API key. The key is never published."""
    slots: Annotated[int, msgspec.Meta(ge=1)] = 8
    """Queries that it answers at the same time."""


class Engine(enum.StrEnum):
    """What can run a model of the facility's own."""

    XLLAMACPP = "xllamacpp"
    """llama.cpp as the Python package of that name has it: `pip install 'daitn[gguf]'`."""
    LLAMA_SERVER = "llama-server"
    """llama.cpp's own program, on `PATH`."""
    VLLM = "vllm"
    """vLLM, on `PATH` or in the node's Python."""
    TRANSFORMERS = "transformers"
    """The recipe `causal-lm`, as for models that the network trained: `pip install
    'daitn[train]'`."""


class ModelConfig(OfferedConfig, frozen=True, kw_only=True):
    """A model of the facility's own: a file or a folder, which the node runs a server for."""

    name: str = ""
    """The model's name in queries; empty: that of its file or folder, in lower case."""
    gguf: str = ""
    """Path of a file of llama.cpp, of the first one if there are several. A model has either this
    or `folder`."""
    folder: str = ""
    """Path of a folder in the format of `transformers`."""
    backend: Engine | None = None
    """What runs it: `xllamacpp` or `llama-server` a file, `vllm` or `transformers` a folder.
    Absent: what is there. A file is run by `llama-server` if there is a GPU, else by `xllamacpp`,
    else by `llama-server`; a folder by `vllm` if there is a GPU of NVIDIA's, else by
    `transformers`."""
    options: tuple[str, ...] = ()
    """Further arguments of `llama-server` or `vllm serve`, for instance
    `[--tool-call-parser, hermes, --enable-auto-tool-choice]`; paths among them are absolute."""
    apis: tuple[Api, ...] | None = None
    """APIs that it answers; absent: as the model is made, `[rerank]` for one that ranks,
    `[embeddings]` for one that only embeds, else `[chat, completions]`; without `chat` if `vllm`
    finds no chat template, and all that `transformers` can."""
    slots: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Queries that it answers at the same time; absent: 64 by `vllm`, else 4."""
    context_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Context length in tokens, prompt and answer together; absent: of a file, what it was trained
    with, as far as half of the memory beside its weights holds it; of a folder, as its engine
    says."""


class FacilityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site that hosts models for queries."""

    listen: str = "127.0.0.1:0"
    """`host:port` for the facility's API; port 0 picks a free one. `https://host:port` uses the
    site's certificate."""
    advertise: str = ""
    """URL that gateways use, for instance `https://mdf.example.org:7490`; empty: the address of
    `listen`, which is then one that they can connect to, not `0.0.0.0`."""
    hosts: bool = True
    """Whether the control centre may place models here."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 2**31
    """Memory for the weights of models placed here. Each has a process of its own, which takes 150
    to 300 MB beside them. A model is loaded once so much is free."""
    slots: Annotated[int, msgspec.Meta(ge=1)] = 4
    """Queries that one placed model answers at the same time."""
    queue: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Queries that may wait for one placed model."""
    price_usd_per_hour: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Price of hosting one model."""
    states_every_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400.0)] = 60.0
    """How often it states to the control centre what it answered and hosted."""
    max_answer_bytes: Annotated[int, msgspec.Meta(ge=1024, le=2**30)] = 2**26
    """Largest answer of an upstream server, whole or all events of a stream together; a longer one
    breaks off."""
    keeps_queries: bool = False
    """Whether queries are stored: by the upstream servers, or here, so that `/v1/responses` can go
    on from an earlier response."""
    kept_responses: Annotated[int, msgspec.Meta(ge=0)] = 10_000
    """Responses that are stored here if `keeps_queries`; beyond it, the oldest go of the owner who
    has most. 0: none is."""
    kept_bytes: Annotated[int, msgspec.Meta(ge=0)] = 2**30
    """Bytes of these responses and their conversations."""
    kept_days: Annotated[float, msgspec.Meta(gt=0.0, le=36500.0)] = 30.0
    """How long they are stored."""
    upstreams: tuple[UpstreamConfig, ...] = ()
    """Servers of OpenAI's API, see below."""
    models: tuple[ModelConfig, ...] = ()
    """Models of the facility's own, which the node runs by itself, see below."""

    @property
    def offered(self) -> frozenset[str]:
        """Names of all that it offers by itself."""
        return frozenset({*(u.name for u in self.upstreams), *(m.name for m in self.models)})
