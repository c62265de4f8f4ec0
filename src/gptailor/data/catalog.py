"""The named public data sets: where each lies, its licence and checksum, and how its files are read.

A set is looked for in the local data folders first and downloaded only when it is in none of them. What is downloaded
lies in the same layout, so the cache is one more data folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from gptailor.errors import UserError, did_you_mean, listing

TIMEOUT = 20.0  # seconds without a byte after which a download is given up
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Form:
    """One way in which a set lies in a data folder.

    Args:
        parts: part (``"data"``, or ``"train"`` and ``"test"``) to a path inside the data folder.
        text, label: the columns.
        format, header, quoting: as for ``sources.read_table``.
        note: what a user of this form should know.
    """

    parts: dict[str, str]
    text: str = "text"
    label: str = "label"
    format: str = "auto"
    header: bool | None = None
    quoting: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Download:
    """One file to fetch.

    Args:
        address: where it is.
        target: where it goes inside the data folder; for a tar archive, the folder for its members.
        checksum: ``"sha256:..."`` or ``"md5:..."`` of what is fetched, or, for a zip archive, of the member.
        limit: the most bytes that are accepted, fetched or unpacked.
        member: zip archive: the name of the one member that is wanted; tar archive: a pattern of those wanted, whose
            first group is the path below ``target``.
        encoding: of the text, which is stored as UTF-8.
    """

    address: str
    target: str
    checksum: str
    limit: int
    member: str = ""
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Entry:
    """A named data set; ``forms`` are tried in order, and ``downloads`` together make one of them."""

    name: str
    description: str
    licence: str
    homepage: str
    citation: str
    forms: tuple[Form, ...]
    downloads: tuple[Download, ...]


@dataclass(frozen=True)
class Located:
    """A set that lies on this machine: ``files`` maps each part to its files, ``form`` says how to read them."""

    entry: Entry
    form: Form
    files: dict[str, list[Path]]
    said: list[str] = field(default_factory=list)


_BANKING = (
    "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b"
)
_AG_NEWS = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
_AG_NEWS_CSV = Form(
    {"train": "ag_news/train.csv", "test": "ag_news/test.csv"},
    text="column_3",
    label="column_1",
    format="csv",
    header=False,
)
_TREC = "https://cogcomp.seas.upenn.edu/Data/QA/QC"

_ENTRIES = (
    Entry(
        "sms-spam",
        "5,574 text messages in English, ham or spam",
        "CC BY 4.0",
        "https://archive.ics.uci.edu/dataset/228/sms+spam+collection",
        "Almeida and Hidalgo, SMS Spam Collection v.1, 2011",
        (Form({"data": "sms_spam/SMSSpamCollection"}, text="column_2", label="column_1", format="tsv", header=False),),
        (
            Download(
                "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
                "sms_spam/SMSSpamCollection",
                "sha256:7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
                1_000_000,
                member="SMSSpamCollection",
            ),
        ),
    ),
    Entry(
        "ag-news",
        "127,600 news items in four topics: 1 World, 2 Sports, 3 Business, 4 Sci/Tech",
        "non-commercial use and research",
        "http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html",
        "Zhang, Zhao and LeCun, Character-level Convolutional Networks for Text Classification, 2015",
        (
            _AG_NEWS_CSV,
            replace(
                _AG_NEWS_CSV,
                parts={"data": "ag_news/test.csv"},
                note="train.csv is not there, so the 7,600 rows of test.csv are all the data",
            ),
        ),
        (
            Download(f"{_AG_NEWS}/train.csv", "ag_news/train.csv", "md5:b1a00f826fdfbd249f79597b59e1dc12", 40_000_000),
            Download(f"{_AG_NEWS}/test.csv", "ag_news/test.csv", "md5:d52ea96a97a2d943681189a97654912d", 4_000_000),
        ),
    ),
    Entry(
        "imdb",
        "50,000 film reviews in English, pos or neg, half of them for testing",
        "none stated; research",
        "https://ai.stanford.edu/~amaas/data/sentiment/",
        "Maas et al., Learning Word Vectors for Sentiment Analysis, 2011",
        (
            Form({"train": "imdb/train.jsonl.xz", "test": "imdb/test.jsonl.xz"}),
            Form({"train": "imdb/aclImdb/train", "test": "imdb/aclImdb/test"}),
            Form({"train": "aclImdb/train", "test": "aclImdb/test"}),
        ),
        (
            Download(
                "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                "imdb/aclImdb",
                "md5:7c2ac02c03563afcf9b574c7e56c153a",
                200_000_000,
                member=r"aclImdb/((?:train|test)/(?:pos|neg)/\w+\.txt)",
            ),
        ),
    ),
    Entry(
        "banking77",
        "13,083 questions to a bank in English, 77 intents",
        "CC BY 4.0",
        "https://github.com/PolyAI-LDN/task-specific-datasets",
        "Casanueva et al., Efficient Intent Detection with Dual Sentence Encoders, 2020",
        (
            Form(
                {"train": "banking77/train.csv", "test": "banking77/test.csv"},
                label="category",
                format="csv",
                header=True,
            ),
        ),
        (
            Download(
                f"{_BANKING}/banking_data/train.csv",
                "banking77/train.csv",
                "sha256:b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
                2_000_000,
            ),
            Download(
                f"{_BANKING}/banking_data/test.csv",
                "banking77/test.csv",
                "sha256:d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
                1_000_000,
            ),
        ),
    ),
    Entry(
        "trec",
        "5,952 questions in English, 6 kinds of answer (column fine: 50)",
        "none stated; research",
        "https://cogcomp.seas.upenn.edu/Data/QA/QC/",
        "Li and Roth, Learning Question Classifiers, 2002",
        (Form({"train": "trec/train.txt", "test": "trec/test.txt"}, format="label-first"),),
        (
            Download(
                f"{_TREC}/train_5500.label",
                "trec/train.txt",
                "sha256:9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3",
                1_000_000,
                encoding="latin-1",
            ),
            Download(
                f"{_TREC}/TREC_10.label",
                "trec/test.txt",
                "sha256:033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
                1_000_000,
                encoding="latin-1",
            ),
        ),
    ),
)

CATALOG: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def data_folders() -> list[Path]:
    """Where sets are looked for, in order: ``$GPTAILOR_DATA`` where set, ``./data``, and last the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gptailor" / "data"
    named = os.environ.get("GPTAILOR_DATA")
    return [*([Path(named).expanduser()] if named else []), Path("data"), cache]


