"""A site's estimates of its link to another, from noisy samples."""

from __future__ import annotations

from dataclasses import dataclass

from daitn.objects.identifiers import SiteId
from daitn.objects.readings import LinkReading, Reading

__all__ = ["PROBE_MOST_BYTES", "LinkEstimate"]

NEWEST_WEIGHT = 0.3
"""Weight of the newest sample in the moving averages. TCP smooths round-trip times with 1/8
(RFC 6298), at a sample per round trip; samples here are seconds apart, so each counts for more."""
PROBE_LEAST_BYTES = 16 * 1024
PROBE_FIRST_BYTES = 256 * 1024
PROBE_MOST_BYTES = 1024 * 1024
PROBE_SHORT_S, PROBE_LONG_S = 0.1, 0.5
"""A shorter probe measures latency rather than throughput; a longer one congests the link."""
TRANSFER_LEAST_BYTES = 64 * 1024
"""Smaller transfers say little about throughput."""
PROBE_AFTER_S, PROBE_AFTER_MOST_S = 60.0, 240.0
"""A throughput older than this is measured again, unless real transfers refresh it: after twice as
long each time that it was as before, up to the second. A probe of 256 KiB a minute to each of 100
peers is 3.5 Mbit/s, to each of 10 peers 0.35 Mbit/s. Planners take a reading of four minutes for a
fifth slower than it says."""
PROBE_ALIKE = 1.5
"""Throughputs whose ratio is less are alike."""


def averaged(before: float | None, sample: float) -> float:
    """The exponentially weighted moving average after one more sample."""
    return sample if before is None else before + NEWEST_WEIGHT * (sample - before)


@dataclass
class LinkEstimate:
    """The link from `source`, which measures, to `target`."""

    source: SiteId
    target: SiteId
    rtt_s: Reading | None = None
    throughput_bps: Reading | None = None
    loss: Reading | None = None
    probe_bytes: int = PROBE_FIRST_BYTES
    probe_after_s: float = PROBE_AFTER_S

    def learn_echoes(self, rtts_s: list[float], sent: int, now_s: float) -> None:
        """`sent` echoes were sent and returned after `rtts_s`; the smallest was queued least."""
        before = None if self.loss is None else self.loss.value
        lost = (sent - len(rtts_s)) / sent
        self.loss = self._reading(averaged(before, lost), now_s)
        if rtts_s:
            self.rtt_s = self._reading(min(rtts_s), now_s)

    def learn_transfer(self, size_bytes: int, seconds: float, now_s: float) -> None:
        """`size_bytes` of a model arrived from `target` in `seconds`."""
        if size_bytes >= TRANSFER_LEAST_BYTES and seconds > 0:
            before = None if self.throughput_bps is None else self.throughput_bps.value
            self.throughput_bps = self._reading(averaged(before, size_bytes / seconds), now_s)

    def learn_probe(self, size_bytes: int, seconds: float, now_s: float) -> None:
        """A probe of `size_bytes` took `seconds`, including one round trip before it started."""
        waiting_s = 0.0 if self.rtt_s is None else self.rtt_s.value
        # A probe on an idle loopback takes one round trip; half of it is certainly transfer.
        transfer_s = max(seconds - waiting_s, seconds / 2, 1e-6)
        before = None if self.throughput_bps is None else self.throughput_bps.value
        sample = size_bytes / transfer_s
        alike = before is not None and max(sample / before, before / sample) < PROBE_ALIKE
        longer_s = min(2.0 * self.probe_after_s, PROBE_AFTER_MOST_S)
        self.probe_after_s = longer_s if alike else PROBE_AFTER_S
        self.throughput_bps = self._reading(averaged(before, sample), now_s)
        if transfer_s < PROBE_SHORT_S:
            self.probe_bytes = min(PROBE_MOST_BYTES, size_bytes * 2)
        elif transfer_s > PROBE_LONG_S:
            self.shrink_probe()

    def shrink_probe(self) -> None:
        """Use a smaller probe next time, and soon: this one took too long, or never arrived."""
        self.probe_after_s = PROBE_AFTER_S
        self.probe_bytes = max(PROBE_LEAST_BYTES, self.probe_bytes // 2)

    def wants_probe(self, now_s: float) -> bool:
        """Whether the throughput is unknown or old."""
        known = self.throughput_bps
        return known is None or known.age_s(now_s) > self.probe_after_s

    def reading(self) -> LinkReading:
        return LinkReading(
            source=self.source,
            target=self.target,
            rtt_s=self.rtt_s,
            throughput_bps=self.throughput_bps,
            loss=self.loss,
        )

    def _reading(self, value: float, now_s: float) -> Reading:
        return Reading(value, now_s, self.source)
