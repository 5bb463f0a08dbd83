"""A site's cordon, changed by one after the other."""

from __future__ import annotations

from pathlib import Path

from daitn.node.cordon import CordonFile
from daitn.objects.cordons import CordonChange, CordonQuestion


def test_a_later_cordon_takes_nothing_back(tmp_path: Path) -> None:
    kept = CordonFile(tmp_path / "cordon", lambda: None)

    def change(change: CordonChange, reason: str, by: str) -> str:
        question = CordonQuestion(change=change, reason=reason)
        kept.change(question, by, lambda event, who, why: None)
        return str(CordonFile(tmp_path / "cordon", lambda: None).cordon)

    cordon, drain = CordonChange.CORDON, CordonChange.DRAIN
    assert change(cordon, "new disks", "ann") == "is cordoned by ann: new disks"
    assert change(drain, "", "bob") == "is drained by bob: new disks"
    assert change(cordon, "moves house", "ann") == "is drained by ann: moves house"
    assert change(CordonChange.UNCORDON, "", "ann") == "None"
    assert change(cordon, "", "ann") == "is cordoned by ann"
