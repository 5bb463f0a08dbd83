"""What a party publishes about an asset instead of the asset itself."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from daitn.objects.cordons import Cordon
from daitn.objects.deployments import FacilityDescriptor, GatewayDescriptor
from daitn.objects.identifiers import Digest, OwnerId, SiteId, Word
from daitn.objects.lineage import Entry
from daitn.objects.opening_hours import window
from daitn.objects.privacy import PrivacyDemand
from daitn.objects.text import Line

__all__ = [
    "ANY",
    "ComputeDescriptor",
    "DataPolicy",
    "DatasetDescriptor",
    "LeftOut",
    "ModelDescriptor",
    "NodeDescriptor",
    "Role",
    "TestSetDescriptor",
    "TopicSketch",
    "VerifierDescriptor",
    "covers_topic",
]

Words = Annotated[tuple[Word, ...], msgspec.Meta(max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=1e30)]
Price = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
Histogram = Annotated[dict[Word, Count], msgspec.Meta(max_length=4096)]
"""The bounds keep what strangers publish from filling memory."""

ANY = "*"
"""In a policy's list: no restriction."""


class Role(enum.StrEnum):
    """What a node does."""

    DATA = "data"
    COMPUTE = "compute"
    VERIFIER = "verifier"
    FACILITY = "facility"
    GATEWAY = "gateway"
    FORWARDER = "forwarder"


def covers_topic(broad: str, narrow: str) -> bool:
    """Whether topic `broad` contains `narrow`: `medicine` contains `medicine/neurology`."""
    return narrow == broad or narrow.startswith(broad + "/")


class DataPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The published part of a data owner's policy: what planners leave a site out by.

    Each list may contain `*`. A list without a word allows nothing.
    """

    recipes: Words
    """Recipes that may run on the data; `*`: all."""
    owners: Words = (ANY,)
    """Model owners whose models may visit; `*`: all."""
    purposes: Words = (ANY,)
    """Purposes of which a model's intent states one, in words that data owners and model owners
    agree on; `*`: all, and none."""
    release_to: Words = (ANY,)
    """Jurisdictions into which a model that learned from the data may travel; `*`: all."""
    hours: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)] = (ANY,)
    """When work may begin, for instance `Mon-Fri 18:00-08:00`, which ends on the next morning;
    `*`: at any time."""
    time_zone: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_+/-]{1,64}$")] = "UTC"
    """Whose clock `hours` and limits by day mean, for instance `Europe/Berlin`."""
    start_models: bool = False
    """Whether models may learn here that started from weights, or with a tokenizer, that their
    owner brought: such parts can be made to carry records away. Otherwise only models learn here
    that a site of the network made."""

    secure_aggregation: bool = False
    """Whether what models learn here leaves in sums with other sites' alone: only jobs with
    `training.secure_aggregation` train."""
    privacy: PrivacyDemand | None = None
    """Differential privacy of what models learn here, and how much of it there is; left out: none
    is demanded."""

    def __post_init__(self) -> None:
        for text in self.hours:
            if text != ANY:
                window(text)


class TopicSketch(msgspec.Struct, frozen=True, kw_only=True):
    """Features of the texts in a data set, as hashed counts.

    Only features found in several different records are included, so the sketch shows how a topic
    is worded and nothing about any single record. See `daitn.topology.topics`.
    """

    texts: Count
    """Number of records examined."""
    buckets: Annotated[tuple[Count, ...], msgspec.Meta(max_length=65_536)]
    """Hash buckets with at least one feature, ascending."""
    counts: Annotated[tuple[Count, ...], msgspec.Meta(max_length=65_536)]
    """For each bucket, the number of records with one of its features."""

    def __post_init__(self) -> None:
        if len(self.buckets) != len(self.counts):
            raise ValueError("each bucket has one count")


class DatasetDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """Describes a data set well enough to find it, never well enough to rebuild it."""

    name: Word
    site: SiteId
    data_schema: Word
    """Format of a record, for instance `qa-pairs/1`; a recipe reads one schema."""
    modality: Word
    """`text`, `table` or `image`."""
    topics: Words
    """Paths in a tree of topics, for instance `medicine/neurology`."""
    samples: Count
    labels: Histogram
    """Label histogram."""
    quality: Share
    """Share of usable records in [0, 1]."""
    fresh_at_s: float
    """When the data last changed."""
    price_usd_per_1k: Price = 0.0
    """Price of 1,000 training examples."""
    jurisdiction: Word
    """ISO 3166-1 alpha-2 code of the law that governs the data."""
    licence: str = ""
    description: str = ""
    policy: DataPolicy
    least_examples: Count = 1
    """Minimum examples of a visit: a shorter one would show what single records teach."""
    private_visits_left: Annotated[int, msgspec.Meta(ge=0, le=10**6)] | None = None
    """About how many visits `policy.privacy` still allows, in coarse steps, rounded down; none: it
    demands no privacy."""
    sketch: TopicSketch | None = None
    """How its questions are worded, if its owner agrees to publish that."""


class ComputeDescriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A site's computing resources."""

    device: Word
    memory_bytes: Count
    speed_flops: Amount
    """Floating-point operations per second, measured by a short probe of the training engine."""
    recipes: Words
    """Recipes installed here."""
    price_usd_per_hour: Price = 0.0
    """Price of an hour of training, besides that of the data."""


class TestSetDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A private test set, as its verifier describes it."""

    topic: Word
    test_schema: Word
    metrics: Words
    items: Count
    chance: Share
    """Accuracy of guessing, in [0, 1]."""
    labels: Histogram
    policy: DataPolicy = DataPolicy(recipes=(ANY,))


class VerifierDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A model performance verification unit (MPVU)."""

    tests: Annotated[tuple[TestSetDescriptor, ...], msgspec.Meta(max_length=256)]
    recipes: Words


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a node's file that the node skips, and why. Reveals no content."""

    field: Word
    """Its path in the file, for instance `datasets[1]`."""
    name: Word
    reason: Annotated[str, msgspec.Meta(max_length=2000)]


class NodeDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a node publishes about itself. A later `version` replaces an earlier one."""

    site: SiteId
    owner: OwnerId
    roles: tuple[Role, ...]
    jurisdiction: Word
    public_key: Word
    """Ed25519 public key, base64; verifies what the site adds to a model's lineage."""
    started_at_s: float
    version: int
    """Counts up from 1 with each change since `started_at_s`."""
    software: Line
    datasets: Annotated[tuple[DatasetDescriptor, ...], msgspec.Meta(max_length=256)] = ()
    compute: ComputeDescriptor | None = None
    verifier: VerifierDescriptor | None = None
    facility: FacilityDescriptor | None = None
    gateway: GatewayDescriptor | None = None
    left_out: Annotated[tuple[LeftOut, ...], msgspec.Meta(max_length=64)] = ()
    """What of its file the node does without; the first of them, where there are more."""
    cordon: Cordon | msgspec.UnsetType = msgspec.UNSET
    """Left out unless an operator took the site out of service: then it gets nothing new."""


class ModelDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the network holds."""

    name: Word
    owner: OwnerId
    recipe: Word
    manifest: Digest
    size_bytes: int
    measured: dict[str, float]
    """Last verified value per objective."""
    holders: tuple[SiteId, ...]
    created_at_s: float
    config: dict[str, object] = {}
    """Its recipe configuration."""
    untrained: bool = False
    """Whether it is as its recipe made it, and learned nothing."""
    release_to: tuple[str, ...] = (ANY,)
    """Jurisdictions into which it may travel, given all the data it learned from."""
    evidence: tuple[Entry, ...] = ()
    """Its signed verifications."""
