"""Processes beside the node: what recipes do runs in one of these, and can be lost with it."""
