"""A whole network in one process: a real control centre and real nodes, each a machine of its own,
over the in-memory fabric, with a roster and signed messages.

Fakes are at the edges alone: the fabric, the disk under the journal, the process that trains, and
the signatures (a keyed digest, which takes a thousandth of the time; nobody forges any here).
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from daitn.center.config import ApiConfig, CenterConfig
from daitn.center.service import ControlCenter
from daitn.cli.interrupts import until
from daitn.cli.replicas import take_turns
from daitn.identity.keys import SigningKey
from daitn.identity.roster import ROSTER, RosterFile, sign_roster, write_roster
from daitn.node.config import (
    AskingConfig,
    DatasetConfig,
    FacilityConfig,
    ForwarderConfig,
    GatewayConfig,
    NodeConfig,
    PolicyConfig,
    TestSetConfig,
)
from daitn.node.node import Node
from daitn.oam.operated import Operated
from daitn.objects.descriptors import Role
from daitn.objects.errors import DaitnError
from daitn.objects.identifiers import CENTER_SITE, OwnerId, SiteId
from daitn.objects.privacy import PrivacyDemand
from daitn.objects.roster import Kind, Member, Roster
from daitn.tools.fabric.identity import Identity
from daitn.tools.fabric.protocol import Fabric
from daitn.tools.journal.leadership import LeadershipTurn
from daitn.tools.roster import LiveRoster
from tests.faults.disks import Database
from tests.faults.examining import write_items
from tests.faults.network import FaultyNetwork
from tests.faults.sockets import Ports
from tests.faults.steering import Wires
from tests.faults.toy import SECRET, Laboratory
from tests.faults.virtual import EPOCH_S, Machine, VirtualLoop

__all__ = ["API", "CLIENTS", "HOME", "NETWORK", "OWNERS", "SENSED_EVERY_S", "World"]

NETWORK = "trial"
OWNERS = ("ann", "bob", "cleo")
CLIENTS = OWNERS[:2]
"""Who ask models; the last owner asks nothing."""
TOPIC = "oncology/breast"
API = "127.0.0.1:7448"
HOME = "home"
"""Where owners hand in models that travel by themselves."""
STANDBY = "center-2"
"""The machine of a second control centre, which has the first one's name and key."""
_LINKS = (("gate", "fwd"), ("fwd", "mdf0"), ("fwd", "mdf1"), ("gate", "mdf1"))
"""Of forwarders that carry queries."""
SENSED_EVERY_S = 30.0
"""How often links are measured: a gateway that could reach nobody takes so long to see that it can.
"""
_LASTS_S = 1e7
_BACK_AFTER_S = 15.0
"""A site that dies in the middle of a sum is back after this."""
_FACILITY = FacilityConfig(price_usd_per_hour=1.0, states_every_s=5.0)
_GATEWAY = GatewayConfig(needs_token=True, states_every_s=5.0)
_ROWS = "".join(f"{number},{SECRET.decode()}\n" for number in range(20))


