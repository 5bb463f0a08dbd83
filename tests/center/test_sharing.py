"""What owners brought to one control centre is there at the one that takes over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from daitn.center.backup import back_up, restore
from daitn.center.config import CenterConfig
from daitn.center.sharing import ReleaseRecords, SharedStore
from daitn.identity.keys import SigningKey
from daitn.objects.digests import digest_of
from daitn.objects.errors import Corrupt, NotFound, Unreachable
from daitn.objects.identifiers import Digest, JobId, OwnerId
from daitn.objects.models import CHUNK_BYTES
from daitn.tools.journal.leadership import Leadership, Term
from daitn.tools.journal.sql import SqlJournal
from daitn.tools.mobility.disk import DiskBlobStore
from daitn.tools.mobility.releases import Releases
from tests.scenes.postgres import postgres_server

DAY_S = 86400.0
ABSENT = Digest("0" * 64)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres_server() as server:
        yield server.database()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def term(url: str, replica: str) -> Term:
    """It takes the leadership over."""
    clock = Clock()
    with closing(Leadership(url, replica, (), elapsed_s=clock)) as seat:
        for _ in range(2):
            seat.step()
            clock.now_s += 60.0
        seat.step()
        found = seat.term
    assert found is not None
    return found


def model(folder: Path) -> tuple[Digest, DiskBlobStore]:
    """Of two chunks, in a store of an owner's own."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights").write_bytes(bytes(range(256)) * (CHUNK_BYTES // 256) + b"end")
    own = DiskBlobStore(folder / "own")
    return own.pack("classifier", folder / "model")[0], own


def test_weights_and_whose_they_are_outlive_the_control_centre_that_took_them(
    database: str, tmp_path: Path
) -> None:
    digest, own = model(tmp_path)
    first = term(database, "a")
    taken = SharedStore(tmp_path / "a", database, first)
    with closing(SqlJournal(database, first.fence)) as journal:
        for chunk in (*own.manifest(digest).parts[0].chunks, digest):
            taken.write(own.read(chunk))
        Releases(ReleaseRecords(journal), taken).record(digest, "acme")
    second = term(database, "b")
    found = SharedStore(tmp_path / "b", database, second)
    assert found.complete(digest)
    assert found.renew(digest)
    assert all(found.read(c) == own.read(c) for c in own.manifest(digest).parts[0].chunks)
    with closing(SqlJournal(database, second.fence)) as journal:
        releases = Releases(ReleaseRecords(journal), found)
        releases.check_own(digest, OwnerId("acme"))
        with pytest.raises(NotFound):
            releases.check_own(digest, OwnerId("other"))
    with pytest.raises(Unreachable, match="b leads since"):
        taken.write(b"brought to who leads no more")
    taken.close()
    found.close()


def test_what_the_disk_changed_or_lost_comes_from_the_others(database: str, tmp_path: Path) -> None:
    store = SharedStore(tmp_path / "store", database, term(database, "c"))
    digest = store.write(b"weights")
    path = tmp_path / "store" / "blobs" / digest[:2] / digest[2:]
    path.write_bytes(b"changed")
    assert store.read(digest) == b"weights"
    path.unlink()
    assert store.has(digest)
    assert store.read(digest) == b"weights"
    assert path.read_bytes() == b"weights"
    with pytest.raises(NotFound):
        store.read(ABSENT)
    assert not store.has(ABSENT)
    with pytest.raises(Corrupt):
        store.write(b"other", digest)
    store.close()


