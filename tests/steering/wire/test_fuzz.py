from __future__ import annotations

from pathlib import Path

import pytest

from tests.steering.wire.fuzz import CORPUS, fuzz, seeds
from tests.steering.wire.oracle import examine, split

INPUTS = 50_000


def test_the_kept_corpus_is_read_or_refused() -> None:
    kept = [path.read_bytes() for path in CORPUS.iterdir()]
    assert len(kept) > 100
    assert sum(map(len, kept)) < 200_000
    for data in (*kept, *seeds()):
        if data:
            examine(*split(data))


def test_fuzzing_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    ended = fuzz(INPUTS, seed=20_240_601, found=tmp_path)
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert f"Done {INPUTS} runs" in ended.stdout
