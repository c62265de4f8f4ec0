"""Bytes become numbered lines: line ends, encodings, compression, and lines that are no text."""

from __future__ import annotations

import gzip
import json
import lzma
import tracemalloc
from pathlib import Path

import pytest

from gptailor.data import lines
from gptailor.data.lines import LINE_LIMIT, NUL, TOO_LONG
from gptailor.data.sources import Dropped, read_table
from gptailor.errors import UserError
from tests.data.files import write


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_each_kind_of_line_end(tmp_path: Path, end: str) -> None:
    table = read_table(write(tmp_path / "t.tsv", end.join(["text\tlabel", "a\tx", "b\ty"])))
    assert table.columns == {"text": ["a", "b"], "label": ["x", "y"]}
    assert table.lines == [2, 3]


def test_only_line_ends_end_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\u0085c\x0bd\x0ce\rf"
    assert read_table(write(tmp_path / "t.tsv", f"text\tlabel\n{text}\tx\n")).columns["text"] == [text]
    assert read_table(write(tmp_path / "t.jsonl", json.dumps({"t": text}, ensure_ascii=False))).columns["t"] == [text]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read_and_said(tmp_path: Path, encoding: str) -> None:
    content = "text,label\nсало,a\nмед 🍯,b\n"
    table = read_table(write(tmp_path / "t.csv", content.encode(encoding)))
    assert table.columns == {"text": ["сало", "мед 🍯"], "label": ["a", "b"]}
    assert any("byte order mark" in said for said in table.said)


def test_rows_that_are_not_utf8_are_dropped_by_line(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", b"text,label\ncaf\xe9,a\ncafe,b\ntea,a\n"))
    assert table.columns["text"] == ["cafe", "tea"]
    assert table.dropped == [Dropped(2, "not valid UTF-8")]
    assert any("the first on line 2" in said and "iconv" in said for said in table.said)


def test_a_file_in_another_encoding_is_one_error_with_the_way_out(tmp_path: Path) -> None:
    content = "text,label\n" + "кава,a\nчай,b\n" * 20
    with pytest.raises(UserError, match=r"line 2 is the first that is not(.|\n)*iconv"):
        read_table(write(tmp_path / "t.csv", content.encode("cp1251")))
    with pytest.raises(UserError, match="line 3 is the first"):
        read_table(write(tmp_path / "t.json", b'[\n{"a": 1},\n"\xff"]'))


UMLAUTS = "text,label\n" + "".join(f"Grüße {n} – schön,ä\n" for n in range(20))


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ("cp1252", "cp1252"),
        ("Windows-1252", "cp1252"),
        ("mac-roman", "mac-roman"),
        ("gb18030", "gb18030"),
        ("utf-32-le", "utf-32"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-le", "utf-16"),
        ("utf-16", "utf-16"),
        ("utf-8", "utf-8"),
        ("utf8", "utf-8-sig"),
        ("utf-8-sig", "utf-8-sig"),
    ],
)
def test_an_encoding_that_is_asked_for(tmp_path: Path, encoding: str, stored: str, monkeypatch) -> None:
    monkeypatch.setattr(lines, "CHUNK", 7)  # characters of several bytes are split
    path = write(tmp_path / "t.csv", UMLAUTS.encode(stored))
    table = read_table(path, encoding=encoding)
    assert table.columns == {"text": [f"Grüße {n} – schön" for n in range(20)], "label": ["ä"] * 20}
    assert table.dropped == []
    assert any(said.endswith(", as asked") for said in table.said)
    objects = "\n".join(json.dumps({"text": f"für {n}"}, ensure_ascii=False) for n in range(3))
    for content, name in ((objects, "t.jsonl"), (f"[{','.join(objects.splitlines())}]", "t.json")):
        found = read_table(write(tmp_path / name, content.encode(stored)), encoding=encoding)
        assert found.columns["text"] == ["für 0", "für 1", "für 2"]


