"""Pretrained models that answer: as transformers would, many at once, as each question asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.scenes.tiny_llama import BEGIN, CHAT_TEMPLATE, END, VOCABULARY, imported, write_folder

from daitn.learning.answering.protocol import Message, Piece, Question, Room, ToolCall
from daitn.learning.causal_lm import CausalLm
from daitn.objects.choices import as_question
from daitn.objects.errors import ContextExceeded, Corrupt, InvalidInput, StorageFull, WorkFailed

torch = pytest.importorskip("torch")

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as transformers keeps it."""
    folder = tmp_path_factory.mktemp("tiny") / "folder"
    write_folder(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> tuple[Path, dict[str, object]]:
    """The same as parts, and its configuration."""
    parts = folder.parent / "parts"
    return parts, imported(folder, parts)


@pytest.fixture(scope="module")
def generator(model: tuple[Path, dict[str, object]]) -> Any:
    return CausalLm().host(*model, Room(slots=3))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    load: Any = AutoModelForCausalLM.from_pretrained
    return load(folder).eval(), AutoTokenizer.from_pretrained(folder)


def asked(*turns: tuple[str, str], **changes: Any) -> Question:
    messages = tuple(Message(role, text) for role, text in turns)
    question = Question(messages=messages, max_tokens=12, temperature=0.0, seed=0)
    return structs.replace(question, **changes)


def pieces(generator: Any, question: Question) -> list[Piece]:
    return [piece for piece in generator.answer(question) if piece is not None]


def text(generator: Any, question: Question) -> str:
    return "".join(piece.text for piece in pieces(generator, question))


def side_by_side(answers: list[Iterator[Piece | None]]) -> list[str]:
    """What each says, as the worker steps them: in turn."""
    said, live = [""] * len(answers), list(range(len(answers)))
    while live:
        for place in tuple(live):
            try:
                piece = next(answers[place])
            except StopIteration:
                live.remove(place)
            else:
                said[place] += "" if piece is None else piece.text
    return said


TALKS = [
    asked(("user", "fever")),
    asked(("system", "be brief"), ("user", "rest"), ("assistant", "and"), ("user", "water")),
    asked(("user", "against the fever " * 40)),  # Longer than a step reads.
    asked(("developer", "be kind"), ("user", "help")),
    asked(("user", "go on with this"), continues=True),
]


def test_answers_are_those_of_transformers_however_many_are_under_way(
    generator: Any, theirs: Any
) -> None:
    network, tokenizer = theirs
    expected = []
    for talk in TALKS:
        if talk.continues:
            tokens = tokenizer(talk.messages[0].content)["input_ids"]
        else:
            turns = [
                {"role": m.role.replace("developer", "system"), "content": m.content}
                for m in talk.messages
            ]
            tokens = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        assert generator.length(talk) == len(tokens)
        said = network.generate(torch.tensor([tokens]), max_new_tokens=12, do_sample=False)
        expected.append(tokenizer.decode(said[0, len(tokens) :], skip_special_tokens=True))
    assert side_by_side([generator.answer(talk) for talk in TALKS]) == expected
    assert [text(generator, talk) for talk in TALKS] == expected
    assert not generator.facts.deterministic
    assert generator.facts.context_tokens == 256


@pytest.mark.parametrize("kind", ["gemma2", "mistral", "phi3", "qwen3"])
def test_other_architectures_answer_as_they_do_in_transformers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    write_folder(tmp_path / "folder", kind=kind)
    config = imported(tmp_path / "folder", tmp_path / "parts")
    generator: Any = CausalLm().host(tmp_path / "parts", config, Room(slots=2))
    load: Any = AutoModelForCausalLM.from_pretrained
    network = load(tmp_path / "folder").eval()
    expected = []
    for talk in TALKS[:3]:
        tokens = generator._tokens(talk)
        said = network.generate(torch.tensor([tokens]), max_new_tokens=12, do_sample=False)
        expected.append(generator._tokenizer.decode(said[0, len(tokens) :].tolist()))
    assert side_by_side([generator.answer(talk) for talk in TALKS[:3]]) == expected
    assert generator.facts.deterministic == (kind == "gemma2")


def test_an_architecture_that_cannot_be_batched_answers_the_same_in_turn(
    model: tuple[Path, dict[str, object]], generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise RuntimeError("an architecture of its own")

    monkeypatch.setattr("daitn.learning.causal_lm.batching.Batcher.__init__", none)
    alone = CausalLm().host(*model, Room(slots=3))
    assert alone.facts.deterministic  # type: ignore[attr-defined]
    talks = [*TALKS, asked(("user", "draw"), temperature=1.0, seed=5)]
    for talk in talks:
        assert text(alone, talk) == text(generator, talk)


def test_a_stated_context_binds_and_is_no_longer_than_the_models_own(
    model: tuple[Path, dict[str, object]], generator: Any
) -> None:
    own = generator.facts.context_tokens
    bound: Any = CausalLm().host(*model, Room(context_tokens=40))
    assert bound.facts.context_tokens == bound.most_tokens == 40
    with pytest.raises(ContextExceeded, match="40 tokens"):
        bound.embed(["fever " * 41])
    wide: Any = CausalLm().host(*model, Room(context_tokens=100 * own))
    assert wide.facts.context_tokens == own


def test_each_answer_is_drawn_as_it_was_asked(generator: Any) -> None:
    greedy = text(generator, TALKS[0])
    warm = {"temperature": 1.0, "max_tokens": 30}
    drawn = [text(generator, structs.replace(TALKS[0], seed=seed, **warm)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    # The neighbours of an answer do not touch its dice.
    both = [generator.answer(structs.replace(TALKS[0], seed=seed, **warm)) for seed in (2, 1)]
    assert side_by_side(both) == [drawn[2], drawn[0]]
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert text(generator, structs.replace(TALKS[0], temperature=1.0, **narrow)) == greedy
    only = structs.replace(TALKS[0], logit_bias={70: 100.0}, max_tokens=5, top_logprobs=0)
    (said,) = {token.text for piece in pieces(generator, only) for token in piece.each}
    often = structs.replace(only, frequency_penalty=2.0, max_tokens=60)
    assert {t.text for p in pieces(generator, often) for t in p.each} != {said}
    for penalty in ({"presence_penalty": 2.0}, {"repetition_penalty": 100.0}):
        assert text(generator, structs.replace(TALKS[0], max_tokens=30, **penalty)) != text(
            generator, structs.replace(TALKS[0], max_tokens=30)
        )
    ending = structs.replace(TALKS[0], logit_bias={END: 100.0})
    assert pieces(generator, ending) == []
    assert sum(p.tokens for p in pieces(generator, structs.replace(ending, min_tokens=4))) == 4
    with pytest.raises(InvalidInput, match=f"{VOCABULARY} tokens"):
        pieces(generator, structs.replace(TALKS[0], logit_bias={VOCABULARY: 1.0}))


def test_probabilities_are_the_models(generator: Any, theirs: Any) -> None:
    network, tokenizer = theirs
    tokens = tokenizer.apply_chat_template(
        [{"role": "user", "content": "fever"}], add_generation_prompt=True
    )["input_ids"]
    with torch.no_grad():
        chances = torch.log_softmax(network(torch.tensor([tokens])).logits[0, -1], -1)
    best = chances.topk(3)
    question = structs.replace(TALKS[0], top_logprobs=3, max_tokens=4, logit_bias={70: 100.0})
    first = pieces(generator, question)[0].each[0]
    assert [token.logprob for token in first.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert first.logprob == pytest.approx(float(chances[70]), abs=1e-4)


def test_an_answer_that_nobody_wants_gives_its_memory_back(generator: Any) -> None:
    cache = generator._batcher._processor.cache
    began = generator.answer(structs.replace(TALKS[0], max_tokens=200))
    assert any(next(began) is not None for _ in range(9))
    other = generator.answer(TALKS[1])
    next(other)
    began.close()
    assert side_by_side([other])[0]
    assert not generator._batcher._answers
    assert text(generator, TALKS[0])
    assert not generator._batcher._processor.scheduler.active_requests
    assert cache.compute_free_capacity() > 0.5


def test_a_step_that_fails_ends_its_answers_and_no_later_one(
    generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = text(generator, TALKS[0])
    under_way = [generator.answer(talk) for talk in TALKS[:2]]
    next(under_way[0])

    def full(*_: object) -> None:
        raise MemoryError("what does Ada ask?")

    with monkeypatch.context() as broken:
        broken.setattr(type(generator._batcher._processor), "_generation_step", full)
        for answer in under_way:
            with pytest.raises(WorkFailed, match=r"the model failed: MemoryError$"):
                list(answer)
    assert text(generator, TALKS[0]) == expected


def test_more_answers_than_there_is_memory_for_wait_for_each_other(
    model: tuple[Path, dict[str, object]], generator: Any
) -> None:
    from daitn.learning.causal_lm.batching import Batcher
    from daitn.learning.causal_lm.sampling import Sampler

    narrow = Batcher(generator._network, cache_tokens=64, slots=3)
    wide = generator._batcher
    question = asked()

    def tokens(batcher: Any) -> list[list[int]]:
        prompts = [[BEGIN, *range(10, 10 + size)] for size in (20, 25, 30)]
        answers = [
            batcher.answer(prompt, Sampler(question, (), VOCABULARY), 60) for prompt in prompts
        ]
        said: list[list[int]] = [[], [], []]
        live = {0, 1, 2}
        while live:
            for place in tuple(live):
                try:
                    one = next(answers[place])
                except StopIteration:
                    live.remove(place)
                else:
                    said[place] += [] if one is None else [one.token]
        return said

    assert tokens(narrow) == tokens(wide)


def test_a_choice_is_made_as_it_is_measured_and_texts_have_places(generator: Any) -> None:
    (piece,) = pieces(generator, asked(("user", as_question("Fever?", ("rest", "water")))))
    assert piece.text in "AB"
    same, other, again = generator.embed(["fever", "water", "fever"])
    assert same == again != other
    assert sum(x * x for x in same) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ContextExceeded, match="256 tokens"):
        generator.embed(["fever " * 400])


def test_what_a_template_does_not_take_is_told_by_its_place(generator: Any) -> None:
    with pytest.raises(InvalidInput, match="no judges"):
        generator.length(asked(("judge", "guilty"), ("user", "no")))
    with pytest.raises(ContextExceeded):
        generator.length(asked(("user", "x" * 200_000)))


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
         "drops messages of the role system"),
        ("{{ messages.__class__.__mro__ }}", "rejects"),
        ("{% for m in messages %}", "rejects"),
        ("{{ nothing.more.than.this }}", "rejects"),
        ("{{ messages[9].content }}", "rejects"),
        ("{{ messages | map(attribute='content') | join * 400000 }}", "rejects"),
    ],
)  # fmt: skip
def test_templates_are_strangers_programs(template: str, match: str) -> None:
    from daitn.learning.causal_lm.chat import Chat

    with pytest.raises(InvalidInput, match=match):
        Chat(template=template).rendered([Message("system", "be brief"), Message("user", "hi")], [])


_AS_LLAMA_3 = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ m.content | tojson }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "result"),
    [
        (_AS_LLAMA_3, '{"temp": 21}'),
        (_AS_LLAMA_3, "two\nlines"),
        (_AS_LLAMA_3, "<b> & 'quotes' \u00e4 \U0001f600"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "sunny"),
        ("{% for m in messages %}{{ m.content.split() | join(' ') }}{% endfor %}", "a  b"),
        ("{% for m in messages %}{{ m.content | e }}{% endfor %}", "a < b"),
    ],
)
def test_what_a_template_says_in_another_form_is_not_left_out(template: str, result: str) -> None:
    from daitn.learning.causal_lm.chat import Chat

    talk = [Message("user", "weather?"), Message("tool", result, (), "a")]
    assert Chat(template=template).rendered(talk, [])
    drops = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(InvalidInput, match="drops messages of the role tool") as refused:
        Chat(template=drops).rendered(talk, [])
    assert refused.value.field == "messages[1]"


