"""A download is there whole or not at all, and nothing but the wanted files is ever written."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from gptailor.data import download
from gptailor.data.catalog import CATALOG, Entry, Form, locate
from gptailor.data.download import Download
from gptailor.data.sources import read_table
from gptailor.errors import UserError

ROWS = b"text,label\nhello,a\nbye,b\n"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Answers from ``files``, and badly as ``behaviour`` of a path says: see ``Handler``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.behaviour: dict[str, str] = {}
        self.asked: list[str] = []
        self.finish = threading.Event()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    """Sends the whole file, or does as its behaviour says.

    silent: nothing at all; stall, cut, drip: half of it, and then nothing, the end, or a byte now and then; endless:
    more and more, with no length announced; packed: a bomb in gzip; "length N": announces N; "to ADDRESS": redirects.
    """

    def do_GET(self) -> None:
        server = cast("Server", self.server)
        server.asked.append(self.path)
        how = server.behaviour.get(self.path, "")
        if self.path not in server.files:
            self.send_error(404)
            return
        if how == "silent":
            server.finish.wait(3)
            return
        body = server.files[self.path]
        what, _, value = how.partition(" ")
        self.send_response(302 if what == "to" else 200)
        if what == "packed":
            body = gzip.compress(bytes(50_000_000))
            self.send_header("Content-Encoding", "gzip")
        if what == "to":
            self.send_header("Location", value)
        elif what not in ("unannounced", "endless"):
            self.send_header("Content-Length", value if what == "length" else str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # the client has gone away
            self.send(what, body)

    def send(self, what: str, body: bytes) -> None:
        finish = cast("Server", self.server).finish
        self.wfile.write(body[: len(body) // 2] if what in ("cut", "stall", "drip") else body)
        while what == "drip" and not finish.wait(0.1):
            self.wfile.write(b"x")
        for _ in range(5000 if what == "endless" else 0):
            self.wfile.write(bytes(1000))
        if what == "stall":
            finish.wait(3)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.finish.set()
    server.shutdown()
    server.server_close()


def offer(monkeypatch: pytest.MonkeyPatch, form: Form, *downloads: Download) -> None:
    entry = Entry("toy", "a toy", "CC0", "http://example.org/toy", "nobody", (form,), downloads)
    monkeypatch.setitem(CATALOG, "toy", entry)


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def one_file(server: Server, monkeypatch: pytest.MonkeyPatch, content: bytes = ROWS, **changes: Any) -> Download:
    server.files["/toy.csv"] = content
    download = Download(server.address("/toy.csv"), "toy/toy.csv", sha256(content), 1000)
    offer(monkeypatch, Form({"data": "toy/toy.csv"}), replace(download, **changes))
    return download


def test_a_good_file_is_fetched_once(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    one_file(server, monkeypatch)
    folders = [tmp_path / "data", tmp_path / "cache"]
    found = locate("toy", folders=folders)
    assert found.files == {"data": [tmp_path / "cache/toy/toy.csv"]}
    assert found.files["data"][0].read_bytes() == ROWS
    assert "CC0" in " ".join(found.said)
    assert locate("toy", folders=folders).files == found.files
    assert server.asked == ["/toy.csv"]
    assert everything_in(tmp_path) == ["cache/toy/toy.csv"]


def test_what_lies_in_a_data_folder_is_not_fetched(tmp_path: Path, server: Server, monkeypatch) -> None:
    one_file(server, monkeypatch)
    (tmp_path / "data/toy").mkdir(parents=True)
    (tmp_path / "data/toy/toy.csv").write_bytes(b"mine")
    found = locate("toy", folders=[tmp_path / "data", tmp_path / "cache"])
    assert found.files == {"data": [tmp_path / "data/toy/toy.csv"]}
    assert server.asked == []


@pytest.mark.parametrize(
    ("behaviour", "changes", "why"),
    [
        ("cut", {}, r"toy.csv: the connection broke off: .*received 12 bytes, expected 25\); nothing was kept"),
        ("stall", {}, "toy.csv: the server sent nothing for 0.5 seconds; nothing was kept"),
        ("silent", {}, "toy.csv: the server sent nothing for 0.5 seconds"),
        ("drip", {}, "toy.csv: it comes at less than 1,000 bytes a second; nothing was kept"),
        ("length 12", {}, "toy.csv: its sha256 is"),
        ("length 26", {}, "toy.csv: the connection broke off: "),
        ("length 1000000000000000000000000000000", {}, "toy.csv: the connection broke off: "),
        ("length -1", {}, "toy.csv: the connection broke off: "),
        ("length many", {}, "toy.csv: the connection broke off: "),
        ("endless", {}, "toy.csv: it is larger than the 1,000 bytes"),
        ("packed", {}, "toy.csv: it is larger than the 1,000 bytes"),
        ("to /toy.csv", {}, "toy.csv: Exceeded maximum allowed redirects"),
        ("to file:///etc/hostname", {}, "toy.csv: Request URL has an unsupported protocol 'file://'"),
        ("to //", {}, "toy.csv: "),
        ("to http://127.0.0.1:9/toy.csv", {}, "toy.csv: the server cannot be reached: .*refused"),
        ("", {"checksum": "sha256:" + "0" * 64}, "its sha256 is .*, not 000.*nothing was kept"),
        ("", {"limit": 10}, "larger than the 10 bytes"),
        ("unannounced", {"limit": 10}, "larger than the 10 bytes"),
        ("", {"member": "inner", "checksum": sha256(b"inner")}, "its sha256 is"),
    ],
)
def test_a_bad_download_keeps_nothing(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, behaviour: str, changes: dict[str, Any], why: str
) -> None:
    one_file(server, monkeypatch, **changes)
    server.behaviour["/toy.csv"] = behaviour
    with pytest.raises(UserError, match=why) as caught:
        locate("toy", folders=[tmp_path / "data", tmp_path / "cache"])
    assert f"put it at {tmp_path / 'data/toy/toy.csv'}" in str(caught.value)
    assert everything_in(tmp_path) == []
    if not changes:  # the server has come to its senses
        server.behaviour.clear()
        found = locate("toy", folders=[tmp_path / "data", tmp_path / "cache"])
        assert found.files["data"][0].read_bytes() == ROWS


def test_a_file_that_has_moved_to_another_server_is_checked_as_well(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_file(server, monkeypatch)
    server.files |= {"/there": b"another file", "/toy.csv": ROWS}
    server.behaviour["/toy.csv"] = f"to {server.address('/there').replace('127.0.0.1', 'localhost')}"
    with pytest.raises(UserError, match="its sha256 is"):
        locate("toy", folders=[tmp_path])
    assert everything_in(tmp_path) == []
    server.files["/there"] = ROWS
    assert locate("toy", folders=[tmp_path]).files["data"][0].read_bytes() == ROWS


def test_what_a_kill_left_of_a_download_is_no_data(tmp_path: Path, server: Server, monkeypatch) -> None:
    one_file(server, monkeypatch)
    (tmp_path / "toy/.fetching-abc").mkdir(parents=True)
    (tmp_path / "toy/.fetching-abc/fetched").write_bytes(ROWS[:9])
    assert locate("toy", folders=[tmp_path]).files["data"][0].read_bytes() == ROWS


def test_a_missing_page_and_a_missing_server(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    there = one_file(server, monkeypatch)
    server.files.clear()
    with pytest.raises(UserError, match="the server answered 404 Not Found"):
        locate("toy", folders=[tmp_path])
    nowhere = replace(there, address="http://127.0.0.1:9/toy.csv")
    offer(monkeypatch, Form({"data": "toy/toy.csv"}), nowhere)
    unreachable = (
        r"could not be downloaded from http://127.0.0.1:9/toy.csv: the server cannot be reached: (.|\n)*put it at"
    )
    with pytest.raises(UserError, match=unreachable):
        locate("toy", folders=[tmp_path])
    assert everything_in(tmp_path) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    one_file(server, monkeypatch)
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"cannot write to .*cache"):
        locate("toy", folders=[tmp_path / "cache"])


@pytest.mark.parametrize(
    ("call", "number"),
    [("mkdir", errno.EROFS), ("mkdir", errno.EACCES), ("fsync", errno.ENOSPC), ("rename", errno.EIO)],
)
def test_a_disk_that_fails_keeps_what_was_there(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    one_file(server, monkeypatch)
    (tmp_path / "other.csv").write_bytes(b"mine")

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else Path, call, fail)
        with pytest.raises(UserError, match=f"cannot write to .*: {os.strerror(number)}"):
            locate("toy", folders=[tmp_path])
    assert everything_in(tmp_path) == ["other.csv"]
    assert locate("toy", folders=[tmp_path]).files["data"][0].read_bytes() == ROWS


def test_a_full_disk_keeps_what_was_there(small_disk: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    one_file(server, monkeypatch, bytes(5_000_000), limit=6_000_000)
    (small_disk / "other.csv").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"cannot write to .*: No space left on device"):
        locate("toy", folders=[small_disk])
    assert everything_in(small_disk) == ["other.csv"]


def zipped(members: dict[str, bytes], packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packed) as box:
        for name, content in members.items():
            box.writestr(name, content)
    return out.getvalue()


def test_only_the_wanted_member_of_a_zip_is_written(tmp_path: Path, server: Server, monkeypatch) -> None:
    archive = zipped({"../../evil.txt": b"evil", "/evil.txt": b"evil", "readme": b"x", "inner.csv": ROWS})
    one_file(server, monkeypatch, archive, member="inner.csv", checksum=sha256(ROWS))
    found = locate("toy", folders=[tmp_path / "a/b/cache"])
    assert found.files["data"][0].read_bytes() == ROWS
    assert everything_in(tmp_path) == ["a/b/cache/toy/toy.csv"]


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (zipped({"other": ROWS}), "has no inner.csv; it has other"),
        (zipped({"inner.csv": b"0" * 100_000}), "larger than the 1,000 bytes"),
        (zipped({"inner.csv": ROWS}).replace(b"inner.csv", b"inner.csw", 1), "damaged"),
        (zipped({"inner.csv": ROWS}).replace(b"\x37\0\0\0\x42", b"\x37\0\0\0\x43"), "damaged"),  # begins at -1
        (zipped({"inner.csv": ROWS}, zipfile.ZIP_LZMA), r"packs inner.csv in a way that is not read \(number 14\)"),
        (zipped({"inner.csv": ROWS}, zipfile.ZIP_BZIP2), r"packs inner.csv in a way that is not read \(number 12\)"),
    ],
)
def test_a_bad_zip_keeps_nothing(tmp_path: Path, server: Server, monkeypatch, archive: bytes, why: str) -> None:
    one_file(server, monkeypatch, archive, member="inner.csv", checksum=sha256(ROWS))
    with pytest.raises(UserError, match=why):
        locate("toy", folders=[tmp_path])
    assert everything_in(tmp_path) == []


def tarred(members: list[tuple[str, bytes | str]]) -> bytes:
    """A tar.gz of files (bytes) and links (str: where they point): hard ones where the name says so, else symbolic."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as box:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.LNKTYPE if "hard" in name else tarfile.SYMTYPE, content
                box.addfile(info)
            else:
                info.size = len(content)
                box.addfile(info, io.BytesIO(content))
    return out.getvalue()


