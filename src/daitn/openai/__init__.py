"""OpenAI's HTTP API as gateways, facilities, forwarders and verifiers speak it.

Requests, responses, errors and event streams: bytes in, values out, and back. No I/O.
"""