def test_a_list_in_a_message_is_no_exam(generator: Any) -> None:
    text = "Explain which is right, and why:\nA) gold\nB) tin\nThen say what you left out."
    assert sum(piece.tokens for piece in pieces(generator, asked(("user", text)))) == 12


def test_a_model_without_a_template_reads_what_it_was_trained_on(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", template=None)
    config = imported(tmp_path / "folder", tmp_path / "parts")
    generator: Any = CausalLm().host(tmp_path / "parts", config, Room())
    codec = generator._codec
    single = asked(("user", "fever"))
    assert generator._tokens(single) == codec.asked("fever")
    long = asked(("user", "fever " * 40))
    assert generator.length(long) == len(codec.asked("fever " * 40))
    talk = asked(("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c"))
    said = codec.text(generator._tokens(talk))
    assert said == "be brief\nQuestion: a\nAnswer: b\nQuestion: c\nAnswer: "
    assert "tools" not in generator.facts.honours
    with pytest.raises(InvalidInput, match="no chat template"):
        generator.length(asked(("user", "a"), ("tool", "b")))


def test_an_import_takes_along_how_the_model_is_spoken_to(folder: Path, tmp_path: Path) -> None:
    import shutil

    from daitn.learning.causal_lm.chat import read_chat

    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "chat_template.jinja").unlink()
    told = json.loads((other / "tokenizer_config.json").read_text())
    told["chat_template"] = [
        {"name": "default", "template": "{{ messages[0].content }}"},
        {"name": "tool_use", "template": CHAT_TEMPLATE},
    ]
    told["bos_token"] = {"content": "<s>", "special": True}
    (other / "tokenizer_config.json").write_text(json.dumps(told))
    (other / "generation_config.json").write_text('{"eos_token_id": [5, 1]}')
    imported(other, tmp_path / "parts")
    chat = read_chat(tmp_path / "parts", VOCABULARY)
    assert chat.template == "{{ messages[0].content }}"
    assert chat.tool_template == CHAT_TEMPLATE
    assert chat.tokens["bos_token"] == "<s>"
    assert (chat.begins, chat.ends) == ((BEGIN,), (1, 5))
    assert chat.knows_tools
    for broken in ('{"ends": [400]}', '{"begins": ["x"]}', "[", '{"more": 1}'):
        (tmp_path / "parts" / "chat.json").write_text(broken)
        with pytest.raises(Corrupt, match=r"chat\.json"):
            read_chat(tmp_path / "parts", VOCABULARY)
    (other / "tokenizer_config.json").write_text("[1")
    with pytest.raises(Corrupt, match="tokenizer_config"):
        imported(other, tmp_path / "broken")


