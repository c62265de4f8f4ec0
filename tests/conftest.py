"""What several test files need."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gptailor.model.config import ModelConfig
from gptailor.model.decoder import Decoder
from tests.tiny import BAD, GOOD, run, save_assistant, sentence

torch.set_num_threads(1)  # tiny tensors gain nothing from more, and parallel workers lose
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("GPTAILOR_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("the real data sets are not here (set GPTAILOR_DATA to their folder)")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, where one can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes more rights")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def make_decoder() -> Callable[..., Decoder]:
    """Tiny decoders in which every tensor matters: nothing is zero, one or small, and logits spread over units."""

    def make(seed: int = 0, **numbers: float) -> Decoder:
        shape = {"n_layer": 3, "n_head": 4, "n_embd": 32, "vocab_size": 300, "context_length": 24} | numbers
        decoder = Decoder(ModelConfig(**shape))
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in decoder.named_parameters():
                middle = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(middle + 0.3 * torch.randn(parameter.shape, generator=random))
        return decoder.eval()

    return make


@pytest.fixture(scope="session")
def moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 different texts in two labels, with a header."""
    rng = random.Random(5)
    file = tmp_path_factory.mktemp("moods") / "moods.csv"
    rows = {sentence(words, rng): label for _ in range(80) for label, words in (("good", GOOD), ("bad", BAD))}
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([("text", "label"), *list(rows.items())[:120]])
    return file


@pytest.fixture(scope="session")
def files(
    moods: Path, make_decoder: Callable[..., Decoder], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Data for each task, of the same texts: with labels, as questions, with a worse answer too, alone; and a model."""
    folder = tmp_path_factory.mktemp("files")
    with moods.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    asked = [{"instruction": "Good or bad?", "input": row["text"], "output": f"it was {row['label']}"} for row in rows]
    pairs = [{**row, "chosen": row["output"], "rejected": "that is hard to say"} for row in asked]
    (folder / "assistant.json").write_text(json.dumps(asked))
    (folder / "preferences.json").write_text(json.dumps(pairs))
    (folder / "base.jsonl").write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows * 3))
    written = {file.stem: file for file in folder.iterdir()}
    return {**written, "classifier": moods, "model": save_assistant(folder / "model", make_decoder, "plain")}


@pytest.fixture(scope="session")
def trained(moods: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    return run(moods, tmp_path_factory.mktemp("trained") / "run")
