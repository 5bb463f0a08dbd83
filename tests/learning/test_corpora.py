"""Corpora: what is trained on and what is tested never meet, and downloads are what they claim."""

from __future__ import annotations

import io
import os
import threading
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from daitn.learning.corpora.clinic import clinic
from daitn.learning.corpora.fetch import CorpusRow, content_digest, fetch_medquad
from daitn.learning.corpora.medquad import SITES, read_medquad
from daitn.learning.corpora.prepare import prepare
from daitn.learning.corpora.records import QaPair, read_choices, read_pairs
from daitn.learning.corpora.split import Prepared, choices, is_test_topic, normalised
from daitn.objects.errors import Corrupt, InvalidInput, NotFound, Unreachable


def shared_parquet() -> Path | None:
    folder = os.environ.get("DAITN_DATA")
    path = Path(folder) / "medquad.parquet" if folder else None
    return path if path and path.is_file() else None


def assert_split_is_clean(out: Path, prepared: Prepared) -> None:
    trained = {
        normalised(pair.topic)
        for site in prepared.sites
        for pair in read_pairs(out / "sites" / f"{site}.jsonl")
    }
    tested = {
        normalised(item.topic)
        for name in prepared.tests
        for item in read_choices(out / "tests" / f"{name}.jsonl")
    }
    assert tested
    assert not trained & tested


def test_no_test_disease_is_at_any_site_of_the_generated_corpus(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, None)
    assert prepared.source == "clinic"
    assert set(prepared.sites) == set(SITES) == {*prepared.general, *prepared.specialist}
    assert min(prepared.tests.values()) >= 300
    assert_split_is_clean(tmp_path, prepared)


def test_no_test_disease_is_at_any_site_of_medquad(tmp_path: Path) -> None:
    parquet = shared_parquet()
    if parquet is None:
        pytest.skip("set DAITN_DATA to a folder with medquad.parquet")
    prepared = prepare(tmp_path, parquet)
    assert prepared.source == "medquad"
    assert prepared.specialist == ("ninds", "nhlbi", "niddk", "cancergov")
    assert min(prepared.tests.values()) >= 300
    assert_split_is_clean(tmp_path, prepared)


def test_preparing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        prepare(tmp_path / name, None)
    for file in sorted((tmp_path / "one").rglob("*.jsonl")):
        again = tmp_path / "two" / file.relative_to(tmp_path / "one")
        assert file.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Gaucher's Disease", "gauchers disease"),
        ("Alpha-1 Antitrypsin Deficiency (AAT)", "alpha 1 antitrypsin deficiency"),
        ("  Wilson   Disease ", "wilson disease"),
    ],
)
def test_spellings_of_one_disease_fall_on_one_side(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert is_test_topic(one) == is_test_topic(other)


def test_wrong_options_answer_other_types_of_question_about_the_same_disease() -> None:
    pairs = clinic()["ninds"]
    label_of = {(pair.topic, pair.answer): pair.label for pair in pairs}
    items = choices(pairs, "ninds")
    assert len(items) > 900
    for item in items:
        labels = [label_of[item.topic, option] for option in item.options]
        assert labels[item.answer] == item.label
        assert len(set(labels)) == 4


def test_the_right_option_is_anywhere() -> None:
    answers = [item.answer for item in choices(clinic()["ghr"], "ghr")]
    assert all(0.2 < answers.count(index) / len(answers) < 0.3 for index in range(4))


def test_a_disease_with_three_types_of_question_makes_no_item() -> None:
    pairs = [
        QaPair(topic="x", label=label, question="q", answer=f"about {label}")
        for label in ("a", "b", "c")
    ]
    assert choices(pairs, "site") == []


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('{"topic":"t","label":"l","question":"q"}', "answer"),
        ('{"topic":"t","label":"l","question":7,"answer":"a"}', "question"),
        ('{"topic":"t","label":"l","question":"q","answer":"  "}', "answer"),
        ("not json", "record"),
        ('{"topic":"t"', "record"),
        ("[" * 100_000, "record"),
    ],
)
def test_a_bad_record_is_named_by_file_line_and_field(
    tmp_path: Path, line: str, field: str
) -> None:
    path = tmp_path / "site.jsonl"
    good = '{"topic":"t","label":"l","question":"q","answer":"a"}'
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(InvalidInput, match=r"site\.jsonl, line 2") as raised:
        read_pairs(path)
    assert raised.value.field == field
    assert "line 2" in raised.value.fix


GOOD = '{"topic":"Grippe","label":"häufig","question":"Größe?","answer":"a"}'


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "ends", "ends ends"])
def test_marks_line_ends_and_blank_lines_make_no_difference(
    mark: str, ends: str, last: str, tmp_path: Path
) -> None:
    path = tmp_path / "site.jsonl"
    text = mark + ends.join([GOOD, "", GOOD, "  "]) + ends + GOOD
    path.write_bytes((text + last.replace("ends", ends)).encode())
    pairs = read_pairs(path)
    assert len(pairs) == 3
    assert {pair.question for pair in pairs} == {"Größe?"}


def test_files_with_marks_can_be_joined(tmp_path: Path) -> None:
    """As with `cat a.jsonl b.jsonl`, where both begin with a byte order mark."""
    path = tmp_path / "site.jsonl"
    path.write_text(f"\ufeff{GOOD}\n\ufeff{GOOD}\n\ufeff\n", encoding="utf-8")
    assert [pair.question for pair in read_pairs(path)] == ["Größe?"] * 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (GOOD.encode("utf-16"), "UTF-16"),
        (GOOD.encode("utf-16-be"), "line 1 contains a NUL byte"),
        (GOOD.encode("utf-32"), "UTF-32"),
        (f"{GOOD}\n{GOOD}".encode("latin-1"), "line 1 is not UTF-8"),
        (f"{GOOD}\n{GOOD}\0\n".encode(), "line 2 contains a NUL byte"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is not UTF-8 text"),
        (b"PAR1" + bytes(64), "NUL byte"),
    ],
)
def test_what_is_no_text_in_utf_8_is_refused_as_such(
    content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / "site.jsonl").write_bytes(content)
    for read in (read_pairs, read_choices):
        with pytest.raises(InvalidInput, match=told) as caught:
            read(tmp_path / "site.jsonl")
        assert "Grippe" not in str(caught.value)


