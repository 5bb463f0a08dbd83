"""Decides which chunk to request from which holder next. Pure: time comes in, requests come out.

Every holder takes from one common list whenever its window has room, so that a fast one takes more.
A window starts at two requests, grows by one with every chunk that arrives, as TCP's slow start
does (RFC 5681), and falls to one after a failure. When the list is empty, a holder with room is
asked for what another one is slow to deliver, and the first answer counts (BitTorrent's "endgame",
B. Cohen, "Incentives build robustness in BitTorrent", 2003).

A holder is given up after `MOST_FAILURES` wrong chunks, or as many consecutive failures to answer.
Between failures it pauses, so that a short link failure does not use them all up at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from daitn.objects.identifiers import Digest, SiteId

__all__ = ["IN_FLIGHT", "MOST_FAILURES", "WINDOW", "Exchange", "FetchChunk", "Source"]

WINDOW: Final = 16
"""Maximum requests to one holder at a time: 16 MiB fill 1 Gbit/s over a round trip of 130 ms."""
IN_FLIGHT: Final = 32
"""Maximum requests to all holders: bounds the memory of one fetch, in MiB."""
MOST_FAILURES: Final = 3
_FIRST_WINDOW: Final = 2
_REST_S: Final = 0.2
"""Pause after the first failure; doubles with each."""
_SLOW: Final = 2.0
"""A chunk is slow when it takes this many times as long as the other holder usually needs."""
_MEMORY: Final = 0.8
"""Weight of the past in the running mean of the time per chunk."""


class FetchChunk(NamedTuple):
    """A request for one chunk to one holder."""

    site: SiteId
    digest: Digest


@dataclass(eq=False)
class Source:
    """The state of one holder during one fetch."""

    site: SiteId
    timeout_s: float
    """How long it may deliver nothing while requests are outstanding; doubles when exceeded."""
    window: int = _FIRST_WINDOW
    asked_at_s: dict[Digest, float] = field(default_factory=dict)
    lacking: set[Digest] = field(default_factory=set)
    progress_at_s: float = 0.0
    rest_until_s: float = 0.0
    failed_at_s: float = float("-inf")
    failures: int = 0
    wrong: int = 0
    mean_s: float | None = None
    bytes_in: int = 0
    busy_s: float = 0.0
    """Time during which requests were outstanding."""
    problem: str = ""
    given_up: bool = False

    def has_room(self, now_s: float) -> bool:
        return (
            not self.given_up and now_s >= self.rest_until_s and len(self.asked_at_s) < self.window
        )

    def ask(self, digest: Digest, now_s: float) -> None:
        if not self.asked_at_s:
            self.progress_at_s = now_s
        self.asked_at_s[digest] = now_s

    def settle(self, digest: Digest, now_s: float) -> float | None:
        """Remove a request from the list; returns when it was made, or None if it is not there."""
        asked_at_s = self.asked_at_s.pop(digest, None)
        if asked_at_s is not None:
            self.busy_s += now_s - self.progress_at_s
            self.progress_at_s = now_s
        return asked_at_s

    def note_failure(self, problem: str, now_s: float) -> None:
        self.failures += 1
        self.problem = problem
        self.window = 1
        self.failed_at_s = now_s
        self.rest_until_s = now_s + _REST_S * 2 ** (self.failures - 1)
        self.given_up = self.failures >= MOST_FAILURES


class Exchange:
    """The state of one fetch from several holders, in order of preference."""

    def __init__(self, holders: Sequence[SiteId], *, timeout_s: float) -> None:
        self.sources = {site: Source(site, timeout_s) for site in holders}
        self._waiting: dict[Digest, None] = {}
        self._asked: dict[Digest, set[SiteId]] = {}
        self._failed: dict[Digest, set[SiteId]] = {}
        self._abandoned: list[FetchChunk] = []

    def add(self, digests: Iterable[Digest]) -> None:
        """Put chunks on the list."""
        self._waiting.update(dict.fromkeys(digests))

    @property
    def done(self) -> bool:
        return not self._waiting and not self._asked

    def asks(self, now_s: float) -> list[FetchChunk]:
        """Requests to make now; returns each only once."""
        self._check_timeouts(now_s)
        asks: list[FetchChunk] = []
        room = IN_FLIGHT - sum(len(source.asked_at_s) for source in self.sources.values())
        for source in self.sources.values():
            while room > 0 and source.has_room(now_s):
                digest = self._next(source, now_s)
                if digest is None:
                    break
                source.ask(digest, now_s)
                self._waiting.pop(digest, None)
                self._asked.setdefault(digest, set()).add(source.site)
                asks.append(FetchChunk(source.site, digest))
                room -= 1
        return asks

    def abandoned(self) -> list[FetchChunk]:
        """Requests whose answers are no longer needed; returns each only once."""
        abandoned, self._abandoned = self._abandoned, []
        return abandoned

    def wake_at_s(self, now_s: float) -> float:
        """When to call `asks` again if nothing arrives before; later than the last call."""
        return min(self._moments(now_s), default=now_s + _REST_S)

    def hopeless(self) -> Digest | None:
        """A chunk that no remaining holder can supply."""
        usable = [source for source in self.sources.values() if not source.given_up]
        if not usable:
            return next(iter(self._waiting), None)
        fewest = min((source.lacking for source in usable), key=len)
        for digest in fewest & self._waiting.keys():
            if all(digest in source.lacking for source in usable):
                return digest
        return None

    def arrived(self, ask: FetchChunk, size_bytes: int, now_s: float) -> bool:
        """A correct chunk arrived and was stored; returns whether it is the first copy."""
        source = self.sources[ask.site]
        source.bytes_in += size_bytes
        asked_at_s = source.settle(ask.digest, now_s)
        if asked_at_s is not None:
            took_s = now_s - asked_at_s
            past_s = took_s if source.mean_s is None else source.mean_s
            source.mean_s = _MEMORY * past_s + (1 - _MEMORY) * took_s
            source.window = min(source.window + 1, WINDOW)
            source.failures = 0
        first = ask.digest in self._waiting or ask.digest in self._asked
        self._waiting.pop(ask.digest, None)
        self._failed.pop(ask.digest, None)
        for site in self._asked.pop(ask.digest, set()) - {ask.site}:
            self.sources[site].settle(ask.digest, now_s)
            self._abandoned.append(FetchChunk(site, ask.digest))
        return first

    def lacks(self, ask: FetchChunk, problem: str, now_s: float) -> None:
        """The holder reports that it does not have the chunk."""
        source = self._unmet(ask, problem, now_s)
        source.lacking.add(ask.digest)
        source.window = 1

    def wrong(self, ask: FetchChunk, problem: str, now_s: float) -> None:
        """The holder sent bytes that do not match the chunk."""
        source = self._unmet(ask, problem, now_s)
        self._failed.setdefault(ask.digest, set()).add(ask.site)
        source.window = 1
        source.wrong += 1
        if source.wrong >= MOST_FAILURES:
            source.given_up = True
            self._abandon(source, now_s)

    def silent(self, ask: FetchChunk, problem: str, now_s: float) -> None:
        """The holder was unreachable."""
        asked_at_s = self.sources[ask.site].asked_at_s.get(ask.digest, now_s)
        source = self._unmet(ask, problem, now_s)
        self._failed.setdefault(ask.digest, set()).add(ask.site)
        # When a holder dies all its outstanding requests fail at once: that is one failure.
        if asked_at_s > source.failed_at_s:
            self._count_failure(source, problem, now_s)

    def _next(self, source: Source, now_s: float) -> Digest | None:
        for digest in self._waiting:
            if digest not in source.lacking and not self._better_elsewhere(digest, source):
                return digest
        if self._waiting or source.mean_s is None:
            return None
        slow = [
            (asked_at_s, digest)
            for digest, asked_at_s in self._stealable(source)
            if asked_at_s + _SLOW * source.mean_s <= now_s
        ]
        return min(slow)[1] if slow else None

    def _better_elsewhere(self, digest: Digest, source: Source) -> bool:
        """Whether this holder failed with the chunk and another one has not tried yet."""
        failed = self._failed.get(digest)
        return (
            failed is not None
            and source.site in failed
            and any(
                not other.given_up and site not in failed and digest not in other.lacking
                for site, other in self.sources.items()
            )
        )

    def _stealable(self, source: Source) -> Iterator[tuple[Digest, float]]:
        """Chunks requested from exactly one other holder, with the time of the request."""
        for digest, sites in self._asked.items():
            if len(sites) > 1 or source.site in sites or digest in source.lacking:
                continue
            if source.site in self._failed.get(digest, ()):
                continue
            (site,) = sites
            yield digest, self.sources[site].asked_at_s[digest]

    def _unmet(self, ask: FetchChunk, problem: str, now_s: float) -> Source:
        source = self.sources[ask.site]
        source.problem = problem
        source.settle(ask.digest, now_s)
        self._release(ask)
        return source

    def _release(self, ask: FetchChunk) -> None:
        """Put a chunk back on the list if no other holder is to deliver it."""
        sites = self._asked.get(ask.digest)
        if sites is None:
            return
        sites.discard(ask.site)
        if not sites:
            del self._asked[ask.digest]
            self._waiting[ask.digest] = None

    def _count_failure(self, source: Source, problem: str, now_s: float) -> None:
        source.note_failure(problem, now_s)
        if source.given_up:
            self._abandon(source, now_s)

    def _abandon(self, source: Source, now_s: float) -> None:
        for digest in tuple(source.asked_at_s):
            source.settle(digest, now_s)
            self._release(FetchChunk(source.site, digest))
            self._abandoned.append(FetchChunk(source.site, digest))

    def _check_timeouts(self, now_s: float) -> None:
        for source in self.sources.values():
            if source.asked_at_s and now_s >= source.progress_at_s + source.timeout_s:
                for digest in source.asked_at_s:
                    self._failed.setdefault(digest, set()).add(source.site)
                self._abandon(source, now_s)
                problem = f"sent nothing for {source.timeout_s:g} s"
                source.timeout_s *= 2
                self._count_failure(source, problem, now_s)

    def _moments(self, now_s: float) -> Iterator[float]:
        for source in self.sources.values():
            if source.given_up:
                continue
            if source.asked_at_s:
                yield source.progress_at_s + source.timeout_s
            if source.rest_until_s > now_s:
                yield source.rest_until_s
            elif source.mean_s is not None and not self._waiting and source.has_room(now_s):
                for _, asked_at_s in self._stealable(source):
                    steal_at_s = asked_at_s + _SLOW * source.mean_s
                    # Due chunks that were not requested wait for room, which an arrival brings.
                    if steal_at_s > now_s:
                        yield steal_at_s
