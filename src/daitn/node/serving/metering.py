"""Counts a facility's answers and hosting, per owner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from daitn.node.usage.counts import UsageCounts, UsageRecord
from daitn.objects.deployments import DeploymentDescriptor, DeploymentState
from daitn.objects.identifiers import OwnerId, SiteId, is_name
from daitn.objects.usage import Count, Hosted, UsageKey
from daitn.openai.http import DONE
from daitn.openai.responses import Usage, read_usage, without_counts
from daitn.tools.http import Reply, Request, Response

__all__ = ["FacilityMeter", "Metered"]

_USAGE = b'"usage"'
_EVENT = b"data: "


class Metered:
    """Observes one answer: a `StreamTranslation`. It is counted before the gateway has all of it: a
    facility that is killed has counted what it delivered. Deployments end each stream with its
    token counts; a gateway that does not want them does not get them."""

    def __init__(
        self, request: Request, counted: Callable[[Count], None], *, include_usage: bool
    ) -> None:
        """`counted` is called once, unless there is no answer."""
        self._counted = counted
        self._include_usage = include_usage
        self._usage: Usage | None = None
        self._pieces = 0
        self._ended = False
        request.translation = self

    def begin(self, headers: Mapping[str, str]) -> None:
        """See `StreamTranslation`."""

    async def events(self, events: bytes) -> bytes:
        """See `StreamTranslation`."""
        self._pieces += events.count(_EVENT)
        if _USAGE in events:
            for line in events.split(b"\n"):
                if line.startswith(_EVENT) and _USAGE in line:
                    self._usage = read_usage(line.removeprefix(_EVENT)) or self._usage
        if events.endswith(DONE):
            self._pieces -= 1
            self._count_stream()
        return events if self._include_usage else without_counts(events)

    def end(self, reply: Reply) -> None:
        """The answer has ended. A stream without its end does not count: it broke off here."""
        if isinstance(reply, Response) and reply.status == 200:
            self._counted(_count(read_usage(reply.body)))

    def leave(self) -> None:
        """The gateway left in mid-answer: what was sent counts, with one token per piece."""
        if self._pieces:
            self._count_stream()

    def _count_stream(self) -> None:
        if not self._ended:
            self._ended = True
            self._counted(_count(self._usage) if self._usage else Count(1, 0, self._pieces))


def _count(usage: Usage | None) -> Count:
    usage = usage or Usage()
    return Count(1, usage.prompt_tokens or 0, usage.completion_tokens or 0)


class FacilityMeter:
    """Counts for one facility."""

    def __init__(
        self,
        counts: UsageCounts,
        wall_s: Callable[[], float],
        price_usd_per_hour: float,
        hosted: Callable[[], Iterable[DeploymentDescriptor]],
    ) -> None:
        """`hosted`: what it hosts for others now."""
        self._counts, self._wall_s = counts, wall_s
        self._price_usd_per_hour, self._hosted = price_usd_per_hour, hosted
        self._since_s = time.monotonic()

    def answered(
        self, asked_by: SiteId, query: str, owner: str, model: DeploymentDescriptor, count: Count
    ) -> None:
        """Count an answer. `query`: its id, which names its owner's gateway, if another one relays
        or a packet carried it."""
        origin = query.partition(":")[0]
        gateway = SiteId(origin) if is_name(origin) else asked_by
        prices = (model.price_usd_per_1k_in, model.price_usd_per_1k_out)
        key = UsageKey(OwnerId(owner), model.owner, model.name, gateway, *prices)
        self._counts.count(UsageRecord(key=key, count=count, at_s=self._wall_s()))

    def host(self) -> None:
        """Count the time since the last call for each model that is hosted at a price."""
        now_s = time.monotonic()
        milliseconds = round((now_s - self._since_s) * 1000)
        self._since_s = now_s
        if not self._price_usd_per_hour or not milliseconds:
            return
        for one in self._hosted():
            if one.state is DeploymentState.READY:
                hosted = Hosted(one.owner, one.name, self._price_usd_per_hour, milliseconds)
                self._counts.count(UsageRecord(key=None, hosted=hosted, at_s=self._wall_s()))