def test_adapters_answer_as_they_were_trained(
    model: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    from daitn.learning.causal_lm import models
    from daitn.learning.causal_lm.settings import CausalLmConfig

    parts, config = model
    settings = CausalLmConfig.of(config)
    trained = models.load(parts, settings)
    torch.manual_seed(1)
    for weight in trained.network.trainable().values():
        weight.data.normal_(std=0.3)
    carried = models.save(trained, settings, parts, tmp_path)
    assert "chat.json" in carried
    for name in carried:
        (tmp_path / name).symlink_to(parts / name)
    generator: Any = CausalLm().host(tmp_path, config, Room())
    tokens = torch.tensor([0, 20, 30, 40])
    with torch.inference_mode():
        expected, _ = trained.network.following(tokens, None)
        found, _ = generator._adapted.following(tokens, None)
    assert torch.allclose(found, expected, atol=1e-4)
    weights = {name: w.detach().clone() for name, w in trained.network.trainable().items()}
    weights[min(weights)][:] = torch.nan
    save_file(weights, tmp_path / "adapter.safetensors")
    with pytest.raises(Corrupt, match="not finite"):
        CausalLm().host(tmp_path, config, Room())


def test_numbers_and_memory_are_chosen_from_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from daitn.learning.causal_lm import placing

    fast = {"amx_bf16": True}
    half, wide = torch.bfloat16, torch.float32
    cases = [
        (wide, {}, 0, wide),
        (half, {}, 0, wide),
        (half, fast, 0, half),
        (half, {}, 4 << 30, half),
        (torch.float16, fast, 0, wide),
    ]
    monkeypatch.setattr("daitn.learning.memory.free_bytes", lambda: 16 << 30)
    for stored, known, most, expected in cases:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        place = placing.placed(10**9, 0, stored, Room(memory_bytes=most))
        assert (place.device.type, place.dtype) == ("cpu", expected)
    with pytest.raises(StorageFull, match="bytes of memory"):
        placing.placed(10**10, 0, wide, Room())
    place = placing.Place(torch.device("cpu"), wide)
    assert placing.cache_tokens(place, 1 << 20, 2048, Room(slots=2)) == 4096
    assert placing.cache_tokens(place, 1 << 20, 8192, Room(slots=2)) == 8192
    with pytest.raises(StorageFull, match="conversation of 8 tokens"):
        placing.cache_tokens(place, 1 << 30, 8192, Room(slots=2))


def test_a_gpu_with_room_is_taken_and_computes_in_half_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from daitn.learning.causal_lm import placing

    free = [4 << 30, 20 << 30]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (free[_number(gpu)], 1 << 40))
    monkeypatch.setattr("daitn.learning.memory.free_bytes", lambda: 1 << 40)
    for known, stored, expected in (
        (True, torch.bfloat16, torch.bfloat16),
        (True, torch.float32, torch.bfloat16),
        (True, torch.float16, torch.float16),
        (False, torch.bfloat16, torch.float16),
    ):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda _, known=known: known)
        place = placing.placed(8 * 10**9, 0, stored, Room())
        assert place == placing.Place(torch.device("cuda", 1), expected)
    assert placing.cache_tokens(place, 1 << 17, 8192, Room(slots=4)) == 4 * 8192
    assert placing.cache_tokens(place, 1 << 20, 8192, Room(slots=4)) == 10 << 10
    # What no GPU has room for is computed on the processor.
    assert placing.placed(20 * 10**9, 0, torch.bfloat16, Room()).device.type == "cpu"


