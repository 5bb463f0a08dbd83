"""The gateway role: OpenAI's HTTP API in front of the network."""

from daitn.node.gateway.gateway import Gateway

__all__ = ["Gateway"]
