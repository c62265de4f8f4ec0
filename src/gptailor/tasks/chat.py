"""``gptailor chat``: questions to an assistant and its answers, as they are written."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator

from rich.console import Console

from gptailor.data.templates import Message
from gptailor.errors import UserError
from gptailor.evaluate.format import amount
from gptailor.model.sampling import Sampling
from gptailor.show import plain, visible
from gptailor.tasks.speaker import Speaker, check_sampling

HELP = "/new begins anew, /quit or Ctrl-D ends, Ctrl-C stops an answer"


class Chat:
    """One conversation.

    Attributes:
        history: question and answer in turn, as far as the model still sees them; always empty where its template has
            room for one question only.
    """

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self.history: list[Message] = []
        self._asked = 0

    def ask(self, question: str, on_text: Callable[[str], None], on_note: Callable[[str], None]) -> str:
        """Answers a question; what was said of an answer that is interrupted becomes part of the history too.

        Args:
            on_text: called with each piece of the answer as it comes.
            on_note: called before it with what the user should know.

        Returns:
            Why there might have been more, in half a sentence; ``""`` where there might not.

        Raises:
            UserError: the question alone is longer than what the model reads; nothing has changed then.
        """
        speaker, asked = self.speaker, Message("user", question)
        ids, forgotten = self._fit(asked)
        if forgotten:
            turns = "oldest turn is" if forgotten == 1 else f"{forgotten} oldest turns are"
            on_note(f"the {turns} forgotten: the model reads no more than {speaker.context:,} tokens")
        del self.history[: 2 * forgotten]
        seed = speaker.sampling.seed + self._asked
        self._asked += 1
        pieces: list[str] = []

        def take(piece: str) -> None:
            pieces.append(piece)
            on_text(piece)

        try:
            return speaker.cut_short(speaker.say(ids, seed, take))
        finally:
            said = "".join(pieces).strip()
            if said and speaker.has_turns:
                self.history += [asked, Message("assistant", said)]

    def _fit(self, asked: Message) -> tuple[list[int], int]:
        """The tokens to answer, and how many of the oldest turns are left out to make room for the answer.

        Half of what the model reads is room enough.
        """
        context = self.speaker.context
        room = min(self.speaker.sampling.max_new_tokens or context, context // 2)
        for forgotten in range(len(self.history) // 2 + 1):
            ids = self.speaker.ids([*self.history[2 * forgotten :], asked])
            if len(ids) + room <= context:
                return ids, forgotten
        if len(ids) > context:
            raise UserError(f"the question has {len(ids):,} tokens", expected=f"at most {context:,}")
        return ids, forgotten


def chat_command(name: str, sampling: Sampling, device: str, console: Console, precision: str = "fp32") -> None:
    """Asks for questions and answers them until there are no more; see ``gptailor chat --help``.

    Where standard input and output are no terminal, a line is a question, and nothing but answers is printed.

    Args:
        console: for notes.
        precision: see ``Speaker``.

    Raises:
        UserError: when the model cannot be used, or is no assistant.
    """
    speaker, problems = Speaker(name, sampling, device, precision), check_sampling(sampling)
    if speaker.template is None:
        hint = f'gptailor generate {name} "the beginning of a text"'
        problems.append(UserError(f"{name} only continues texts", expected="an assistant", hint=hint))
    if problems:
        raise UserError.joined(problems)
    with console.status("reading the model"):
        speaker.decoder.eval()  # read now, and not with the first question
    size = amount(speaker.n_parameters)
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if at_terminal:
        _note(console, f"{name}: {size} parameters; it reads {speaker.context:,} tokens. {HELP}")
    if not speaker.has_turns:
        _note(console, "each question stands alone: the template of this model has room for one question")
    chat = Chat(speaker)
    for question in _questions(console) if at_terminal else _lines():
        if question == "/quit":
            return
        if question == "/new":
            chat.history.clear()
            _note(console, "nothing of what was said before is known any more")
        elif re.fullmatch("/[a-z]+", question):
            _note(console, HELP)
        elif question:
            _answer(chat, question, console, at_terminal=at_terminal)


def _answer(chat: Chat, question: str, console: Console, *, at_terminal: bool) -> None:
    """Prints an answer as it comes, and the notes on it; at a terminal, Ctrl-C stops no more than this answer."""
    shown = plain if sys.stdout.isatty() else str
    try:
        cut = chat.ask(
            question,
            on_text=lambda piece: print(shown(piece), end="", flush=True),
            on_note=lambda note: _note(console, note),
        )
        told = f"the answer ends here {cut}" if cut else ""
    except UserError as error:
        told = str(error)
    except KeyboardInterrupt:
        if not at_terminal:
            raise
        told = "stopped"
    print(flush=True)
    if told:
        _note(console, told)


def _questions(console: Console) -> Iterator[str]:
    """What is typed at a terminal."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its line editing and history
    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            _note(console, HELP)


def _lines() -> Iterator[str]:
    try:
        yield from (line.strip() for line in sys.stdin)
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not valid text: {error}", expected="UTF-8") from None


def _note(console: Console, text: str) -> None:
    console.print(f"[dim]{visible(text)}[/]", highlight=False, soft_wrap=True)
