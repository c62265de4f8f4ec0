"""The command line as a new user types it: what works, and one clear error for what cannot."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from gptailor import cli
from gptailor.__main__ import FRONT
from tests.tiny import TINY

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gptailor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line in this process: exit code, standard output, standard error."""

    def run(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gptailor", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setattr(cli, "console", cli.Console(stderr=True, width=200))
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


FLAGS = [part for key, value in TINY.items() for part in (f"--{key}", value)]


def test_train_then_predict(gptailor: Cli, moods: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, _, told = gptailor("train", "classifier", moods, *FLAGS, "--out", out)
    assert code == 0
    assert "120 rows read, 120 used, 0 left out" in told
    accuracy = json.loads((out / "metrics.json").read_text())["test"]["accuracy"]
    assert f"{accuracy:.2%}" in told and "TF-IDF + logistic regression" in told
    code, said, _ = gptailor(
        "predict", out, "the soup was lovely and warm and kind", "the room was grim and rude and cold"
    )
    rows = list(csv.DictReader(io.StringIO(said)))
    assert code == 0 and [row["predicted"] for row in rows] == ["good", "bad"]
    assert all(abs(float(row["p(bad)"]) + float(row["p(good)"]) - 1) < 2e-4 for row in rows)


def test_predict_a_file_keeps_rows_and_order(gptailor: Cli, trained: Path, moods: Path, tmp_path: Path) -> None:
    out = tmp_path / "labelled.csv"
    (tmp_path / "in.csv").write_text('id,text\n1,"was lovely, warm"\n2,\n3,grim and rude\n', encoding="utf-8")
    code, _, told = gptailor("predict", trained, "--file", tmp_path / "in.csv", "--out", out)
    rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    assert code == 0 and [row["id"] for row in rows] == ["1", "2", "3"]
    assert rows[1]["predicted"] == "" and "1 of 3 texts are empty" in told
    before = out.read_bytes()
    code, _, told = gptailor("predict", trained, "--file", tmp_path / "in.csv", "--out", out)
    assert code == 1 and "exists" in told and out.read_bytes() == before


def test_predict_from_standard_input(gptailor: Cli, trained: Path) -> None:
    code, said, _ = gptailor("predict", trained, stdin="lovely and warm\ngrim and rude\n")
    assert code == 0 and len(said.splitlines()) == 3


def test_inspect_shows_the_data_and_writes_nothing(gptailor: Cli, moods: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, _ = gptailor("inspect", moods, "--base", TINY["base"])
    assert code == 0 and "120 rows read" in said and "estimate" in said and "moods.csv:" in said
    assert not list(tmp_path.iterdir())


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


GOOD_ROWS = "".join(f"text number {i},{'ab'[i % 2]}\n" for i in range(40))
BAD_DATA = {
    "an empty file": (b"", "empty"),
    "one label only": ("text,label\n" + "".join(f"text {i},a\n" for i in range(30)), "have the label 'a'"),
    "binary junk": (bytes(range(256)) * 50, "binary"),
    "no such column": ("body_of_mail,kind_of\nx y z,a\n", "no column is recognised"),
    "only a header": ("text,label\n", "row"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_gets_one_clear_error(gptailor: Cli, tmp_path: Path, case: str) -> None:
    content, expected = BAD_DATA[case]
    file = write(tmp_path, "data.csv", content)
    out = tmp_path / "run"
    code, _, told = gptailor("train", "classifier", file, *FLAGS, "--out", out)
    assert code == 1 and told.startswith("Error:") and expected in told and "Traceback" not in told
    assert not out.exists(), "nothing is half-written"


BAD_ROWS = {
    "NUL bytes": (b"a\x00b,a\n", "NUL"),
    "broken UTF-8": (b"caf\xe9,a\n", "UTF-8"),
    "ragged": (b"too,many,fields\n", "field"),
    "no text": (b",a\n", "has no text"),
    "no label": (b"some words,\n", "has no label"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_left_out_and_receipted(gptailor: Cli, tmp_path: Path, case: str) -> None:
    row, reason = BAD_ROWS[case]
    file = write(tmp_path, "data.csv", b"text,label\n" + row + GOOD_ROWS.encode())
    code, said, told = gptailor("inspect", file, "--base", TINY["base"])
    assert code == 0, told
    assert "41 rows read, 40 used, 1 left out" in said
    assert reason in said and "(line 2)" in said


def test_a_label_with_one_example_is_told(gptailor: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, "data.csv", "text,label\n" + GOOD_ROWS + "a lonely text,rare\n")
    code, said, _ = gptailor("inspect", file, "--base", TINY["base"])
    assert code == 0 and "with fewer than 3 different texts are trained but not tested: rare" in " ".join(said.split())


def test_all_problems_of_the_options_come_together(gptailor: Cli) -> None:
    code, _, told = gptailor(
        "train", "classifier", "x.csv", "--lr", "fast", "--balance", "undersampel", "--layers", "none"
    )
    assert code == 1
    assert "3 problems" in told and "--lr" in told and "did you mean 'undersample'?" in told and "--layers" in told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{dir}/absent.csv"], "absent.csv"),
        (["sms-spma"], "did you mean 'sms-spam'?"),
        (["{data}", "--text", "txet"], "did you mean 'text'?"),
        (["{data}", "--base", "gpt2-smal"], "did you mean 'gpt2-small'?"),
        (["{data}", "--base", "{dir}/empty"], "config.json"),
        (["{data}", "--base", "{dir}/truncated"], "no readable safetensors"),
        (["{data}", "--base", "{dir}/mismatched"], "tokens and the model"),
        (["{data}", "--base", "{model}", "--layers", "9"], "the model has 2 blocks"),
        (["{data}", "--base", "{model}", "--max-length", "999"], "beyond the context"),
        (["{data}", "--read", "last-position"], "--pad-to"),
        (["{data}", "--out", "/dev/null/run"], "cannot be written"),
        (["{data}", "--out", "{model}"], "already holds another run"),
        (["{data}", "--out", "{dir}/other", "--resume"], "no run to resume"),
        (["{data}", "--device", "cuda"], "no cuda device"),
        ([], "data is missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_work_is_said_and_nothing_is_written(
    gptailor: Cli, trained: Path, moods: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("truncated", "mismatched"):
        shutil.copytree(trained, tmp_path / name)
    weights = tmp_path / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    config = tmp_path / "mismatched" / "tokenizer.json"
    tokenizer = json.loads(config.read_text(encoding="utf-8"))
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 5000, "content": "<extra>"})
    config.write_text(json.dumps(tokenizer), encoding="utf-8")
    before = sorted(file.name for file in trained.iterdir())
    filled = [part.format(dir=tmp_path, data=moods, model=trained) for part in arguments]
    defaults = [flag for flag in ("--out", tmp_path / "run") if "--out" not in filled]
    base = [] if "--base" in filled else ["--base", TINY["base"]]
    code, _, told = gptailor("train", "classifier", *filled, *base, *defaults)
    assert code == 1 and told.startswith("Error:") and expected in told and "Traceback" not in told
    assert not (tmp_path / "run").exists()
    assert sorted(file.name for file in trained.iterdir()) == before


@pytest.mark.parametrize("arguments", [["{dir}/absent"], ["{dir}"]])
def test_predict_without_a_model(gptailor: Cli, tmp_path: Path, arguments: list[str]) -> None:
    code, _, told = gptailor("predict", *(part.format(dir=tmp_path) for part in arguments), "a text")
    assert code == 1 and told.startswith("Error:") and "Traceback" not in told


@pytest.mark.parametrize("said", ["--head *random\\|probe", "--balance *none\\|undersample\\|weights", "--lr *NUMBER"])
def test_the_help_names_the_values_of_an_option(said: str) -> None:
    command = [sys.executable, "-m", "gptailor", "train", "classifier", "--help"]
    wide = {**os.environ, "COLUMNS": "200"}
    assert re.search(said, subprocess.run(command, capture_output=True, text=True, check=True, env=wide).stdout)


def test_the_front_page_is_there_at_once() -> None:
    script = "import sys; from gptailor.__main__ import main; main(); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Tailor a small language model")
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert loaded & {"gptailor", "typer", "pydantic", "yaml", "rich", "numpy", "torch"} == {"gptailor"}


def test_the_front_page_names_every_command_and_no_other() -> None:
    def named(group: Any) -> set[str]:
        return {
            f"{name} {below}".strip()
            for name, command in group.commands.items()
            for below in (named(command) if hasattr(command, "commands") else [""])
        }

    listed = re.findall(r"^  ([a-z]+(?: [a-z]+)?) (?=[A-Z])", FRONT, flags=re.MULTILINE)
    assert sorted(listed) == sorted(named(typer.main.get_command(cli.app)))
    assert max(map(len, FRONT.splitlines())) <= 100


HOSTILE = "a [/] b [bold] \x1b[31mred"


def test_names_and_texts_are_shown_and_not_obeyed(gptailor: Cli, tmp_path: Path) -> None:
    rows = "".join(f"text {HOSTILE} number {i},{'ab'[i % 2]}{HOSTILE}\n" for i in range(40))
    file = write(tmp_path, "x[b]y.csv", "text,label\n" + rows)
    out = tmp_path / "r [/] [bold] ö"
    code, _, told = gptailor("train", "classifier", file, *FLAGS, "--epochs", 1, "--out", out)
    assert code == 0, told
    assert "\x1b" not in told and "x[b]y.csv" in told and "r [/] [bold] ö" in told
    code, said, _ = gptailor("inspect", file, "--base", TINY["base"])
    assert code == 0 and "\x1b" not in said and "[/]" in said


def test_several_seeds_stopped_are_not_called_finished(
    gptailor: Cli, moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptailor.tasks import classifier

    real, runs = classifier.fit_classifier, []

    def stopping(feed, folder, checkpoints, console, stop):  # type: ignore[no-untyped-def]
        runs.append(folder)
        stop.requested = len(runs) == 2
        return real(feed, folder, checkpoints, console, stop)

    monkeypatch.setattr(classifier, "fit_classifier", stopping)
    out = tmp_path / "run"
    code, _, told = gptailor("train", "classifier", moods, *FLAGS, "--seeds", 2, "--out", out)
    assert code == 130 and "Stopped before all seeds were trained" in told and "--resume --out" in told
    code, _, told = gptailor("train", "classifier", "--resume", "--out", out)
    assert code == 0 and "2 seeds, test" in told


@pytest.mark.parametrize("label", ["²", "①", "--5", "-"])
def test_odd_labels_are_names(gptailor: Cli, tmp_path: Path, label: str) -> None:
    file = write(
        tmp_path, "data.csv", GOOD_ROWS.replace(",a", f",{label}").replace(",b", ",7").join(["text,label\n", ""])
    )
    code, said, told = gptailor("inspect", file, "--base", TINY["base"])
    assert code == 0 and label in said, told


def test_labels_that_differ_in_case_only_are_told(gptailor: Cli, tmp_path: Path) -> None:
    rows = "".join(f"text number {i},{['Spam', 'spam', 'ham'][i % 3]}\n" for i in range(30))
    code, said, _ = gptailor("inspect", write(tmp_path, "d.csv", "text,label\n" + rows), "--base", TINY["base"])
    assert code == 0 and "differ only in case or spaces are kept apart: 'Spam', 'spam'" in " ".join(said.split())


def test_predict_reads_the_columns_it_was_trained_on(gptailor: Cli, tmp_path: Path) -> None:
    rows = "".join(f"{i},thing {i},was {'good' if i % 2 else 'bad'} {i},{i % 2}\n" for i in range(40))
    file = write(tmp_path, "d.csv", "id,head,words,sort\n" + rows)
    out = tmp_path / "run"
    told = gptailor("train", "classifier", file, *FLAGS, "--text", "head,words", "--label", "sort", "--out", out)
    assert told[0] == 0, told[2]
    code, said, _ = gptailor("predict", out, "--file", file)
    assert code == 0 and len(said.splitlines()) == 41
    other = write(tmp_path, "other.csv", "id,text\n1,was good\n")
    code, said, told = gptailor("predict", out, "--file", other)
    told = " ".join(told.split())
    assert code == 0 and len(said.splitlines()) == 2
    assert "the first row is the header: id, text" in told
    assert "the model learned from the column head, words, and labels text here" in told
    code, said, told = gptailor("predict", out, "--file", other, "--header", "no", "--text", "column_2")
    assert code == 0 and len(said.splitlines()) == 3, told
    code, _, told = gptailor("predict", out, "--file", other, "--header", "maybe")
    assert code == 1 and "--header maybe" in told
    code, _, told = gptailor("predict", out, "--device", "gpu", "x")
    assert code == 1 and "no device is called 'gpu'" in told


def test_a_sweep_tells_all_its_problems_and_begins_nothing(gptailor: Cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, "s.yaml", "task: classifier\ncommon: {data: d.csv}\nrows: [{lr: 3}, {epochs: 0}]\n")
    code, _, told = gptailor("sweep", file)
    assert code == 1 and "2 problems" in told and "row 1: --lr" in told and "row 2: --epochs" in told
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_lower_precision_labels_alike(gptailor: Cli, trained: Path, precision: str) -> None:
    texts = ("the soup was lovely and warm and kind", "the room was grim and rude and cold")
    code, said, _ = gptailor("predict", trained, *texts, "--precision", precision)
    rows = list(csv.DictReader(io.StringIO(said)))
    assert code == 0 and [row["predicted"] for row in rows] == ["good", "bad"]


@pytest.mark.parametrize("command", ["predict", "generate", "chat"])
def test_an_unknown_precision_is_told(gptailor: Cli, trained: Path, command: str) -> None:
    code, _, told = gptailor(command, trained, *([] if command == "chat" else ["the soup"]), "--precision", "fp7")
    assert code == 1 and told.split() == ["Error:", "--precision", "fp7", "expected:", "fp32,", "bf16,", "int8"]
