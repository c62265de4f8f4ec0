"""Files are read row for row, and what a file leaves open is decided by what stands in it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptailor.data import sources
from gptailor.data.sources import Dropped, find_parts, read_table
from gptailor.errors import UserError

PROPERTY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# A short file with many control characters counts as binary, and a mark at its very beginning is no part of its text.
NO_TEXT = "\ufeff" + sources._CONTROL.decode("ascii")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=NO_TEXT), max_size=12)
TRICKY = st.text(st.sampled_from("ab\"',;\t\n\r \u2028\u0085é\x0b"), max_size=8)
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=NO_TEXT + "\t\n\r"), max_size=12)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(table: sources.Table) -> list[list[str]]:
    return [list(row) for row in zip(*table.columns.values(), strict=True)]


def grids(cell: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[str]]]:
    widths = st.integers(2, 4)
    return widths.flatmap(lambda n: st.lists(st.lists(cell, min_size=n, max_size=n), min_size=1, max_size=8))


def as_csv(grid: list[list[str]], end: str) -> str:
    out = io.StringIO(newline="")
    # Before Python 3.13 the writer left a lone CR unquoted where lines end in LF, which no reader can tell from CRLF.
    quoting = csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL
    csv.writer(out, lineterminator=end, quoting=quoting).writerows(grid)
    return out.getvalue()


# --- properties -------------------------------------------------------------------------------------------------------


@PROPERTY
@given(grid=grids(TEXT | TRICKY), end=st.sampled_from(["\n", "\r\n"]))
def test_what_csv_writes_is_read_back_exactly(tmp_path: Path, grid: list[list[str]], end: str) -> None:
    path = write(tmp_path / "t.csv", as_csv(grid, end))
    table = read_table(path, header=False, quoting=True)
    assert rows(table) == grid
    assert table.dropped == []


@PROPERTY
@given(grid=grids(TEXT | TRICKY))
def test_line_numbers_are_where_rows_begin(tmp_path: Path, grid: list[list[str]]) -> None:
    path = write(tmp_path / "t.csv", as_csv(grid, "\n"))
    begins = [1 + as_csv(grid[:n], "\n").count("\n") for n in range(len(grid))]
    assert read_table(path, header=False, quoting=True).lines == begins


@PROPERTY
@given(grid=grids(PLAIN))
def test_raw_tab_separated_text_is_read_back_exactly(tmp_path: Path, grid: list[list[str]]) -> None:
    path = write(tmp_path / "t.tsv", "".join("\t".join(row) + "\n" for row in grid))
    table = read_table(path, header=False, quoting=False)
    assert rows(table) == grid
    assert table.lines == list(range(1, len(grid) + 1))


@PROPERTY
@given(lines=st.lists(st.lists(st.text("ab \"'", min_size=1, max_size=4), min_size=1, max_size=4), min_size=1))
def test_every_ragged_record_is_read_or_dropped(tmp_path: Path, lines: list[list[str]]) -> None:
    path = write(tmp_path / "t.tsv", "".join("\t".join(row) + "\n" for row in lines))
    table = read_table(path, format="tsv", header=False, quoting=False)
    width = len(table.columns)
    assert table.lines == [n for n, row in enumerate(lines, 1) if len(row) == width]
    assert sorted(table.lines + [row.line for row in table.dropped]) == list(range(1, len(lines) + 1))


@PROPERTY
@given(content=st.text('a"\t\n,', max_size=60))
def test_with_quoting_asked_for_rows_are_those_of_csv(tmp_path: Path, content: str) -> None:
    expected = [row for row in csv.reader(io.StringIO(content, newline=""), delimiter="\t") if row]
    try:
        table = read_table(write(tmp_path / "t.tsv", content), format="tsv", header=False, quoting=True)
    except UserError:
        return
    if any(row.reason.startswith("a quote that never closes") for row in table.dropped):
        return  # csv takes the rest of the file into one field there; we give up one line
    width = len(table.columns)
    assert rows(table) == [row for row in expected if len(row) == width]
    assert len(table.lines) + len(table.dropped) == len(expected)


@settings(PROPERTY, max_examples=250)
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


@PROPERTY
@given(records=st.lists(st.dictionaries(TEXT, TEXT | st.integers() | st.none() | st.booleans()), min_size=1))
def test_json_and_jsonl_are_read_back_exactly(tmp_path: Path, records: list[dict[str, object]]) -> None:
    keys = {key for record in records for key in record}
    expected = {key: [record.get(key) for record in records] for key in keys}
    for ascii_only in (True, False):
        lines = "\n".join(json.dumps(record, ensure_ascii=ascii_only) for record in records)
        assert read_table(write(tmp_path / "t.jsonl", lines)).columns == expected
        whole = json.dumps(records, ensure_ascii=ascii_only)
        assert read_table(write(tmp_path / "t.json", whole)).columns == expected


# --- quotes, delimiter, header ----------------------------------------------------------------------------------------


def test_bare_quotes_in_tab_separated_text_are_characters(tmp_path: Path) -> None:
    content = 'ham\t"Hello there\nspam\tWin now\nham\tcalled it "great"\nspam\tlast\n'
    table = read_table(write(tmp_path / "messages", content))
    assert table.columns["column_2"] == ['"Hello there', "Win now", 'called it "great"', "last"]
    assert "with quoting, 2 of 4 rows would be lost" in " ".join(table.said)


def test_quotes_of_a_csv_enclose_fields(tmp_path: Path) -> None:
    content = 'text,label\n"a, b",x\nplain,y\n"two\nlines, ""quoted""",x\n'
    table = read_table(write(tmp_path / "t.csv", content))
    assert table.columns == {"text": ["a, b", "plain", 'two\nlines, "quoted"'], "label": ["x", "y", "x"]}
    assert table.lines == [2, 3, 4]
    assert any(said.startswith("quotes enclose fields: without quoting, 3 of 5 lines") for said in table.said)


