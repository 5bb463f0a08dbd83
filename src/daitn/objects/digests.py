"""Digests, and the names of files that have them."""

from __future__ import annotations

from blake3 import blake3

from daitn.objects.identifiers import Digest

__all__ = ["digest_of", "file_of"]

_FILE_DIGITS = 40
"""160 bits: too many for two digests that begin with the same ones."""


def digest_of(data: bytes) -> Digest:
    """The digest of some bytes.

    Single-threaded: measured on 1 MiB, BLAKE3 makes 6.0 GB/s in one thread and 2.6 GB/s spread over
    two.
    """
    return Digest(blake3(data).hexdigest())


def file_of(digest: Digest) -> str:
    """Name of the file that keeps what is known about something with this digest."""
    return digest[:_FILE_DIGITS]
