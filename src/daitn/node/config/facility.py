"""A facility in the node file."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.abilities import Reads, Says
from daitn.objects.bounds import Share
from daitn.objects.deployments import Api, ModelPolicy
from daitn.objects.identifiers import Word
from daitn.objects.text import plain

__all__ = ["Engine", "FacilityConfig", "ModelConfig", "OfferedConfig", "UpstreamConfig"]


class OfferedConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of each model that a facility offers itself."""

    context_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Context length in tokens, prompt and answer together; absent means as the server reports,
    else 4096."""
    reads: tuple[Reads, ...] | None = None
    """The model's inputs; absent means as the server reports, else text."""
    says: tuple[Says, ...] | None = None
    """Its outputs; absent means as the server reports, else text, vectors with the API `embeddings`
    and scores with `rerank`."""
    tools: bool | None = None
    """Whether it calls tools; absent means as the server reports, else assumed possible."""
    json_schema: bool | None = None
    """Whether its answers can be constrained to a JSON schema; absent means as the server reports,
    else assumed possible."""
    languages: tuple[Word, ...] = ()
    """ISO 639 codes of the languages that it supports, for instance `[en, fr]`; empty means any."""
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
    """The model's name on the server; empty means `name`. Never published."""
    apis: tuple[Api, ...] | None = None
    """APIs that the server supports; absent means `rerank` alone if the server ranks, else
    `chat`."""
    key_env: str = ""
    """Environment variable that holds the server's API key. The key is never published."""
    slots: Annotated[int, msgspec.Meta(ge=1)] = 8
    """Queries that it answers at the same time."""


class Engine(enum.StrEnum):
    """Engines for a facility's own models."""

    XLLAMACPP = "xllamacpp"
    """llama.cpp from the Python package of that name: `pip install 'daitn[gguf]'`."""
    LLAMA_SERVER = "llama-server"
    """llama.cpp's own program, on `PATH`."""
    VLLM = "vllm"
    """vLLM, on `PATH` or in the node's Python."""
    TRANSFORMERS = "transformers"
    """The recipe `causal-lm`, as for models trained by the network: `pip install
    'daitn[train]'`."""


class ModelConfig(OfferedConfig, frozen=True, kw_only=True):
    """A model of the facility's own: a file or a folder, for which the node runs a server."""

    name: str = ""
    """The model's name in queries; empty means that of its file or folder, in lower case."""
    gguf: str = ""
    """Path of a llama.cpp file, the first one if it is split. A model has either this or
    `folder`."""
    folder: str = ""
    """Path of a folder in `transformers` format."""
    backend: Engine | None = None
    """What runs it: `xllamacpp` or `llama-server` for a file, `vllm` or `transformers` for a
    folder. Absent means by what is installed: for a file, `llama-server` if there is a GPU, else
    `xllamacpp`, else `llama-server`; for a folder, `vllm` if there is an NVIDIA GPU, else
    `transformers`."""
    options: tuple[str, ...] = ()
    """Further arguments of `llama-server` or `vllm serve`, for instance `[--tool-call-parser,
    hermes, --enable-auto-tool-choice]`; paths must be absolute."""
    apis: tuple[Api, ...] | None = None
    """APIs that it answers; absent means by the kind of model: `[rerank]` for one that ranks,
    `[embeddings]` for one that only embeds, else `[chat, completions]`, without `chat` if `vllm`
    finds no chat template; with `transformers`, all that it supports."""
    slots: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Queries that it answers at the same time; absent means 64 with `vllm`, else 4."""
    context_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Context length in tokens, prompt and answer together; absent means, for a file, the context
    that it was trained with, or as much as fits into half of the memory left by its weights; for a
    folder, as its engine reports."""


class FacilityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site that hosts models for queries."""

    listen: str = "127.0.0.1:0"
    """`host:port` for the facility's API; port 0 picks a free one. `https://host:port` uses the
    site's certificate."""
    advertise: str = ""
    """URL that gateways use, for instance `https://mdf.example.org:7490`; empty means the address
    of `listen`, which must then be one that they can connect to, not `0.0.0.0`."""
    hosts: bool = True
    """Whether the control centre may place models here."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 2**31
    """Memory for the weights of models placed here. Each model has a separate process, which takes
    another 150 to 300 MB. A model is loaded once that much is free."""
    slots: Annotated[int, msgspec.Meta(ge=1)] = 4
    """Queries that one placed model answers at the same time."""
    queue: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Queries that may wait for one placed model."""
    price_usd_per_hour: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Price of hosting one model."""
    states_every_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400.0)] = 60.0
    """How often it reports answers and hosting to the control centre."""
    max_answer_bytes: Annotated[int, msgspec.Meta(ge=1024, le=2**30)] = 2**26
    """Largest answer of an upstream server, counting all events of a stream; a longer one is cut
    off with an error."""
    keeps_queries: bool = False
    """Whether queries are stored, by the upstream servers or here, so that `/v1/responses` can
    continue an earlier response."""
    kept_responses: Annotated[int, msgspec.Meta(ge=0)] = 10_000
    """Number of responses stored here if `keeps_queries`; beyond it, the oldest of the owner with
    the most are deleted. 0 means none."""
    kept_bytes: Annotated[int, msgspec.Meta(ge=0)] = 2**30
    """Bytes of these responses and their conversations."""
    kept_days: Annotated[float, msgspec.Meta(gt=0.0, le=36500.0)] = 30.0
    """How long they are stored."""
    upstreams: tuple[UpstreamConfig, ...] = ()
    """Servers of OpenAI's API, see below."""
    models: tuple[ModelConfig, ...] = ()
    """The facility's own models, which the node runs, see below."""

    @property
    def offered(self) -> frozenset[str]:
        """Names of all models that it offers itself."""
        return frozenset({*(u.name for u in self.upstreams), *(m.name for m in self.models)})
