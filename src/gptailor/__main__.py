"""``python -m gptailor``."""

from gptailor.cli import main

main()
