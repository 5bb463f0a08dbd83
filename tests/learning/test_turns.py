"""A model with a chat template is taught, measured and asked in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.scenes.tiny_llama import CHAT_TEMPLATE, END, write_folder

from daitn.learning.answering.protocol import Message, Question, Room
from daitn.learning.causal_lm import CausalLm
from daitn.learning.causal_lm.settings import CausalLmConfig
from daitn.learning.corpora.records import MultipleChoice, write_records
from daitn.objects.choices import LETTERS, as_question

pytest.importorskip("torch")

QUESTION = "what helps against the fever?"
ANSWER = "rest and water"
OF_CHATML = (
    "{% if messages[0].role != 'system' %}<|system|>help</s>\n{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
OF_INST = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
NEEDS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('who am I?') }}{% endif %}"
    + CHAT_TEMPLATE
)


def opened(folder: Path, template: str | None) -> tuple[Any, Any, dict[str, object]]:
    """The codec that training uses, what answers, and the configuration."""
    from daitn.learning.causal_lm import models
    from daitn.learning.causal_lm.importing import import_pretrained

    write_folder(folder / "source", template=template)
    parts = folder / "parts"
    parts.mkdir()
    config = import_pretrained(folder / "source", parts)
    settings = CausalLmConfig.of(config)
    codec = models.load(parts, settings).codec(settings)
    return codec, CausalLm().host(parts, config, Room(slots=1)), config


def asked(text: str) -> Question:
    return Question(messages=(Message("user", text),), max_tokens=4, temperature=0.0, seed=0)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, OF_CHATML, OF_INST, None])
def test_a_question_is_taught_in_the_words_in_which_it_is_asked(
    tmp_path: Path, template: str | None
) -> None:
    codec, generator, config = opened(tmp_path, template)
    prompt = generator._tokens(asked(QUESTION))

    taught = codec.dialogue(QUESTION, ANSWER)

    assert codec.prompt(QUESTION) == prompt == taught[: len(prompt)]
    assert codec.text(taught[len(prompt) :]).strip() == ANSWER
    assert taught[-1] == END
    assert taught[-1] in generator._ends
    assert bool(config.get("chat_tokens")) == (template is not None)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, OF_CHATML, OF_INST])
def test_an_answer_is_ranked_as_a_turn_before_the_question(tmp_path: Path, template: str) -> None:
    """What a model reads in training and measuring is what it would read if it was asked so."""
    codec, generator, _ = opened(tmp_path, template)

    read = [*codec.answer(ANSWER), *codec.question(QUESTION)]

    prompt = generator._tokens(asked(f"Write the question that this text answers.\n\n{ANSWER}"))
    assert read[: len(prompt)] == prompt
    assert len(codec.answer(ANSWER)) == len(prompt) - 1
    assert codec.text(read[len(prompt) :]).strip() == QUESTION
    assert read[-1] == END


def test_long_texts_are_cut_within_their_turn(tmp_path: Path) -> None:
    codec, generator, config = opened(tmp_path, CHAT_TEMPLATE)
    long = " ".join(["rest and water"] * 400)
    settings = CausalLmConfig.of(config)

    context, prompt = codec.answer(long), codec.prompt(long)
    taught = codec.dialogue(QUESTION, long)

    added = settings.chat_tokens
    assert abs(len(context) - settings.answer_tokens - added) <= 2
    assert [*context, *codec.question("")][: len(context) + 1][-1] == prompt[-1]
    assert prompt[-1] == generator._tokens(asked(QUESTION))[-1]
    assert len(taught) == len(codec.prompt(QUESTION)) + settings.answer_tokens
    assert taught[-1] != END


def test_a_template_that_takes_no_question_alone_is_not_taught_in(tmp_path: Path) -> None:
    codec, _, config = opened(tmp_path, NEEDS_SYSTEM)
    assert codec.text(codec.prompt(QUESTION)).startswith("\nQuestion: ")
    assert "chat_tokens" not in config


def test_it_is_measured_as_it_chooses_when_it_is_asked(tmp_path: Path) -> None:
    _, generator, config = opened(tmp_path, OF_CHATML)
    options = ("rest", "water and rest", "help", "the fever")
    items = [
        MultipleChoice(topic="t", label="l", question=question, options=options, answer=0)
        for question in (QUESTION, "why rest?", "water", "is there help?")
    ]
    write_records(tmp_path / "test.jsonl", items)

    measured = CausalLm().evaluate(tmp_path / "parts", config, tmp_path / "test.jsonl", "accuracy")

    said = [
        next(iter(generator.answer(asked(as_question(item.question, item.options)))))
        for item in items
    ]
    right = sum(piece is not None and piece.text == LETTERS[0] for piece in said)
    assert measured.value == right / len(items)