def _number(gpu: Any) -> int:
    return int(gpu if isinstance(gpu, int) else gpu.index)


HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("said", "before", "calls"),
    [
        (HERMES, "", 1),
        ("Let me see.\n" + HERMES + "\n" + HERMES, "Let me see.", 2),
        ('{"name": "weather", "parameters": {"city": "Paris"}}', "", 1),
        ('<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}', "", 1),
        ('[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]', "", 1),
        ('{"name": "unknown", "parameters": {}}', None, 0),
        ("a < b and [TOOLS] and {x}", None, 0),
        ("<tool_call>{not json</tool_call>", None, 0),
        ("", None, 0),
    ],
)
def test_calls_of_tools_are_found_in_what_is_said(
    said: str, before: str | None, calls: int
) -> None:
    from daitn.learning.causal_lm.calls import CallReader

    for size in (1, 3, len(said) or 1):
        reader = CallReader(frozenset({"weather"}), 7)
        given = [Piece(said[at : at + size], -0.5) for at in range(0, len(said), size)]
        told = [piece for one in given for piece in reader.add(one)] + [*reader.rest()]
        found = [call for piece in told for call in piece.calls]
        assert len(found) == calls
        assert "".join(piece.text for piece in told).strip() == (said if before is None else before)
        assert sum(piece.tokens for piece in told) == len(given)
        assert all(json.loads(call.arguments) == {"city": "Paris"} for call in found)
        assert len({call.id for call in found}) == len(found)


