"""The node file as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from daitn.learning.pulse import STALL_S
from daitn.learning.sandbox.policy import Sandbox
from daitn.node.config.compute import ComputeConfig
from daitn.node.config.data import DatasetConfig
from daitn.node.config.facility import FacilityConfig
from daitn.node.config.forwarder import ForwarderConfig
from daitn.node.config.gateway import GatewayConfig
from daitn.node.config.sandbox import SandboxConfig
from daitn.node.config.verifier import AskingConfig, TestSetConfig
from daitn.objects.descriptors import LeftOut, Role
from daitn.objects.identifiers import OwnerId, SiteId
from daitn.tools.monitoring.config import MetricsConfig, TracesConfig

__all__ = ["NodeConfig", "ReadNodeConfig"]


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node. Relative paths start from the file's folder."""

    site: SiteId
    """Name of the site; `center` is taken."""
    owner: OwnerId
    """Owner of the node."""
    jurisdiction: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$")]
    """ISO 3166-1 alpha-2 code of the applicable law."""
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1)]
    """Roles of the node. `data` needs `datasets`, `verifier` needs `tests`, and the last three need
    the section of their name."""
    center: tuple[str, ...] = ()
    """Endpoints of the control centre, for instance `tls/10.0.0.1:7447`. A forwarder may name
    another node's `listen`, or none; every other node needs one."""
    listen: tuple[str, ...] = ("tls/127.0.0.1:0",)
    """Endpoints for other sites; port 0 picks a free one. Empty: nobody can connect, and the
    control centre relays all traffic, models included."""
    state: str
    """Folder for the key, the roster, the models and the work log."""
    roster: str = ""
    """File in which an operator puts new rosters. Empty: the one in `state`, as `daitn network
    join` put it there, and newer ones that others pass on."""
    insecure: bool = False
    """Runs without a roster: whoever reaches the process may do anything. For trying things out on
    one machine: every address to listen at has to be of this machine alone."""
    threads: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Processor threads for training."""
    stall_s: Annotated[float, msgspec.Meta(gt=0.0)] = STALL_S
    """Time after which training, measuring, loading or answering without progress reports or
    processor use is ended as failed. Work that uses a processor is ended after an hour without a
    report, a step of an answer after five minutes."""
    save_every_s: Annotated[float, msgspec.Meta(ge=0.0)] = 30.0
    """How often a visit keeps a savepoint, in seconds of work: it goes on from the latest after its
    process or its node has ended. Savepoints lie in `state` until the visit ends, for a day at
    most. 0: never; a visit that is cut off begins anew."""
    longest_s: Annotated[float, msgspec.Meta(gt=0.0)] = 86_400.0
    """Longest that one visit or measurement may take, in seconds. Work that is estimated to take
    longer is refused, and work that does is ended."""
    drain_s: Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)] = 30.0
    """Longest that a gateway, facility or forwarder which is told to stop (SIGTERM) still takes for
    the queries in progress. A second SIGTERM ends it at once."""
    sandbox: SandboxConfig = SandboxConfig()
    """What recipes run in, see below."""
    recipes: tuple[str, ...] = ()
    """Installed recipes that may run here; empty: all of them. A recipe that is not installed, or
    cannot describe itself, is left out."""
    compute: ComputeConfig = ComputeConfig()
    """What training here costs, see below."""
    datasets: tuple[DatasetConfig, ...] = ()
    """Data sets of the site, see below."""
    tests: tuple[TestSetConfig, ...] = ()
    """Private test sets of a verifier, see below."""
    asking: AskingConfig = AskingConfig()
    """How a verifier tests deployed models, see below."""
    verifiers: tuple[SiteId, ...] = ()
    """Verification units whose findings this gateway, facility or forwarder uses; empty: all sites
    to which the roster grants that role."""
    facility: FacilityConfig | None = None
    """The facility's section, see below."""
    gateway: GatewayConfig | None = None
    """The gateway's section, see below."""
    forwarder: ForwarderConfig | None = None
    """The forwarder's section, see below."""
    metrics: MetricsConfig = MetricsConfig()
    """Where Prometheus finds the node's metrics, see below."""
    traces: TracesConfig = TracesConfig()
    """Where spans of queries and visits go, see below."""

    @property
    def scratch(self) -> Path:
        """The folder of work in progress; emptied when a node starts."""
        return Path(self.state) / "scratch"

    @property
    def recipe_sandbox(self) -> Sandbox:
        """What recipes run in that need nothing beyond its limits."""
        return Sandbox(limits=self.sandbox.limits, folder=str(self.scratch))

    @property
    def tls(self) -> str:
        """Folder of its certificates; none without a roster."""
        return "" if self.insecure else str(Path(self.state) / "tls")


class ReadNodeConfig(NodeConfig, frozen=True, kw_only=True):
    """A node file as read: valid entries, and notes on those left out."""

    left_out: tuple[LeftOut, ...] = ()
    dataset_positions: tuple[int, ...] = ()
    """Position of each data set in the file."""
    test_positions: tuple[int, ...] = ()
