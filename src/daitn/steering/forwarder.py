"""The forwarder: decides for every packet, by itself, where it goes next. Without I/O.

A shell hands over what arrives and does what the returned commands say. For each object:

- it goes to the best next hop of the ranking of its want (`ranking`), or is delivered here;
- a crumb stays until its answer has gone by (`pending`); answers go back from crumb to crumb, and
  steer themselves to where the object set out if the crumb's neighbour is gone;
- a neighbour that fails gives everything back that was under way through it: it goes another way;
- a refusal tells which sites need not be tried again; the next best way is taken, and if there is
  none the refusal goes back one more hop. So a search never visits a site twice, and ends;
- where an object set out, it is sent again (`attempt`) if it is overdue or if the network has
  changed since it was refused. What returns to its owner is exactly one answer or one refusal;
- branches of an object, the members of an ensemble, keep apart: none goes where another one went
  from here. They are made where the object sets out, and by no forwarder.

Two copies of an object can meet after a failure. The later one is not passed on, but its sender
becomes one more who waits for the answer. It can happen that two wait for each other; that ends
when the object is sent again.
"""

from __future__ import annotations

from daitn.steering.commands import Command, Tell
from daitn.steering.custody import Custody
from daitn.steering.routes.table import AggregationLimits, RouteTable
from daitn.steering.settings import ForwarderSettings
from daitn.steering.wire.packet import Packet
from daitn.steering.wire.summaries import Summary

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
        """`domain` is empty where the site belongs to none. Raises `InvalidInput` for a bad one."""
        self.site = site
        self.routes = RouteTable(site, now_s, limits, domain)
        self.custody = Custody(self.routes, settings or ForwarderSettings())

    def link_up(
        self, neighbour: str, cost_s: float, now_s: float, domain: str | None = None
    ) -> list[Command]:
        """A link came up, or one that seemed up is a new one. `domain` is the neighbour's; None:
        the same as this site's."""
        commands = self.link_down(neighbour, now_s)
        self.routes.link_up(neighbour, cost_s, now_s, domain)
        return commands

    def link_domain(self, neighbour: str, domain: str | None) -> None:
        """A neighbour belongs to another domain from now on; None: the same as this site."""
        self.routes.link_domain(neighbour, domain)

    def set_domain(self, domain: str, now_s: float) -> None:
        """This site belongs to another domain from now on; empty: to none. What is under way goes
        on. Raises `InvalidInput`."""
        self.routes.set_domain(domain, now_s)

    def link_cost(self, neighbour: str, cost_s: float, now_s: float) -> None:
        """A link was measured again."""
        self.routes.link_cost(neighbour, cost_s, now_s)

    def link_down(self, neighbour: str, now_s: float) -> list[Command]:
        """A link is down: what was under way through it goes another way."""
        commands: list[Command] = []
        self.routes.link_down(neighbour, now_s)
        self.custody.lost(neighbour, now_s, commands)
        return commands

    def heard(self, neighbour: str, summary: Summary, now_s: float) -> None:
        """A neighbour told what it reaches. Raises `Corrupt`, and then takes nothing of it."""
        self.routes.heard(neighbour, summary, now_s)

    def packet(self, sender: str, packet: Packet, now_s: float) -> list[Command]:
        """A packet came from a neighbour, or from `LOCAL`: an object that sets out, or the answer
        or refusal of one that was delivered here."""
        commands: list[Command] = []
        self.custody.packet(sender, packet, now_s, commands)
        return commands

    def tick(self, now_s: float) -> list[Command]:
        """What is due: summaries, objects that waited, answers that were kept long enough."""
        commands: list[Command] = []
        self.custody.tick(now_s, commands)
        commands += [Tell(to, summary) for to, summary in self.routes.due(now_s)]
        return commands

    def next_s(self) -> float:
        """When `tick` is due at the latest; look again after every other call."""
        return min(self.custody.next_s(), self.routes.next_due_s())