def test_texts_of_several_lines_stay_whole_even_where_each_line_would_fit(tmp_path: Path) -> None:
    texts = [f"Hello, {n}\nagain, {n}\nso" for n in range(8)]
    content = "".join(f'"{text}",a\n' for text in texts)
    table = read_table(write(tmp_path / "t.csv", content), header=False)
    assert table.columns["column_1"] == texts
    assert any("16 lines inside texts would be rows of their own" in said for said in table.said)


def test_a_stray_quote_in_a_csv_costs_one_row(tmp_path: Path) -> None:
    good = "".join(f'"text, {n}",a\n' for n in range(20))
    table = read_table(write(tmp_path / "t.csv", f'text,label\n"never closed, b\n{good}'))
    assert table.columns["text"] == [f"text, {n}" for n in range(20)]
    assert [row.line for row in table.dropped] == [2]


def test_a_quote_inside_a_quoted_field_keeps_its_row(tmp_path: Path) -> None:
    content = 'text,label\n"he said, "well" then",a\n"x, y",b\n"p, q",a\n'
    table = read_table(write(tmp_path / "t.csv", content))
    assert table.columns["label"] == ["a", "b", "a"]
    assert table.columns["text"][0] == 'he said, well" then"'  # as csv and pandas have it


def test_wholly_quoted_tab_separated_columns_are_unquoted(tmp_path: Path) -> None:
    content = 'text\tlabel\n"one"\t"a"\n"two"\t"b"\n'
    assert read_table(write(tmp_path / "t.tsv", content)).columns == {"text": ["one", "two"], "label": ["a", "b"]}


def test_text_that_happens_to_stand_in_quotes_keeps_them_in_tab_separated_text(tmp_path: Path) -> None:
    content = 'text\tlabel\n"one"\ta\ntwo\tb\nthree\tb\n'
    assert read_table(write(tmp_path / "t.tsv", content)).columns["text"] == ['"one"', "two", "three"]


@pytest.mark.parametrize(("name", "sign"), [("t.csv", ";"), ("t.csv", "\t"), ("t.txt", ","), ("t", "\t")])
def test_the_delimiter_is_found_whatever_the_name_says(tmp_path: Path, name: str, sign: str) -> None:
    content = "text;label\nhello, you;a\nbye, now, then;b\nso;a\n".replace(",", "-").replace(";", sign)
    assert list(read_table(write(tmp_path / name, content)).columns) == ["text", "label"]


