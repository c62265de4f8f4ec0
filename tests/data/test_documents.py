"""Files become a stream of documents: what is given, what is dropped and said, and memory that stays flat."""

from __future__ import annotations

import gzip
import json
import lzma
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptailor.data import documents, lines
from gptailor.data.documents import CUT_SHORT, Document, DocumentReceipt, identity, read_documents
from gptailor.data.lines import NOT_UTF8, NUL, TOO_LONG
from gptailor.errors import UserError
from tests.data.files import PROPERTY, write

LINE = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), max_size=20)


def read(path: Path, text: str = "text") -> list[Document]:
    return list(read_documents(path, DocumentReceipt(), text=text))


def read_with_counts(path: Path) -> tuple[list[Document], dict]:
    receipt = DocumentReceipt()
    return list(read_documents(path, receipt)), receipt.to_dict()


def objects(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


def dropped(receipt: dict) -> dict[str, list[str]]:
    """Reason to the lines that are listed."""
    return {
        each["reason"]: [line.rpartition(":")[2] for line in each["lines"]] for each in receipt["files"][0]["dropped"]
    }


# --- json lines -------------------------------------------------------------------------------------------------------


def test_each_line_is_a_document_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", objects(["one\ntwo", "  three "]) + "\n" + objects(["сало 🍯"]))
    given, receipt = read_with_counts(path)
    assert given == [
        Document("one\ntwo", f"{path}:1"),
        Document("  three ", f"{path}:2"),
        Document("сало 🍯", f"{path}:4"),
    ]
    assert not any(document.passage for document in given)
    file = receipt["files"][0]
    assert (file["path"], file["format"], file["bytes"]) == (str(path), "jsonl", path.stat().st_size)
    assert file["documents"] == receipt["documents"] == 3
    assert file["text_bytes"] == receipt["text_bytes"] == sum(len(document.text.encode()) for document in given)
    assert (file["dropped"], receipt["dropped"]) == ([], 0)


def test_another_key_and_another_ending(tmp_path: Path) -> None:
    line = json.dumps({"text": "no", "body": "yes"})
    assert [document.text for document in read(write(tmp_path / "a.ndjson", line), text="body")] == ["yes"]
    assert [document.text for document in read(write(tmp_path / "corpus", line), text="body")] == ["yes"]
    assert [document.text for document in read(write(tmp_path / "a.txt", line), text="body")] == [line]


def test_bad_lines_are_dropped_with_line_and_reason_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LINE_LIMIT", 100)
    content = [
        b'{"text": "first"}',
        b'{"text": "cut',
        b'{"body": "no text"}',
        b'["text"]',
        b'{"text": 5}',
        b'{"text": " \\n "}',
        b'{"text": "caf\xe9"}',
        b'{"text": "nul \0"}',
        b'{"text": "nul \\u0000"}',
        b'{"text": "half \\ud83d"}',
        b'{"text": "' + b"z" * 100 + b'"}',
        b'{"text": "last"}',
    ]
    given, receipt = read_with_counts(write(tmp_path / "a.jsonl", b"\n".join(content)))
    assert [document.text for document in given] == ["first", "last"]
    assert dropped(receipt) == {
        NUL: ["8", "9"],
        "not valid JSON": ["2"],
        "no key 'text'": ["3"],
        "not a JSON object": ["4"],
        "'text' is not a string": ["5"],
        "empty": ["6"],
        NOT_UTF8: ["7"],
        "holds half a character": ["10"],
        TOO_LONG: ["11"],
    }
    assert receipt["dropped"] == 10


def test_of_many_bad_lines_all_are_counted_and_twenty_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "{\n" * 1000 + objects(["fine"]))
    _, receipt = read_with_counts(path)
    (entry,) = receipt["files"][0]["dropped"]
    assert entry["count"] == 1000
    assert entry["lines"] == [f"{path}:{line}" for line in range(1, 21)]


@PROPERTY
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=20))
def test_whatever_json_can_write_is_given_or_dropped(tmp_path: Path, texts: list[str]) -> None:
    path = write(tmp_path / "a.jsonl", objects([*texts, "one that is good"]))
    given, receipt = read_with_counts(path)
    good = [text for text in texts if text.strip() and "\0" not in text]
    assert [document.text for document in given] == [*good, "one that is good"]
    assert receipt["documents"] + receipt["dropped"] == len(texts) + 1


# --- plain text -------------------------------------------------------------------------------------------------------


