"""OpenAI's API over HTTP, as shared by gateways, facilities and verifiers.

Requests and their errors, and the answers of OpenAI-compatible servers.
"""
