"""Deployed models: descriptors of facilities, deployments and gateways."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated

import msgspec

from daitn.objects.abilities import Abilities, Need, mask_of
from daitn.objects.bounds import Price, Share, Words
from daitn.objects.cordons import Cordon
from daitn.objects.digests import digest_of
from daitn.objects.grants import Signed
from daitn.objects.identifiers import Digest, OwnerId, Word
from daitn.objects.lineage import Entry
from daitn.objects.wire import canonical

__all__ = [
    "ANY_CONTEXT",
    "MOST_DEPLOYMENTS",
    "Api",
    "DeploymentDescriptor",
    "DeploymentState",
    "DeploymentTerms",
    "Evidence",
    "FacilityDescriptor",
    "GatewayDescriptor",
    "ModelPolicy",
    "Runtime",
    "config_digest",
    "standing_of",
]

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Rate = Annotated[float, msgspec.Meta(ge=0.0, le=4.0)]
Evidence = Annotated[tuple[Entry, ...], msgspec.Meta(max_length=32)]

ANY_CONTEXT = 1 << 31
"""Context length, in tokens, of models that truncate their input."""
MOST_DEPLOYMENTS = 256
"""Limit per facility."""


class Api(enum.StrEnum):
    """How a model can be queried, by the names of OpenAI's HTTP API."""

    CHAT = "chat"
    """`/v1/chat/completions`"""
    COMPLETIONS = "completions"
    """`/v1/completions`"""
    EMBEDDINGS = "embeddings"
    """`/v1/embeddings`"""
    RERANK = "rerank"
    """`/v1/rerank`"""

    @property
    def path(self) -> str:
        """Path below the base of OpenAI's API, which is `/v1` at gateways and facilities."""
        return "/chat/completions" if self is Api.CHAT else f"/{self}"

    @property
    def writes(self) -> bool:
        """Whether the model writes its answer token by token: only then can it stream, and be
        compared with another's."""
        return self in (Api.CHAT, Api.COMPLETIONS)


_OF_API = {Need(api.value): api for api in Api}


class Runtime(enum.StrEnum):
    """What computes the answers."""

    EMBEDDED = "embedded"
    """A recipe, in a process of the facility's node."""
    OPENAI = "openai"
    """A server that speaks OpenAI's HTTP API (vLLM, llama.cpp, Ollama, ...)."""


class DeploymentState(enum.StrEnum):
    """Whether a deployment serves queries."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """It finishes its queries in flight and accepts no new ones."""
    FAILED = "failed"


def standing_of(
    state: str,
    cordon: Cordon | None,
    *,
    alive: bool,
    degraded: bool = False,
    two_faced: bool = False,
) -> str:
    """A deployment's standing in a word: `lost`, `cordoned` or `draining` as its site is;
    `two-faced` or `degraded`; else its state as last reported. What a lost site reported no longer
    counts."""
    if not alive:
        return "lost"
    if cordon is not None:
        return cordon.word
    if two_faced:
        return "two-faced"
    return "degraded" if degraded else state


class ModelPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model's owner allows. Each list may contain `*`."""

    release_to: Words = ("*",)
    """Jurisdictions in which the model may be hosted; `*` means all."""
    askers: Words = ("*",)
    """Query owners who may query it; `*` means all."""


class DeploymentTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a model's owner decides about a deployment except its name, weights and
    places."""

    recipe: Word
    config: Digest
    """Digest of the recipe's configuration; see `config_digest`."""
    policy: ModelPolicy
    price_usd_per_1k_in: Price
    price_usd_per_1k_out: Price

    @property
    def digest(self) -> Digest:
        """BLAKE3 of their canonical form, which the owner signs."""
        return digest_of(canonical(self))


def config_digest(config: Mapping[str, object]) -> Digest:
    """BLAKE3 of a recipe's configuration."""
    return digest_of(canonical(config))


class DeploymentDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A model served at one facility. The same owner's name elsewhere is a replica."""

    name: Word
    """The name that queries use; OpenAI's API calls it `model`."""
    owner: OwnerId
    """The model's owner."""
    runtime: Runtime
    """What computes the answers."""
    apis: Annotated[tuple[Api, ...], msgspec.Meta(max_length=8)]
    """APIs that it answers."""
    state: DeploymentState
    """Whether it serves queries."""
    manifest: Digest | None = None
    """Digest of the weights; none if unknown."""
    recipe: Word = ""
    """Recipe of a model trained by the network; empty for an upstream server's."""
    config: Digest = Digest("")
    """The recipe's configuration."""
    size_bytes: Count = 0
    """Size of the weights."""
    context_tokens: Count = 4096
    """Context length in its own tokens: prompt and answer together."""
    abilities: Abilities = Abilities()
    """What it reads and says."""
    tokens_per_character: Annotated[tuple[Rate, ...], msgspec.Meta(max_length=4)] = ()
    """Measured with its own tokenizer, for characters of one to four bytes in UTF-8; empty means
    unknown."""
    engine: Word = ""
    """Description of the engine and device by the facility; for display only."""
    slots: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    """Queries it answers concurrently; further ones wait."""
    queue: Count = 64
    """Queries that may wait; further ones are shed."""
    price_usd_per_1k_in: Price = 0.0
    """Price of 1,000 prompt tokens."""
    price_usd_per_1k_out: Price = 0.0
    """Price of 1,000 answer tokens."""
    deterministic: bool = False
    """Whether, at temperature 0, the same weights give identical answers to the same query, piece
    by piece."""
    claimed: Annotated[dict[Word, Share], msgspec.Meta(max_length=64)] = {}
    """Accuracy per topic, as claimed by the provider; shown but never trusted."""
    evidence: Evidence = ()
    """Verifications of these weights, signed by the verifiers."""
    policy: ModelPolicy = ModelPolicy()
    """What the model's owner allows."""
    grant: Signed | None = None
    """Its owner's `DeploymentGrant`. Absent for an upstream server, which belongs to its facility's
    owner."""
    name_grant: Signed | None = None
    """A `NameGrant` if its bare name means this model; otherwise only `owner/name` does."""
    place_grant: Signed | None = None
    """A control centre's `PlaceGrant`, if the grant names no facilities."""

    @property
    def placed(self) -> bool:
        """Whether a control centre placed it, rather than its facility."""
        return self.runtime is Runtime.EMBEDDED and self.manifest is not None

    def meets(self, need: Need) -> bool:
        """Whether a query with these needs can be put to it."""
        if need in _OF_API:
            return _OF_API[need] in self.apis
        return self.abilities.meets(need)

    @property
    def mask(self) -> int:
        """All needs that it meets, as bits."""
        return mask_of(need for need in Need if self.meets(need))

    @property
    def terms(self) -> DeploymentTerms:
        """The terms on which it answers."""
        return DeploymentTerms(
            recipe=self.recipe,
            config=self.config,
            policy=self.policy,
            price_usd_per_1k_in=self.price_usd_per_1k_in,
            price_usd_per_1k_out=self.price_usd_per_1k_out,
        )


class FacilityDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A model deployment facility (MDF)."""

    endpoint: Word
    """Address for gateways, for instance `http://10.0.0.7:7490`."""
    hosts: bool
    """Whether the control centre may place models here."""
    memory_bytes: Count
    """Memory for models placed here."""
    recipes: Words = ()
    """Recipes whose models can be placed here."""
    price_usd_per_hour: Price = 0.0
    """Price of hosting one model."""
    keeps_queries: bool = False
    """Whether queries are retained after they are answered."""
    keeps_responses: bool = False
    """Whether it stores responses, with their conversations, for their owners."""
    sealing: Signed | None = None
    """Its signed `SealingKey`; absent means it cannot open sealed queries."""
    deployments: Annotated[
        tuple[DeploymentDescriptor, ...], msgspec.Meta(max_length=MOST_DEPLOYMENTS)
    ] = ()
    """The models that it serves."""


class GatewayDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """An entry point for queries."""

    endpoint: Word
    """Address for query owners, for instance `http://10.0.0.8:7480`; OpenAI's API is under
    `/v1`."""