@PROPERTY
@given(texts=st.lists(LINE, min_size=1, max_size=30), passage=st.integers(1, 50), end=st.sampled_from(["\n", "\r\n"]))
def test_the_passages_of_a_text_are_the_text(tmp_path: Path, texts: list[str], passage: int, end: str) -> None:
    texts = ["begins", *texts]
    path = write(tmp_path / "a.txt", "\n \n" + end.join([*texts, ""]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "PASSAGE", passage)
        given, receipt = read_with_counts(path)
    assert "".join(document.text for document in given) == "\n".join(texts)
    assert all(document.passage for document in given)
    assert all(document.text.endswith("\n") for document in given[:-1])
    longest = max(map(len, texts))
    assert all(len(document.text) <= passage + longest + 2 for document in given)
    assert receipt["documents"] == len(given)
    assert receipt["text_bytes"] == len("\n".join(texts).encode())
    starts = [int(document.where.rpartition(":")[2]) for document in given]
    assert starts[0] == 3
    assert all(texts[start - 3] == document.text.split("\n")[0] for start, document in zip(starts, given, strict=True))


def test_unreadable_lines_of_a_text_are_dropped(tmp_path: Path) -> None:
    given, receipt = read_with_counts(write(tmp_path / "a.txt", b"one\ntwo \xff\nthree\nfo\0ur\nfive\n"))
    assert [document.text for document in given] == ["one\nthree\nfive"]
    assert dropped(receipt) == {NOT_UTF8: ["2"], NUL: ["4"]}


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    given, receipt = read_with_counts(write(tmp_path / "a.md", "мед\nчай".encode("utf-16")))
    assert [document.text for document in given] == ["мед\nчай"]
    assert "byte order mark" in receipt["files"][0]["said"][0]


# --- compressed, damaged, refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_compressed_files(tmp_path: Path, ending: str, compress) -> None:
    given = read(write(tmp_path / f"a.jsonl.{ending}", compress(objects(["one", "two"]).encode())))
    assert [document.text for document in given] == ["one", "two"]
    given = read(write(tmp_path / f"a.txt.{ending}", compress(b"one\ntwo\n")))
    assert [document.text for document in given] == ["one\ntwo"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.gz"])
def test_a_file_cut_short_gives_what_is_before_the_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(lines, "CHUNK", 256)
    texts = [f"document {n} {n * 7919 % 1000}" for n in range(3000)]
    content = objects(texts) if "json" in name else "\n".join(texts)
    packed = gzip.compress(content.encode())
    given, receipt = read_with_counts(write(tmp_path / name, packed[: len(packed) // 2]))
    got = "\n".join(document.text for document in given).split("\n")
    assert 500 < len(got) < 2500
    assert got == texts[: len(got)]
    assert dropped(receipt) == {CUT_SHORT: [str(len(got) + 1)]}
    assert "cut short or damaged" in receipt["files"][0]["said"][-1]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.parquet"])
def test_formats_without_lines_are_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"(?s)which has no lines.*jsonl.*FILE.jsonl"):
        read(write(tmp_path / name, "[]"))
    with pytest.raises(UserError, match="is parquet"):
        read(write(tmp_path / "corpus", b"PAR1" + bytes(99)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \n\t\n", "no document that can be read"),
        ("a.jsonl", b"{\n{\n[]\n", r"no document .*not valid JSON \(2\); not a JSON object \(1\)"),
        ("a.jsonl", b'{"body": "a", "id": 1}\n', r"(?s)no key 'text' \(1\).*there is: 'body', 'id'"),
        ("a.txt", bytes(range(256)) * 9, "found binary data"),
        ("a.txt", b"\x89PNG" + b"a" * 99, "a PNG picture"),
        ("a.txt", "кава\nчай\n".encode("cp1251"), r"line 1 is the first that is not(.|\n)*iconv"),
        ("a.txt.gz", gzip.compress(b"text\n" * 99, mtime=0)[:-9], "cut short or damaged"),
    ],
)
def test_a_file_that_gives_nothing_is_one_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(write(tmp_path / name, content))
    assert name in str(caught.value)


def test_a_file_or_folder_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(UserError, match="cannot read"):
            read(path)


def test_an_empty_text_is_not_said_to_lack_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"empty \(1\)") as caught:
        read(write(tmp_path / "a.jsonl", '{"text": ""}'))
    assert not caught.value.hint


# --- the receipt, identity, memory ------------------------------------------------------------------------------------


def test_a_file_that_is_read_again_is_counted_once(tmp_path: Path) -> None:
    receipt = DocumentReceipt()
    one, two = write(tmp_path / "a.txt", "one"), write(tmp_path / "b.txt", "two, three")
    for path in (one, two, one):
        for document in read_documents(path, receipt):
            receipt.add_tokens(document.where, 4)
    saved = json.loads(json.dumps(receipt.to_dict()))
    assert [file["path"] for file in saved["files"]] == [str(one), str(two)]
    assert {key: saved[key] for key in ("documents", "text_bytes", "tokens")} == {
        "documents": 2,
        "text_bytes": 13,
        "tokens": 8,
    }


def test_identity_changes_with_content_and_key_and_not_with_the_name(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a.txt", "one"), write(tmp_path / "b.txt", "two")
    assert identity([one]) == identity([write(tmp_path / "c.txt", "one")])
    different = [
        identity([one]),
        identity([two]),
        identity([one], text="body"),
        identity([one, two]),
        identity([two, one]),
    ]
    assert len({json.dumps(each) for each in different}) == len(different)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(lines, "CHUNK", 1 << 13)
    monkeypatch.setattr(documents, "PASSAGE", 1 << 13)

    def peak(count: int) -> int:
        texts = [f"number {n} of the texts" for n in range(count)]
        broken = "{\n" * (count // 20) if "json" in name else ""
        path = write(tmp_path / name, (objects(texts) if "json" in name else "\n".join(texts)) + broken)
        del texts, broken
        tracemalloc.start()
        assert sum(document.text.count("number") for document in read_documents(path, DocumentReceipt())) == count
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(10)  # what is loaded once
    assert peak(20_000) < 1.3 * peak(2_000)


def test_real_texts(shared_data: Path) -> None:
    given, receipt = read_with_counts(shared_data / "pretrain_text" / "african_storybook.jsonl.xz")
    assert len(given) == receipt["documents"] == 315
    assert receipt["dropped"] == 0
    assert given[0].text.startswith("A very tall man\n\nHis hoe")
