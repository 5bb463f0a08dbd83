"""The forwarder: chooses each packet's next hop on its own. Without I/O.

A shell hands over what arrives and carries out the returned commands. For each object:

- The forwarder sends it to the best next hop by the ranking for its intent (`ranking`), or delivers
  it here.
- A pending entry remains until its answer has gone by (`pending`). Answers go back from entry to
  entry; if that path is broken, they steer themselves to where the object set out.
- If a neighbour fails, the objects under way through it get another next hop.
- A refusal names sites to skip. The forwarder takes the next best hop; if there is none, it passes
  the refusal back one hop. So a search never visits a site twice, and ends.
- The forwarder where the object set out sends it again (`attempt`) if it is overdue, or if the
  network has changed since it was refused. Its owner gets exactly one answer or one refusal.
- Branches of an object, the members of an ensemble, stay apart: none goes where this site sent
  another one. They are made where the object sets out, never by a forwarder.

Two copies of an object can meet after a failure. The forwarder does not pass the later one on; its
sender waits for the answer too. Two copies may come to wait for each other; that ends when the
object is sent again.
"""

from __future__ import annotations

from daitn.steering.commands import Advertise, Command
from daitn.steering.custody import Custody
from daitn.steering.routes.table import AggregationLimits, RouteTable
from daitn.steering.settings import ForwarderSettings
from daitn.steering.wire.offers import Summary
from daitn.steering.wire.packet import Packet

__all__ = ["Forwarder", "ForwarderSettings"]


class Forwarder:
    """One site's forwarder. `now_s` is in seconds since the Unix epoch and never goes back."""

    def __init__(
        self,
        site: str,
        now_s: float,
        settings: ForwarderSettings | None = None,
        limits: AggregationLimits | None = None,
        domain: str = "",
    ) -> None:
        """An empty `domain` means none. Raises `InvalidInput` for a malformed one."""
        self.site = site
        self.routes = RouteTable(site, now_s, limits, domain)
        self.custody = Custody(self.routes, settings or ForwarderSettings())

    def link_up(
        self, neighbour: str, cost_s: float, now_s: float, domain: str | None = None
    ) -> list[Command]:
        """A link came up, or was replaced by a new one. `domain` is the neighbour's; `None` means
        this site's."""
        commands = self.link_down(neighbour, now_s)
        self.routes.link_up(neighbour, cost_s, now_s, domain)
        return commands

    def link_domain(self, neighbour: str, domain: str | None) -> None:
        """A neighbour now belongs to another domain; `None` means to this site's."""
        self.routes.link_domain(neighbour, domain)

    def set_domain(self, domain: str, now_s: float) -> None:
        """Move this site to another domain; empty means to none. Pending objects are not affected.
        Raises `InvalidInput`."""
        self.routes.set_domain(domain, now_s)

    def link_cost(self, neighbour: str, cost_s: float, now_s: float) -> None:
        """A link has a new measured cost."""
        self.routes.link_cost(neighbour, cost_s, now_s)

    def link_down(self, neighbour: str, now_s: float) -> list[Command]:
        """A link went down: pending objects that went through it get another next hop."""
        commands: list[Command] = []
        self.routes.link_down(neighbour, now_s)
        self.custody.neighbour_lost(neighbour, now_s, commands)
        return commands

    def receive_summary(self, neighbour: str, summary: Summary, now_s: float) -> None:
        """Process a neighbour's summary. Raises `Corrupt`, and then uses none of it."""
        self.routes.receive(neighbour, summary, now_s)

    def packet(self, sender: str, packet: Packet, now_s: float) -> list[Command]:
        """A packet arrived from a neighbour, or from `LOCAL`: an object that sets out, or the
        answer or refusal of one that was delivered here."""
        commands: list[Command] = []
        self.custody.packet(sender, packet, now_s, commands)
        return commands

    def tick(self, now_s: float) -> list[Command]:
        """Do what is due: send summaries, retry held objects, forget old answers."""
        commands: list[Command] = []
        self.custody.tick(now_s, commands)
        commands += [Advertise(to, summary) for to, summary in self.routes.due(now_s)]
        return commands

    def next_s(self) -> float:
        """When `tick` is due at the latest. Any other call may change it."""
        return min(self.custody.next_s(), self.routes.next_due_s())