def locate(name: str, *, folders: Sequence[Path] | None = None) -> Located:
    """Find a named set in the data folders, or download it into the last of them.

    Args:
        name: a key of ``CATALOG``.
        folders: data folders to look in, in order; None stands for ``data_folders()``.

    Raises:
        UserError: when there is no set of that name, or it can be neither found nor downloaded whole.
    """
    if name not in CATALOG:
        raise UserError(
            f"no data set is called {name!r}", expected=f"one of {listing(CATALOG)}", hint=did_you_mean(name, CATALOG)
        )
    entry, places = CATALOG[name], list(folders or data_folders())
    found = _find(entry, places)
    if found:
        return found
    for download in entry.downloads:
        if not (places[-1] / download.target).exists():
            _fetch(entry, download, places)
    found = _find(entry, places[-1:])
    assert found, f"the downloads of {name} make none of its forms"
    addresses = listing(download.address for download in entry.downloads)
    found.said.append(f"downloaded from {addresses}, checksums right; licence: {entry.licence}")
    return found


def _find(entry: Entry, folders: Sequence[Path]) -> Located | None:
    for form in entry.forms:
        for folder in folders:
            files = {part: [folder / path] for part, path in form.parts.items()}
            if all(path.exists() for paths in files.values() for path in paths):
                return Located(entry, form, files, [f"{entry.name} found in {folder}", *filter(None, [form.note])])
    return None


# --- fetching ---------------------------------------------------------------------------------------------------------


def _fetch(entry: Entry, download: Download, folders: Sequence[Path]) -> None:
    """Download to a temporary name beside the target, check, and rename: the target is there whole or not at all."""
    target = folders[-1] / download.target
    with _explained(entry, download, folders):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as scratch:
            fetched = Path(scratch) / "fetched"
            _stream(download, fetched)
            ready = _unpacked(download, fetched, Path(scratch))
            _settle(ready)
            ready.rename(target)


class _Wrong(Exception):
    """What was fetched is not what was expected."""


