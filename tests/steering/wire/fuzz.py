"""Coverage-guided fuzzing of what forwarders read, with Atheris (libFuzzer).

`python -m tests.steering.wire.fuzz --inputs 1000000` starts from the corpus that is kept beside
this file and from the test vectors. `--keep` then replaces the corpus by the smallest set of inputs
that covers as much. The first byte of an input says which decoder reads the rest.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

from tests.steering.wire.oracle import FORMS
from tests.steering.wire.vectors import vectors

CORPUS = Path(__file__).with_name("corpus")
MOST_MB = 1024
"""Memory that reading may take."""


def seeds() -> Iterator[bytes]:
    """The test vectors as inputs."""
    known = vectors()
    groups = {"packet": "packets", "intent": "intents", "summary": "summaries"}
    form = {name: bytes([number]) for number, name in enumerate(FORMS)}
    for name, group in groups.items():
        yield from (form[name] + bytes.fromhex(vector["wire"]) for vector in known[group])
    for vector in known["malformed"]:
        yield form[vector["decoder"]] + bytes.fromhex(vector["wire"])


def fuzz(inputs: int, seed: int, found: Path) -> subprocess.CompletedProcess[str]:
    """Fuzz in another process, which puts inputs that cover more into `found`."""
    for data in seeds():
        _put(data, found)
    return _libfuzzer(f"-runs={inputs}", f"-seed={seed}", str(found), str(CORPUS))


def keep(found: Path) -> None:
    """Replace the kept corpus by the least of `found` and itself that covers what both cover."""
    with tempfile.TemporaryDirectory() as least:
        _libfuzzer("-merge=1", least, str(found), str(CORPUS))
        merged = [path.read_bytes() for path in Path(least).iterdir()]
    for path in CORPUS.iterdir():
        path.unlink()
    for data in merged:
        _put(data, CORPUS)


def _put(data: bytes, folder: Path) -> None:
    (folder / sha1(data).hexdigest()[:12]).write_bytes(data)


def _libfuzzer(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A process that is started begins with the peak memory of the one that starts it.
    limit_mb = MOST_MB + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with tempfile.TemporaryDirectory() as crashes:  # libFuzzer prints them too, in base64.
        return subprocess.run(
            [
                sys.executable, "-m", "tests.steering.wire.fuzz_target", "-max_len=1024",
                f"-rss_limit_mb={limit_mb}", f"-artifact_prefix={crashes}/", *arguments,
            ],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )  # fmt: skip


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--inputs", type=int, default=1_000_000)
    reader.add_argument("--seed", type=int, default=1)
    reader.add_argument("--keep", action="store_true", help="keep the corpus that it ends with")
    chosen = reader.parse_args()
    with tempfile.TemporaryDirectory() as found:
        ended = fuzz(chosen.inputs, chosen.seed, Path(found))
        sys.stdout.write(ended.stdout)
        if chosen.keep and ended.returncode == 0:
            keep(Path(found))
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
