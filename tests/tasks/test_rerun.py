"""What a folder holds is enough to repeat its run; a difference is found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from gptailor.config import AssistantConfig, load_config
from gptailor.errors import UserError
from gptailor.tasks.assistant import run_assistant
from gptailor.tasks.rerun import compare, rerun_command
from gptailor.train.loop import StopRequest
from tests.tiny import GOOD, run

SMALL = "random:n_layer=1,n_head=2,n_embd=16,context_length=64"


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


def test_an_assistant_is_the_same_once_more(tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {word} {n}.", "output": f"{word} {n}"} for word in GOOD for n in range(5)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    given = {"data": str(tmp_path / "rows.json"), "out": str(tmp_path / "run"), "base": SMALL, "vocab": 300}
    given |= {"template": "plain", "epochs": 1, "max_new_tokens": 4}
    config = load_config(AssistantConfig, None, given)
    whole = run_assistant(config, resume=False, console=Console(quiet=True), stop=StopRequest())
    code, said = told(whole, tmp_path / "again")
    assert code == 0 and "the same" in said


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
