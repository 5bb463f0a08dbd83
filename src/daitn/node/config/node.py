"""The node file as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from daitn.files.state_folder import NodeState, ProcessState
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
    """Name of the site; `center` is reserved."""
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
    """Endpoints for other sites; port 0 picks a free one. Empty means nobody can connect, and the
    control centre relays all traffic, models included."""
    state: str
    """Folder for the key, the roster, the models and the work log."""
    roster: str = ""
    """File in which an operator puts new rosters. Empty means the one that `daitn network join` put
    into `state`, and newer ones from other members."""
    insecure: bool = False
    """Run without a roster: anyone who reaches the process may do anything. Only for experiments on
    one machine: all addresses must be local to this machine."""
    threads: Annotated[int, msgspec.Meta(ge=1)] = 2
    """CPU threads for training."""
    stall_s: Annotated[float, msgspec.Meta(gt=0.0)] = STALL_S
    """Time after which training, measuring, loading or answering is ended as failed if it neither
    reports progress nor uses the CPU. Work that uses the CPU is ended after an hour without a
    report, a step of an answer after five minutes."""
    save_every_s: Annotated[float, msgspec.Meta(ge=0.0)] = 30.0
    """Seconds of work between two savepoints of a visit. After a crash of its process or node, the
    visit resumes from the latest one. Savepoints stay in `state` until the visit ends, for at most
    a day. 0 disables them; an interrupted visit then starts over."""
    longest_s: Annotated[float, msgspec.Meta(gt=0.0)] = 86_400.0
    """Maximum duration of one visit or measurement, in seconds. Work that is estimated to take
    longer is refused, and work that does take longer is ended."""
    drain_s: Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)] = 30.0
    """Maximum time that a gateway, facility or forwarder takes, after SIGTERM, to finish the
    queries in progress. A second SIGTERM ends it at once."""
    sandbox: SandboxConfig = SandboxConfig()
    """The sandbox of recipes, see below."""
    recipes: tuple[str, ...] = ()
    """Installed recipes that may run here; empty means all of them. A recipe that is not installed,
    or cannot describe itself, is left out."""
    compute: ComputeConfig = ComputeConfig()
    """The price of training here, see below."""
    datasets: tuple[DatasetConfig, ...] = ()
    """Data sets of the site, see below."""
    tests: tuple[TestSetConfig, ...] = ()
    """Private test sets of a verifier, see below."""
    asking: AskingConfig = AskingConfig()
    """How a verifier tests deployed models, see below."""
    verifiers: tuple[SiteId, ...] = ()
    """Verifiers whose results this gateway, facility or forwarder uses; empty means all sites to
    which the roster grants that role."""
    facility: FacilityConfig | None = None
    """The facility's section, see below."""
    gateway: GatewayConfig | None = None
    """The gateway's section, see below."""
    forwarder: ForwarderConfig | None = None
    """The forwarder's section, see below."""
    metrics: MetricsConfig = MetricsConfig()
    """The address of the node's metrics, see below."""
    traces: TracesConfig = TracesConfig()
    """The destination of traces of queries and visits, see below."""

    @property
    def scratch(self) -> Path:
        """The folder of work in progress; emptied when a node starts."""
        return Path(self.state) / NodeState.SCRATCH

    @property
    def recipe_sandbox(self) -> Sandbox:
        """The sandbox of recipes that need nothing beyond its limits."""
        return Sandbox(limits=self.sandbox.limits, folder=str(self.scratch))

    @property
    def tls(self) -> str:
        """Folder of its certificates; none without a roster."""
        return "" if self.insecure else str(Path(self.state) / ProcessState.TLS)

    @property
    def listen_addresses(self) -> tuple[tuple[str, str], ...]:
        """Addresses at which it listens as its file says, each with its field."""
        servers = (
            ("metrics", self.metrics),
            ("facility", self.facility),
            ("gateway", self.gateway),
        )
        forwarder = () if self.forwarder is None else self.forwarder.listen
        return (
            *(("listen", endpoint) for endpoint in self.listen),
            *((f"{field}.listen", part.listen) for field, part in servers if part and part.listen),
            *(("forwarder.listen", endpoint) for endpoint in forwarder),
        )


class ReadNodeConfig(NodeConfig, frozen=True, kw_only=True):
    """A node file as read: valid entries, and notes on those left out."""

    left_out: tuple[LeftOut, ...] = ()
    dataset_positions: tuple[int, ...] = ()
    """Position of each data set in the file."""
    test_positions: tuple[int, ...] = ()