def test_text_comes_at_once_where_no_call_can_begin() -> None:
    from daitn.learning.causal_lm.calls import CallReader

    reader = CallReader(frozenset({"weather"}), 7)
    words = ["It ", "is ", "sunny <", "3"]
    assert [[*map(str, (p.text for p in reader.add(Piece(w, 0.0))))] for w in words] == [
        ["It "],
        ["is "],
        [],
        ["sunny <", "3"],
    ]


def test_a_conversation_with_tools_is_put_as_the_template_does(generator: Any) -> None:
    call = ToolCall("a", "weather", '{"city": "Paris"}')
    talk = asked(("user", "weather?"), tools=(WEATHER,))
    talk = structs.replace(
        talk,
        messages=(
            *talk.messages,
            Message("assistant", "", (call,)),
            Message("tool", "sunny", (), "a"),
        ),
    )
    said = generator._tokenizer.decode(generator._tokens(talk), skip_special_tokens=False)
    assert '"name": "weather"' in said.split("<|user|>")[0]
    assert '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>' in said
    assert said.endswith("<|tool|>sunny</s><|assistant|>")
    assert sum(piece.tokens for piece in pieces(generator, talk)) == 12
    half = ToolCall("a", "weather", r'{"city": "\ud83d"}')
    talk = structs.replace(
        talk, messages=(talk.messages[0], Message("assistant", "", (half,)), *talk.messages[2:])
    )
    assert sum(piece.tokens for piece in pieces(generator, talk)) == 12
