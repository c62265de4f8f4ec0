"""What csv and tsv leave open is decided by what stands in the file, and no row is lost in silence."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptailor.data import quotes
from gptailor.data.sources import Dropped, read_table
from gptailor.errors import UserError
from tests.data.files import PLAIN, PROPERTY, TEXT, TRICKY, grids, rows, write


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


NAMES = st.lists(st.from_regex("[A-Za-z][a-z0-9 ]{0,8}[a-z]", fullmatch=True), min_size=2, max_size=4, unique=True)
SIGNS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


@st.composite
def named_tables(draw: st.DrawFn, without: str) -> tuple[list[str], list[list[str]]]:
    names = draw(NAMES)
    cell = (TEXT | TRICKY).map(lambda text: "".join(sign for sign in text if sign not in without))
    row = st.lists(cell, min_size=len(names), max_size=len(names))
    return names, draw(st.lists(row, min_size=3, max_size=12))


@PROPERTY
@given(data=st.data(), delimiter=st.sampled_from(sorted(SIGNS)), auto=st.booleans())
def test_any_delimiter_is_read_back_exactly(tmp_path: Path, data: st.DataObject, delimiter: str, auto: bool) -> None:
    without = "".join(sign for sign in SIGNS.values() if auto and sign != SIGNS[delimiter])
    names, grid = data.draw(named_tables(without))
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=SIGNS[delimiter]).writerows([names, *grid])
    path = write(tmp_path / data.draw(st.sampled_from(["t.csv", "t.txt", "t.tsv"])), out.getvalue())
    table = read_table(path, delimiter="auto" if auto else delimiter, header=True, quoting=True)
    assert (list(table.columns), rows(table), table.dropped) == (names, grid, [])
    assert table.format == ("tsv" if delimiter == "tab" else "csv")


# --- quotes -----------------------------------------------------------------------------------------------------------


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


def test_a_quote_left_open_over_the_limit_costs_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotes, "LINE_LIMIT", 100)
    content = 'text,label\n"open,x\n' + "some text,y\n" * 50
    table = read_table(write(tmp_path / "t.csv", content), quoting=True)
    assert table.lines == list(range(3, 53))
    assert [row.line for row in table.dropped] == [2]


def test_sms_spam_is_read_as_it_is_and_as_pandas_reads_it(shared_data: Path) -> None:
    path = shared_data / "sms_spam/SMSSpamCollection"
    table = read_table(path)
    assert [table.columns["column_1"].count(label) for label in ("ham", "spam")] == [4827, 747]
    assert any("with quoting, 2 of 5,574 rows would be lost" in said for said in table.said)
    quoted = read_table(path, header=False, quoting=True)
    assert [quoted.columns["column_1"].count(label) for label in ("ham", "spam")] == [4825, 747]


# --- delimiter, header, width -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sign"), [("t.csv", ";"), ("t.csv", "\t"), ("t.txt", ","), ("t", "\t")])
def test_the_delimiter_is_found_whatever_the_name_says(tmp_path: Path, name: str, sign: str) -> None:
    content = "text;label\nhello, you;a\nbye, now, then;b\nso;a\n".replace(",", "-").replace(";", sign)
    assert list(read_table(write(tmp_path / name, content)).columns) == ["text", "label"]


GERMAN = [f"{n};Gute Ware Nr {n};{n},50;a{n % 3}" for n in range(40)]
FRENCH = [f"très bon {n};{n},5;{n},25;oui" for n in range(40)]
ONE_COMMA = [f"Gute Ware, danke {n};a{n % 3}" for n in range(40)]
SEMICOLONS = [f'"Good, number {n}; thanks",a{n % 3}' for n in range(40)]
TABBED = [f"Good, number {n}; thanks\ta{n % 3}" for n in range(40)]
PIPED = [f"Good, number {n}; thanks|a{n % 3}" for n in range(40)]


@pytest.mark.parametrize("name", ["t.csv", "t.txt", "t.tsv"])
@pytest.mark.parametrize(
    ("header", "lines", "sign"),
    [
        ("Id;Kommentar;Preis;Kategorie", GERMAN, ";"),
        ("", GERMAN, ";"),
        ("avis;prix;note;réponse", FRENCH, ";"),
        ("", FRENCH, ";"),
        ("Kommentar;Kategorie", ONE_COMMA, ";"),
        ("", ONE_COMMA, ";"),
        ('"Kommentar";"Kategorie"', ONE_COMMA, ";"),
        ("text,label", SEMICOLONS, ","),
        ("text\tlabel", TABBED, "\t"),
        ("", TABBED, "\t"),
        ("text|label", PIPED, "|"),
        ("", PIPED, "|"),
    ],
)
def test_the_delimiter_is_told_among_others(
    tmp_path: Path, name: str, header: str, lines: list[str], sign: str
) -> None:
    table = read_table(write(tmp_path / name, "\n".join([header] * bool(header) + lines)))
    expected = list(csv.reader(lines, delimiter=sign))
    assert (rows(table), table.dropped) == (expected, [])
    if header:
        assert list(table.columns) == header.replace('"', "").split(sign)


def test_a_delimiter_inside_quotes_is_none(tmp_path: Path) -> None:
    lines = [f'"Good number {n}; thanks","a{n % 3}"' for n in range(40)]
    for sample in (lines, [*lines, "broken", "broken too"]):
        table = read_table(write(tmp_path / "t.csv", "\n".join(sample)))
        assert rows(table) == list(csv.reader(lines))


def test_few_lines_without_a_header_are_what_the_name_says(tmp_path: Path) -> None:
    for count, widths in ((9, 2), (10, 3)):
        path = write(tmp_path / "t.csv", "a;b;c,d\n" * count)
        assert len(read_table(path, header=False).columns) == widths


def test_the_delimiter_is_said_with_what_it_was_weighed_against(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "\n".join(["Kommentar;Kategorie", *ONE_COMMA]))
    told = "semicolon separated: 41 of 41 rows have 2, and the first names them; comma: 40 of 41 rows have 2"
    assert read_table(path).said[0] == f"{told} (--delimiter to change)"
    plain = write(tmp_path / "p.csv", "text;label\na;b\n")
    assert read_table(plain).said[0] == "semicolon separated (--delimiter to change)"


def test_the_delimiter_that_is_asked_for_is_used(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,more;label\na,b;c\n")
    assert list(read_table(path, delimiter="comma", header=True).columns) == ["text", "more;label"]
    table = read_table(path, delimiter="semicolon", header=True)
    assert table.columns == {"text,more": ["a,b"], "label": ["c"]}
    assert table.said[0] == "semicolon separated, as asked"
    # Lines that look like a label and a text are a table when their delimiter is given.
    assert rows(read_table(write(tmp_path / "t", "a:b c|d\ne:f g|h\n"), delimiter="pipe")) == [
        ["a:b c", "d"],
        ["e:f g", "h"],
    ]
    with pytest.raises(UserError, match=r"unknown delimiter 'semicolons'(.|\n)*did you mean 'semicolon'"):
        read_table(path, delimiter="semicolons")


@pytest.mark.parametrize(
    "content",
    [
        "Hello, you\nWell, well\nno\nGood, I see\nBye, now\nSo, then\n",
        '"Hello, you\nagain, so"\n"Well, ""well"""\n',
        "Hello; you\nBye; now\nSo; then\nno\n",
        "".join(f"Hello, number {n}\n" for n in range(40)),
    ],
)
def test_a_single_named_column_of_texts_stays_whole(tmp_path: Path, content: str) -> None:
    table = read_table(write(tmp_path / "t.csv", f"text\n{content}"))
    assert rows(table) == list(csv.reader(io.StringIO(content), delimiter="\x01"))
    assert (list(table.columns), table.dropped) == (["text"], [])
    assert table.said[0] == "one column, as the first line has it (--delimiter to change)"


