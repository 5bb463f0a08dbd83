"""From text to tokens: the tokenizer, and the marks that tell a model what it is reading.

A model owner has no data to learn a tokenizer from. A fresh model therefore reads bytes, and the
first site it visits learns a byte-level BPE (byte-pair encoding; Sennrich et al. 2016,
arXiv:1508.07909) from its own records. From then on it is fixed and travels as a part. A token is
part of a word, and only words that occur in several records are learned from, so the tokenizer
holds no name or number of a single record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from daitn.learning.causal_lm.settings import CausalLmConfig

__all__ = ["CHARACTERS_PER_TOKEN", "Codec", "byte_tokenizer", "knows_only_bytes", "learn_tokenizer"]

_MARKS = ("<pad>", "<answer>", "<question>", "<end>")
_LEARNT_CHARACTERS = 1000
"""Characters used per text; an answer is cut after about 300 characters anyhow."""
CHARACTERS_PER_TOKEN = 12
"""Text beyond this many characters per requested token is never tokenized: BPE tokens of English
average 4 characters."""


def byte_tokenizer() -> Tokenizer:
    """A tokenizer whose tokens are the 256 bytes."""
    return _trained((), len(_MARKS) + 256)


def learn_tokenizer(
    records: Iterable[Sequence[str]], vocabulary: int, least_records: int
) -> Tokenizer:
    """Learn a byte-level BPE of at most `vocabulary` entries. Deterministic.

    Each record is a sequence of texts. Words that occur in fewer than `least_records` different
    records are left out.
    """
    split = _pre_tokenizer().pre_tokenize_str
    occurs: Counter[str] = Counter()
    in_records: Counter[str] = Counter()
    for record in set(map(tuple, records)):
        words: Counter[str] = Counter()
        for text in record:
            start = text[:_LEARNT_CHARACTERS]
            words.update(start[begin:end] for _, (begin, end) in split(start))
        occurs.update(words)
        in_records.update(words.keys())
    shared = sorted(word for word, count in in_records.items() if count >= least_records)
    return _trained((word for word in shared for _ in range(occurs[word])), vocabulary)


def knows_only_bytes(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer is still that of a fresh model."""
    return bool(tokenizer.get_vocab_size() == len(_MARKS) + 256)


def _pre_tokenizer() -> pre_tokenizers.ByteLevel:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _trained(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class _Marks(msgspec.Struct, frozen=True):
    answer: tuple[int, ...]
    question: tuple[int, ...]
    end: tuple[int, ...]


class Codec:
    """Turns answers and questions into token sequences, cut to length, and tokens into text.

    Our own tokenizers have marks as tokens; an imported one gets them in words, and ends a text
    with `end`, its end-of-text token (`None`: a line break). One with a chat template has a
    `ChatCodec`.
    """

    def __init__(
        self, tokenizer: Tokenizer, settings: CausalLmConfig, end: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self._marks = _own_marks(tokenizer) or _worded_marks(tokenizer, end)
        self._known: dict[tuple[str, int], list[int]] = {}

    @property
    def tokens(self) -> int:
        """Number of distinct tokens."""
        return self._tokenizer.get_vocab_size()

    def answer(self, text: str) -> list[int]:
        """The answer, marked; it has no end mark, since it is usually cut."""
        return [*self._marks.answer, *self._cut(text, self._settings.answer_tokens)]

    def question(self, text: str) -> list[int]:
        """The question, marked and ended."""
        return [*self._asked(text), *self._marks.end]

    def prompt(self, question: str) -> list[int]:
        """The question as the start of a text that continues with its answer."""
        return [*self._asked(question), *self._marks.answer]

    def asked(self, text: str) -> list[int]:
        """Like `prompt`, for the whole question."""
        return [*self._marks.question, *self.whole(text), *self._marks.answer]

    def turn(self, role: str, content: list[int]) -> list[int]:
        """A turn of a conversation with the text `said`; a question and its answer, as in
        training."""
        if role == "user":
            return [*self._marks.question, *content]
        if role == "assistant":
            return [*self._marks.answer, *content, *self._marks.end]
        return content

    def before_answer(self, tokens: list[int]) -> list[int]:
        """A conversation that continues with an answer."""
        return [*tokens, *self._marks.answer]

    def whole(self, text: str) -> list[int]:
        """A text, not cut."""
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return tokens

    def text_alone(self, text: str) -> list[int]:
        """Like `answer`, not cut."""
        return [*self._marks.answer, *self.whole(text)]

    @property
    def most_tokens(self) -> int:
        """Length of the longest text that a model of its own sees in training."""
        cut = self._settings.question_tokens + self._settings.answer_tokens
        return cut + len(self._marks.question) + len(self._marks.answer)

    def dialogue(self, question: str, answer: str) -> list[int]:
        """The question, then its answer; ended if the answer was not cut."""
        tokens = self._cut(answer, self._settings.answer_tokens)
        whole = len(tokens) < self._settings.answer_tokens
        return [*self.prompt(question), *tokens, *(self._marks.end if whole else ())]

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a text."""
        return frozenset(self._marks.end[-1:])

    def text(self, tokens: list[int]) -> str:
        """The text of some tokens."""
        return self._tokenizer.decode(tokens)

    def name(self, token: int) -> str:
        """The tokenizer's name of a token; a vocabulary may have more entries than it knows."""
        return self._tokenizer.id_to_token(token) or f"<{token}>"

    def _asked(self, text: str) -> list[int]:
        return [*self._marks.question, *self._cut(text, self._settings.question_tokens)]

    def _cut(self, text: str, length: int) -> list[int]:
        known = self._known.get((text, length))
        if known is None:
            start = text[: length * CHARACTERS_PER_TOKEN]
            known = self._tokenizer.encode(start, add_special_tokens=False).ids[:length]
            self._known[text, length] = known
        return known


def _own_marks(tokenizer: Tokenizer) -> _Marks | None:
    known = (tokenizer.token_to_id(mark) for mark in _MARKS[1:])
    ids = [(token,) for token in known if token is not None]
    return _Marks(*ids) if len(ids) == len(_MARKS) - 1 else None


def _worded_marks(tokenizer: Tokenizer, end: int | None) -> _Marks:
    answer, question, line = (
        tuple(tokenizer.encode(words, add_special_tokens=False).ids)
        for words in ("\nAnswer: ", "\nQuestion: ", "\n")
    )
    return _Marks(answer, question, line if end is None else (end,))
