"""One contestant doing one piece of work in a process of its own; ``run.py`` starts it and measures from outside."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from work import Skip, Work


def main(peer: str, work: str, folder: str, precision: str, options: str) -> None:
    """Prints what the contestant measured itself, or why it does not take part, as one JSON line."""
    contestant = getattr(importlib.import_module(f"peers.{peer}"), work)
    try:
        told = contestant(Work.load(Path(folder)), precision, **json.loads(options))
    except Skip as reason:
        told = {"skipped": str(reason)}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
