"""Named sets are found on this machine, complete, and read as they were meant."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gptailor.data.catalog import CATALOG, data_folders, locate
from gptailor.data.classification import choose_columns
from gptailor.data.sources import read_table
from gptailor.errors import UserError


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(UserError, match=r"sms-spam, ag-news, imdb, banking77, trec(.|\n)*did you mean 'sms-spam'"):
        locate("sms_spam")


def test_the_folders_to_look_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("GPTAILOR_DATA", "/somewhere")
    assert data_folders() == [Path("/somewhere"), Path("data"), tmp_path / "gptailor/data"]
    monkeypatch.delenv("GPTAILOR_DATA")
    assert data_folders() == [Path("data"), tmp_path / "gptailor/data"]


def test_a_whole_set_in_a_later_folder_comes_before_a_part_of_it(tmp_path: Path) -> None:
    for name in ("one/ag_news/test.csv", "two/ag_news/test.csv", "two/ag_news/train.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(locate("ag-news", folders=[tmp_path / "one"]).files) == ["data"]
    assert "train.csv is not there" in " ".join(locate("ag-news", folders=[tmp_path / "one"]).said)
    assert list(locate("ag-news", folders=[tmp_path / "one", tmp_path / "two"]).files) == ["train", "test"]


def test_every_entry_is_complete() -> None:
    for name, entry in CATALOG.items():
        assert entry.name == name
        assert all((entry.description, entry.licence, entry.homepage, entry.citation, entry.forms, entry.downloads))
        made = tuple(download.target for download in entry.downloads)
        assert any(all(path.startswith(made) for path in form.parts.values()) for form in entry.forms)
        for download in entry.downloads:
            algorithm, digest = download.checksum.split(":")
            assert download.address.startswith("https://")
            assert len(digest) == 2 * hashlib.new(algorithm).digest_size


@pytest.mark.parametrize(
    ("name", "rows", "labels"),
    [
        ("sms-spam", {"data": 5574}, 2),
        ("ag-news", {"data": 7600}, 4),
        pytest.param("imdb", {"train": 25000, "test": 25000}, 2, marks=pytest.mark.slow),
        ("banking77", {"train": 10003, "test": 3080}, 77),
        ("trec", {"train": 5452, "test": 500}, 6),
    ],
)
def test_public_sets_are_found_and_read(shared_data: Path, name: str, rows: dict[str, int], labels: int) -> None:
    found = locate(name, folders=[shared_data])
    assert list(found.files) == list(rows)
    form = found.form
    for part, (path,) in found.files.items():
        table = read_table(path, format=form.format, header=form.header, quoting=form.quoting)
        assert (len(table.lines), table.dropped) == (rows[part], [])
        texts, label = choose_columns(table, form.text, form.label)
        assert texts == (["column_2", "column_3"] if name == "ag-news" else [form.text])
        assert len(set(table.columns[label])) == labels


def test_checksums_are_those_of_the_real_files(shared_data: Path) -> None:
    """The files that are kept as they were published; TREC was published in Latin-1."""
    for entry in CATALOG.values():
        for download in entry.downloads:
            path = shared_data / download.target
            if not path.is_file():
                continue
            content = path.read_bytes().decode().encode(download.encoding)
            algorithm, digest = download.checksum.split(":")
            assert hashlib.new(algorithm, content).hexdigest() == digest
            assert len(content) <= download.limit
