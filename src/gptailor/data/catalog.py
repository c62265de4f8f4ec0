"""The named public data sets: where each lies, its licence and checksum, and how its files are read.

A set is looked for in the local data folders first and downloaded only when it is in none of them. What is downloaded
lies in the same layout, so the cache is one more data folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gptailor.data.download import Download, DownloadError, fetch
from gptailor.errors import UserError, did_you_mean, listing


@dataclass(frozen=True)
class Form:
    """One way in which a set lies in a data folder.

    Args:
        parts: part (``"data"``, or ``"train"`` and ``"test"``) to a path inside the data folder.
        text: the column, or several that are joined, separated by commas.
        label: the column.
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


# --- the sets ---------------------------------------------------------------------------------------------------------

SMS_SPAM = Entry(
    name="sms-spam",
    description="5,574 text messages in English, ham or spam",
    licence="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/228/sms+spam+collection",
    citation="Almeida and Hidalgo, SMS Spam Collection v.1, 2011",
    forms=(
        Form({"data": "sms_spam/SMSSpamCollection"}, text="column_2", label="column_1", format="tsv", header=False),
    ),
    downloads=(
        Download(
            "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
            target="sms_spam/SMSSpamCollection",
            checksum="sha256:7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
            limit=1_000_000,
            member="SMSSpamCollection",
        ),
    ),
)

_AG_NEWS_CSV = Form(
    {"train": "ag_news/train.csv", "test": "ag_news/test.csv"},
    text="column_2,column_3",  # title and description
    label="column_1",
    format="csv",
    header=False,
)
_AG_NEWS_TEST = replace(
    _AG_NEWS_CSV,
    parts={"data": "ag_news/test.csv"},
    note="train.csv is not there, so the 7,600 rows of test.csv are all the data",
)
AG_NEWS = Entry(
    name="ag-news",
    description="127,600 news items in four topics: 1 World, 2 Sports, 3 Business, 4 Sci/Tech",
    licence="non-commercial use and research",
    homepage="http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html",
    citation="Zhang, Zhao and LeCun, Character-level Convolutional Networks for Text Classification, 2015",
    forms=(_AG_NEWS_CSV, _AG_NEWS_TEST),
    downloads=(
        Download(
            "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/train.csv",
            target="ag_news/train.csv",
            checksum="md5:b1a00f826fdfbd249f79597b59e1dc12",
            limit=40_000_000,
        ),
        Download(
            "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/test.csv",
            target="ag_news/test.csv",
            checksum="md5:d52ea96a97a2d943681189a97654912d",
            limit=4_000_000,
        ),
    ),
)

IMDB = Entry(
    name="imdb",
    description="50,000 film reviews in English, pos or neg, half of them for testing",
    licence="none stated; research",
    homepage="https://ai.stanford.edu/~amaas/data/sentiment/",
    citation="Maas et al., Learning Word Vectors for Sentiment Analysis, 2011",
    forms=(
        Form({"train": "imdb/train.jsonl.xz", "test": "imdb/test.jsonl.xz"}),
        Form({"train": "imdb/aclImdb/train", "test": "imdb/aclImdb/test"}),
        Form({"train": "aclImdb/train", "test": "aclImdb/test"}),
    ),
    downloads=(
        Download(
            "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
            target="imdb/aclImdb",
            checksum="md5:7c2ac02c03563afcf9b574c7e56c153a",
            limit=200_000_000,
            member=r"aclImdb/((?:train|test)/(?:pos|neg)/\w+\.txt)",
        ),
    ),
)

_BANKING77 = (
    "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b"
    "/banking_data"
)
BANKING77 = Entry(
    name="banking77",
    description="13,083 questions to a bank in English, 77 intents",
    licence="CC BY 4.0",
    homepage="https://github.com/PolyAI-LDN/task-specific-datasets",
    citation="Casanueva et al., Efficient Intent Detection with Dual Sentence Encoders, 2020",
    forms=(
        Form(
            {"train": "banking77/train.csv", "test": "banking77/test.csv"},
            label="category",
            format="csv",
            header=True,
        ),
    ),
    downloads=(
        Download(
            f"{_BANKING77}/train.csv",
            target="banking77/train.csv",
            checksum="sha256:b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
            limit=2_000_000,
        ),
        Download(
            f"{_BANKING77}/test.csv",
            target="banking77/test.csv",
            checksum="sha256:d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
            limit=1_000_000,
        ),
    ),
)

TREC = Entry(
    name="trec",
    description="5,952 questions in English, 6 kinds of answer (column fine: 50)",
    licence="none stated; research",
    homepage="https://cogcomp.seas.upenn.edu/Data/QA/QC/",
    citation="Li and Roth, Learning Question Classifiers, 2002",
    forms=(Form({"train": "trec/train.txt", "test": "trec/test.txt"}, format="label-first"),),
    downloads=(
        Download(
            "https://cogcomp.seas.upenn.edu/Data/QA/QC/train_5500.label",
            target="trec/train.txt",
            checksum="sha256:9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3",
            limit=1_000_000,
            encoding="latin-1",
        ),
        Download(
            "https://cogcomp.seas.upenn.edu/Data/QA/QC/TREC_10.label",
            target="trec/test.txt",
            checksum="sha256:033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
            limit=1_000_000,
            encoding="latin-1",
        ),
    ),
)

CATALOG: dict[str, Entry] = {entry.name: entry for entry in (SMS_SPAM, AG_NEWS, IMDB, BANKING77, TREC)}


# --- where they are ---------------------------------------------------------------------------------------------------


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
    _download(entry, places)
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
                return Located(entry, form, files, [f"found in {folder}", *filter(None, [form.note])])
    return None


def _download(entry: Entry, folders: Sequence[Path]) -> None:
    """Fetch what is not in the last folder; the error says how to do without the download."""
    for download in entry.downloads:
        try:
            if not (folders[-1] / download.target).exists():
                fetch(download, folders[-1])
        except DownloadError as error:
            files = listing(str(folders[0] / path) for path in entry.forms[0].parts.values())
            raise UserError(
                f"{entry.name} is in none of {listing(folders)}, and could not be downloaded from {download.address}: "
                f"{error}",
                expected="a connection to that address, or the data in one of these folders",
                hint=f"fetch it by another way ({entry.homepage}) and put it at {files}",
            ) from error
