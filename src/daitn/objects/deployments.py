"""Models at work: what a facility says of itself and of the models that answer there."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.identifiers import Digest, OwnerId
from daitn.objects.lineage import Entry

__all__ = [
    "ANY_CONTEXT",
    "MOST_DEPLOYMENTS",
    "Api",
    "DeploymentDescriptor",
    "DeploymentState",
    "Evidence",
    "FacilityDescriptor",
    "GatewayDescriptor",
    "ModelPolicy",
    "Price",
    "Runtime",
    "Word",
]

Word = Annotated[str, msgspec.Meta(max_length=200)]
Words = Annotated[tuple[Word, ...], msgspec.Meta(max_length=256)]
Price = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Evidence = Annotated[tuple[Entry, ...], msgspec.Meta(max_length=32)]

ANY_CONTEXT = 1 << 31
"""Of models for which what is asked is cut to what they read; in tokens."""
MOST_DEPLOYMENTS = 256
"""At one facility."""


class Api(enum.StrEnum):
    """What can be asked of a model, by the names of OpenAI's HTTP API."""

    CHAT = "chat"
    """`/v1/chat/completions`"""
    COMPLETIONS = "completions"
    """`/v1/completions`"""
    EMBEDDINGS = "embeddings"
    """`/v1/embeddings`"""

    @property
    def path(self) -> str:
        """Under the base of OpenAI's API, which is `/v1` at gateways and facilities."""
        return "/chat/completions" if self is Api.CHAT else f"/{self}"


class Runtime(enum.StrEnum):
    """What computes the answers."""

    EMBEDDED = "embedded"
    """A recipe, in a process of the facility's node."""
    OPENAI = "openai"
    """A server that speaks OpenAI's HTTP API (vLLM, llama.cpp, Ollama, ...)."""


class DeploymentState(enum.StrEnum):
    """Whether a deployment answers."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """It finishes what it has and takes nothing new."""
    FAILED = "failed"


class ModelPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model's owner allows. Each list may hold `*`."""

    release_to: Words = ("*",)
    """Jurisdictions in which the model may be hosted."""
    askers: Words = ("*",)
    """Query owners who may ask it."""


class DeploymentDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A model that answers at one facility. The same name elsewhere is a replica."""

    name: Word
    """By which queries ask for it; what OpenAI's API calls `model`."""
    owner: OwnerId
    runtime: Runtime
    apis: Annotated[tuple[Api, ...], msgspec.Meta(max_length=8)]
    state: DeploymentState
    manifest: Digest | None = None
    """Digest of the weights; none where they are not ours to name."""
    recipe: Word = ""
    size_bytes: Count = 0
    context_tokens: Count = 4096
    """Tokens of question and answer together that it can hold."""
    slots: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    """Queries that it answers at the same time; further ones wait."""
    queue: Count = 64
    """Queries that may wait; further ones are turned away."""
    price_usd_per_1k_in: Price = 0.0
    price_usd_per_1k_out: Price = 0.0
    deterministic: bool = False
    """The same weights give the same answer, piece by piece, to the same query at temperature 0."""
    claimed: Annotated[dict[Word, float], msgspec.Meta(max_length=64)] = {}
    """Topic to accuracy, as its provider says: shown, and believed by nobody."""
    evidence: Evidence = ()
    """Verifications of these weights, signed by the units that made them."""
    policy: ModelPolicy = ModelPolicy()


class FacilityDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A model deployment facility (MDF)."""

    endpoint: Word
    """Where gateways reach it, for instance `http://10.0.0.7:7490`."""
    hosts: bool
    """Whether the control centre may place models here."""
    memory_bytes: Count
    """For models that are placed here."""
    recipes: Words = ()
    """Recipes whose models can be placed here."""
    price_usd_per_hour: Price = 0.0
    """Of hosting one model."""
    keeps_queries: bool = False
    """Whether what is asked here is kept after it was answered."""
    deployments: Annotated[
        tuple[DeploymentDescriptor, ...], msgspec.Meta(max_length=MOST_DEPLOYMENTS)
    ] = ()


class GatewayDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """An entry for queries."""

    endpoint: Word
    """Where query owners reach it, for instance `http://10.0.0.8:7480`; OpenAI's API is under
    `/v1`."""
