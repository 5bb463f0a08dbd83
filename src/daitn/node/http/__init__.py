"""HTTP/1.1: the server and the client of nodes. Parsing is llhttp's, by way of `httptools`.

A reverse proxy of these two takes a sixth of the processor time of one of uvicorn, Starlette and
aiohttp's client, which is why they are here; see `docs/reference/benchmarks.md`.
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
    BodyBroken,
    BodyTooLarge,
    Reply,
    Request,
    Response,
    Stream,
)
from daitn.node.http.server import HttpServer

__all__ = [
    "Address",
    "BodyBroken",
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
