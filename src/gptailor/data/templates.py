"""Conversations to text: Alpaca, Phi-3, ChatML, plain, or any Jinja chat template, in a sandbox.

The one renderer for training, generation, chat and export. A template is what ``transformers`` takes for one, and gives
the same text there. Which part of the text is an answer follows from rendering: what a prompt is continued with. No
marker is ever searched for, and no text of a user can be taken for the end of an answer.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import jinja2

from gptailor.config import user_path
from gptailor.data.sandbox import RefusalError, bounded, sandbox
from gptailor.errors import UserError, did_you_mean, listing
from gptailor.tokenizer import END_OF_TEXT, TEMPLATE_FILE

LONGEST = 200_000  # characters of a template; those in use have some thousands

# An answer is closed by ``eos_token``, at which generation stops, and not by the marker that closes other messages.
TEMPLATES = {
    "alpaca": r"""{%- if messages | length > 2 or messages[0].role == "system" -%}
{{ raise_exception("it has room for one instruction and one answer only; phi3 and chatml have room for more") }}
{%- endif -%}
Below is an instruction that describes a task. Write a response that appropriately completes the request.

### Instruction:
{{ messages[0].content }}
{%- if messages[0].input %}{{ "\n\n### Input:\n" + messages[0].input }}{% endif %}
{%- if add_generation_prompt or messages | length == 2 %}{{ "\n\n### Response:\n" }}{% endif %}
{%- if messages | length == 2 %}{{ messages[1].content + eos_token }}{% endif %}
""",
    "phi3": r"""{%- for message in messages %}
{%- if message.role == "assistant" %}
{{- "<|assistant|>\n" + message.content + eos_token + ("" if loop.last else "\n") }}
{%- else %}
{{- "<|" + message.role + "|>\n" + message.content + "<|end|>\n" }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|assistant|>\n" }}{% endif %}
""",
    "chatml": r"""{%- for message in messages %}
{{- "<|im_start|>" + message.role + "\n" + message.content }}
{%- if message.role == "assistant" %}{{ eos_token + ("" if loop.last else "\n") }}
{%- else %}{{ "<|im_end|>\n" }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}
""",
    "plain": r"""{%- if messages | length > 2 or messages[0].role == "system" -%}
{{ raise_exception("it has room for one instruction and one answer only; phi3 and chatml have room for more") }}
{%- endif -%}
{{ messages[0].content }}
{%- if add_generation_prompt or messages | length == 2 %}{{ "\n" }}{% endif %}
{%- if messages | length == 2 %}{{ messages[1].content + eos_token }}{% endif %}
""",
}

# Stand for the end of text, and for contents, in a rendered text; nobody can write them into a message.
_NONCE = uuid4().hex
EACH = "{{ message.content }} for each message"
_END, _QUESTION, _INPUT, _ANSWER = (f"{name}{_NONCE}" for name in ("end", "question", "input", "answer"))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: ``role`` is system, user or assistant; a user's message may have an ``input`` beside its content."""

    role: str
    content: str
    input: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a rendered conversation.

    Attributes:
        learned: whether this is an answer.
        ended: whether the end-of-text token follows the text.
    """

    text: str
    learned: bool
    ended: bool = False


class Template:
    """A chat template, compiled and tried on one question and its answer.

    Attributes:
        name: for messages to the user.
        source: the Jinja text, as ``chat_template.jinja`` holds it.
        closing: what the template writes between an answer and the end of text, without white space: generation has to
            stop there too; ``""`` for all of ``TEMPLATES``.
        has_turns: whether a second question may follow the first answer.

    Raises:
        UserError: a syntax error, a forbidden call, an unknown name, or a template that leaves out what was said or
            does not let an answer follow its prompt.
    """

    name: str
    source: str
    closing: str
    has_turns: bool

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source
        if len(source) > LONGEST:
            raise UserError(f"template {name} has {len(source):,} characters", expected=f"at most {LONGEST:,}")
        try:
            with bounded():
                self._compiled = sandbox().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(f"template {name}, line {error.lineno}: {error.message}", expected="Jinja") from error
        except Exception as error:  # brackets in brackets, which neither Jinja nor Python follows without end
            raise UserError(f"template {name}: {type(error).__name__}: {error}", expected="Jinja") from error
        question = Message("user", _QUESTION, _INPUT)
        self._has_input = True
        self._has_input = _INPUT in self._render([question], ask=True, end=_END)
        answer = Message("assistant", _ANSWER)
        self.closing = self._try(question, answer)
        self.has_turns = self._takes([question, answer, question])

    def render(self, messages: Sequence[Message], *, ask: bool = False) -> str:
        """The text of a conversation as ``apply_chat_template`` gives it, the end of text by its usual name.

        Args:
            ask: end with what calls for an answer; ``add_generation_prompt`` there.

        Raises:
            UserError: the template refuses these messages, or fails.
        """
        return self._render(messages, ask=ask, end=END_OF_TEXT)

    def prompt(self, messages: Sequence[Message]) -> str:
        """What an answer to the last of ``messages`` follows; the text ends after the response marker."""
        return self.render(messages, ask=True)

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """A conversation that ends with an answer, cut into what was given and what was answered, in turns.

        The last answer always has the end of text behind it, whether or not the template writes one.

        Raises:
            UserError: the template refuses the messages, or changes earlier text when a message is added.
        """
        assert messages and messages[-1].role == "assistant"
        *before, last = self._cut(messages, self._render(messages, end=_END))
        assert last.learned
        return [*before, Segment(last.text, learned=True, ended=True)]

    def prompt_segments(self, messages: Sequence[Message]) -> list[Segment]:
        """``prompt``, cut at the same places as ``segments`` cuts it, so that it becomes the same tokens."""
        return self._cut(messages, self._render(messages, ask=True, end=_END))

    def as_dicts(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """The messages as a template sees them: without a place of its own, an input follows its instruction."""
        return [self._as_dict(message) for message in messages]

    def _as_dict(self, message: Message) -> dict[str, str]:
        if message.input and self._has_input:
            return {"role": message.role, "content": message.content, "input": message.input}
        return {"role": message.role, "content": "\n".join(filter(None, (message.content, message.input)))}

    def _cut(self, messages: Sequence[Message], whole: str) -> list[Segment]:
        """Each answer begins where the prompt before it ends, and ends with the end of text or the whole turn.

        What a template writes behind the end of text, such as a line end, belongs to the next turn: nothing is
        generated there. Behind the last answer it is left out.
        """
        pieces, at = [], 0
        if messages[0].role == "system" and messages[0].content.strip() not in whole:
            raise UserError(f"template {self.name} leaves out what is said by: system", expected=EACH)
        for begin, end in self._answers(messages, whole):
            said, ended, _ = whole[begin:end].partition(_END)
            pieces += [*_given(whole[at:begin]), Segment(said, learned=True, ended=bool(ended))]
            at = begin + len(said) + len(ended)
        return pieces if messages[-1].role == "assistant" else [*pieces, *_given(whole[at:])]

    def _answers(self, messages: Sequence[Message], whole: str) -> list[tuple[int, int]]:
        """First character of each answer's turn in ``whole``, and the one behind it."""
        spans: list[tuple[int, int]] = []
        for place, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self._render(messages[:place], ask=True, end=_END)
            last = place + 1 == len(messages)
            after = whole if last else self._render(messages[: place + 1], end=_END)
            if not whole.startswith(after):  # some templates close the whole conversation and not each answer
                after = after.removesuffix(_END)
            if not (whole.startswith(after) and after.startswith(before) and len(before) >= (spans or [(0, 0)])[-1][1]):
                raise UserError(
                    f"template {self.name}: what stands before an answer is not what prompts for it",
                    expected="a template that only adds text when a message is added",
                )
            spans.append((len(before), len(after)))
        return spans

    def _try(self, question: Message, answer: Message) -> str:
        """Checks that both are rendered and that the answer directly follows its prompt; returns ``closing``."""
        prompt = self._render([question], ask=True, end=_END)
        whole = self._render([question, answer], end=_END)
        lost = [m.role for m, text in ((question, prompt), (answer, whole)) if m.content not in text]
        if lost:
            raise UserError(f"template {self.name} leaves out what is said by: {', '.join(lost)}", expected=EACH)
        (*_, (begin, end)) = self._answers([question, answer], whole)
        opening, _, rest = whole[begin:end].partition(_ANSWER)
        if opening.strip() and prompt == self._render([question], end=_END):
            raise UserError(
                f"template {self.name}: a prompt ends before {opening.strip()!r}, which every answer begins with",
                expected="{% if add_generation_prompt %} with what stands before an answer",
            )
        return rest.partition(_END)[0].strip()

    def _takes(self, messages: Sequence[Message]) -> bool:
        try:
            return bool(self.prompt_segments(messages))
        except UserError:
            return False

    def _render(self, messages: Sequence[Message], *, end: str, ask: bool = False) -> str:
        ends = dict.fromkeys(("eos_token", "bos_token", "pad_token"), end)
        try:
            with bounded():
                return self._compiled.render(
                    messages=self.as_dicts(messages), add_generation_prompt=ask, tools=None, documents=None, **ends
                )
        except RefusalError as refusal:
            raise UserError(f"template {self.name}: {refusal.message}") from refusal
        except Exception as error:  # a template can cause any: it divides, indexes and calls as it likes
            frames = traceback.extract_tb(error.__traceback__)
            line = next((f", line {frame.lineno}" for frame in reversed(frames) if frame.filename == "<template>"), "")
            why = error if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
            raise UserError(f"template {self.name}{line}: {why}") from error


def open_template(name: str | Path) -> Template:
    """One of ``TEMPLATES`` by name; or a file with a Jinja chat template, or a model folder that holds one.

    Raises:
        UserError: nothing there, unreadable, or no template that works.
    """
    if str(name) in TEMPLATES:
        return Template(str(name), TEMPLATES[str(name)])
    path = user_path(str(name))
    file = path / TEMPLATE_FILE if path.is_dir() else path
    if not file.is_file():
        found = f"{path} has no {TEMPLATE_FILE}" if path.is_dir() else f"no template {str(name)!r}"
        expected = f"one of {listing(TEMPLATES)}, or a file with a Jinja chat template"
        raise UserError(found, expected=expected, hint=did_you_mean(str(name), TEMPLATES))
    try:
        with file.open(encoding="utf-8") as opened:
            return Template(str(file), opened.read(LONGEST + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"template {file} cannot be read: {error}") from error


def _given(text: str) -> list[Segment]:
    """Text that is not learned, cut behind each end of text."""
    *ended, rest = text.split(_END)
    return [Segment(one, learned=False, ended=True) for one in ended] + [Segment(rest, learned=False)] * bool(rest)
