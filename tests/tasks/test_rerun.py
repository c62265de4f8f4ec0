"""What a folder holds is enough to repeat its run; a difference is found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from gptailor.config import TASKS, load_config
from gptailor.errors import UserError
from gptailor.tasks.rerun import RUNS, SAID, compare, rerun_command
from gptailor.train.loop import StopRequest
from tests.tiny import run

SMALL = {"base": "random:n_layer=1,n_head=2,n_embd=16,context_length=64", "vocab": 400}
ANSWERED = {"template": "plain", "epochs": 1, "max_new_tokens": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "assistant": SMALL | ANSWERED,
    "assistant-lora": ANSWERED | {"layers": "lora", "rank": 2, "dropout": 0.1},
    "preferences": ANSWERED,
    "base": SMALL | {"tokens": 2000, "held_out": 0.1, "precision": "fp32"},
}


def told(folder: Path, out: Path) -> tuple[int, str]:
    console = Console(width=200, force_terminal=False, record=True, quiet=False, file=(out.parent / "told").open("w"))
    code = rerun_command(folder, out, console)
    return code, console.export_text()


def test_a_classifier_is_the_same_once_more(trained: Path, tmp_path: Path) -> None:
    code, said = told(trained, tmp_path / "again")
    assert code == 0 and "the same: weights bit for bit" in said and "differs" not in said


def test_several_seeds_are_all_compared(moods: Path, tmp_path: Path) -> None:
    whole = run(moods, tmp_path / "run", seeds=2, epochs=1)
    code, said = told(whole, tmp_path / "again")
    assert code == 0 and "the same" in said
    (tmp_path / "again" / "seeds" / "124" / "predictions.csv").write_text("other")
    assert compare(whole, tmp_path / "again") == ["seed 124: predictions.csv"]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_of_each_task_is_the_same_once_more_or_told(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    task = name.removesuffix("-lora")
    data, base = str(files[task]), str(files["model"])
    given = {"data": [data] if task == "base" else data, "base": base, "out": str(tmp_path / "run"), **OPTIONS[name]}
    config = load_config(TASKS[task], None, given)
    whole = RUNS[task](config, resume=False, console=Console(quiet=True), stop=StopRequest())
    code, said = told(whole, tmp_path / "again")
    assert code == 0 and "the same: weights bit for bit" in said and "differs" not in said

    (weights,) = whole.glob("*.safetensors")
    tensors = load_file(weights)
    changed = min(tensors)
    tensors[changed].view(-1)[0] += 0.5
    save_file(tensors, weights, metadata={"format": "pt"})
    (answers,) = (whole / name for name in SAID if (whole / name).exists())
    answers.write_text("other")
    differing = f"weights: 1 of {len(tensors)} tensors; the largest difference is 0.5 ({changed})"
    assert compare(whole, tmp_path / "again") == [differing, answers.name]


@pytest.fixture
def changed(trained: Path, tmp_path: Path) -> Path:
    """A copy of a run, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "changed"))


def test_weights_that_were_changed_are_told_with_the_difference(changed: Path, tmp_path: Path) -> None:
    tensors = load_file(changed / "model.safetensors")
    tensors["score.weight"][0, 0] += 0.5
    save_file(tensors, changed / "model.safetensors", metadata={"format": "pt"})
    code, said = told(changed, tmp_path / "again")
    assert code == 1 and "differs: weights: 1 of" in said and "largest difference is 0.5 (score.weight)" in said


def test_with_other_versions_a_difference_is_no_fault(changed: Path, tmp_path: Path) -> None:
    manifest = json.loads((changed / "manifest.json").read_text())
    manifest["versions"]["torch"] = "1.0"
    (changed / "manifest.json").write_text(json.dumps(manifest))
    metrics = json.loads((changed / "metrics.json").read_text())
    metrics["test"]["accuracy"] = 0.25
    (changed / "metrics.json").write_text(json.dumps(metrics))
    code, said = told(changed, tmp_path / "again")
    assert code == 0 and f"torch is {torch.__version__} and was 1.0" in said
    assert "differs: metrics: test.accuracy was 0.25" in said and "to be expected" in said


def test_each_kind_of_difference_has_its_sentence(trained: Path, changed: Path) -> None:
    assert compare(trained, changed) == []
    lines = (changed / "history.jsonl").read_text().splitlines()
    (changed / "history.jsonl").write_text("\n".join([lines[0].replace('"step"', '"stop"'), *lines[1:]]))
    tensors = load_file(changed / "model.safetensors")
    tensors["other.weight"] = tensors.pop("score.weight").clone()
    tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"].half()
    save_file(tensors, changed / "model.safetensors")
    names, kind, history = compare(trained, changed)
    assert names == "the tensors have other names: other.weight, score.weight"
    assert kind == "transformer.ln_f.bias was (16,) in torch.float32 and is (16,) in torch.float16"
    assert history == "history: from line 1 on"


def test_data_that_changed_or_is_gone_is_refused_before_anything_is_trained(changed: Path, tmp_path: Path) -> None:
    manifest = json.loads((changed / "manifest.json").read_text())
    (other := tmp_path / "other.csv").write_text("text,label\n")
    manifest["inputs"] += [{"path": str(other), "sha256": "0" * 64}, {"path": str(tmp_path / "no"), "sha256": "1" * 64}]
    (changed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"(?s)2 problems.*other.csv has changed.*no is gone"):
        told(changed, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_is_no_finished_run_is_refused(changed: Path, tmp_path: Path) -> None:
    (changed / "README.md").unlink()
    with pytest.raises(UserError, match="not finished"):
        told(changed, tmp_path / "again")
    (changed / "README.md").touch()
    (changed / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="no run that can be repeated"):
        told(changed, tmp_path / "again")
    with pytest.raises(UserError, match="holds no run"):
        told(tmp_path, tmp_path / "again")
