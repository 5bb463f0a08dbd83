"""The gateway role: OpenAI's HTTP API in front of the network."""

from daitn.terminal.gateway.gateway import Gateway

__all__ = ["Gateway"]
