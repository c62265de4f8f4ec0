"""Templates: the layout to the byte, the same text as transformers, answers by construction, and a sandbox."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptailor.data.templates import TEMPLATE_FILE, TEMPLATES, Message, Segment, Template, open_template
from gptailor.errors import UserError
from gptailor.tokenizer import END_OF_TEXT, Tokenizer

PREAMBLE = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
SYSTEM, QUESTION, ANSWER = Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello")
CASE = Message("user", "Rewrite it.", "He go home.")
AGAIN, LAST = Message("user", "Bye"), Message("assistant", "See you")
TURNS = [SYSTEM, QUESTION, ANSWER, AGAIN, LAST]

# What others' templates do: trim, count turns, look ahead, serialise, mark what is learned, close the whole text only.
OTHERS = {
    "closed-once": "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
    "inst": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% elif m.role == 'system' %}{{ '<<' ~ m.content ~ '>>' }}{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}",
    "clever": """
    {%- set ns = namespace(turn=0) %}
    {%- for message in messages %}
        {%- if tools or message.tool_calls %}{% continue %}{% endif %}
        {%- set ns.turn = ns.turn + 1 %}
        {{- "[" ~ ns.turn ~ "] " ~ message.role | tojson ~ " " ~ {"<": message.role} | tojson(indent=1) ~ ": " }}
        {%- if message.role == "assistant" %}
            {%- generation %}{{ message["content"] }}{% endgeneration %}{{ eos_token }}
        {%- else %}{{ message.content }}{% endif %}
        {{- "\n" }}
    {%- endfor %}
    {%- if add_generation_prompt %}{{ "[" ~ (ns.turn + 1) ~ '] "assistant" {\\n "<": "assistant"\\n}: ' }}{% endif -%}
    """,
}


def learned(pieces: list[Segment]) -> list[str]:
    return [piece.text for piece in pieces if piece.learned]


def written(pieces: list[Segment]) -> str:
    return "".join(piece.text + END_OF_TEXT * piece.ended for piece in pieces)


# --- layout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "question", "prompt"),
    [
        ("alpaca", QUESTION, f"{PREAMBLE}Hi\n\n### Response:\n"),
        ("alpaca", CASE, f"{PREAMBLE}Rewrite it.\n\n### Input:\nHe go home.\n\n### Response:\n"),
        ("phi3", QUESTION, "<|user|>\nHi<|end|>\n<|assistant|>\n"),
        ("phi3", CASE, "<|user|>\nRewrite it.\nHe go home.<|end|>\n<|assistant|>\n"),
        ("chatml", QUESTION, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        ("plain", QUESTION, "Hi\n"),
        ("plain", CASE, "Rewrite it.\nHe go home.\n"),
    ],
)
def test_one_turn_is_laid_out_to_the_byte(name: str, question: Message, prompt: str) -> None:
    template = open_template(name)
    assert template.prompt([question]) == prompt
    assert template.render([question, ANSWER]) == prompt + "Hello<|endoftext|>"
    assert template.segments([question, ANSWER]) == [Segment(prompt, False), Segment("Hello", True, True)]


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        (
            "phi3",
            [
                Segment("<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n", False),
                Segment("Hello", True, True),
                Segment("\n<|user|>\nBye<|end|>\n<|assistant|>\n", False),
                Segment("See you", True, True),
            ],
        ),
        (
            "chatml",
            [
                Segment(
                    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
                    False,
                ),
                Segment("Hello", True, True),
                Segment("\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n", False),
                Segment("See you", True, True),
            ],
        ),
    ],
)
def test_every_answer_of_several_turns_is_learned_with_its_end(name: str, pieces: list[Segment]) -> None:
    template = open_template(name)
    assert template.segments(TURNS) == pieces
    assert template.prompt_segments(TURNS[:-1]) == pieces[:-1]


@pytest.mark.parametrize("name", TEMPLATES)
def test_who_has_room_for_several_turns(name: str) -> None:
    template = open_template(name)
    assert template.has_turns == (name in ("phi3", "chatml"))
    assert template.closing == ""
    for messages in ([QUESTION, ANSWER, AGAIN], [SYSTEM, QUESTION], TURNS):
        if not template.has_turns:
            with pytest.raises(UserError, match=f"template {name}: it has room for one instruction and one answer"):
                template.render(messages)


# --- the same text as transformers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(["some text"], 260).save(folder, context_length=64)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", [*TEMPLATES, *OTHERS])
@pytest.mark.parametrize(
    "text", ["plain", ' <b> & "q" \\n\n\n', "<|endoftext|> {{ eos_token }} {% raw %}", "é\u2028語😀"]
)
def test_transformers_renders_the_same_text(theirs: Any, name: str, text: str) -> None:
    source = TEMPLATES.get(name) or OTHERS[name]
    template = Template(name, source)
    talks = [[Message("user", text, "more")], [Message("user", text), Message("assistant", text)]]
    if template.has_turns:
        talks += [[SYSTEM, *talks[1]], [*talks[1], *talks[0]], [SYSTEM, *talks[1], *talks[1]]]
    for messages, ask in product(talks, (False, True)):
        options = {"chat_template": source, "tokenize": False, "add_generation_prompt": ask}
        told = theirs.apply_chat_template(template.as_dicts(messages), **options)
        assert template.render(messages, ask=ask) == told


# --- answers by construction ------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [END_OF_TEXT, "\n### Response:\n", "<|assistant|>\n", "<|im_start|>assistant\n", "<|end|>", "\n", " x "]
)
COMPILED = {name: open_template(name) for name in TEMPLATES}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["phi3", "chatml", "alpaca", "plain"]), st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_answers_are_found_whatever_they_say(name: str, turns: list[tuple[str, str]]) -> None:
    template = COMPILED[name]
    turns = turns if template.has_turns else turns[:1]
    messages = [m for said, answer in turns for m in (Message("user", said), Message("assistant", answer))]
    pieces = template.segments(messages)
    assert learned(pieces) == [answer for _, answer in turns]
    assert all(piece.ended == piece.learned for piece in pieces)
    assert written(pieces) == template.render(messages)
    assert template.prompt_segments(messages[:-1]) == pieces[:-1]


def test_what_closes_an_answer_before_the_end_of_text_is_known_and_learned() -> None:
    template = Template("t", OTHERS["closed-once"])
    assert template.closing == "<|end|>"
    pieces = template.segments(TURNS)
    assert learned(pieces) == ["Hello<|end|>\n", "See you<|end|>\n"]
    assert [piece.ended for piece in pieces if piece.learned] == [False, True]


def test_the_last_answer_is_closed_where_the_template_does_not() -> None:
    template = Template("t", "{% for m in messages %}{{ m.role[0] + ':' + m.content + '\n' }}{% endfor %}"
                             "{% if add_generation_prompt %}a:{% endif %}")  # fmt: skip
    assert template.segments([QUESTION, ANSWER]) == [Segment("u:Hi\na:", False), Segment("Hello\n", True, True)]


def test_what_stands_behind_the_last_end_is_left_out_and_otherwise_belongs_to_the_next_turn() -> None:
    pieces = Template("t", OTHERS["inst"].replace("{{ eos_token }}", "{{ eos_token }}\n")).segments(TURNS)
    assert pieces[0] == Segment("", False, True)  # the beginning of the text is the end of another
    assert pieces[2:] == [
        Segment(" Hello", True, True),
        Segment("\n[INST] Bye [/INST]", False),
        Segment(" See you", True, True),
    ]


# --- refused ----------------------------------------------------------------------------------------------------------

GOOD = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    "trick",
    [
        "{{ ''.__class__ }}",
        "{% if ''.__class__ %}{% endif %}",
        "{% for c in messages.__class__ %}{% endfor %}",
        "{{ messages[0]['__class__'] }}",
        "{{ messages | attr('__class__') }}",
        "{{ messages | map(attribute='__class__') | list }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ '{m.__class__}'.format_map({'m': messages}) }}",
        "{{ raise_exception.__globals__ }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ namespace.mro() }}",
        "{{ self.__init__ }}",
        "{% set x = namespace() %}{% set x.__class__ = 1 %}",
        "{{ namespace(__init__=1) }}",
        "{{ messages.append({}) }}",
        "{{ messages[0].update(role='user') }}",
        "{% import 'os' as os %}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_what_reaches_out_of_the_sandbox_is_refused(trick: str) -> None:
    with pytest.raises(UserError, match="template t, line 2: "):
        Template("t", GOOD + "\n" + trick)


def test_a_template_that_leaves_a_system_message_out_is_refused_with_one() -> None:
    source = "{% for m in messages if m.role != 'system' %}{{ m.content }}\n{% endfor %}"
    template, turns = Template("t", source), [Message("user", "q"), Message("assistant", "a")]
    assert template.segments(turns)
    with pytest.raises(UserError, match="leaves out what is said by: system"):
        template.segments([Message("system", "be brief"), *turns])


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("a\n{% if %}", "template t, line 2: Expected an expression"),
        ("{% for m in messages %}", "template t, line 1: Unexpected end of template"),
        ("{{ messages[0].content | upcase }}", "template t, line 1: No filter named 'upcase'"),
        ("\n\n{{ mesages }}", "template t, line 3: 'mesages' is undefined"),
        ("{{ messages[0].contnet }}", "line 1: 'dict object' has no attribute 'contnet'"),
        ("{{ messages[0].text.strip() }}", "line 1: 'dict object' has no attribute 'text'"),
        ("{{ 1 / 0 }}", "template t, line 1: ZeroDivisionError: division by zero"),
        ("{{ raise_exception('no ' ~ messages[0].role) }}", "^template t: no user$"),
        ("{% for m in mesages %}{{ m.content }}{% endfor %}", "template t leaves out what is said by: user, assistant"),
        ("{{ messages[0].content }}", "template t leaves out what is said by: assistant\n  expected: {{ message.cont"),
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
            "template t: a prompt ends before '<assistant>', which every answer begins with\n  expected: .*add_gen",
        ),
        (
            "{{ messages | length }}" + GOOD,
            "template t: what stands before an answer is not what prompts for it\n  expected: .* only adds text",
        ),
    ],
)
def test_a_template_that_cannot_work_is_told_when_it_is_opened(source: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        Template("t", source)


def test_a_template_that_rewrites_what_was_said_before_is_told() -> None:
    template = Template("t", "{% for m in messages %}{{ m.content if loop.revindex < 3 else '...' }}\n{% endfor %}")
    assert template.segments([QUESTION, ANSWER])
    assert not template.has_turns
    with pytest.raises(UserError, match="what stands before an answer is not what prompts for it"):
        template.segments([QUESTION, ANSWER, AGAIN, LAST])


# --- where it is found ------------------------------------------------------------------------------------------------


def test_a_template_is_found_by_name_by_file_and_in_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / TEMPLATE_FILE).write_text(TEMPLATES["alpaca"], encoding="utf-8")
    for place in ("alpaca", str(tmp_path), tmp_path / TEMPLATE_FILE):
        template = open_template(place)
        assert template.prompt([CASE]) == open_template("alpaca").prompt([CASE])
        assert template.source == TEMPLATES["alpaca"]


def test_no_template_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="no template 'alpca'\n  expected: one of alpaca, phi3, chatml, plain, or a file"
    ):
        open_template("alpca")
    with pytest.raises(UserError, match=f"{tmp_path} has no chat_template.jinja"):
        open_template(tmp_path)
    (tmp_path / "t.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"template .*t\.jinja cannot be read"):
        open_template(tmp_path / "t.jinja")
