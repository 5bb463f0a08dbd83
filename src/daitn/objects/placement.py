"""Which models are to answer where: what is wished, what is decided, and what is seen of it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from daitn.objects.deployments import DeploymentState
from daitn.objects.descriptors import ModelDescriptor
from daitn.objects.identifiers import SiteId

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
"""As a number of replicas: as many as what is asked makes worth while."""

Price = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]


class DeployIntent(msgspec.Struct, frozen=True, kw_only=True):
    """An operator wishes a trained model to answer queries."""

    model: str
    """Its name, which is that of the job that trained it."""
    name: str = ""
    """By which queries ask for it; empty: the model's. Under a name that is in use, the model takes
    the place of the one before."""
    to: Annotated[tuple[SiteId, ...], msgspec.Meta(max_length=256)] = ()
    """Facilities; empty: the control centre chooses."""
    replicas: Annotated[int, msgspec.Meta(ge=0, le=256)] = 1
    """Where the control centre chooses; `AUTO_REPLICAS`: how many, too."""
    price_usd_per_1k_in: Price = 0.0
    price_usd_per_1k_out: Price = 0.0
    askers: tuple[str, ...] = ("*",)
    """Query owners who may ask it."""

    @property
    def automatic(self) -> bool:
        """Whether the optimiser decides where it is, and how often."""
        return not self.to and self.replicas == AUTO_REPLICAS


class RetireIntent(msgspec.Struct, frozen=True, kw_only=True):
    """An operator wishes a model to answer no more, everywhere or at one facility."""

    name: str
    site: SiteId | None = None


class DesiredDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that the control centre keeps up."""

    name: str
    intent: DeployIntent
    model: ModelDescriptor
    places: tuple[SiteId, ...]
    """Facilities at which it is to be."""
    why: str = ""
    """Why there."""


class PlaceView(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a deployment."""

    site: SiteId
    state: DeploymentState | None
    """As the facility says; none: it does not say anything of it."""
    wanted: bool
    detail: str = ""


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment, wished and seen."""

    name: str
    model: str
    replicas: int
    places: tuple[PlaceView, ...]
    why: str

    @property
    def ready(self) -> bool:
        """Whether it answers at every place where it is to be."""
        wanted = [place for place in self.places if place.wanted]
        return bool(wanted) and all(place.state is DeploymentState.READY for place in wanted)


class DeploymentList(msgspec.Struct, frozen=True, kw_only=True):
    """Deployments by name."""

    deployments: tuple[DeploymentView, ...]


class PlannedPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A change that the optimiser proposes."""

    name: str
    site: SiteId
    add: bool
    """Whether it is to come, or to go."""
    gain: float
    """Seconds of waiting and travelling per second that it saves, its costs taken off."""
    why: str


class PlacementView(msgspec.Struct, frozen=True, kw_only=True):
    """What the optimiser would change now."""

    changes: tuple[PlannedPlace, ...]
    cost_now: float
    cost_then: float
