"""The certificate that a session presents when it connects.

Zenoh reads it for each link, and connects again at once when a link that was made breaks: it waits
only after a connection that failed. So a process that others refuse would make hundreds of links a
second. Without a certificate no connection is tried, and Zenoh waits: that is the only brake there
is (measured with 1.10: 218 links a second and a whole processor before, none and 0.001 with it).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["PresentedCertificate"]


class PresentedCertificate:
    """A link to a certificate, private to one session; the certificate itself is not touched."""

    def __init__(self, certificate: str) -> None:
        self._certificate = Path(certificate).absolute()
        self._folder = TemporaryDirectory(prefix="daitn-", ignore_cleanup_errors=True)
        self._path = Path(self._folder.name, self._certificate.name)
        self.present()

    @property
    def path(self) -> str:
        """The path from which Zenoh reads it."""
        return str(self._path)

    def present(self) -> None:
        """Let the session connect."""
        if not self._path.is_symlink():
            self._path.symlink_to(self._certificate)

    def withhold(self) -> None:
        """Stop the session from opening encrypted links; existing ones continue."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the link."""
        self._folder.cleanup()