@contextmanager
def _explained(entry: Entry, download: Download, folders: Sequence[Path]) -> Generator[None]:
    """Turn whatever stops a download into one error that says how to do without it."""
    import httpx2

    try:
        yield
        return
    except _Wrong as error:
        why = str(error)
    except httpx2.TimeoutException:
        why = f"no answer within {TIMEOUT:g} seconds"
    except httpx2.HTTPStatusError as error:
        why = f"the server answered {error.response.status_code} {error.response.reason_phrase}"
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        why = str(error) or type(error).__name__
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, UnicodeError, RuntimeError) as error:
        # zipfile raises RuntimeError for encrypted members and unknown kinds of compression
        why = f"the archive is damaged: {error}"
    except OSError as error:
        why = f"cannot write to {error.filename or folders[-1]}: {error.strerror or error}"
    files = listing(str(folders[0] / path) for path in entry.forms[0].parts.values())
    raise UserError(
        f"{entry.name} is in none of {listing(folders)}, and could not be downloaded from {download.address}: {why}",
        expected="a connection to that address, or the data in one of these folders",
        hint=f"fetch it by another way ({entry.homepage}) and put it at {files}",
    )


def _stream(download: Download, target: Path) -> None:
    import httpx2
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    request = httpx2.stream("GET", download.address, follow_redirects=True, timeout=TIMEOUT)
    with request as response, Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        response.raise_for_status()
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdecimal() else None
        task = bar.add_task(download.address.rpartition("/")[2], total=total)
        size = 0
        with target.open("wb") as file:
            for chunk in response.iter_bytes(_CHUNK):
                size += len(chunk)
                _check_size(size, download)
                file.write(chunk)
                bar.update(task, completed=size)


def _check_size(size: int, download: Download) -> None:
    if size > download.limit:
        raise _Wrong(f"it is larger than the {download.limit:,} bytes that are expected at most")


def _check_sum(file: Path, download: Download) -> None:
    algorithm, _, wanted = download.checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != wanted:
        raise _Wrong(f"its {algorithm} is {digest.hexdigest()}, not {wanted}; nothing was kept")


def _unpacked(download: Download, fetched: Path, scratch: Path) -> Path:
    """The checked file or folder, inside ``scratch``, that is to become the target."""
    if zipfile.is_zipfile(fetched) and download.member:
        fetched = _from_zip(download, fetched, scratch / "member")
    _check_sum(fetched, download)
    if download.member and tarfile.is_tarfile(fetched):
        return _from_tar(download, fetched, scratch / "members")
    if download.encoding != "utf-8":
        fetched.write_bytes(fetched.read_bytes().decode(download.encoding).encode())
    return fetched


def _from_zip(download: Download, archive: Path, target: Path) -> Path:
    # Only the wanted name is ever opened and it is written to a name of ours, so no member can say where it goes.
    with zipfile.ZipFile(archive) as box:
        if download.member not in box.namelist():
            raise _Wrong(f"the archive has no {download.member}; it has {listing(box.namelist())}")
        with box.open(download.member) as source, target.open("wb") as file:
            _copy(source, file, download, 0)
    return target


def _from_tar(download: Download, archive: Path, target: Path) -> Path:
    """Write the regular files whose whole name fits the pattern; links, devices and other names are passed over."""
    size = 0
    with tarfile.open(archive) as box:
        for member in box:
            match = re.fullmatch(download.member, member.name)
            source = box.extractfile(member) if match and member.isreg() else None
            if match and source:
                file = target / match[1]
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as stream:
                    size = _copy(source, stream, download, size)
    if not size:
        raise _Wrong("the archive has none of the expected files")
    return target


def _copy(source: IO[bytes], target: IO[bytes], download: Download, size: int) -> int:
    """Copy, and return ``size`` plus what was copied; stops at the limit whatever the archive says of its sizes."""
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        _check_size(size, download)
        target.write(chunk)
    return size


def _settle(ready: Path) -> None:
    """Have the bytes on disk before the rename that makes them count."""
    if ready.is_dir():
        getattr(os, "sync", lambda: None)()  # once for all: fsync on each of 50,000 files takes minutes
        return
    with ready.open("rb+") as file:
        os.fsync(file.fileno())