def test_a_title_above_a_table_does_not_make_it_one_column(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", "\n".join(["Text", *ONE_COMMA])))
    assert list(table.columns) == ["column_1", "column_2"]
    assert table.dropped == [Dropped(1, "1 field where most rows have 2")]


@pytest.mark.parametrize(
    ("above", "sign"),
    [
        ("sep=;\r\n", ";"),  # as Excel writes it
        ("Export of 3 May 2026\n\n", ","),
        ("Export of 3 May 2026,\n,\n", ","),
        ("Shop;\nmessages of spring 2026, all of them\n", ";"),
    ],
)
def test_a_header_is_found_below_a_title(tmp_path: Path, above: str, sign: str) -> None:
    rows = [("it came late again and was broken", "bad"), ("quick and kind, as always", "good")] * 6
    body = "".join(f'"{text}"{sign}{label}\n' for text, label in rows)
    table = read_table(write(tmp_path / "t.csv", f"{above}text{sign}label\n{body}"))
    assert table.columns == {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    assert {found.reason for found in table.dropped} == {"stands above the header"}
    line = above.count("\n") + 1
    assert f"line {line} is the header: text, label (--header no to change)" in table.said


@pytest.mark.parametrize(
    "content",
    [
        "Spring\nfine,a\nlate,b\ngone,b\n",  # no usual names
        "id,text,label\nfine,a\nlate,b\ngone,b\n",
        "where is my parcel\ncan i pay by card\nquestion\nopening hours\n",  # texts, of which one is a usual name
        "where is my parcel,\ncan i pay by card,\ntopic,\nopening hours,\n",
        "one, two, three, four\nnice answer,title\nfine,a\nlate,b\ngone,b\n",
    ],
)
def test_texts_are_no_title(tmp_path: Path, content: str) -> None:
    table = read_table(write(tmp_path / "t.csv", content))
    assert {found.reason for found in table.dropped}.isdisjoint({"stands above the header"})


def test_a_title_does_not_speak_for_quotes(tmp_path: Path) -> None:
    rows = [("fine", "a")] * 11 + [('"late', "b")] + [("gone", "b")] * 12
    table = read_table(write(tmp_path / "t.csv", "Export\ntext,label\n" + "".join(f"{t},{y}\n" for t, y in rows)))
    assert table.columns["text"] == [text for text, _ in rows]


def test_numbers_with_a_decimal_comma_have_a_name_above_them(tmp_path: Path) -> None:
    assert list(read_table(write(tmp_path / "t.csv", "wer;preis\nann;1,5\nbob;22,75\n")).columns) == ["wer", "preis"]


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