def test_a_backup_has_what_any_of_them_took_as_files_of_one_that_is_alone(
    database: str, tmp_path: Path
) -> None:
    first = term(database, "a")
    taken = SharedStore(tmp_path / "a", database, first)
    digest = taken.write(b"a manifest")
    with closing(SqlJournal(database, first.fence)) as journal:
        Releases(ReleaseRecords(journal), taken).record(digest, "acme", ("US",))
        journal.append(JobId("job"), 0, [b"fact"], 1.0)
    taken.close()
    state = tmp_path / "other"
    state.mkdir()
    key = SigningKey.at(state / "key")
    other = CenterConfig(state=str(state), database=database, replica="b")
    back_up(other, tmp_path / "backup")
    alone = CenterConfig(state=str(tmp_path / "alone"))
    restore(alone, tmp_path / "backup")
    store = DiskBlobStore(tmp_path / "alone" / "models")
    assert store.read(digest) == b"a manifest"
    Releases(tmp_path / "alone" / "releases", store).check_own(digest, OwnerId("acme"))
    with closing(SqlJournal(f"sqlite:///{tmp_path / 'alone' / 'jobs.db'}")) as journal:
        assert journal.events(JobId("job")) == (b"fact",)
    # And it joins others with an empty database, or with theirs.
    third = CenterConfig(state=str(tmp_path / "third"), database=database, replica="c")
    restore(third, tmp_path / "backup")
    assert SigningKey.at(tmp_path / "third" / "key").public == key.public
    with closing(SqlJournal(database)) as journal:
        records = ReleaseRecords(journal)
        records.take_in(tmp_path / "alone" / "releases")
        assert [item.owners for item in records if item.model == digest] == [("acme",)]


def test_what_no_job_needs_goes_everywhere_after_its_time(database: str, tmp_path: Path) -> None:
    digest, own = model(tmp_path)
    store = SharedStore(tmp_path / "store", database, term(database, "d"))
    for chunk in (*own.manifest(digest).parts[0].chunks, digest):
        store.write(own.read(chunk))
    unneeded = store.write(b"brought for nothing")
    for at_s in (0.0, DAY_S - 1.0):
        store.retain(frozenset({digest}), at_s, DAY_S)
        assert store.has(unneeded)
    store.renew(unneeded)
    store.retain(frozenset({digest}), DAY_S + 1.0, DAY_S)
    assert store.has(unneeded)
    store.retain(frozenset({digest}), 2 * DAY_S + 2.0, DAY_S)
    assert not store.has(unneeded)
    assert store.complete(digest)
    store.close()


def test_what_was_brought_before_there_were_others_is_shared(database: str, tmp_path: Path) -> None:
    alone = DiskBlobStore(tmp_path / "store")
    digest = alone.write(b"before")
    rotten = alone.write(next(d for d in map(b"%d".__mod__, count()) if digest_of(d) < digest))
    alone._path(rotten).write_bytes(b"changed by the disk")
    store = SharedStore(tmp_path / "store", database, term(database, "e"))
    store.share()
    store.close()
    other = SharedStore(tmp_path / "other", database, term(database, "f"))
    assert other.read(digest) == b"before" == alone.read(digest)
    assert not other.has(rotten)
    assert digest_of(b"before") == digest
    other.close()


def test_rules_of_weights_that_were_not_shared_in_time_come_back_with_them(
    database: str, tmp_path: Path
) -> None:
    """Weights without rules are anybody's."""
    folder = tmp_path / "releases"
    alone = DiskBlobStore(tmp_path / "store")
    digest = alone.write(b"whose they are counts")
    Releases(folder, alone).record(digest, "acme")
    first = term(database, "g")
    with closing(SqlJournal(database, first.fence)) as journal:
        ReleaseRecords(journal).take_in(folder)
    second = term(database, "h")  # Before the first one has shared the weights.
    other = SharedStore(tmp_path / "other", database, second)
    with closing(SqlJournal(database, second.fence)) as journal:
        Releases(ReleaseRecords(journal), other)
    other.close()
    third = term(database, "i")
    store = SharedStore(tmp_path / "store", database, third)
    with closing(SqlJournal(database, third.fence)) as journal:
        records = ReleaseRecords(journal)
        records.take_in(folder)
        Releases(records, store).check_own(digest, OwnerId("acme"))
    store.close()
