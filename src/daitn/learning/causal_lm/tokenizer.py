"""Imported tokenizers, checked as data before the library builds them.

A `tokenizer.json` is a small program: it can pad every text to a length that it names, replace each
character by a megabyte, or match a pattern that takes years. So only known parts are accepted, with
bounds on everything that can multiply text or time; padding, truncation and post-processing are
left out, because this recipe cuts texts itself and adds no special tokens.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
from tokenizers import Tokenizer

from daitn.learning.causal_lm.settings import TOKENIZER
from daitn.objects.errors import Corrupt, NotFound

__all__ = ["MOST_TOKENIZER_BYTES", "MOST_TOKEN_CHARS", "load_tokenizer", "read_tokenizer"]

MOST_TOKENIZER_BYTES = 64 << 20
"""Twice as much as the largest in use, of 262,000 entries."""
MOST_ENTRIES = 300_000
_MOST_MERGES = 4 * MOST_ENTRIES
MOST_TOKEN_CHARS = 512
_MOST_COMPONENTS = 32
"""Normalizers, pre-tokenizers and decoders, nested ones included."""
_MOST_GROWTH = 64
"""Maximum factor by which all replacements together may lengthen a text."""
_BYTES_PER_CHARACTER = 4
_MOST_PATTERN_CHARS = 512
_MOST_REPETITIONS = 3
"""Unbounded repetitions in one alternative of a pattern: time grows with this power of a text's
length, and texts are cut to some thousand characters before they are matched."""
_MOST_COUNT = 1000
"""Upper end of a bounded repetition."""

_NORMALIZERS = frozenset(
    [
        "Sequence",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Lowercase",
        "Strip",
        "StripAccents",
        "BertNormalizer",
        "Replace",
        "Prepend",
        "ByteLevel",
    ]
)
_PRE_TOKENIZERS = frozenset(
    [
        "Sequence",
        "ByteLevel",
        "Metaspace",
        "Whitespace",
        "WhitespaceSplit",
        "BertPreTokenizer",
        "Digits",
        "Punctuation",
        "Split",
    ]
)
_DECODERS = frozenset(
    [
        "Sequence",
        "ByteLevel",
        "ByteFallback",
        "Fuse",
        "Strip",
        "Replace",
        "WordPiece",
        "Metaspace",
        "BPEDecoder",
    ]
)
_NESTED = ("normalizers", "pretokenizers", "decoders")

Token = Annotated[str, msgspec.Meta(max_length=MOST_TOKEN_CHARS)]
Id = Annotated[int, msgspec.Meta(ge=0, lt=MOST_ENTRIES)]
Mark = Annotated[str, msgspec.Meta(max_length=16)]
Vocabulary = Annotated[dict[Token, Id], msgspec.Meta(max_length=MOST_ENTRIES)]
Merge = (
    Annotated[str, msgspec.Meta(max_length=2 * MOST_TOKEN_CHARS)]
    | Annotated[list[Token], msgspec.Meta(min_length=2, max_length=2)]
)


class _Bpe(msgspec.Struct, tag="BPE", forbid_unknown_fields=True):
    vocab: Vocabulary
    merges: Annotated[list[Merge], msgspec.Meta(max_length=_MOST_MERGES)]
    dropout: Annotated[float, msgspec.Meta(ge=0.0, le=0.0)] | None = None
    """Anything else would make tokens random."""
    unk_token: Token | None = None
    continuing_subword_prefix: Mark | None = None
    end_of_word_suffix: Mark | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


class _WordPiece(msgspec.Struct, tag="WordPiece", forbid_unknown_fields=True):
    vocab: Vocabulary
    unk_token: Token
    continuing_subword_prefix: Mark
    max_input_chars_per_word: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class _Unigram(msgspec.Struct, tag="Unigram", forbid_unknown_fields=True):
    vocab: Annotated[list[tuple[Token, float]], msgspec.Meta(max_length=MOST_ENTRIES)]
    unk_id: Id | None = None
    byte_fallback: bool = False


class _AddedToken(msgspec.Struct, forbid_unknown_fields=True):
    id: Id
    content: Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_TOKEN_CHARS)]
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = False


class _Description(msgspec.Struct):
    """A `tokenizer.json`. Other fields are left out."""

    model: _Bpe | _WordPiece | _Unigram
    added_tokens: Annotated[list[_AddedToken], msgspec.Meta(max_length=10_000)] = []
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None

    @property
    def highest(self) -> int:
        """The highest token."""
        vocab = self.model.vocab
        ids = list(vocab.values()) if isinstance(vocab, dict) else list(range(len(vocab)))
        return max([-1, *ids, *(token.id for token in self.added_tokens)])


def load_tokenizer(model: Path, vocabulary: int) -> Tokenizer:
    """Read the tokenizer part of a model with a vocabulary of this size.

    Raises `NotFound`, or `Corrupt` for one that does not fit or that nobody should build.
    """
    path = model / TOKENIZER
    if not path.is_file():
        raise NotFound(f"no part {path}", field=TOKENIZER, fix="fetch the model again")
    if path.stat().st_size > MOST_TOKENIZER_BYTES:
        raise _corrupt(f"it has more than {MOST_TOKENIZER_BYTES} bytes")
    return read_tokenizer(path.read_bytes(), vocabulary)


def read_tokenizer(data: bytes, vocabulary: int) -> Tokenizer:
    """Build a tokenizer from its description. Raises `Corrupt` like `load_tokenizer`."""
    try:
        described = msgspec.json.decode(data, type=_Description)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _corrupt(str(error)) from None
    if described.highest >= vocabulary:
        raise _corrupt(f"token {described.highest} is not one of {vocabulary}")
    _Components(_NORMALIZERS).check(described.normalizer)
    _Components(_PRE_TOKENIZERS).check(described.pre_tokenizer)
    _Components(_DECODERS).check(described.decoder)
    plain = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "post_processor": None,
        **msgspec.to_builtins(described),
    }
    try:
        return Tokenizer.from_str(msgspec.json.encode(plain).decode())
    except Exception as error:  # the library raises bare Exception
        raise _corrupt(str(error)[:300]) from None


class _Components:
    """Checks a tree of normalizers, pre-tokenizers or decoders."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self._left = _MOST_COMPONENTS
        self._growth = 1

    def check(self, node: object) -> None:
        """Raise `Corrupt` for a tree that contains an unknown component, or multiplies too much."""
        if node is None:
            return
        self._left -= 1
        if self._left < 0:
            raise _corrupt(f"it has more than {_MOST_COMPONENTS} components")
        kind = node.get("type") if isinstance(node, dict) else None
        if not isinstance(node, dict) or kind not in self._known:
            raise _corrupt(f"its component {str(kind)[:50]!r} is not one of those that are built")
        if kind == "ByteLevel":
            self._growth *= _BYTES_PER_CHARACTER
        for name, value in node.items():
            if name in _NESTED and kind == "Sequence" and isinstance(value, list):
                for one in value:
                    self.check(one)
            elif name == "pattern":
                _check_pattern(value)
            else:
                self._check_value(name, value)

    def _check_value(self, name: str, value: object) -> None:
        if isinstance(value, str):
            if name in ("content", "prepend", "replacement"):
                self._growth *= max(1, len(value))
            if len(value) > _MOST_GROWTH or self._growth > _MOST_GROWTH:
                raise _corrupt(f"its {name} makes texts too long")
        elif isinstance(value, int):
            if not 0 <= value <= _MOST_COUNT:
                raise _corrupt(f"its {name} is {value}")
        elif value is not None:
            raise _corrupt(f"its {name} is neither a short text nor a small number")


