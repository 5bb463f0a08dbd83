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

from daitn.oam.codings import takes
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
"""In order of preference."""
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASK_EACH_TIME: Final = "no-cache"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self' blob:; manifest-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Only the build's own scripts, and nothing from elsewhere."""
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
        self._folders = {path.split("/")[1] for path in self._files if path.count("/") > 1}

    def answer(self, request: Request) -> Response:
        """The file at a path; the page for any other path, since it has its own routes."""
        if request.method not in ("GET", "HEAD"):
            return Response(status=405, headers={"allow": "GET, HEAD"})
        path = request.path if request.path in self._files else _PAGE
        if path != request.path and self._for_files(request.path):
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

    def _for_files(self, path: str) -> bool:
        """Whether a path is for files alone: in a folder of the build, or its first name has a dot.
        A page's address begins with a word of its own; names after it may have dots."""
        first, slash, _ = path[1:].partition("/")
        return "." in first or (slash != "" and first in self._folders)


def _page(reply: Response) -> Response:
    reply.headers["content-security-policy"] = _POLICY
    return reply


def _accepted(accepts: str, file: _File) -> str:
    """The best coding that the client accepts and the build has."""
    fitting = (one for one in _CODINGS if one in file.coded and takes(accepts, one))
    return next(fitting, "identity")


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
