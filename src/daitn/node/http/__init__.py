"""HTTP/1.1: the server of nodes, which is uvicorn's, and the gateways' and facilities' client.

The client is an own one because it takes a fifth of the processor time of aiohttp's for a request;
see `docs/reference/benchmarks.md`.
"""

from daitn.node.http.client import Address, HttpClient, read_address
from daitn.node.http.client_connection import (
    BrokenOff,
    FellSilent,
    HttpAnswer,
    HttpFailed,
    NotReached,
)
from daitn.node.http.exchange import (
    BodyTooLarge,
    Reply,
    Request,
    Response,
    Stream,
)
from daitn.node.http.server import HttpServer

__all__ = [
    "Address",
    "BodyTooLarge",
    "BrokenOff",
    "FellSilent",
    "HttpAnswer",
    "HttpClient",
    "HttpFailed",
    "HttpServer",
    "NotReached",
    "Reply",
    "Request",
    "Response",
    "Stream",
    "read_address",
]
