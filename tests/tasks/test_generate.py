"""``gptailor generate`` on folders of random weights: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from gptailor import cli
from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.generate import generate
from gptailor.model.sampling import Sampling
from gptailor.show import plain
from gptailor.tasks import answers
from gptailor.tasks.generate import answer_file, check_places, generate_command
from gptailor.tasks.lock import FolderLock
from gptailor.tasks.speaker import Speaker
from gptailor.tokenizer import Tokenizer
from gptailor.weights.folder import save_language_model
from gptailor.weights.huggingface import load_decoder
from tests.tiny import save_assistant

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


@pytest.fixture(scope="module")
def helper(make_decoder: Callable[..., Decoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_assistant(tmp_path_factory.mktemp("helper"), make_decoder, "chatml")


def say(folder: Path, prompt: str = "the soup", most: int = 12, **more: Any) -> str:
    how = {name: more.pop(name) for name in ("temperature", "repetition_penalty", "stop") if name in more}
    return generate_command(str(folder), prompt, Sampling(most, seed=1, **how), "cpu", **more)


def test_it_says_what_the_plain_loop_says(folder: Path):
    tokenizer = Tokenizer.load(folder)
    end = tokenizer.end_of_text
    ids = generate(load_decoder(folder), tokenizer.encode("the soup"), max_new_tokens=12, end_of_text=end)
    assert len(set(ids)) > 3 and say(folder) == "the soup" + tokenizer.decode(ids)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_it_speaks_in_lower_precision(folder: Path, precision: str):
    exact, lower = (Speaker(str(folder), Sampling(12), "cpu", name) for name in ("fp32", precision))
    assert lower.n_parameters == exact.n_parameters == sum(p.numel() for p in exact.decoder.parameters())
    ids = torch.tensor([exact.tokenizer.encode(TEXT)])
    with torch.no_grad():
        expected, found = (one.decoder.logits(one.decoder(ids)).float() for one in (exact, lower))
    assert 0 < (found - expected).abs().mean() < 0.1 * expected.std()
    decoded = generate(lower.decoder, exact.tokenizer.encode("the soup"), max_new_tokens=12)
    assert say(folder, precision=precision) == "the soup" + exact.tokenizer.decode(decoded)


def test_pieces_come_one_by_one_and_are_the_text(folder: Path):
    pieces: list[str] = []
    text = say(folder, temperature=1.0, on_text=pieces.append)
    assert "".join(pieces) == text and pieces[0] == "the soup" and sum(map(bool, pieces)) > 3


def test_a_stop_string_ends_the_text_and_is_no_part_of_it(folder: Path):
    whole = say(folder, temperature=1.0).removeprefix("the soup")
    stop = whole[3:5]
    assert say(folder, temperature=1.0, stop=(stop, "@@")) == "the soup" + whole[: whole.index(stop)]


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


def test_an_answer_that_is_cut_is_told(helper: Path):
    notes: list[str] = []
    say(helper, "Why?", 5, on_note=notes.append)
    assert notes == ["the text ends here because of --max-new-tokens 5"]


@pytest.mark.parametrize(
    ("prompt", "how", "expected"),
    [
        ("", {}, "the prompt is empty"),
        (TEXT * 3, {}, "at most 24, which is what the model can read"),
        ("the", {"stop": ("x", "")}, "--stop is empty"),
        ("the", {"temperature": float("nan")}, "no finite number"),
        ("the", {"input": "x"}, "which only continues texts"),
        ("", {"stop": ("",), "repetition_penalty": float("inf")}, "3 problems"),
    ],
)
def test_what_cannot_be_done_is_one_error(folder: Path, prompt: str, how: dict[str, Any], expected: str):
    with pytest.raises(UserError, match=expected):
        say(folder, prompt, **how)


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


# --- a file of prompts ------------------------------------------------------------------------------------------------

QUESTIONS = [{"instruction": f"What is {n}?", "input": "of two" * (n % 3), "output": str(n), "id": n} for n in range(5)]
WARM = Sampling(9, temperature=1.0, top_p=0.9, seed=7)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write(tmp_path / "questions.json", QUESTIONS)


def write(file: Path, value: Any) -> Path:
    file.write_text(json.dumps(value), encoding="utf-8")
    return file


def answer_all(folder: Path, file: Path, out: Path, sampling: Sampling = WARM) -> tuple[bool, str]:
    """Whether it came to its end, and what was told."""
    console = Console(width=200)
    with console.capture() as told:
        done = answer_file(str(folder), file, out, sampling, "cpu", console)
    return done, told.get()


def test_each_record_is_answered_as_if_it_were_alone(helper: Path, questions: Path, tmp_path: Path):
    done, told = answer_all(helper, questions, out := tmp_path / "answers.json")
    rows = json.loads(out.read_text())
    assert done and "5 records -> " in told and not list(tmp_path.glob("*.unfinished"))
    assert [{key: row[key] for key in QUESTIONS[0]} for row in rows] == QUESTIONS
    assert len({row["model_response"] for row in rows}) > 3
    for number, row in enumerate(rows):
        how = Sampling(9, temperature=1.0, top_p=0.9, seed=7 + number)
        alone = generate_command(str(helper), row["instruction"], how, "cpu", row["input"])
        assert row["model_response"] == alone.strip()
    (tmp_path / "last").mkdir()
    records = [*({"instruction": "another neighbour " * n} for n in range(1, 5)), QUESTIONS[4]]
    answer_all(helper, write(tmp_path / "last.json", records), tmp_path / "last" / "out.json")
    assert json.loads((tmp_path / "last" / "out.json").read_text())[4] == rows[4]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Ctrl-C is pressed while the part that follows is being answered."""
    real, left = answers.generate_batch, [parts]

    def pressed(*arguments: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(answers, "generate_batch", pressed)


def test_questions_are_answered_together_up_to_a_number_of_tokens():
    lengths = [7, 9, 10, 44, 6]  # 3 x 10 are 30; with 44 it would be more, and it stands alone
    assert [answers._end_of_part(lengths, start, 30) for start in range(5)] == [3, 3, 3, 4, 5]


def test_what_was_stopped_goes_on_to_the_same_file(
    helper: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(answers, "_end_of_part", lambda lengths, start, most: min(start + 2, len(lengths)))
    answer_all(helper, questions, whole := tmp_path / "whole.json")
    out, state = tmp_path / "answers.json", tmp_path / "answers.json.unfinished"
    with monkeypatch.context() as pressing:
        interrupt_after(pressing, 2)
        done, told = answer_all(helper, questions, out)
    assert not done and "stopped: 4 of 5 are kept" in told and "the same command goes on" in told and not out.exists()
    with (state / "answers.jsonl").open("a") as file:
        file.write('{"text": "half a li')  # as a kill leaves it
    with monkeypatch.context() as pressing:
        interrupt_after(pressing, 1)
        assert answer_all(helper, questions, out)[0], "only one part was left to answer"
    assert out.read_bytes() == whole.read_bytes() and not state.exists()


def test_an_unfinished_run_goes_on_only_as_it_was(
    helper: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "answers.json"
    with monkeypatch.context() as pressing:
        interrupt_after(pressing, 0)
        assert not answer_all(helper, questions, out)[0]
    changes = r"temperature was 1\.0 and is now 0\.5; top_p was 0\.9 and is now None"
    with pytest.raises(UserError, match=f"another run: {changes}\n"):
        answer_all(helper, questions, out, Sampling(9, temperature=0.5, seed=7))
    write(questions, QUESTIONS[:4])
    with pytest.raises(UserError, match="another run: the file has changed\n"):
        answer_all(helper, questions, out)
    write(questions, QUESTIONS)
    lock = FolderLock(tmp_path / "answers.json.unfinished")
    with pytest.raises(UserError, match="a run is going on in "):
        answer_all(helper, questions, out)
    lock.release()
    assert answer_all(helper, questions, out)[0]
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"answers\.json exists"):
        answer_all(helper, questions, out)
    assert out.read_bytes() == before


def test_what_cannot_be_answered_is_null_counted_and_named(helper: Path, tmp_path: Path):
    file = tmp_path / "questions.jsonl"
    rows = [{"instruction": "Why?", "model_response": "old"}, {"instruction": " "}, {"instruction": "very " * 90}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "half a li", encoding="utf-8")
    done, told = answer_all(helper, file, out := tmp_path / "out.json")
    said = [row["model_response"] for row in json.loads(out.read_text())]
    assert done and said[0] not in ("", "old", None) and said[1:] == [None, None]
    assert "2 of 3 records get no answer (null):" in told
    assert "1 × has no instruction: questions.jsonl:2" in told
    assert "1 × longer than the 100 tokens that the model reads: questions.jsonl:3" in told
    assert "1 row, line 4 (not valid JSON)" in told and "has a model_response already" in told
    assert "3 records -> " in told and "(2 without an answer)" in told
    assert "1 of 1 answers end because of --max-new-tokens 9" in told
    with pytest.raises(UserError, match=r"no record of .* can be answered\n  1 × has no instruction: q\.json:1"):
        answer_all(helper, write(tmp_path / "q.json", rows[1:2]), tmp_path / "none.json")
    assert not list(tmp_path.glob("none*"))


def test_a_model_without_a_template_continues_texts(folder: Path, tmp_path: Path):
    file = tmp_path / "texts.txt"
    file.write_text("the soup, the train\n\nthe train was\r\n", encoding="utf-8")
    done, _ = answer_all(folder, file, out := tmp_path / "out.json", Sampling(6))
    assert done
    rows = json.loads(out.read_text())
    assert [row["text"] for row in rows] == ["the soup, the train", "the train was"]
    for row in rows:
        assert row["text"] + row["model_response"] == say(folder, row["text"], 6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, "", None, None), "no prompt"),
        (("a", "", Path("f"), Path("o")), "a prompt, and --file f"),
        ((None, "i", Path("f"), Path("o")), "--input with --file"),
        ((None, "", Path("f"), None), "--file alone"),
        (("a", "", None, Path("o")), "--out alone"),
        (("a", "i", Path("f"), None), "3 problems"),
    ],
)
def test_a_prompt_or_a_file_and_a_place(given: tuple[Any, ...], expected: str):
    with pytest.raises(UserError, match=expected):
        check_places(*given)


@pytest.mark.parametrize(("out", "expected"), [("a.jsonl", "ends in .json"), ("nowhere/a.json", "no folder")])
def test_a_place_that_cannot_be(helper: Path, questions: Path, tmp_path: Path, out: str, expected: str):
    with pytest.raises(UserError, match=expected):
        answer_all(helper, questions, tmp_path / out)


def test_the_command_answers_a_file(
    helper: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out, flags = tmp_path / "out.json", ["--max-new-tokens", "3", "--temperature", "0", "--seed", "5"]
    monkeypatch.setattr(
        sys, "argv", ["gptailor", "generate", str(helper), "--file", str(questions), "--out", str(out), *flags]
    )
    monkeypatch.setattr(cli, "console", cli.Console(stderr=True, width=200))
    with monkeypatch.context() as pressing, pytest.raises(SystemExit) as ended:
        interrupt_after(pressing, 0)
        cli.main()
    assert ended.value.code == 130 and "stopped: 0 of 5" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None) and len(json.loads(out.read_text())) == 5
    assert capsys.readouterr().out == ""
