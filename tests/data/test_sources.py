"""Any file is either read or one error, its format is told, and names tell the parts of the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptailor.data.sources import find_parts, read_table
from gptailor.errors import UserError
from tests.data.files import PROPERTY, write


@settings(PROPERTY, max_examples=2 * PROPERTY.max_examples)
@given(content=st.binary(max_size=200) | st.text('a1"{}[]:,\t\n\\', max_size=60).map(str.encode), name=st.data())
def test_random_bytes_raise_nothing_but_user_errors(tmp_path: Path, content: bytes, name: st.DataObject) -> None:
    ending = name.draw(st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet", "txt", "gz", "csv.xz", "bin"]))
    start = name.draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"\xfd7zXZ\x00", b"PAR1"]))
    path = write(tmp_path / f"t.{ending}", start + content)
    try:
        table = read_table(path)
    except UserError:
        return
    assert table.lines
    assert {len(column) for column in table.columns.values()} <= {len(table.lines)}


def test_missing_empty_and_header_only_files(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\n")
    write(tmp_path / "one.csv", "text,label\n")
    with pytest.raises(UserError, match=r"no such file(.|\n)*did you mean 'train.csv'"):
        read_table(tmp_path / "trian.csv")
    with pytest.raises(UserError, match="no such file") as told:
        read_table(tmp_path / "nope.csv")
    assert not told.value.hint
    with pytest.raises(UserError, match=r"did you mean 'train.csv'"):
        read_table(tmp_path / "train.tsv")
    with pytest.raises(UserError, match="no row that can be read"):
        read_table(tmp_path / "train.csv")
    for content in ("", "\n\n", "\ufeff"):
        for name in ("t.csv", "t.jsonl", "t.json", "t.txt"):
            with pytest.raises(UserError, match="is empty"):
                read_table(write(tmp_path / name, content))
    with pytest.raises(UserError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        read_table(tmp_path / ("a" * 5000))
    with pytest.raises(UserError, match="did you mean 'jsonl'"):
        read_table(tmp_path / "train.csv", format="jsonlines")


@pytest.mark.parametrize(
    ("content", "format"),
    [
        ('[{"a": "b"}]', "json"),
        ('{"a": "b"}\n{"a": "c"}', "jsonl"),
        ('{"data":\n[{"a": "b"}]}', "json"),
        ("DESC:manner How did it go ?\nHUM:ind Who said so ?\n", "label-first"),
        ("a\tb\nc\td\n", "tsv"),
    ],
)
def test_content_tells_the_format_where_the_name_does_not(tmp_path: Path, content: str, format: str) -> None:
    assert read_table(write(tmp_path / "something", content)).format == format


# --- parts ------------------------------------------------------------------------------------------------------------


def test_names_tell_the_parts(tmp_path: Path) -> None:
    names = [
        "train-00.jsonl.gz",
        "train-01.jsonl.gz",
        "VAL.csv",
        "set_test.tsv",
        "notes.csv",
        "train.png",
        ".train.csv",
    ]
    for name in names:
        write(tmp_path / name, "x")
    parts = find_parts(str(tmp_path))
    found = {part: [path.name for path in paths] for part, paths in parts.files.items()}
    assert found == {"train": names[:2], "validation": ["VAL.csv"], "test": ["set_test.tsv"]}
    assert [path.name for path in parts.ignored] == ["notes.csv", "train.png"]
    assert find_parts(tmp_path / "notes.csv").files == {"data": [tmp_path / "notes.csv"]}


def test_a_folder_that_tells_no_part_lists_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", "x")
    (tmp_path / "more").mkdir()
    with pytest.raises(UserError, match=r"there is: more/, reviews.csv"):
        find_parts(tmp_path)
    with pytest.raises(UserError, match="there is: nothing"):
        find_parts(tmp_path / "more")
    with pytest.raises(UserError, match="no such file"):
        find_parts(tmp_path / "nowhere")


# --- real data --------------------------------------------------------------------------------------------------------

REAL = [
    ("sms_spam/SMSSpamCollection", "tsv", 5574, ["column_1", "column_2"]),
    ("ag_news/test.csv", "csv", 7600, ["column_1", "column_2", "column_3"]),
    ("banking77/train.csv", "csv", 10003, ["text", "category"]),
    ("banking77/test.csv", "csv", 3080, ["text", "category"]),
    ("trec/train.txt", "label-first", 5452, ["label", "fine", "text"]),
    ("trec/test.txt", "label-first", 500, ["label", "fine", "text"]),
    ("sst2/train.csv", "csv", 6920, ["label", "text"]),
    ("rotten_tomatoes/rt_polarity.csv", "csv", 10662, ["label", "text"]),
    ("imdb/test.jsonl.xz", "jsonl", 25000, ["id", "label", "rating", "text"]),
    ("nonenglish/swahili_afrisenti/train.tsv", "tsv", 1810, ["tweet", "label"]),
    ("nonenglish/swahili_afrisenti/dev.tsv", "tsv", 453, ["tweet", "label"]),
    ("nonenglish/swahili_afrisenti/test.tsv", "tsv", 748, ["tweet", "label"]),
    ("nonenglish/persian_snappfood/dev.tsv", "tsv", 6300, ["column_1", "comment", "label", "label_id"]),
    ("nonenglish/persian_snappfood/test.tsv", "tsv", 7000, ["column_1", "comment", "label", "label_id"]),
    ("nonenglish/ukrainian_sentiment/dataset_sent_anal_ukr_manual.csv", "csv", 201, ["column_1", "text", "labels"]),
    ("alpaca/alpaca_data.json.xz", "json", 52002, ["instruction", "input", "output"]),
]


@pytest.mark.parametrize(("name", "format", "count", "columns"), REAL)
def test_public_sets_are_read_whole(shared_data: Path, name: str, format: str, count: int, columns: list[str]) -> None:
    table = read_table(shared_data / name)
    assert (table.format, len(table.lines), list(table.columns), table.dropped) == (format, count, columns, [])
