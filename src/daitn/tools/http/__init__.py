"""HTTP/1.1: a server, built on uvicorn, and the client of gateways and facilities.

The client is our own: it takes a fifth of the processor time that aiohttp takes per request; see
`docs/reference/benchmarks.md`.
"""

from daitn.tools.http.client import Address, HttpClient, read_address
from daitn.tools.http.client_connection import (
    ClientResponse,
    ConnectError,
    ConnectionBroken,
    HttpError,
    ServerTimeout,
)
from daitn.tools.http.exchange import (
    BodyTooLarge,
    Reply,
    Request,
    Response,
    Stream,
)
from daitn.tools.http.server import HttpServer, bind, check_published, check_served, served

__all__ = [
    "Address",
    "BodyTooLarge",
    "ClientResponse",
    "ConnectError",
    "ConnectionBroken",
    "HttpClient",
    "HttpError",
    "HttpServer",
    "Reply",
    "Request",
    "Response",
    "ServerTimeout",
    "Stream",
    "bind",
    "check_published",
    "check_served",
    "read_address",
    "served",
]
