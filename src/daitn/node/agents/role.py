"""A node's role for agents: host of any, and home of its owner's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from daitn.files.state_folder import NodeState
from daitn.node.agents.accounts import TravelReports
from daitn.node.agents.guard import AgentGuard
from daitn.node.agents.home import AgentHome
from daitn.node.agents.host import AgentHost
from daitn.node.agents.store import AgentStore, LeftModels
from daitn.node.forwarder.offers import learning_offers
from daitn.node.forwarder.role import ForwarderRole
from daitn.node.training.executor import Executor
from daitn.node.training.work_queue import WorkResult
from daitn.objects.descriptors import NodeDescriptor
from daitn.objects.identifiers import Digest, SiteId, VisitId
from daitn.objects.messages import Work
from daitn.steering.wire.intent import Capability
from daitn.tools.fabric.protocol import Fabric, Handler
from daitn.tools.mobility.protocol import ModelTransport
from daitn.tools.mobility.releases import Release

__all__ = ["AgentsRole"]


class AgentsRole:
    """See the module."""

    def __init__(
        self,
        site: SiteId,
        state: Path,
        fabric: Fabric,
        role: ForwarderRole,
        transport: ModelTransport,
        executor: Executor,
        descriptor: Callable[[], NodeDescriptor],
        guard: AgentGuard | None = None,
        note: Release | None = None,
        ended: Callable[[VisitId], None] = lambda _: None,
        announced: Callable[[], Iterable[NodeDescriptor]] = tuple,
    ) -> None:
        """`ended`, `announced`: see `AgentHost`."""
        perform: Callable[[Work], Awaitable[WorkResult]] = executor.perform
        self._host = AgentHost(
            site,
            role.runtime,
            AgentStore(state / NodeState.AGENTS),
            executor.prefetch,
            perform,
            descriptor,
            guard,
            note,
            ended,
            LeftModels(state / NodeState.MODELS_LEFT),
            announced,
        )
        ours = AgentStore(state / NodeState.AGENTS_OF_HOME)
        self._home = AgentHome(
            site,
            fabric,
            role.runtime,
            ours,
            self._host,
            transport,
            executor.needs,
            guard,
            note,
            TravelReports(fabric, ours, state / NodeState.AGENTS_REPORTED),
        )
        role.provide(
            lambda: learning_offers(descriptor()),
            {
                Capability.DATA: self._host,
                Capability.VERIFY: self._host,
                Capability.HOME: self._home,
            },
        )

    def start(self) -> None:
        """Continue with the agents on disk."""
        self._home.start()
        self._host.resume()

    async def close(self) -> None:
        await self._home.close()
        await self._host.close()

    @property
    def hosted(self) -> int:
        """Number of agents here."""
        return self._host.hosted

    def models(self) -> frozenset[Digest]:
        """Weights that agents need."""
        return self._host.models() | self._home.models()

    def handlers(self) -> dict[str, Handler]:
        """See `AgentHome.handlers`."""
        return self._home.handlers()
