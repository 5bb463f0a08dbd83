"""Model placement: desired deployments, planned changes, and the observed state."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.bounds import Price
from daitn.objects.deployments import (
    DeploymentState,
    DeploymentTerms,
    ModelPolicy,
    config_digest,
)
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.grants import Signed
from daitn.objects.identifiers import SiteId, Word

__all__ = [
    "AUTO_REPLICAS",
    "DeployIntent",
    "DeploymentList",
    "DeploymentView",
    "DesiredDeployment",
    "PlaceView",
    "PlacementView",
    "PlannedPlace",
    "RetireIntent",
]

AUTO_REPLICAS = 0
"""As a number of replicas: as many as demand justifies."""


class DeployIntent(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's request to deploy a trained model."""

    model: Word
    """Its name, which is that of the job that trained it."""
    name: Word = ""
    """The name that queries use; empty means the model's. The model replaces any earlier one under
    that name."""
    to: Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=256)] = ()
    """Facilities; empty means the control centre chooses."""
    replicas: Annotated[int, msgspec.Meta(ge=0, le=256)] = 1
    """If the control centre chooses the facilities; with `AUTO_REPLICAS` it also chooses the
    number."""
    price_usd_per_1k_in: Price = 0.0
    price_usd_per_1k_out: Price = 0.0
    askers: tuple[str, ...] = ("*",)
    """Query owners who may query it."""
    grant: Signed | None = None
    """The `DeploymentGrant` of the model's owner."""

    @property
    def automatic(self) -> bool:
        """Whether the optimiser chooses the places and their number."""
        return not self.to and self.replicas == AUTO_REPLICAS

    def terms(self, model: ModelDescriptor) -> DeploymentTerms:
        """The terms on which a model with this intent answers."""
        return DeploymentTerms(
            recipe=model.recipe,
            config=config_digest(model.config),
            policy=ModelPolicy(release_to=model.release_to, askers=self.askers),
            price_usd_per_1k_in=self.price_usd_per_1k_in,
            price_usd_per_1k_out=self.price_usd_per_1k_out,
        )


class RetireIntent(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's request to retire a model, everywhere or at one facility."""

    name: Word
    site: SiteId | None = None


class DesiredDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that the control centre maintains."""

    name: Word
    intent: DeployIntent
    model: ModelDescriptor
    places: tuple[SiteId, ...]
    """Facilities that should serve it."""
    why: str = ""
    """Reason for these places."""
    name_grant: Signed | None = None
    """Signed by the control centre, if the bare name is this model's."""

    @property
    def terms(self) -> DeploymentTerms:
        """The terms on which it answers."""
        return self.intent.terms(self.model)


class PlaceView(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a deployment."""

    site: SiteId
    state: DeploymentState | None
    """As the facility reports it; absent means no report."""
    wanted: bool
    detail: str = ""
    standing: str = ""
    """`lost`, `cordoned` or `draining`, as its site is; else its state, or `asked`."""


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment: desired and observed."""

    name: Word
    model: Word
    replicas: int
    places: tuple[PlaceView, ...]
    why: str

    @property
    def ready(self) -> bool:
        """Whether it is ready at every desired place."""
        wanted = [place for place in self.places if place.wanted]
        return bool(wanted) and all(place.state is DeploymentState.READY for place in wanted)


class DeploymentList(msgspec.Struct, frozen=True, kw_only=True):
    """Deployments by name."""

    deployments: tuple[DeploymentView, ...]


class PlannedPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A change that the optimiser proposes."""

    name: Word
    site: SiteId
    add: bool
    """True adds the deployment, false removes it."""
    gain: float
    """Seconds of waiting and transfer saved per second, minus its costs."""
    why: str


class PlacementView(msgspec.Struct, frozen=True, kw_only=True):
    """The changes that the optimiser would make now."""

    changes: tuple[PlannedPlace, ...]
    cost_now: float
    cost_then: float