def test_a_folder_or_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InvalidInput, match="is not a file"):
            read_pairs(path)


def test_all_bad_records_are_told_at_once_and_none_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "site.jsonl"
    bad = ['{"topic":"t","label":"l","question":"q"}', '"secret"', '{"topic": 7}', "{secret"]
    path.write_text("\n".join([GOOD, *bad, *["secret"] * 4]))
    with pytest.raises(InvalidInput) as caught:
        read_pairs(path)
    for line in (2, 3, 4, 5, 6):
        assert f"line {line}, field" in caught.value.problem
    assert "and 3 more" in caught.value.problem
    assert "secret" not in str(caught.value)


def test_labels_that_look_alike_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "site.jsonl"
    forms = [unicodedata.normalize(form, GOOD) for form in ("NFC", "NFD")]
    path.write_text("\n".join([*forms, GOOD.replace('häufig"', 'häufig "')]))
    assert {pair.label for pair in read_pairs(path)} == {"häufig"}


def test_a_bad_test_item_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    item = '{"topic":"t","label":"l","question":"q","options":["a","b","c","d"],"answer":%d}\n'
    path.write_text(item % 3 + item % 4)
    with pytest.raises(InvalidInput, match="line 2, field answer"):
        read_choices(path)


def test_an_empty_or_absent_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InvalidInput, match="no records"):
        read_pairs(tmp_path / "empty.jsonl")
    with pytest.raises(NotFound):
        read_pairs(tmp_path / "absent.jsonl")
    with pytest.raises(NotFound, match="absent"):
        prepare(tmp_path, tmp_path / "absent.parquet")


def test_a_file_that_is_not_medquad_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidInput, match="not MedQuAD"):
        read_medquad(tmp_path / "x.parquet")


# ------------------------------------------------------------------------------------ download

DOCUMENT = """<?xml version="1.0" encoding="UTF-8"?>
{dtd}<Document id="1" source="NINDS" url="http://example.org">
<Focus>Made-up Palsy</Focus>
<SemanticGroup>Disorders</SemanticGroup>
<QAPairs>
 <QAPair pid="1"><Question qid="1-1" qtype="outlook">What is the outlook?</Question>
  <Answer>It   is
  fine{entity}.</Answer></QAPair>
 <QAPair pid="2"><Question qid="1-2" qtype="treatment">Which treatment?</Question>
  <Answer></Answer></QAPair>
</QAPairs></Document>"""
ROW = CorpusRow(
    "NINDS_QA",
    "Made-up Palsy",
    "outlook",
    "What is the outlook?",
    "It is fine.",
    "0000001",
    "Disorders",
)


def archive(dtd: str = "", entity: str = "") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        document = DOCUMENT.format(dtd=dtd, entity=entity)
        opened.writestr("MedQuAD-1/6_NINDS_QA/0000001.xml", document)
        opened.writestr("MedQuAD-1/10_MPlus_ADAM_QA/0000001.xml", "<not read")
        opened.writestr("MedQuAD-1/readme.txt", "no data")
    return content.getvalue()


@contextmanager
def serving(content: bytes, announced: int | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(announced or len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/medquad.zip"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_download_becomes_a_table_of_answered_questions(tmp_path: Path) -> None:
    path, told = tmp_path / "new" / "medquad.parquet", list[tuple[int, int | None]]()
    content = archive()
    with serving(content) as url:
        fetch_medquad(path, url, lambda done, of: told.append((done, of)), content_digest([ROW]))
    assert told[-1] == (len(content), len(content))
    (pair,) = read_medquad(path)["ninds"]
    assert pair.answer == "It is fine."
    assert [file.name for file in path.parent.iterdir()] == ["medquad.parquet"]


def test_other_content_than_expected_is_refused_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "medquad.parquet"
    path.write_bytes(b"what was there")
    with serving(archive()) as url, pytest.raises(Corrupt, match="SHA-256") as raised:
        fetch_medquad(path, url)
    assert "daitn data fetch medquad" in raised.value.fix
    assert path.read_bytes() == b"what was there"


def test_entity_definitions_are_refused(tmp_path: Path) -> None:
    bomb = archive('<!DOCTYPE x [<!ENTITY a "aaaa">]>\n', "&a;")
    with serving(bomb) as url, pytest.raises(Corrupt, match="not the MedQuAD archive"):
        fetch_medquad(tmp_path / "medquad.parquet", url, digest=content_digest([ROW]))


def test_an_error_page_is_refused(tmp_path: Path) -> None:
    with serving(b"<html>rate limit</html>") as url, pytest.raises(Corrupt):
        fetch_medquad(tmp_path / "medquad.parquet", url)


def test_a_download_that_stops_is_told_as_such(tmp_path: Path) -> None:
    content = archive()
    with serving(content, len(content) + 1000) as url, pytest.raises(Unreachable):
        fetch_medquad(tmp_path / "medquad.parquet", url)


def test_a_server_that_is_not_there_and_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        fetch_medquad(tmp_path / "medquad.parquet", "http://127.0.0.1:9/medquad.zip")
    with pytest.raises(InvalidInput):
        fetch_medquad(tmp_path / "medquad.parquet", "file:///etc/passwd")
