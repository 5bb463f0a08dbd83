"""Digests, and manifests that are safe to use although they come from the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from daitn.objects.errors import Corrupt, InvalidInput, NotFound
from daitn.objects.identifiers import Digest
from daitn.objects.models import CHUNK_BYTES, DO_NOT_USE, Manifest, ModelRef, Part
from daitn.objects.wire import decode

__all__ = [
    "MAX_MANIFEST_BYTES",
    "MAX_PARTS",
    "checked_digest",
    "checked_manifest",
    "chunk_sizes",
    "declared",
    "part_name_problem",
    "read_manifest",
    "with_chunks",
    "wrong_bytes",
]

MAX_MANIFEST_BYTES: Final = 16 * 2**20
"""A digest takes 66 bytes in a manifest, so this allows models of up to 250 GiB. It bounds what one
message and one decode can cost the receiver."""
MAX_PARTS: Final = 10_000
MAX_NAME_BYTES: Final = 255
"""Limit of the usual file systems."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def checked_digest(digest: Digest) -> Digest:
    """Return a digest that is safe as a file name. Raises `InvalidInput` otherwise."""
    if _DIGEST.fullmatch(digest):
        return digest
    raise InvalidInput(
        f"{digest[:80]!r} is not a digest",
        field="digest",
        fix="a digest is 64 lower-case hexadecimal digits",
    )


def wrong_bytes(expected: Digest, got: Digest) -> Corrupt:
    """The error for bytes that do not match their digest."""
    return Corrupt(
        f"the bytes that should be {expected} are {got}", fix="fetch them again, from another site"
    )


def part_name_problem(name: str) -> str:
    """Why a part must not have this name; empty if the name is a plain file name."""
    if name in ("", ".", ".."):
        return "is not a file name"
    if any(c in "/\\" or not c.isprintable() for c in name):
        return "holds a separator or an unprintable character"
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    return ""


def read_manifest(data: bytes) -> Manifest:
    """Read and check a manifest. Raises `Corrupt` for an unsafe one."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise _malformed(f"has {len(data)} bytes, at most {MAX_MANIFEST_BYTES} are accepted")
    return checked_manifest(decode(data, Manifest))


def checked_manifest(manifest: Manifest) -> Manifest:
    """Return a manifest with consistent names, sizes and digests. Raises `Corrupt` otherwise."""
    if not 0 < len(manifest.parts) <= MAX_PARTS:
        raise _malformed(f"has {len(manifest.parts)} parts, 1 to {MAX_PARTS} are accepted")
    # Ignoring case: some file systems would write one part over another.
    if len({part.name.casefold() for part in manifest.parts}) < len(manifest.parts):
        raise _malformed("has two parts of one name")
    for part in manifest.parts:
        _check_part(part)
    chunk_sizes(manifest)
    return manifest


def chunk_sizes(manifest: Manifest) -> dict[Digest, int]:
    """Size in bytes of every distinct chunk, in order. Raises `Corrupt` for a contradiction."""
    sizes: dict[Digest, int] = {}
    for part in manifest.parts:
        left = part.size_bytes
        for digest in part.chunks:
            size = min(left, CHUNK_BYTES)
            left -= size
            if sizes.setdefault(digest, size) != size:
                raise _malformed(f"gives chunk {digest} two sizes")
    return sizes


def with_chunks(digests: Iterable[Digest], manifest: Callable[[Digest], Manifest]) -> set[Digest]:
    """Manifests, and the chunks that they name. `manifest` reads one, like `BlobStore.manifest`: a
    missing or invalid one has no known chunks."""
    kept = set(digests)
    for digest in tuple(kept):
        try:
            kept.update(chunk_sizes(manifest(digest)))
        except (NotFound, Corrupt):
            continue
    return kept


def declared(manifest: Manifest, model: ModelRef) -> Manifest:
    """Return a manifest whose parts have the size that its reference declares.

    A manifest may name one chunk many times, so that little is fetched and much is unpacked. Raises
    `Corrupt` for a different size.
    """
    if manifest.size_bytes == model.size_bytes:
        return manifest
    raise Corrupt(
        f"the model's parts have {manifest.size_bytes} bytes, not {model.size_bytes} as declared",
        field="model.size_bytes",
        fix="do not use this model; check its size with whoever referred to it",
    )


def _check_part(part: Part) -> None:
    if problem := part_name_problem(part.name):
        raise _malformed(f"has a part whose name {part.name[:80]!r} {problem}")
    if part.size_bytes < 0 or len(part.chunks) != -(-part.size_bytes // CHUNK_BYTES):
        raise _malformed(
            f"says that {part.name} has {part.size_bytes} bytes in {len(part.chunks)} chunks"
        )
    for digest in part.chunks:
        if not _DIGEST.fullmatch(digest):
            raise _malformed(f"names a chunk {digest[:80]!r} of {part.name}")


def _malformed(problem: str) -> Corrupt:
    return Corrupt(
        f"the manifest {problem}",
        field="manifest",
        fix=DO_NOT_USE,
    )
