"""OpenAI's HTTP API, for gateways, facilities, forwarders and verifiers.

Decodes and encodes requests, responses, errors and event streams, and translates the
Responses API and Anthropic's to and from chats. No I/O.
"""
