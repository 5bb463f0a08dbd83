"""Backends of a facility: models placed by the network, and servers of OpenAI's API."""
