"""Serves the dashboard's files: those of the build in this package's folder `static`.

Names of assets hold a digest of what is in them, so a browser keeps them for good; the page itself
it asks for each time. Everything is read once. Nothing outside the folder can be named: requests
are looked up among what was read.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final, NamedTuple

from daitn.tools.http import Request, Response

__all__ = ["FOLDER", "Dashboard"]

FOLDER: Final = Path(__file__).parent / "static"
_PAGE: Final = "/index.html"
_HASHED: Final = re.compile(r"/assets/.+[-.][\w-]{8,}\.\w+")
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_CODINGS: Final = {"br": ".br", "gzip": ".gz"}
"""In the order in which they are preferred."""
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASK_EACH_TIME: Final = "no-cache"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self' blob:; manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""No script but the build's own, and nothing from elsewhere."""
_NOT_BUILT: Final = (
    b"<!doctype html><meta charset=utf-8><title>DA-ITN</title>"
    b"<p>The dashboard is not built here: run <code>make web</code>. "
    b'The API is at <a href="/api/v1/openapi.json">/api/v1/openapi.json</a>.'
)


class _File(NamedTuple):
    media: str
    tag: str
    coded: dict[str, bytes]
    """By content coding; `identity` always."""


class Dashboard:
    """The files of one build."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = _read(folder)

    def answer(self, request: Request) -> Response:
        """The file at a path; the page for any path that has none, as it has routes of its own."""
        if request.method not in ("GET", "HEAD"):
            return Response(status=405, headers={"allow": "GET, HEAD"})
        path = request.path if request.path in self._files else _PAGE
        if path == _PAGE and "." in request.path.rpartition("/")[2] and request.path != _PAGE:
            return Response(b"there is no such file\n", 404, {"content-type": "text/plain"})
        file = self._files.get(path)
        if file is None:
            return _page(Response(_NOT_BUILT, 200, {"content-type": _TYPES[".html"]}))
        coding = _accepted(request.headers.get("accept-encoding", ""), file)
        headers = {
            "content-type": file.media,
            "cache-control": _FOR_EVER if _HASHED.fullmatch(path) else _ASK_EACH_TIME,
            "etag": f'"{file.tag}-{coding}"',
            "vary": "accept-encoding",
        }
        if coding != "identity":
            headers["content-encoding"] = coding
        reply = Response(file.coded[coding], 200, headers)
        if headers["etag"] in request.headers.get("if-none-match", ""):
            reply = Response(b"", 304, headers)
        return _page(reply) if path == _PAGE else reply


def _page(reply: Response) -> Response:
    reply.headers["content-security-policy"] = _POLICY
    return reply


def _accepted(accepts: str, file: _File) -> str:
    """The best coding that a client takes and the build has."""
    taken = {one.partition(";")[0].strip() for one in accepts.split(",") if "q=0" not in one}
    return next((one for one in _CODINGS if one in taken and one in file.coded), "identity")


def _read(folder: Path) -> dict[str, _File]:
    found: dict[str, _File] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        media = _TYPES.get(path.suffix)
        if media is None or not path.is_file():
            continue
        plain = path.read_bytes()
        coded = {"identity": plain}
        for coding, suffix in _CODINGS.items():
            packed = path.with_name(path.name + suffix)
            if packed.is_file():
                coded[coding] = packed.read_bytes()
        tag = hashlib.sha256(plain).hexdigest()[:16]
        found["/" + path.relative_to(folder).as_posix()] = _File(media, tag, coded)
    return found
