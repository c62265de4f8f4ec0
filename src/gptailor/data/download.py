"""Fetch one file of a public data set, check it, and put it in its place: whole, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gptailor.errors import listing

TIMEOUT = 20.0  # seconds without a byte after which a download is given up
SLOWEST = 1000  # bytes a second: a server that sends a byte now and then would hold a run for weeks
_CHUNK = 1 << 20


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


class DownloadError(Exception):
    """Why a download did not succeed, in words that can follow a colon; what was fetched is not kept."""


def fetch(download: Download, folder: Path) -> None:
    """Put a download at its target in a data folder.

    It is fetched and unpacked beside the target under a temporary name, checked, and renamed.

    Raises:
        DownloadError: when it cannot be fetched or written, or is not what was expected.
    """
    target = folder / download.target
    with _explained(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as scratch:
            fetched = Path(scratch) / "fetched"
            _stream(download, fetched)
            ready = _unpacked(download, fetched, Path(scratch))
            _settle(ready)
            ready.rename(target)


@contextmanager
def _explained(folder: Path) -> Generator[None]:
    """Turn whatever stops a download into ``DownloadError``."""
    import httpx2

    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise DownloadError(f"the server cannot be reached: {error}") from error
    except httpx2.TimeoutException as error:
        raise DownloadError(f"the server sent nothing for {TIMEOUT:g} seconds; nothing was kept") from error
    except (httpx2.ReadError, httpx2.RemoteProtocolError) as error:
        raise DownloadError(f"the connection broke off: {error}; nothing was kept") from error
    except httpx2.HTTPStatusError as error:
        answer = f"{error.response.status_code} {error.response.reason_phrase}"
        raise DownloadError(f"the server answered {answer}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DownloadError(str(error) or type(error).__name__) from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, UnicodeError, RuntimeError) as error:
        # zipfile raises RuntimeError for encrypted members and unknown kinds of compression
        raise DownloadError(f"the archive is damaged: {error}") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # zipfile went to where the archive says that a member begins
            raise DownloadError(f"the archive is damaged: {error}") from error
        raise DownloadError(f"cannot write to {error.filename or folder}: {error.strerror or error}") from error


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
        task = bar.add_task(Path(download.address).name, total=int(length) if length.isdecimal() else None)
        size, begun = 0, time.monotonic()
        with target.open("wb") as file:
            for chunk in response.iter_bytes():
                size += len(chunk)
                _check_size(size, download)
                if time.monotonic() - begun > TIMEOUT + size / SLOWEST:
                    raise DownloadError(f"it comes at less than {SLOWEST:,} bytes a second; nothing was kept")
                file.write(chunk)
                bar.update(task, completed=size)


def _check_size(size: int, download: Download) -> None:
    if size > download.limit:
        raise DownloadError(f"it is larger than the {download.limit:,} bytes that are expected at most")


def _check_sum(file: Path, download: Download) -> None:
    algorithm, _, wanted = download.checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != wanted:
        raise DownloadError(f"its {algorithm} is {digest.hexdigest()}, not {wanted}; nothing was kept")


# --- archives ---------------------------------------------------------------------------------------------------------


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
            raise DownloadError(f"the archive has no {download.member}; it has {listing(box.namelist())}")
        packed = box.getinfo(download.member).compress_type
        if packed not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may ask for gigabytes to unpack a byte
            raise DownloadError(f"the archive packs {download.member} in a way that is not read (number {packed})")
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
        raise DownloadError("the archive has none of the expected files")
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