class World:
    """The network of one run, in `folder`."""

    def __init__(
        self,
        folder: Path,
        loop: VirtualLoop,
        rng: random.Random,
        sites: int,
        verifiers: int,
        facilities: int,
        travels: bool = False,
        stands_by: bool = False,
    ) -> None:
        """`travels`: whether models may travel by themselves. `stands_by`: whether a second control
        centre does."""
        self.folder = folder
        self.loop = loop
        self.rng = rng
        self.network = FaultyNetwork(loop, random.Random(rng.random()), SECRET)
        self.database = Database()
        self.lab = Laboratory(sites, random.Random(rng.random()))
        self.data_sites = tuple(f"site{number}" for number in range(sites))
        self.verifiers = tuple(f"mpvu{number}" for number in range(verifiers))
        self.facilities = tuple(f"mdf{number}" for number in range(facilities))
        self.gateways = ("gate",) if facilities else ()
        self.ports = Ports(loop, self.network, random.Random(rng.random()))
        self.forwarders = ("fwd",) if facilities and rng.random() < 0.5 else ()
        """Where there are any, gateway and facilities are forwarders, too."""
        self.travels = travels
        self.centers = (CENTER_SITE, STANDBY) if stands_by else (CENTER_SITE,)
        learning = (HOME, *self.data_sites, *self.verifiers) if travels else ()
        ring = tuple(zip(learning, (*learning[1:], *learning[:1]), strict=True))
        self.wires = Wires(self.ports, (*_LINKS, *ring))
        self.watched = False
        """Whether somebody looks at a dashboard."""
        self.private: set[str] = set()
        """Sites whose owner demands differential privacy."""
        self.examined_every_s = 40.0
        """How often verifiers examine what is deployed."""
        self.liars: dict[str, Callable[[Node], None]] = {}
        """What makes a node of this name answer wrongly, as it starts."""
        self.machines: dict[str, Machine] = {}
        """The living ones."""
        self.dead: list[object] = []
        """What is left of the killed: nothing of it may run, be it only as it is collected."""
        self.lives: dict[str, int] = {}
        self.leapt_s = 0.0
        """By how much clocks were set forward, all together."""
        self.failed_starts: list[str] = []
        self._ahead_s: dict[str, float] = {}
        """Of each machine's clock in its latest life, as that began."""
        self._keys: dict[str, SigningKey] = {}

    @property
    def nodes(self) -> tuple[str, ...]:
        return (
            *self.data_sites,
            *self.verifiers,
            *self.facilities,
            *self.gateways,
            *self.forwarders,
            *((HOME,) if self.travels else ()),
        )

    def found(self) -> None:
        """Write what members keep: their keys and the roster."""
        root = self._key("root")
        members = [self._member(CENTER_SITE, Kind.CENTER, ())]
        members += [self._member(name, Kind.OWNER, ()) for name in OWNERS]
        members += [self._member("ops", Kind.OPERATOR, ())]
        members += [self._member(n, Kind.SITE, self._roles(n)) for n in self.nodes]
        roster = Roster(
            network=NETWORK, version=1, issued_at_s=EPOCH_S - 1e5, until_s=EPOCH_S + _LASTS_S,
            members=tuple(members),
        )  # fmt: skip
        file = RosterFile(root=root.public, signed=sign_roster(roster, root))
        for name in (*self.centers, *self.nodes, *OWNERS, "ops"):
            state = self.state(name)
            state.mkdir(parents=True)
            write_roster(state / ROSTER, file)
            raw = base64.b64encode(self._raw(CENTER_SITE if name in self.centers else name))
            (state / "key").write_bytes(raw)
        for site in self.data_sites:
            (self.folder / site).mkdir(exist_ok=True)
            (self.folder / site / "data.csv").write_text(_ROWS)
        write_items(self.folder / "test.jsonl", TOPIC, SECRET.decode())

    def state(self, name: str) -> Path:
        return self.folder / "state" / name

    def start(self, name: str, ahead_s: float = 0.0) -> None:
        """Start a control centre or a node, also again. It tries until it runs, as whatever watches
        over processes has it."""
        machine = self._machine(name, ahead_s)
        self.leapt_s += max(0.0, ahead_s - self._ahead_s.get(name, 0.0))
        self._ahead_s[name] = ahead_s
        if name in self.centers:  # Whoever takes over goes by another clock.
            others = (self._ahead_s.get(other, 0.0) for other in self.centers if other != name)
            self.leapt_s += max((abs(ahead_s - other) for other in others), default=0.0)
        if len(self.centers) > 1 and name in self.centers:
            self._run(machine, self._stand_by(machine))
            return
        make = self._center if name == CENTER_SITE else self._node
        self._run(machine, self._until_it_runs(machine, make))

    def person(self, name: str) -> tuple[Machine, Fabric]:
        """Somebody who asks, connected."""
        machine = self._machine(name, 0.0)
        return machine, machine.context().run(self._signed, machine)

    def kill(self, name: str, noticed_after_s: float) -> None:
        """Kill a process: of what it does nothing goes on."""
        machine = self.machines.pop(name)
        machine.dead = True
        self.dead.append(machine)
        outside = contextvars.Context()  # Also if it is the process that ends itself.
        outside.run(self.network.vanish, name, noticed_after_s)
        outside.run(self.ports.vanish, machine, noticed_after_s)

    def _die(self, name: str) -> None:
        self.kill(name, 0.05)
        self.loop.call_later(_BACK_AFTER_S, self.start_again, name, context=contextvars.Context())

    def start_again(self, name: str, ahead_s: float = 0.0) -> None:
        """Start it, unless it runs."""
        if name not in self.machines:
            self.start(name, ahead_s)

    def stop(self, name: str) -> None:
        """Let a process stand still (SIGSTOP)."""
        self.machines[name].stopped = True
        self.network.halt(name)

    def go_on(self, name: str) -> None:
        self.machines[name].go_on()
        self.network.resume(name)

    def run_as(self, machine: Machine, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Run something as a machine."""
        return self._run(machine, work)

    def _machine(self, name: str, ahead_s: float) -> Machine:
        self.lives[name] = self.lives.get(name, 0) + 1
        machine = self.machines[name] = Machine(name, self.loop, ahead_s)
        return machine

    def _run(self, machine: Machine, work: Any) -> asyncio.Task[Any]:
        task = self.loop.create_task(work, context=machine.context())
        self.dead.append(task)
        return task

    async def _until_it_runs(self, machine: Machine, make: Callable[[Machine], Any]) -> None:
        while True:
            service = None
            try:
                service = make(machine)
                await service.start()
            except Exception as error:
                if not isinstance(error, DaitnError):
                    self.failed_starts.append(f"{machine.name}: {error!r}")
                if service is not None:
                    await service.close()
                await self.network._sessions[machine.name].close()
                await asyncio.sleep(5.0)
            else:
                self.dead.append(service)
                return

    async def _stand_by(self, machine: Machine) -> None:
        """Lead whenever it is this one's turn."""

        async def serve(turn: LeadershipTurn, ending: asyncio.Event) -> None:
            service = self._center(machine, turn)
            try:
                await until(ending, service.start())
                await ending.wait()
            finally:
                await service.close()
                await self.network._sessions[machine.name].close()

        while True:
            try:
                await take_turns(self._center_config(machine), asyncio.Event(), serve)
            except DaitnError:
                await asyncio.sleep(5.0)

    def _center_config(self, machine: Machine) -> CenterConfig:
        return CenterConfig(
            state=str(self.state(machine.name)),
            database="memory",
            replica=machine.name if len(self.centers) > 1 else "",
            requests_per_minute=10_000,
            insecure=True,  # HTTP without TLS, as for nodes.
            api=ApiConfig(listen=API if self.watched else ""),
        )

    def _center(self, machine: Machine, turn: LeadershipTurn | None = None) -> Operated:
        config = self._center_config(machine)
        roster = LiveRoster(self.state(machine.name))
        identity = self._identity(CENTER_SITE, roster)
        if turn is not None:
            identity = replace(identity, epoch=turn.term.speaking)
        fabric = identity.signs(self._session(machine))
        served = ControlCenter(config, fabric, roster, identity, turn=turn)
        return Operated(served, config, roster)

    def _node(self, machine: Machine) -> Node:
        name = machine.name
        roster = LiveRoster(self.state(name))
        identity = self._identity(name, roster)
        fabric = identity.signs(self._session(machine))
        node = Node(self._config(name), fabric, roster, identity.orders())
        if name in self.liars:
            self.liars[name](node)
        self.lab.sums.watch(name, node._sums, partial(self._die, name))
        return node

    def _signed(self, machine: Machine) -> Fabric:
        roster = LiveRoster(self.state(machine.name))
        return self._identity(machine.name, roster).signs(self._session(machine))

    def _session(self, machine: Machine) -> Any:
        return self.network.connect(machine)

    def _identity(self, name: str, roster: LiveRoster) -> Identity:
        return Identity(self._key(name), NETWORK, roster.members)

    def _config(self, name: str) -> NodeConfig:
        data: tuple[DatasetConfig, ...] = ()
        tests: tuple[TestSetConfig, ...] = ()
        if name in self.data_sites:
            demand = (
                PrivacyDemand(epsilon_total=8.0, epsilon_per_visit=2.0)
                if name in self.private
                else None
            )
            data = (
                DatasetConfig(
                    name="biopsies", path=str(self.folder / name / "data.csv"),
                    data_schema="toy/1", topics=(TOPIC,), price_usd_per_1k=0.5,
                    policy=PolicyConfig(recipes=("*",), start_models=True, privacy=demand),
                ),
            )  # fmt: skip
        elif name in self.verifiers:
            tests = (
                TestSetConfig(
                    topic=TOPIC, path=str(self.folder / "test.jsonl"),
                    test_schema="multiple-choice/1", chance=0.5,
                ),
            )  # fmt: skip
        return NodeConfig(
            site=SiteId(name), owner=OwnerId(f"owner-{name}"), jurisdiction="US",
            roles=self._roles(name), state=str(self.state(name)), recipes=("toy",),
            save_every_s=1.0, datasets=data, tests=tests, center=("tcp/127.0.0.1:1",),
            asking=AskingConfig(every_s=self.examined_every_s),
            insecure=True,  # HTTP without TLS: nobody listens in.
            facility=_FACILITY if name in self.facilities else None,
            gateway=_GATEWAY if name in self.gateways else None,
            forwarder=ForwarderConfig() if Role.FORWARDER in self._roles(name) else None,
        )  # fmt: skip

    def _roles(self, name: str) -> tuple[Role, ...]:
        passes_on = (Role.FORWARDER,) if self.travels else ()
        if name in self.data_sites:
            return (Role.DATA, Role.COMPUTE, *passes_on)
        if name in self.verifiers:
            return (Role.VERIFIER, *passes_on)
        steers = (Role.FORWARDER,) if self.forwarders else ()
        if name in (*self.forwarders, HOME):
            return (Role.FORWARDER,)
        return (Role.FACILITY if name in self.facilities else Role.GATEWAY, *steers)

    def _member(self, name: str, kind: Kind, roles: tuple[Role, ...]) -> Member:
        site = kind is Kind.SITE
        return Member(
            name=name, kind=kind, public_key=self._key(name).public, until_s=EPOCH_S + _LASTS_S,
            roles=roles, owner=f"owner-{name}" if site else "", jurisdiction="US" if site else "",
        )  # fmt: skip

    def key(self, name: str) -> SigningKey:
        return self._key(name)

    def _key(self, name: str) -> SigningKey:
        if name not in self._keys:
            self._keys[name] = SigningKey.of(self._raw(name))
        return self._keys[name]

    @staticmethod
    def _raw(name: str) -> bytes:
        return hashlib.blake2b(name.encode(), digest_size=32).digest()
