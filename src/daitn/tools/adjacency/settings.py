"""Settings of a site and its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from daitn.objects.errors import InvalidInput
from daitn.objects.identifiers import SiteId, checked_name

__all__ = ["DEAD_S", "HELLO_S", "AdjacencySettings"]

HELLO_S, DEAD_S = 0.05, 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class AdjacencySettings:
    """Settings of a site's links. Raises `InvalidInput` for unusable names."""

    site: SiteId
    listen: tuple[str, ...] = ()
    """Endpoints to accept connections on, like `tls/[::]:7448`; port 0 takes a free one."""
    neighbours: Mapping[SiteId, tuple[str, ...]] = field(default_factory=dict)
    """Endpoints to connect to, per neighbour; none for one that connects to this site."""
    anybody: bool = False
    """Whether any site that connects becomes a neighbour, under the name it claims."""
    scout: str = ""
    """Multicast group on which sites of a local network find each other and become neighbours;
    empty means none."""
    tls: str = ""
    """Folder with certificates; see `FabricSettings`."""
    listed: Callable[[str], bool] | None = None
    """Whether the roster has a key: encrypted links to others are ended. `None` means all are
    members."""
    hello_s: float = HELLO_S
    dead_s: float = DEAD_S
    """A neighbour that is silent for this long is down."""

    def __post_init__(self) -> None:
        for name in (self.site, *self.neighbours):
            checked_name(name, "site")
        if self.site in self.neighbours:
            raise InvalidInput(
                f"{self.site} is its own neighbour", field="neighbours", fix="leave it out"
            )
        if not 0 < 2 * self.hello_s <= self.dead_s:
            raise InvalidInput(
                f"silence of {self.dead_s:g} s is less than two hellos",
                field="dead_s",
                fix=f"wait at least {2 * self.hello_s:g} s",
            )
