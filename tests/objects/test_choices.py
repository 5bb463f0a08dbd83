"""Multiple-choice questions as chat: asked of any model, and read again."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from daitn.objects.choices import LETTERS, as_question, chosen, read_question, wants_letter

texts = st.text(max_size=40)
options = st.lists(texts, min_size=2, max_size=len(LETTERS))


def plain(text: str) -> str:
    return " ".join(text.split())


@given(texts, options)
def test_a_question_is_read_as_it_was_asked(question: str, given_options: list[str]) -> None:
    assume(plain(question) and not plain(question).startswith(tuple(LETTERS)))
    read = read_question(as_question(question, given_options))
    assert read == (plain(question), tuple(map(plain, given_options)))


@given(texts, options)
def test_only_a_question_that_asks_for_a_letter_wants_one(
    question: str, given_options: list[str]
) -> None:
    text = as_question(question, given_options)
    assert wants_letter(text)
    assert not wants_letter(f"{text}\nAnd say why.")


@given(st.text(max_size=400))
def test_any_text_is_a_question_or_none(text: str) -> None:
    read = read_question(text)
    if read is not None:
        question, read_options = read
        assert question
        assert 2 <= len(read_options) <= len(LETTERS)


def test_the_letters_stand_before_the_options_and_the_instruction_comes_last() -> None:
    assert as_question("What\nis it?", ["this", "that"]).splitlines() == [
        "What is it?",
        "",
        "A) this",
        "B) that",
        "",
        "Answer with the letter only.",
    ]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("What is it?\nA. this\nB. that", ("What is it?", ("this", "that"))),
        ("What is it?\n A: this\n B: that\nC) more", ("What is it?", ("this", "that", "more"))),
        ("What is it?\nA) this\nC) that", None),
        ("What is it?\nB) this\nA) that", None),
        ("A) this\nB) that", None),
        ("What is it?\nA) this", None),
        ("What is it?\nA) this\n\nB) that", None),
        ("", None),
        ("Tell me about A) or B)", None),
    ],
)
def test_other_ways_to_write_it(text: str, read: tuple[str, tuple[str, ...]] | None) -> None:
    assert read_question(text) == read


@given(
    st.sampled_from(LETTERS), st.sampled_from(["{}", "{})", "{}.", "**{}**", "Answer: {}", "({})"])
)
def test_a_letter_is_read_however_it_is_dressed(letter: str, dress: str) -> None:
    assert chosen(dress.format(letter), len(LETTERS)) == LETTERS.index(letter)


@pytest.mark.parametrize(
    ("answer", "options", "index"),
    [
        ("B", 2, 1),
        ("C or B", 2, 1),  # There is no third option.
        ("the answer is b", 4, None),
        ("Because", 4, None),
        ("", 4, None),
        ("x" * 199 + " A", 4, None),
        ("Éa A", 4, 0),
    ],
)
def test_what_an_answer_names(answer: str, options: int, index: int | None) -> None:
    assert chosen(answer, options) == index


@given(st.text(max_size=300), st.integers(2, len(LETTERS)))
def test_an_answer_names_one_of_the_options_or_none(answer: str, count: int) -> None:
    index = chosen(answer, count)
    assert index is None or 0 <= index < count
