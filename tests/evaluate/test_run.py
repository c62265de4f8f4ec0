"""The record of a run, read from its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gptailor.evaluate.run import read_run

MakeFolder = Callable[..., Path]


def test_settings_keep_their_groups_and_descriptions(model_folder: MakeFolder) -> None:
    groups = dict(read_run(model_folder()).setting_groups)
    assert list(groups) == ["Data", "Model", "Training"]
    assert ("lr", 0.001, "peak learning rate of AdamW [default: by base]") in groups["Training"]