def reviews(server: Server, monkeypatch: pytest.MonkeyPatch, archive: bytes, **changes) -> None:
    server.files["/toy.tar.gz"] = archive
    imdb = CATALOG["imdb"]
    checksum = f"md5:{hashlib.md5(archive).hexdigest()}"
    download = replace(imdb.downloads[0], address=server.address("/toy.tar.gz"), checksum=checksum, **changes)
    monkeypatch.setitem(CATALOG, "imdb", replace(imdb, downloads=(download,)))


REVIEWS = [
    (f"aclImdb/{part}/{label}/0_1.txt", f"{part} {label}".encode())
    for part in ("train", "test")
    for label in ("pos", "neg")
]


def test_only_fitting_regular_files_of_a_tar_are_written(tmp_path: Path, server: Server, monkeypatch) -> None:
    evil: list[tuple[str, bytes | str]] = [
        ("aclImdb/train/pos/../../../../evil.txt", b"evil"),
        ("/aclImdb/train/pos/evil.txt", b"evil"),
        ("../evil.txt", b"evil"),
        ("aclImdb/train/pos/link.txt", "/etc/hostname"),
        ("aclImdb/train/pos/hard.txt", "/etc/hostname"),
        ("aclImdb/train/neg", str(tmp_path)),  # for the files that come after it
        ("aclImdb/train/unsup/0_0.txt", b"no label"),
    ]
    reviews(server, monkeypatch, tarred([*evil, *REVIEWS]))
    found = locate("imdb", folders=[tmp_path / "a/b/cache"])
    assert everything_in(tmp_path) == sorted(f"a/b/cache/imdb/{name}" for name, _ in REVIEWS)
    for part, paths in found.files.items():
        table = read_table(paths[0], format=found.form.format)
        assert table.columns == {"text": [f"{part} neg", f"{part} pos"], "label": ["neg", "pos"]}


def test_a_bad_tar_keeps_nothing(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tarred([*REVIEWS, ("aclImdb/train/pos/1_1.txt", b"0" * 100_000)])
    for archive, limit, why in [
        (whole, 50_000, "larger than the 50,000 bytes"),
        (tarred([("other.txt", b"x")]), 50_000, "none of the expected files"),
        (whole[:-40], 200_000, "damaged"),
    ]:
        reviews(server, monkeypatch, archive, limit=limit)
        with pytest.raises(UserError, match=why):
            locate("imdb", folders=[tmp_path])
        assert everything_in(tmp_path) == []


def test_text_in_another_encoding_is_stored_as_utf8(tmp_path: Path, server: Server, monkeypatch) -> None:
    one_file(server, monkeypatch, "text,label\ncafé,a\n".encode("latin-1"), encoding="latin-1")
    table = read_table(locate("toy", folders=[tmp_path]).files["data"][0])
    assert table.columns["text"] == ["café"]
