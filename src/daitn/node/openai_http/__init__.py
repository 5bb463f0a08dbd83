"""OpenAI's API over HTTP, as gateways, facilities and verifiers share it.

Requests and their errors, and the answers of OpenAI-compatible servers.
"""
