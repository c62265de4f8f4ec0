"""``gptailor tokenizer train``: text files to a tokenizer folder."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from rich.console import Console

from gptailor.show import visible
from gptailor.tasks.corpus import beginning, parse_sources
from gptailor.tasks.run import RunFolder
from gptailor.tokenizer import Tokenizer


def tokenizer_command(files: list[Path], out: Path, vocab: int, key: str, console: Console) -> None:
    """Trains a tokenizer on the beginning of each file and writes it to a new folder.

    Raises:
        UserError: when a file cannot be read, or the folder holds something.
    """
    RunFolder(out, resume=False)  # refuses a folder that is in use
    sources = parse_sources([str(file) for file in files])
    with console.status("training a tokenizer"):
        trained = Tokenizer.train(chain.from_iterable(beginning(source.path, key) for source in sources), vocab)
    out.mkdir(parents=True, exist_ok=True)
    trained.save(out, context_length=1024)
    console.print(f"{trained.vocab_size:,} tokens -> {visible(str(out))}", highlight=False)
