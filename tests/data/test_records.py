"""Records of json, json lines and parquet become columns, and what is no record is dropped by its place."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptailor.data.lines import NUL
from gptailor.data.sources import Dropped, read_table
from gptailor.errors import UserError
from tests.data.files import PROPERTY, TEXT, write


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


@pytest.mark.parametrize("record", ['{"t": "a\\u0000"}', '{"t": "\\ud83d"}', '{"t": ["\\udc00"]}', '{"\\ud800": 1}'])
def test_escapes_that_make_no_text_drop_their_record(tmp_path: Path, record: str) -> None:
    good = '{"t": "\\ud83c\\udf6f"}'
    table = read_table(write(tmp_path / "t.jsonl", f"{good}\n{record}\n"))
    assert table.columns == {"t": ["🍯"]}
    assert [row.line for row in table.dropped] == [2]


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


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", "b\0", "c"], "label": [1, 2, None]}), path)
    table = read_table(path)
    assert (table.columns, table.lines) == ({"text": ["a", "c"], "label": [1, None]}, [1, 3])
    assert table.dropped == [Dropped(2, NUL)]
    assert read_table(write(tmp_path / "t.gz", gzip.compress(path.read_bytes()))).columns == table.columns
    with pytest.raises(UserError, match="not a readable parquet file"):
        read_table(write(tmp_path / "cut.parquet", path.read_bytes()[:-20]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r'pip install "gptailor\[parquet\]"'):
        read_table(path)
