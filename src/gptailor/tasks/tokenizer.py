"""``gptailor tokenizer train``: text files to a tokenizer folder."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from rich.console import Console

from gptailor.data.documents import DocumentReceipt
from gptailor.errors import UserError
from gptailor.show import show_dropped, show_note, visible
from gptailor.tasks.corpus import beginning, parse_sources
from gptailor.tasks.run import RunFolder
from gptailor.tokenizer import Tokenizer


def tokenizer_command(files: list[Path], out: Path, vocab: int, key: str, console: Console) -> None:
    """Trains a tokenizer on the beginning of each file and writes it to a new folder.

    Raises:
        UserError: when a file cannot be read, or the folder holds something.
    """
    RunFolder(out, resume=False)  # refuses a folder that is in use
    sources, receipt = parse_sources([str(file) for file in files]), DocumentReceipt()
    if any(source.weight != 1 for source in sources):
        raise UserError("FILE@WEIGHT for a tokenizer", expected="FILE: of each file, the same part is read")
    with console.status("training a tokenizer"):
        trained = Tokenizer.train(
            chain.from_iterable(beginning(source.path, key, receipt) for source in sources), vocab
        )
    out.mkdir(parents=True, exist_ok=True)
    trained.save(out, context_length=1024)
    for file in receipt.to_dict()["files"]:
        show_dropped(console, file)
    console.print(f"{trained.vocab_size:,} tokens -> {visible(str(out))}", highlight=False)
    if trained.vocab_size < vocab:
        show_note(console, f"the texts give no more than {trained.vocab_size:,} tokens; {vocab:,} were asked for")
