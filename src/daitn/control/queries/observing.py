"""What a gateway learns of a deployment from an answer, for the topology."""

from __future__ import annotations

from daitn.topology.qrrt.observation import Observation
from daitn.topology.qrrt.snapshot import Columns

__all__ = ["seen_whole"]


def seen_whole(
    columns: Columns, row: int, served_s: float, tokens: int, first_token_s: float | None = None
) -> Observation:
    """Of an answer that came at once, `served_s` after it had a slot, the way there taken off; or
    of one that did not come in that time. Where the deployment does not tell when it began, first
    and further tokens took the same share of the time as they do otherwise."""
    if tokens <= 1:
        return Observation(failed=False, first_token_s=served_s)
    if first_token_s is not None:
        first_s = min(first_token_s, served_s)
    else:
        usual_s = float(columns.first_token_s[row])
        further_s = float(columns.per_token_s[row]) * (tokens - 1)
        first_s = served_s * (usual_s / (usual_s + further_s) if usual_s + further_s > 0 else 1.0)
    per_token_s = (served_s - first_s) / (tokens - 1)
    return Observation(failed=False, first_token_s=first_s, per_token_s=per_token_s)
