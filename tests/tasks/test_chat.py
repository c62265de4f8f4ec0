"""``gptailor chat`` with assistants of random weights: what they are asked with, and what the terminal shows."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gptailor import cli
from gptailor.data.templates import Message
from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.sampling import Sampling
from gptailor.tasks.chat import HELP, Chat
from gptailor.tasks.generate import generate_command
from gptailor.tasks.speaker import Speaker
from gptailor.tokenizer import Tokenizer
from gptailor.weights.folder import save_language_model
from tests.tiny import save_assistant

GREEDY = Sampling(12)


@pytest.fixture(scope="module")
def helper(make_decoder: Callable[..., Decoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_assistant(tmp_path_factory.mktemp("helper"), make_decoder, "chatml")


@pytest.fixture(scope="module")
def single(make_decoder: Callable[..., Decoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_assistant(tmp_path_factory.mktemp("single"), make_decoder, "plain")


def open_chat(folder: Path, sampling: Sampling = GREEDY) -> Chat:
    return Chat(Speaker(str(folder), sampling, "cpu"))


def ask(chat: Chat, question: str) -> tuple[str, list[str]]:
    """The answer, and the notes before and behind it."""
    pieces: list[str] = []
    notes: list[str] = []
    cut = chat.ask(question, pieces.append, notes.append)
    return "".join(pieces), [*notes, cut]


# --- one conversation -------------------------------------------------------------------------------------------------


def test_a_first_answer_is_that_of_generate_and_a_second_one_knows_it(helper: Path):
    how = Sampling(8, temperature=1.0, seed=3)
    chat = open_chat(helper, how)
    first, _ = ask(chat, "Why?")
    assert first == generate_command(str(helper), "Why?", how, "cpu") and len(first) > 3
    history = [Message("user", "Why?"), Message("assistant", first.strip())]
    assert chat.history == history
    asked = chat.speaker.ids([*history, Message("user", "And?")])
    pieces: list[str] = []
    Speaker(str(helper), how, "cpu").say(asked, 4, pieces.append)
    assert ask(chat, "And?")[0] == "".join(pieces) != ask(open_chat(helper, how), "And?")[0]
    assert first.strip() in chat.speaker.tokenizer.decode(asked)


def test_a_full_context_forgets_the_oldest_turns(helper: Path):
    chat = open_chat(helper)
    long = "the soup was warm " * 2
    told = [ask(chat, f"{number} {long}")[1][0] for number in range(4)]
    assert told[0].startswith("because of --max-new-tokens"), "nothing to forget yet, only the answer is cut"
    assert told[-1] == "the oldest turn is forgotten: the model reads no more than 100 tokens"
    assert chat.history[-2].content.startswith("3") and not chat.history[0].content.startswith("0")
    assert [message.role for message in chat.history] == ["user", "assistant"] * (len(chat.history) // 2)
    assert len(chat.speaker.ids(chat.history[:-1])) + 12 <= 100, "there was room for the whole answer"
    before = list(chat.history)
    with pytest.raises(UserError, match="at most 100"):
        ask(chat, long * 20)
    assert chat.history == before
    short, notes = ask(chat, "the soup was warm and lovely " * 5)
    assert "oldest turn" in notes[0] and short and len(chat.history) == 2


def test_a_stop_string_is_never_shown_though_it_comes_in_pieces(helper: Path):
    whole, _ = ask(open_chat(helper), "Why?")
    pieces: list[str] = []
    open_chat(helper).ask("Why?", pieces.append, print)
    ends = [len("".join(pieces[:count])) for count in range(1, len(pieces))]
    stop = next(whole[end - 1 : end + 1] for end in ends if whole.find(whole[end - 1 : end + 1]) == end - 1 > 0)
    assert not any(stop in piece for piece in pieces), "one token has its beginning, and another its end"
    chat = open_chat(helper, Sampling(12, stop=(stop,)))
    said, notes = ask(chat, "Why?")
    assert said == whole[: whole.index(stop)] and notes == [""]
    assert chat.history[-1].content == said.strip()


def test_without_turns_each_question_stands_alone(single: Path):
    chat = open_chat(single)
    assert ask(chat, "Why?") == ask(chat, "Why?") and chat.history == []


# --- the command ------------------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``gptailor chat`` with these lines: exit code, standard output, standard error."""

    def chat(folder: Path, *lines: str | type[BaseException], terminal: bool = False) -> tuple[int, str, str]:
        left = iter([*lines, EOFError])
        flags = ["--max-new-tokens", "12", "--temperature", "0", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["gptailor", "chat", str(folder), *flags])
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        monkeypatch.setattr("builtins.input", lambda shown: typed(shown, left))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        monkeypatch.setattr(cli, "console", cli.Console(stderr=True, width=200))
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return chat


def typed(shown: str, left: Iterator[Any]) -> str:
    print(shown, end="")
    line = next(left)
    if isinstance(line, str):
        return line
    raise line


def test_lines_of_a_pipe_are_questions_and_only_answers_are_printed(run: Run, helper: Path):
    code, out, _ = run(helper, "Why?", "", " And? ", "/new", "Why?", "/quit", "never")
    chat = open_chat(helper)
    answers = [ask(chat, "Why?")[0], ask(chat, "And?")[0], ask(open_chat(helper), "Why?")[0]]
    assert code == 0 and out == "".join(f"{one}\n" for one in answers)


def test_a_terminal_is_prompted_and_told(run: Run, helper: Path):
    code, out, told = run(helper, KeyboardInterrupt, "/help", "Why?", terminal=True)
    assert code == 0 and out == f"> \n> > {ask(open_chat(helper), 'Why?')[0]}\n> \n"
    assert "it reads 100 tokens" in told and told.count(HELP) == 3 and "stands alone" not in told
    assert "the answer ends here because of --max-new-tokens 12" in told


def test_it_is_said_once_that_questions_stand_alone(run: Run, single: Path):
    assert run(single, "Why?", "And?")[2].count("each question stands alone") == 1


def test_a_question_that_is_too_long_is_told_and_the_next_one_answered(run: Run, helper: Path):
    code, out, told = run(helper, "why " * 200, "Why?")
    assert code == 0 and out == f"\n{ask(open_chat(helper), 'Why?')[0]}\n" and "expected: at most 100" in told


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_stops_an_answer_and_at_a_terminal_no_more(
    run: Run, helper: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[Message]] = []
    ids = Speaker.ids
    monkeypatch.setattr(Speaker, "ids", lambda self, messages: (asked.append([*messages]), ids(self, messages))[1])

    def pressed(self: Speaker, ids: list[int], seed: int, on_text: Callable[[str], None]) -> None:
        on_text("It is \x1b[31m")
        raise KeyboardInterrupt

    monkeypatch.setattr(Speaker, "say", pressed)
    code, out, told = run(helper, "Why?", "And?", terminal=terminal)
    if terminal:
        assert code == 0 and out == "> It is \\x1b[31m\n" * 2 + "> \n" and told.count("stopped") == 2
        assert asked[-1] == [Message("user", "Why?"), Message("assistant", "It is \x1b[31m"), Message("user", "And?")]
    else:
        assert code == 130 and len(asked) == 1


def test_a_model_that_only_continues_texts_is_refused(run: Run, make_decoder: Callable[..., Decoder], tmp_path: Path):
    tokenizer = Tokenizer.train(["a b"], 300)
    save_language_model(
        tmp_path, make_decoder(vocab_size=tokenizer.vocab_size), tokenizer, task="base", dtype=torch.float32
    )
    code, _, told = run(tmp_path, "Why?")
    assert code == 1 and "only continues texts" in told and "gptailor generate" in told