def test_plain_lines_are_one_column(tmp_path: Path) -> None:
    content = "Hello, you\nno comma\none, two, three\n"
    assert read_table(write(tmp_path / "t.txt", content)).columns == {"column_1": content.splitlines()}


@pytest.mark.parametrize(
    ("content", "header"),
    [
        ("text,label\nhi,a\nyo,b\n", True),
        ("v1,v2\nham,a message that goes on for a while\nspam,another message that goes on\n", True),
        ("name,group\nann,1\nbob,2\n", True),
        ("ham,hello\nham,bye\nspam,now\n", False),
        ("3,Fears for pension\n4,The race is on\n", False),
        ("spam,hello\nham,a message that goes on for a while\nspam,another message that goes on\n", False),
        ("question,what is it\nstatement,it is so\nquestion,why\n", False),
    ],
)
def test_a_header_is_told_by_its_look(tmp_path: Path, content: str, header: bool) -> None:
    path = write(tmp_path / "t.csv", content)
    table = read_table(path)
    first = content.split("\n")[0].split(",")
    assert list(table.columns) == (first if header else ["column_1", "column_2"])
    assert any(("--header no" if header else "--header yes") in said for said in table.said)
    assert list(read_table(path, header=not header).columns) == (["column_1", "column_2"] if header else first)


