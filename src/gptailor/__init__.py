"""Tailor a small open language model to your own task: from a data file to an evaluated model folder.

The public names are imported when they are first used, so that importing the package, and with it every command's
``--help``, costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptailor.errors import UserError
    from gptailor.estimator import GPTailorClassifier
    from gptailor.predict import TextClassifier, load, load_adapters
    from gptailor.tasks.assistant import train_assistant
    from gptailor.tasks.classifier import train_classifier
    from gptailor.tasks.judge import judge
    from gptailor.tasks.preferences import train_preferences

__all__ = [
    "GPTailorClassifier",
    "TextClassifier",
    "UserError",
    "judge",
    "load",
    "load_adapters",
    "train_assistant",
    "train_classifier",
    "train_preferences",
]
__version__ = "0.1.0"

# torch, once it is imported, asks for large pages: to be given memory in small ones takes a quarter of a training step.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_HOMES = {
    "GPTailorClassifier": "gptailor.estimator",
    "TextClassifier": "gptailor.predict",
    "UserError": "gptailor.errors",
    "judge": "gptailor.tasks.judge",
    "load": "gptailor.predict",
    "load_adapters": "gptailor.predict",
    "train_assistant": "gptailor.tasks.assistant",
    "train_classifier": "gptailor.tasks.classifier",
    "train_preferences": "gptailor.tasks.preferences",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gptailor' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
