"""The node file: a site's assets, and whom it admits. One module per role."""

from daitn.node.config.compute import ComputeConfig
from daitn.node.config.data import DatasetConfig
from daitn.node.config.facility import (
    Engine,
    FacilityConfig,
    ModelConfig,
    OfferedConfig,
    UpstreamConfig,
)
from daitn.node.config.forwarder import ForwarderConfig
from daitn.node.config.gateway import GatewayConfig, KeyConfig
from daitn.node.config.node import NodeConfig, ReadNodeConfig
from daitn.node.config.policy import PolicyConfig, SandboxDemand
from daitn.node.config.reading import check_node_config, read_policy
from daitn.node.config.sandbox import SandboxConfig
from daitn.node.config.verifier import AskingConfig, TestSetConfig

__all__ = [
    "AskingConfig",
    "ComputeConfig",
    "DatasetConfig",
    "Engine",
    "FacilityConfig",
    "ForwarderConfig",
    "GatewayConfig",
    "KeyConfig",
    "ModelConfig",
    "NodeConfig",
    "OfferedConfig",
    "PolicyConfig",
    "ReadNodeConfig",
    "SandboxConfig",
    "SandboxDemand",
    "TestSetConfig",
    "UpstreamConfig",
    "check_node_config",
    "read_policy",
]
