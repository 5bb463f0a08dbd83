"""What a gateway learns about a deployment from an answer, for the topology."""

from __future__ import annotations

from daitn.topology.qrrt.observation import Observation, first_share
from daitn.topology.qrrt.snapshot import Columns

__all__ = ["seen_whole"]


def seen_whole(
    columns: Columns, row: int, served_s: float, tokens: int, first_token_s: float | None = None
) -> Observation:
    """Observation from an answer that came in one piece, `served_s` after it got a slot, without
    the travel time; or from one that did not come in that time. If the deployment does not report
    when it began, first and further tokens are assumed to take their usual shares of the time."""
    if tokens <= 1:
        return Observation(failed=False, first_token_s=served_s)
    if first_token_s is not None:
        first_s = min(first_token_s, served_s)
    else:
        usual_s, further_s = float(columns.first_token_s[row]), float(columns.per_token_s[row])
        first_s = served_s * first_share(usual_s, further_s, tokens)
    per_token_s = (served_s - first_s) / (tokens - 1)
    return Observation(failed=False, first_token_s=first_s, per_token_s=per_token_s)
