"""A facility in the node file."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.deployments import Api, ModelPolicy
from daitn.objects.descriptors import Share
from daitn.objects.text import plain

__all__ = ["FacilityConfig", "UpstreamConfig"]


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server of OpenAI's HTTP API, offered to the network as one deployment."""

    name: str
    """The model's name in queries."""
    url: str
    """Base URL of its API, for instance `http://127.0.0.1:8000/v1`. Never published."""
    model: str = ""
    """The model's name on the server; empty: `name`. Never published."""
    apis: tuple[Api, ...] = (Api.CHAT,)
    """APIs that the server supports."""
    key_env: str = ""
    """Environment variable that holds the server's API key. The key is never published."""
    context_tokens: Annotated[int, msgspec.Meta(ge=1)] = 4096
    """Context length in tokens, prompt and answer together."""
    slots: Annotated[int, msgspec.Meta(ge=1)] = 8
    """Queries that it answers at the same time."""
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
    """Memory for the weights of models placed here."""
    slots: Annotated[int, msgspec.Meta(ge=1)] = 4
    """Queries that one placed model answers at the same time."""
    queue: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Queries that may wait for one placed model."""
    price_usd_per_hour: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    """Price of hosting one model."""
    keeps_queries: bool = False
    """Whether queries are stored, for instance by the upstream servers."""
    upstreams: tuple[UpstreamConfig, ...] = ()
    """Servers of OpenAI's API, see below."""
