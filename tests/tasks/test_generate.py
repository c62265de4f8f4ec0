"""``gptailor generate`` on a folder of random weights: what it prints, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gptailor import cli
from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.generate import generate
from gptailor.show import plain
from gptailor.tasks.generate import generate_command
from gptailor.tokenizer import Tokenizer
from gptailor.weights.folder import save_language_model
from gptailor.weights.huggingface import load_decoder

TEXT = "the soup number seven was lovely and warm, and the train was late"


@pytest.fixture(scope="module")
def folder(make_decoder: Callable[..., Decoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talker")
    tokenizer = Tokenizer.train([TEXT] * 3, 300)
    decoder = make_decoder(2, vocab_size=tokenizer.vocab_size)
    decoder.position_embedding.weight.data *= 4  # or the same token is said for ever
    decoder.norm.weight.data[::2] *= -1
    save_language_model(folder, decoder, tokenizer, task="base", dtype=torch.float32)
    return folder


def say(folder: Path, prompt: str = "the soup", most: int = 12, temperature: float = 0.0, **more: Any) -> str:
    return generate_command(str(folder), prompt, most, temperature, None, None, 1, "cpu", **more)


def test_it_says_what_the_plain_loop_says(folder: Path):
    tokenizer = Tokenizer.load(folder)
    end = tokenizer.end_of_text
    ids = generate(load_decoder(folder), tokenizer.encode("the soup"), max_new_tokens=12, end_of_text=end)
    assert len(set(ids)) > 3 and say(folder) == "the soup" + tokenizer.decode(ids)


def test_pieces_come_one_by_one_and_are_the_text(folder: Path):
    pieces: list[str] = []
    text = say(folder, temperature=1.0, on_text=pieces.append)
    assert "".join(pieces) == text and pieces[0] == "the soup" and sum(map(bool, pieces)) > 3


def test_a_stop_string_ends_the_text_and_is_no_part_of_it(folder: Path):
    whole = say(folder, temperature=1.0).removeprefix("the soup")
    stop = whole[3:5]
    assert say(folder, temperature=1.0, stop=[stop, "@@"]) == "the soup" + whole[: whole.index(stop)]


def test_a_repetition_penalty_leaves_less_said_twice(folder: Path):
    tokenizer, prompt = Tokenizer.load(folder), "the"
    usual, varied = (tokenizer.encode(say(folder, prompt, 20, repetition_penalty=one)) for one in (1.0, 9.0))
    assert len(set(varied)) / len(varied) > len(set(usual)) / len(usual)


def test_a_full_context_is_told(folder: Path):
    notes: list[str] = []
    say(folder, most=5, on_note=notes.append)
    assert notes == []
    say(folder, most=500, temperature=1.0, on_note=notes.append)
    assert len(notes) == 1 and "no more than 24 tokens" in notes[0]


@pytest.mark.parametrize(
    ("prompt", "temperature", "more", "expected"),
    [
        ("", 0.0, {}, "the prompt is empty"),
        (TEXT * 3, 0.0, {}, "at most 24, which is what the model can read"),
        ("the", 0.0, {"stop": ["x", ""]}, "--stop is empty"),
        ("the", float("nan"), {}, "no finite number"),
        ("", 0.0, {"stop": [""], "repetition_penalty": float("inf")}, "3 problems"),
    ],
)
def test_what_cannot_be_done_is_one_error(
    folder: Path, prompt: str, temperature: float, more: dict[str, Any], expected: str
):
    with pytest.raises(UserError, match=expected):
        say(folder, prompt, temperature=temperature, **more)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_command_prints_the_text(
    folder: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    flags = ["--temperature", "0", "--repetition-penalty", "1.5", "--stop", "@@", "--stop", "##", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["gptailor", "generate", str(folder), "the soup", *flags])
    monkeypatch.setattr(cli, "console", cli.Console(stderr=True, width=200))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    text = say(folder, most=60, repetition_penalty=1.5)
    assert ended.value.code in (0, None) and len(text) > 12
    assert "note: the text ends here" in said.err
    assert said.out == (plain(text) if terminal else text) + "\n"
