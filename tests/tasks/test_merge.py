"""From an adapter run to one plain folder, and several adapters on one base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.predict import load, load_adapters
from gptailor.tasks.merge import merge_command
from gptailor.tokenizer import Tokenizer
from gptailor.weights.folder import save_language_model
from tests.tiny import StopAfter, run

TEXTS = ["the soup was lovely and warm and kind", "the train was rude and loud and grim"]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def base(make_decoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer.train(["the soup was lovely and warm and kind, the train was rude and loud and grim"], 300)
    decoder = make_decoder(context_length=48)
    save_language_model(folder, decoder, tokenizer, task="base", dtype=torch.float32)
    return folder


@pytest.fixture(scope="module")
def runs(base: Path, moods: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two classifiers as adapters on one base."""
    place = tmp_path_factory.mktemp("adapters")
    how = {"base": str(base), "vocab": 1024, "layers": "lora", "rank": 2, "epochs": 1}
    return [run(moods, place / str(seed), **how, seed=seed) for seed in (1, 2)]


def test_only_what_was_trained_is_saved(runs: list[Path]) -> None:
    assert {"adapter_model.safetensors", "adapter_config.json", "config.json", "tokenizer.json"} <= {
        file.name for file in runs[0].iterdir()
    }
    assert not (runs[0] / "model.safetensors").exists()
    names = load_file(runs[0] / "adapter_model.safetensors")
    assert names and all("lora_" in name or name.endswith("score.weight") for name in names)


@pytest.mark.parametrize("save_in", ["fp32", "bf16"])
def test_the_merged_classifier_says_the_same(runs: list[Path], tmp_path: Path, save_in: str) -> None:
    merge_command(runs[0], tmp_path / "whole", None, save_in, QUIET)
    before, after = load(runs[0]).logits(TEXTS), load(tmp_path / "whole").logits(TEXTS)
    assert np.abs(after - before).max() <= {"fp32": 1e-5, "bf16": 0.05}[save_in] * max(1, np.abs(before).max())
    proof = json.loads((tmp_path / "whole" / "merge.json").read_text())
    assert proof["max_difference"] <= proof["tolerance"]
    kinds = {tensor.dtype for tensor in load_file(tmp_path / "whole" / "model.safetensors").values()}
    assert kinds == {{"fp32": torch.float32, "bf16": torch.bfloat16}[save_in]}


def test_what_cannot_be_merged(runs: list[Path], base: Path, tmp_path: Path, make_decoder) -> None:
    with pytest.raises(UserError, match="holds no adapter"):
        merge_command(base, tmp_path / "out", None, "fp32", QUIET)
    with pytest.raises(UserError, match="--save-in int8"):
        merge_command(runs[0], tmp_path / "out", None, "int8", QUIET)
    with pytest.raises(UserError, match="holds something already"):
        merge_command(runs[0], base, None, "fp32", QUIET)
    other = tmp_path / "other"
    decoder = make_decoder(seed=5, context_length=48)
    save_language_model(other, decoder, Tokenizer.load(base), task="base", dtype=torch.float32)
    with pytest.raises(UserError, match="trained on other weights"):
        merge_command(runs[0], tmp_path / "out", str(other), "fp32", QUIET)
    assert not (tmp_path / "out").exists()


def test_several_adapters_on_one_base(runs: list[Path]) -> None:
    together, alone = load_adapters(runs), [load(folder) for folder in runs]
    assert together[0].model.decoder is together[1].model.decoder
    for _ in range(2):  # there and back
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one.logits(TEXTS), other.logits(TEXTS), atol=1e-5)
    assert np.abs(together[0].logits(TEXTS) - together[1].logits(TEXTS)).max() > 0.01


def test_threads_take_turns(runs: list[Path]) -> None:
    together = load_adapters([*runs, runs[0]])
    expected = [one.logits(TEXTS) for one in together]
    with ThreadPoolExecutor(4) as pool:
        asked = [number % 3 for number in range(24)]
        for number, logits in zip(asked, pool.map(lambda n: together[n].logits(TEXTS), asked), strict=True):
            np.testing.assert_array_equal(logits, expected[number])


def test_adapters_that_cannot_share(runs: list[Path], base: Path, moods: Path, tmp_path: Path) -> None:
    how = {"base": str(base), "vocab": 1024, "layers": "lora", "rank": 2, "epochs": 1}
    norms = run(moods, tmp_path / "norms", **how, unfreeze="head,norms")
    with pytest.raises(UserError, match=r"more than adapters and a class head: .*norm"):
        load_adapters([runs[0], norms])
    config = json.loads((norms / "config.json").read_text())
    config["gptailor"]["base_sha256"] = "0" * 64
    (norms / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is no adapter on"):
        load_adapters([runs[0], norms])


def test_an_adapter_run_resumes_where_it_was(base: Path, moods: Path, tmp_path: Path) -> None:
    how = {"base": str(base), "vocab": 1024, "layers": "lora", "rank": 2, "epochs": 2, "dropout": 0.2}
    whole = run(moods, tmp_path / "whole", **how)
    stopped = run(moods, tmp_path / "stopped", stop=StopAfter(5), **how)
    run(moods, stopped, resume=True, **how)
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (whole, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_does_not_go_on_over_another_base(
    base: Path, moods: Path, tmp_path: Path, make_decoder: Callable[..., Decoder]
) -> None:
    own = shutil.copytree(base, tmp_path / "base")
    how = {"base": str(own), "vocab": 1024, "layers": "lora", "rank": 2, "epochs": 2}
    stopped = run(moods, tmp_path / "run", stop=StopAfter(5), **how)
    other = make_decoder(seed=8, context_length=48)
    save_language_model(own, other, Tokenizer.load(base), task="base", dtype=torch.float32)
    with pytest.raises(UserError, match=r"begins from has changed: .*model\.safetensors"):
        run(moods, stopped, resume=True, **how)


def test_lora_options_alone_are_a_mistake(moods: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--rank, --dora: only with --layers lora"):
        run(moods, tmp_path / "run", rank=4, dora=True)
    with pytest.raises(UserError, match="--layers lora with --base random"):
        run(moods, tmp_path / "run", layers="lora")
    assert not (tmp_path / "run").exists()
