"""What a party publishes about an asset instead of the asset itself."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from daitn.objects.bounds import Count, Price, Share, Words
from daitn.objects.cordons import Cordon
from daitn.objects.deployments import FacilityDescriptor, GatewayDescriptor
from daitn.objects.identifiers import Digest, OwnerId, SiteId, Word
from daitn.objects.lineage import MOST_LABELS, Entry
from daitn.objects.moments import Moment
from daitn.objects.opening_hours import window
from daitn.objects.privacy import PrivacyDemand
from daitn.objects.text import Line

__all__ = [
    "ANY",
    "ComputeDescriptor",
    "DataPolicy",
    "DatasetDescriptor",
    "Edition",
    "LeftOut",
    "ModelDescriptor",
    "NodeDescriptor",
    "Role",
    "TestSetDescriptor",
    "TopicSketch",
    "VerifierDescriptor",
    "covers_topic",
]

Amount = Annotated[float, msgspec.Meta(ge=0.0, le=1e30)]
Histogram = Annotated[dict[Word, Count], msgspec.Meta(max_length=MOST_LABELS)]
"""Bounded, so that strangers' descriptors cannot fill memory."""

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
    """The published part of a data owner's policy, by which planners exclude a site.

    Each list may contain `*`. A list without a word allows nothing.
    """

    recipes: Words
    """Recipes that may run on the data; `*` means all."""
    owners: Words = (ANY,)
    """Model owners whose models may visit; `*` means all."""
    purposes: Words = (ANY,)
    """Allowed purposes, as stated in a model's intent, in words that data owners and model owners
    agree on; `*` means any or none."""
    release_to: Words = (ANY,)
    """Jurisdictions into which a model that learned from the data may travel; `*` means all."""
    hours: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)] = (ANY,)
    """When work may begin, for instance `Mon-Fri 18:00-08:00`, which ends the next morning; `*`
    means any time."""
    time_zone: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_+/-]{1,64}$")] = "UTC"
    """Time zone of `hours` and daily limits, for instance `Europe/Berlin`."""
    start_models: bool = False
    """Whether to admit models that started from weights, or with a tokenizer, supplied by their
    owner; such parts can be crafted to carry records away. Otherwise only models created by a site
    of the network are admitted."""

    secure_aggregation: bool = False
    """Whether results leave only in sums with those of other sites: only jobs with
    `training.secure_aggregation` are admitted."""
    privacy: PrivacyDemand | None = None
    """Differential privacy that is demanded of training here, with its budget; by default none."""

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
    """Unique at its site."""
    site: SiteId
    """Its site."""
    data_schema: Word
    """Format of a record, for instance `qa-pairs/1`; a recipe reads one schema."""
    modality: Word
    """`text`, `table` or `image`."""
    topics: Words
    """Paths in a tree of topics, for instance `medicine/neurology`."""
    samples: Count
    """Number of records, in coarse steps."""
    labels: Histogram
    """Label histogram."""
    quality: Share
    """Share of usable records in [0, 1]."""
    fresh_at_s: Moment
    """When the data last changed."""
    price_usd_per_1k: Price = 0.0
    """Price of 1,000 training examples."""
    jurisdiction: Word
    """ISO 3166-1 alpha-2 code of the jurisdiction of the data."""
    licence: str = ""
    """The licence stated by its owner."""
    description: str = ""
    """A description for people."""
    policy: DataPolicy
    """What its owner allows."""
    least_examples: Count = 1
    """Minimum examples of a visit; a shorter one would reveal what single records teach."""
    private_visits_left: Annotated[int, msgspec.Meta(ge=0, le=10**6)] | None = None
    """About how many visits `policy.privacy` still allows, in coarse steps, rounded down; absent
    means it demands no privacy."""
    sketch: TopicSketch | None = None
    """Sketch of the wording of its questions, if its owner agrees to publish one."""
    columns: Count | msgspec.UnsetType = msgspec.UNSET
    """For a table: number of columns that models may learn from."""


_FREE: Final = 0.0


class ComputeDescriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A site's computing resources."""

    device: Word
    """Training device, for instance `cpu` or the name of a GPU."""
    memory_bytes: Count
    """Memory that a visiting model may use."""
    speed_flops: Amount
    """Floating-point operations per second, measured by a short probe of the training engine."""
    recipes: Words
    """Installed recipes."""
    price_usd_per_hour: Price = _FREE
    """Price of an hour of training, merging or measuring, in addition to that of the data."""

    def __post_init__(self) -> None:
        if self.price_usd_per_hour == _FREE:
            # Only the default is left out, not what equals it: earlier versions know no price, and
            # check a signature over the fields that they know.
            msgspec.structs.force_setattr(self, "price_usd_per_hour", _FREE)


class TestSetDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A private test set, as its verifier describes it."""

    topic: Word
    """The topic that its items test."""
    test_schema: Word
    """Format of an item; each recipe is measured on one schema."""
    metrics: Words
    """What the verifier can measure on it."""
    items: Count
    """Number of items."""
    chance: Share
    """Accuracy of guessing, in [0, 1]."""
    labels: Histogram
    """Label histogram."""
    policy: DataPolicy = DataPolicy(recipes=(ANY,))
    """What its owner allows."""
    columns: Count | msgspec.UnsetType = msgspec.UNSET
    """For a table: number of columns beside the label."""


class VerifierDescriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model performance verification unit (MPVU)."""

    tests: Annotated[tuple[TestSetDescriptor, ...], msgspec.Meta(max_length=256)]
    """Its test sets."""
    recipes: Words
    """Recipes whose models it can measure."""
    price_usd_per_hour: Price = _FREE
    """Price of an hour of measuring at a site without the role `compute`; otherwise that role's
    price applies."""

    def __post_init__(self) -> None:
        if self.price_usd_per_hour == _FREE:  # See `ComputeDescriptor`.
            msgspec.structs.force_setattr(self, "price_usd_per_hour", _FREE)


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a node's file that the node skips, and why. Reveals no content."""

    field: Word
    """Its path in the file, for instance `datasets[1]`."""
    name: Word
    """The name that the entry states."""
    reason: Annotated[str, msgspec.Meta(max_length=2000)]
    """What is wrong, in a sentence."""


Edition = tuple[Moment, Count]
"""Identifies a version of a site's descriptor: `started_at_s` and `version`."""


class NodeDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a node publishes about itself. A later `version` replaces an earlier one."""

    site: SiteId
    """Its name, unique in the network."""
    owner: OwnerId
    """The member that runs it."""
    roles: tuple[Role, ...]
    """What it does."""
    jurisdiction: Word
    """ISO 3166-1 alpha-2 code of its jurisdiction."""
    public_key: Word
    """Ed25519 public key, base64; verifies the site's lineage entries."""
    started_at_s: Moment
    """When the node started, seconds since the epoch."""
    version: Count
    """Counts up from 1 with each change since `started_at_s`."""
    software: Line
    """Name and version."""
    datasets: Annotated[tuple[DatasetDescriptor, ...], msgspec.Meta(max_length=256)] = ()
    """For the role `data`."""
    compute: ComputeDescriptor | None = None
    """For the role `compute`."""
    verifier: VerifierDescriptor | None = None
    """For the role `verifier`."""
    facility: FacilityDescriptor | None = None
    """For the role `facility`."""
    gateway: GatewayDescriptor | None = None
    """For the role `gateway`."""
    left_out: Annotated[tuple[LeftOut, ...], msgspec.Meta(max_length=64)] = ()
    """Entries of its file that the node left out; only the first ones, if there are many."""
    cordon: Cordon | msgspec.UnsetType = msgspec.UNSET
    """Present only while the site is out of service and gets nothing new."""

    @property
    def edition(self) -> Edition:
        """Edition number: of two descriptors of a site, the later one has the larger."""
        return self.started_at_s, self.version

    @property
    def measuring_usd_per_hour(self) -> float:
        """Its verifier's price per hour."""
        unit = self.compute or self.verifier
        return unit.price_usd_per_hour if unit else 0.0


class ModelDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    """A model that the network holds."""

    name: Word
    owner: OwnerId
    recipe: Word
    manifest: Digest
    size_bytes: Count
    measured: dict[str, Share]
    """Last verified value per objective."""
    holders: tuple[SiteId, ...]
    created_at_s: Moment
    config: dict[str, object] = {}
    """Its recipe configuration."""
    untrained: bool = False
    """Whether it is fresh from its recipe and has learned nothing."""
    release_to: tuple[str, ...] = (ANY,)
    """Jurisdictions into which it may travel, given all the data it learned from."""
    evidence: tuple[Entry, ...] = ()
    """Its signed verifications."""