_ATOM = re.compile(
    r"\\[pP]\{\^?[A-Za-z_]{1,30}\}|\\[sSdDwWnrtbB\\/.|*+?(){}\[\]^$'\"-]"
    r"|\\x\{[0-9A-Fa-f]{1,6}\}|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}"
    r"|\[(?:\\.|[^\]\\])+\]|[^\\\[\](){}|*+?]",
    re.DOTALL,
)
_QUANTIFIER = re.compile(r"(?:\*|\+|\?|\{(\d{0,4})(,?)(\d{0,4})\})[+?]?")
_OPENING = re.compile(r"\((?:\?(?:[:=!>]|<[=!]|[imsx]{1,4}:))?")


def _check_pattern(pattern: object) -> None:
    """Raise `Corrupt` for a pattern that can take long.

    A pattern is a literal, or a regular expression without back references in which only single
    characters and classes are repeated: a repeated group can take exponential time.
    """
    if not isinstance(pattern, dict) or len(pattern) != 1:
        raise _corrupt("a pattern is neither text nor a regular expression")
    [(kind, text)] = pattern.items()
    if not isinstance(text, str) or not 0 < len(text) <= _MOST_PATTERN_CHARS:
        raise _corrupt("a pattern is empty or too long")
    if kind != "String" and not (kind == "Regex" and _is_fast(text)):
        raise _corrupt("a pattern can take too long to match")


def _is_fast(expression: str) -> bool:
    at, repetitions, depth = 0, 0, 0
    while at < len(expression):
        char = expression[at]
        if char == "|":
            repetitions, at = (0 if depth == 0 else repetitions), at + 1
            continue
        if opening := _OPENING.match(expression, at):
            depth, at = depth + 1, opening.end()
            continue
        group = char == ")"
        atom = None if group else _ATOM.match(expression, at)
        if not group and atom is None:
            return False
        at = at + 1 if atom is None else atom.end()
        depth -= group
        if quantifier := _QUANTIFIER.match(expression, at):
            at = quantifier.end()
            mark = quantifier.group()[0]
            if group and mark != "?":
                return False
            unbounded = mark in "*+" or (mark == "{" and quantifier[2] and not quantifier[3])
            repetitions += bool(unbounded)
            if max(int(quantifier[1] or 0), int(quantifier[3] or 0)) > _MOST_COUNT:
                return False
            if repetitions > _MOST_REPETITIONS:
                return False
    return depth == 0


def _corrupt(problem: str) -> Corrupt:
    return Corrupt(
        f"{TOKENIZER}: {problem}",
        field=TOKENIZER,
        fix="use a plain tokenizer of this vocabulary, without settings of its own",
    )
