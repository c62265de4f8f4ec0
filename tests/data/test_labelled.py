"""A label may stand at the beginning of a line or be the name of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptailor.data.sources import Dropped, find_parts, read_table
from gptailor.errors import UserError
from tests.data.files import write


def test_label_first_lines(tmp_path: Path) -> None:
    content = "HUM:ind Who is  it ?\nham  hello\n\nalone\nNUM: how many\n"
    table = read_table(write(tmp_path / "t.txt", content), format="label-first")
    assert table.columns == {
        "label": ["HUM", "ham", "NUM"],
        "fine": ["HUM:ind", "ham", "NUM"],
        "text": ["Who is  it ?", "hello", "how many"],
    }
    assert table.lines == [1, 2, 5]
    assert table.dropped == [Dropped(4, "no text after the label")]


def test_label_folders(tmp_path: Path) -> None:
    files = {"pos/1.txt": b"good\n", "pos/2.txt": b"fine", "neg/1.TXT": b"b\xe9", "unsup/1.txt": b"?"}
    for name, content in {**files, "pos/3.md": b"another kind", "empty/1.md": b"#"}.items():
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "train" / name, content)
    table = read_table(tmp_path / "train")
    passed_over = [
        "other files in these folders were passed over: 1",
        "folders without .txt files were passed over: empty",
    ]
    assert [said for said in table.said if "files" in said and "passed over" in said] == passed_over
    assert table.columns == {"text": ["good\n", "fine"], "label": ["pos", "pos"]}
    assert table.lines == [2, 3]
    assert table.dropped == [Dropped(1, "not valid UTF-8")]
    assert any("unsup" in said for said in table.said)
    assert find_parts(tmp_path).files == {"train": [tmp_path / "train"]}
    assert find_parts(tmp_path / "train").files == {"data": [tmp_path / "train"]}
    before = table.sha256
    write(tmp_path / "train/pos/2.txt", "finer")
    assert read_table(tmp_path / "train").sha256 != before


def test_label_folders_in_another_encoding(tmp_path: Path) -> None:
    for name, content in [("pos/1", "schön"), ("pos/2", "gut"), ("neg/1", "übel"), ("neg/2", "öde\nund weg")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / f"{name}.txt", content.encode("cp1252"))
    table = read_table(tmp_path, encoding="cp1252")
    assert table.columns["text"] == ["übel", "öde\nund weg", "schön", "gut"]
    assert "CP1252, as asked" in table.said
    with pytest.raises(UserError, match=r"neg/1.txt is not UTF-8 text: line 1 (.|\n)*--encoding cp1252.*'übel'"):
        read_table(tmp_path)
    write(tmp_path / "pos/1.txt", b"\x81")
    assert read_table(tmp_path, encoding="cp1252").dropped == [Dropped(3, "not valid in the given encoding")]
    with pytest.raises(UserError, match="there is no encoding 'cp9'"):
        read_table(tmp_path, encoding="cp9")


def test_a_text_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A link to a pipe would wait for ever, and one to /dev/zero never end."""
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    write(tmp_path / "good/1.txt", b"fine")
    (tmp_path / "bad/1.txt").symlink_to("/dev/null")
    with pytest.raises(UserError, match=r"bad/1\.txt is no file"):
        read_table(tmp_path)