def test_doubled_and_empty_header_names_are_told_apart_and_said(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", ",text,text,label\n0,a,b,c\n"))
    assert list(table.columns) == ["column_1", "text", "text_2", "label"]
    assert "column 1 is called '' in the header and 'column_1' here" in table.said
    assert "column 3 is called 'text' in the header and 'text_2' here" in table.said


def test_ragged_rows_are_dropped_with_line_and_reason(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", "text,label\na,x\nb,y,z\n\nc,x\nd\n"))
    assert table.lines == [2, 5]
    assert table.dropped == [
        Dropped(3, "3 fields where the header has 2"),
        Dropped(6, "1 field where the header has 2"),
    ]


# --- lines and encodings ----------------------------------------------------------------------------------------------


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


def test_nul_characters_drop_their_row(tmp_path: Path) -> None:
    content = 'text,label\na\0b,x\n"c\nd\0",x\nfine and long enough,y\n'
    table = read_table(write(tmp_path / "t.csv", content))
    assert table.columns["text"] == ["fine and long enough"]
    assert [(row.line, row.reason) for row in table.dropped] == [(2, sources._NUL), (3, sources._NUL)]


@pytest.mark.parametrize("record", ['{"t": "a\\u0000"}', '{"t": "\\ud83d"}', '{"t": ["\\udc00"]}', '{"\\ud800": 1}'])
def test_escapes_that_make_no_text_drop_their_record(tmp_path: Path, record: str) -> None:
    good = '{"t": "\\ud83c\\udf6f"}'
    table = read_table(write(tmp_path / "t.jsonl", f"{good}\n{record}\n"))
    assert table.columns == {"t": ["🍯"]}
    assert [row.line for row in table.dropped] == [2]


def test_binary_files_are_one_error(tmp_path: Path) -> None:
    for content in (os.urandom(5000), b"PK\x03\x04" + b"a" * 99, "text,label\na,b\n".encode("utf-16-le")):
        with pytest.raises(UserError, match="found binary data"):
            read_table(write(tmp_path / "t.csv", content))


def test_a_line_over_the_limit_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LINE_LIMIT", 100)
    monkeypatch.setattr(sources, "_CHUNK", 64)
    for end in ("\n", ""):
        content = f"text,label\na,x\n{'z' * 500},y\nb,x\n{'z' * 101}{end}"
        table = read_table(write(tmp_path / "t.csv", content))
        assert table.lines == [2, 4]
        assert table.dropped == [Dropped(3, sources._TOO_LONG), Dropped(5, sources._TOO_LONG)]


def test_a_quote_left_open_over_the_limit_costs_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LINE_LIMIT", 100)
    content = 'text,label\n"open,x\n' + "some text,y\n" * 50
    table = read_table(write(tmp_path / "t.csv", content), quoting=True)
    assert table.lines == list(range(3, 53))
    assert [row.line for row in table.dropped] == [2]


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
    assert peak < 3 * sources.LINE_LIMIT


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_missing_empty_and_header_only_files(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\n")
    with pytest.raises(UserError, match=r"no such file(.|\n)*did you mean 'train.csv'"):
        read_table(tmp_path / "trian.csv")
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


# --- json, parquet, labelled lines, folders ---------------------------------------------------------------------------


def test_bad_json_lines_are_dropped_by_line(tmp_path: Path) -> None:
    content = '{"a": 1}\n\n{"a": 2,}\n[1]\n{"b": "x"}\n' + "[" * 100_000
    table = read_table(write(tmp_path / "t.jsonl", content))
    assert table.columns == {"a": [1, None], "b": [None, "x"]}
    assert table.lines == [1, 5]
    assert [(row.line, row.reason) for row in table.dropped] == [
        (3, "not valid JSON"),
        (4, "a list where an object was expected"),
        (6, "not valid JSON"),
    ]


def test_json_documents(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.json", '{"version": 1, "data": [{"a": 1}, 5, {"a": 2}]}'))
    assert (table.columns, table.lines) == ({"a": [1, 2]}, [1, 3])
    assert table.dropped == [Dropped(2, "a number where an object was expected")]
    assert read_table(write(tmp_path / "t.json", '{"a": 1}\n{"a": 2}\n')).format == "jsonl"
    with pytest.raises(UserError, match="line 2, column 8"):
        read_table(write(tmp_path / "t.json", '[{"a": 1},\n{"b": 2'))
    for content in ('{"a": [], "b": []}', "3", "[" * 100_000, "1" * 9999):
        with pytest.raises(UserError, match="expected"):
            read_table(write(tmp_path / "t.json", content))


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


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", "b\0", "c"], "label": [1, 2, None]}), path)
    table = read_table(path)
    assert (table.columns, table.lines) == ({"text": ["a", "c"], "label": [1, None]}, [1, 3])
    assert table.dropped == [Dropped(2, sources._NUL)]
    assert read_table(write(tmp_path / "t.gz", gzip.compress(path.read_bytes()))).columns == table.columns
    with pytest.raises(UserError, match="not a readable parquet file"):
        read_table(write(tmp_path / "cut.parquet", path.read_bytes()[:-20]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r'pip install "gptailor\[parquet\]"'):
        read_table(path)


def test_label_folders(tmp_path: Path) -> None:
    for name, content in [("pos/1", b"good\n"), ("pos/2", b"fine"), ("neg/1", b"b\xe9"), ("unsup/1", b"?")]:
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "train" / f"{name}.txt", content)
    table = read_table(tmp_path / "train")
    assert table.columns == {"text": ["good\n", "fine"], "label": ["pos", "pos"]}
    assert table.lines == [2, 3]
    assert table.dropped == [Dropped(1, "not valid UTF-8")]
    assert any("unsup" in said for said in table.said)
    assert find_parts(tmp_path).files == {"train": [tmp_path / "train"]}
    assert find_parts(tmp_path / "train").files == {"data": [tmp_path / "train"]}
    before = table.sha256
    write(tmp_path / "train/pos/2.txt", "finer")
    assert read_table(tmp_path / "train").sha256 != before


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


def test_sms_spam_is_read_as_it_is_and_as_pandas_reads_it(shared_data: Path) -> None:
    path = shared_data / "sms_spam/SMSSpamCollection"
    table = read_table(path)
    assert [table.columns["column_1"].count(label) for label in ("ham", "spam")] == [4827, 747]
    assert any("with quoting, 2 of 5,574 rows would be lost" in said for said in table.said)
    quoted = read_table(path, header=False, quoting=True)
    assert [quoted.columns["column_1"].count(label) for label in ("ham", "spam")] == [4825, 747]
