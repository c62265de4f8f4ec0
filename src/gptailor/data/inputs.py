"""What the user names as data, to tables by part."""

from __future__ import annotations

from pathlib import Path

from gptailor.config import TableConfig, user_path
from gptailor.data.catalog import CATALOG, Form, locate
from gptailor.data.receipt import Receipt
from gptailor.data.sources import find_parts, read_table
from gptailor.data.table import Table
from gptailor.errors import UserError, did_you_mean

SWITCH = {"auto": None, "yes": True, "no": False}


def read_parts(config: TableConfig, receipt: Receipt) -> tuple[dict[str, list[Table]], Form]:
    """Reads the data and the separate validation and test files, each entered in the receipt.

    Returns:
        Tables by part: ``{"data": [...]}``, or ``train`` with ``validation`` or ``test`` or both. And how a catalogue
        set is to be read, which says nothing for the user's own files.

    Raises:
        UserError: when something cannot be found or read.
    """
    files, form = _find(config.data, receipt)
    for part, path in {"validation": config.validation, "test": config.test}.items():
        if path is not None:
            if part in files:
                raise UserError(f"--{part} {path}, but {config.data} has its own {part} file", expected="one of them")
            files["train"] = files.pop("data", files.get("train", []))
            files[part] = _one_part(part, path)
    if not files.get("data", files.get("train")):
        raise UserError(f"{config.data} has no file to train on, only {', '.join(files)}", hint="name one file itself")
    return {part: [_read(path, part, config, form, receipt) for path in paths] for part, paths in files.items()}, form


def _one_part(part: str, path: str) -> list[Path]:
    """The file, or folder of label folders, that the user names as one part."""
    found = find_parts(user_path(path)).files
    if "data" not in found:
        raise UserError(f"--{part} {path} is a folder with files for {', '.join(found)}", expected="one file")
    return found["data"]


def _find(data: str, receipt: Receipt) -> tuple[dict[str, list[Path]], Form]:
    own = Form({}, text="", label="")
    if data in CATALOG and not Path(data).exists():
        located, entry = locate(data), CATALOG[data]
        receipt.warn(f"{data}: {entry.description}; {entry.citation}; licence: {entry.licence}")
        for sentence in [located.form.note, *located.said]:
            if sentence:
                receipt.warn(f"{data}: {sentence}")
        return dict(located.files), located.form
    path = user_path(data)
    if not path.exists() and "/" not in data and "." not in data:
        hint = did_you_mean(data, CATALOG)
        raise UserError(f"no file or folder {data}", expected=f"a path, or one of {', '.join(CATALOG)}", hint=hint)
    found = find_parts(path)
    for other in found.ignored:
        receipt.warn(f"{other.name} in the data folder is not used")
    return dict(found.files), own


def _read(path: Path, part: str, config: TableConfig, form: Form, receipt: Receipt) -> Table:
    header, quoting = SWITCH[config.header], SWITCH[config.quoting]
    table = read_table(
        path,
        format=form.format if config.format == "auto" else config.format,
        encoding=config.encoding,
        delimiter=config.delimiter,
        header=form.header if header is None else header,
        quoting=form.quoting if quoting is None else quoting,
    )
    receipt.add_file(part, table)
    return table