def test_bytes_that_the_given_encoding_does_not_have_drop_their_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", b"text,label\ncaf\xe9,a\n\x81\x8d,b\ntea,a\n")
    table = read_table(path, encoding="cp1252")
    assert table.columns["text"] == ["café", "tea"]
    assert table.dropped == [Dropped(3, "not valid in the given encoding")]
    # Good UTF-8 is not ASCII for that.
    with pytest.raises(UserError, match=r"not ASCII text: line 2 is the first(.|\n)*--encoding auto"):
        read_table(write(tmp_path / "u.csv", UMLAUTS), encoding="ascii")
    with pytest.raises(UserError, match="is not UTF-16-LE text"):
        read_table(write(tmp_path / "w.csv", b"a\0,\0b\0\n\0\0\xd8a\0"), encoding="utf-16-le")


@pytest.mark.parametrize("name", ["latn-1", "", "hex", "rot13", "idna", "undefined", "a\0b", "\udcff", "x" * 5000])
def test_no_such_encoding(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="there is no encoding") as told:
        read_table(write(tmp_path / "t.csv", "text,label\na,b\n"), encoding=name)
    assert ("did you mean 'latin-1'" in str(told.value)) == (name == "latn-1")


def test_a_file_in_another_encoding_is_shown_in_the_commonest(tmp_path: Path) -> None:
    for name, content in (("t.csv", UMLAUTS), ("t.json", '[{"text":\n"Grüße 0 – schön"}]')):
        with pytest.raises(UserError, match=r"line 2 is the first(.|\n)*--encoding cp1252.*Grüße 0 – schön"):
            read_table(write(tmp_path / name, content.encode("cp1252")))
    far = "text,label\n" + ("a" * 500 + "é" + "b" * 500 + ",x\n") * 3
    with pytest.raises(UserError, match=r"to read 'a{30}éb{29}',"):
        read_table(write(tmp_path / "f.csv", far.encode("cp1252")))


def test_a_name_that_promises_compression_is_not_believed_in_silence(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv.gz", "text,label\na,b\n"))
    assert table.columns == {"text": ["a"], "label": ["b"]}
    assert "not compressed, though named .gz: read as it is" in table.said


def test_nul_characters_drop_their_row(tmp_path: Path) -> None:
    content = 'text,label\na\0b,x\n"c\nd\0",x\nfine and long enough,y\n'
    table = read_table(write(tmp_path / "t.csv", content))
    assert table.columns["text"] == ["fine and long enough"]
    assert [(row.line, row.reason) for row in table.dropped] == [(2, NUL), (3, NUL)]


def test_binary_files_are_one_error(tmp_path: Path) -> None:
    for content in (bytes(range(256)) * 20, b"PK\x03\x04" + b"a" * 99, "text,label\na,b\n".encode("utf-16-le")):
        with pytest.raises(UserError, match="found binary data"):
            read_table(write(tmp_path / "t.csv", content))


def test_a_line_over_the_limit_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE_LIMIT", 100)
    monkeypatch.setattr(lines, "CHUNK", 64)
    for end in ("\n", ""):
        content = f"text,label\na,x\n{'z' * 500},y\nb,x\n{'z' * 101}{end}"
        table = read_table(write(tmp_path / "t.csv", content))
        assert table.lines == [2, 4]
        assert table.dropped == [Dropped(3, TOO_LONG), Dropped(5, TOO_LONG)]


def test_a_line_of_fifty_megabytes_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.write(b"text,label\nfine,a\n")
        for _ in range(50):
            file.write(b"z" * 1_000_000)
        file.write(b",b\n")
    tracemalloc.start()
    table = read_table(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(table.lines), len(table.dropped)) == (1, 1)
    assert peak < 3 * LINE_LIMIT


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.csv", "text,label\na,b\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"cannot read .*t.csv: Permission denied"):
        read_table(path)


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_compressed_files_whole_and_cut(tmp_path: Path, ending: str, compress) -> None:
    packed = compress(b"text,label\n" + b"".join(b"text %d,a\n" % n for n in range(5000)))
    table = read_table(write(tmp_path / f"t.csv.{ending}", packed))
    assert len(table.lines) == 5000
    assert any("compressed" in said for said in table.said)
    with pytest.raises(UserError, match="cut short or damaged"):
        read_table(write(tmp_path / f"t.csv.{ending}", packed[: len(packed) // 2]))
