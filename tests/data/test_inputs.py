"""What the user names as data is found: a file, separate files, a folder, a catalogued set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptailor.config import ClassifierConfig
from gptailor.data.inputs import read_parts
from gptailor.data.receipt import Receipt
from gptailor.data.table import Table
from gptailor.errors import UserError


def csv(path: Path, *texts: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n" + "".join(f"{text},a\n" for text in texts), encoding="utf-8")
    return str(path)


def read(data: str, **options: Any) -> tuple[dict[str, list[Table]], Receipt]:
    receipt = Receipt()
    tables, _ = read_parts(ClassifierConfig.model_validate({"data": data, **options}), receipt)
    return tables, receipt


def texts(tables: dict[str, list[Table]]) -> dict[str, list[str]]:
    return {part: [text for table in files for text in table.columns["text"]] for part, files in tables.items()}


def test_one_file_is_the_data_and_is_receipted(tmp_path: Path) -> None:
    path = csv(tmp_path / "all.csv", "one", "two")
    tables, receipt = read(path)
    assert texts(tables) == {"data": ["one", "two"]}
    assert [(file["part"], file["path"], file["rows"]) for file in receipt.files] == [("data", path, 2)]
    assert receipt.read == 2


@pytest.mark.parametrize("given", [("validation",), ("test",), ("validation", "test")])
def test_with_separate_files_the_data_is_for_training(tmp_path: Path, given: tuple[str, ...]) -> None:
    files = {part: csv(tmp_path / f"{part}.csv", f"of {part}") for part in given}
    tables, receipt = read(csv(tmp_path / "all.csv", "one"), **files)
    assert texts(tables) == {"train": ["one"]} | {part: [f"of {part}"] for part in given}
    assert [file["part"] for file in receipt.files] == ["train", *given]


def test_a_folder_holds_parts_by_name_and_what_is_not_used_is_said(tmp_path: Path) -> None:
    csv(tmp_path / "train.csv", "one")
    csv(tmp_path / "dev.csv", "two")
    csv(tmp_path / "test.csv", "three")
    csv(tmp_path / "notes.csv", "none")
    tables, receipt = read(str(tmp_path))
    assert texts(tables) == {"train": ["one"], "validation": ["two"], "test": ["three"]}
    assert receipt.warnings == ["notes.csv in the data folder is not used"]


def test_a_folder_takes_a_separate_file_too(tmp_path: Path) -> None:
    csv(tmp_path / "data" / "train.csv", "one")
    tables, _ = read(str(tmp_path / "data"), test=csv(tmp_path / "later.csv", "two"))
    assert texts(tables) == {"train": ["one"], "test": ["two"]}


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_folder_of_parts_is_no_single_part(tmp_path: Path, part: str) -> None:
    csv(tmp_path / "parts" / "train.csv", "one")
    csv(tmp_path / "parts" / "test.csv", "two")
    with pytest.raises(UserError, match=f"--{part} .*parts is a folder with files for train, test"):
        read(csv(tmp_path / "all.csv", "one"), **{part: str(tmp_path / "parts")})


def test_home_is_understood_for_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    csv(tmp_path / "all.csv", "one")
    csv(tmp_path / "later.csv", "two")
    assert texts(read("~/all.csv", test="~/later.csv")[0]) == {"train": ["one"], "test": ["two"]}


def test_switches_reach_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text('text,label\n"one,a\ntwo",b\n', encoding="utf-8")
    named = list(read(str(path), quoting="no")[0]["data"][0].columns.items())
    assert named == [("text", ['"one', 'two"']), ("label", ["a", "b"])]
    assert list(read(str(path), quoting="yes")[0]["data"][0].columns.values()) == [["one,a\ntwo"], ["b"]]
    assert read(str(path), header="no", quoting="no")[0]["data"][0].lines == [1, 2, 3]
    path.write_text("text;label\nschön, ja;b\n", encoding="cp1252")
    assert read(str(path), encoding="cp1252")[0]["data"][0].columns == {"text": ["schön, ja"], "label": ["b"]}
    forced = read(str(path), encoding="cp1252", delimiter="comma", header="no")[0]["data"][0]
    assert forced.said[1] == "comma separated, as asked"
    labelled = tmp_path / "questions.csv"
    labelled.write_text("NUM:date When?\nHUM:ind Who, then?\n", encoding="utf-8")
    assert read(str(labelled), format="label-first")[0]["data"][0].format == "label-first"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("sms-spm", "no file or folder sms-spm\n  expected: a path, or one of .*\n.*did you mean 'sms-spam'"),
        ("somewhere/x.csv", "no such file: somewhere/x.csv"),
        ("x.csv", "no such file: x.csv"),
    ],
)
def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=told):
        read(data)


def test_a_catalogued_set_is_found_by_its_name(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTAILOR_DATA", str(shared_data))
    receipt = Receipt()
    tables, form = read_parts(ClassifierConfig(data="sms-spam"), receipt)
    assert len(tables["data"][0].lines) == 5574
    assert form.label in tables["data"][0].columns
    assert form.text in tables["data"][0].columns
    assert any(warning.startswith("sms-spam: ") for warning in receipt.warnings)


def test_a_file_with_a_catalogued_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    csv(tmp_path / "sms-spam", "mine")
    assert texts(read("sms-spam", format="csv")[0]) == {"data": ["mine"]}
