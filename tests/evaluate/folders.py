"""Folders of language models as a run leaves them, with texts that mean harm and figures that come from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptailor.evaluate.answers import reference_differences, reference_metrics

HOSTILE = [
    "<script>alert(1)</script><img src=https://evil.example/x.png onerror=alert(1)>",
    "سلام، غذا خیلی دیر رسید و سرد بود؛ لطفاً پیگیری کنید.",
    "</div></li></ol></section><style>body{display:none}</style>",
    "{{ 7 * 7 }} | ``` {% raw %} \" onclick='alert(1)'",
    "a" * 900,
    "Sorry, I'll call later in the meeting. " * 30,
    "",
]
SHA = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"


def write_assistant_folder(folder: Path, n: int = 30, *, finished: bool = True) -> Path:
    """Writes the run of an assistant that has ``n`` test records: the model is right in every third one."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(number) for number in range(n)]
    metrics: dict[str, Any] = {"task": "assistant", "finished": finished}
    metrics["kept"] = {"which": "best", "epoch": 2, "step": 30}
    if finished:
        references, tuned, base = ([row[key] for row in rows] for key in ("output", "model_response", "base_response"))
        metrics["test"] = {"loss": 2.1, "perplexity": 8.166, "answers": reference_metrics(references, tuned)}
        metrics["base"] = {"loss": 4.6, "perplexity": 99.48, "answers": reference_metrics(references, base)}
        metrics["difference"] = reference_differences(references, tuned, base)
        _write(folder, "responses.json", rows)
    _write(folder, "metrics.json", metrics)
    _write(folder, "receipt.json", _instruction_receipt(n))
    _write_rest(folder, "data: /data/<u>records.json\n# what is learned\nlearn: response")
    return folder


def _row(number: int) -> dict[str, Any]:
    reference = f"the answer number {number} is {HOSTILE[0] if number % 5 == 0 else 'plain'}"
    wrong = HOSTILE[number % len(HOSTILE)]
    row = {"instruction": f"{HOSTILE[2]} #{number}", "input": HOSTILE[number % 3] if number % 2 else ""}
    row |= {"output": reference, "model_response": reference if number % 3 == 0 else wrong, "base_response": wrong}
    return row | ({"history": [{"role": "user", "content": HOSTILE[0]}]} if number == 1 else {})


def _instruction_receipt(n: int) -> dict[str, Any]:
    parts = {"train": 8 * n, "validation": n, "test": n}
    return {
        "files": [_file("data") | {"rows": 10 * n + 3, "part": "data"}],
        "rows": {"read": 10 * n + 3, "kept": 10 * n, "dropped": 3, "cut": 2},
        "dropped": [
            {"reason": "has an empty output", "count": 2, "lines": ["<u>records.json:7", "<u>records.json:9"]},
            {"reason": "repeats an earlier record", "count": 1, "lines": ["<u>records.json:75"]},
        ],
        "cut": {"count": 2, "limit": 512, "lines": ["<u>records.json:3", "<u>records.json:4"]},
        "shared": {"validation": {"n": n, "in_train": 0}, "test": {"n": n, "in_train": 4}},
        "lengths": {
            "mean": 60.0,
            "median": 58.0,
            "p95": 90.0,
            "max": 98,
            "edges": [0.0, 50.0, 100.0],
            "counts": [9, n],
        },
        "warnings": ["<b>4 of 30 test questions</b> stand word for word in the training part"],
        "shapes": [
            {"path": "x", "shape": "prompts with answers", "columns": ["<u>prompt</u>"], "unused": ["<u>note</u>"]}
        ],
        "parts": parts,
        "empty_outputs": {"count": 2, "lines": ["<u>records.json:7", "<u>records.json:9"]},
        "unanswered": {"count": 1, "lines": ["<u>records.json:11"]},
        "prompts_over": 0,
        "responses_cut": 1,
        "turns_cut": 1,
        "tokens": {
            part: {"records": count, "targets": 60 * count, "learned": 15 * count, "learned_share": 0.25}
            for part, count in parts.items()
        },
    }


def write_base_folder(folder: Path, *, finished: bool = True, bits: float = 1.5) -> Path:
    """Writes the run of a base model with ``bits`` per byte; the 5-gram model has 2."""
    folder.mkdir(parents=True, exist_ok=True)

    def figures(bits: float) -> dict[str, float]:
        return {"validation_loss": 2 * bits, "perplexity": 2.718281828 ** (2 * bits), "bits_per_byte": bits}

    metrics = {
        "task": "base",
        "finished": finished,
        "kept": {"which": "best", "epoch": 1, "step": 30},
        **figures(bits),
        "baselines": {"unigram": figures(3.5), "5-gram": figures(2.0)},
        "held_out": {"documents": 12, "tokens": 3456, "bytes": 10_020},
        "tokens_seen": 40_000,
    }
    _write(folder, "metrics.json", metrics)
    names = {"<u>one.jsonl": (2.0, 6.0, 1000), "two.txt": (1.0, 3.0, 2000)}
    sources = [
        {
            "files": [_file(name)],
            "weight": weight,
            "passes": passes,
            "train": {"documents": 9, "tokens": tokens, "bytes": 3 * tokens},
            "held_out": {"documents": 6, "tokens": 1728, "bytes": 5010},
        }
        for name, (weight, passes, tokens) in names.items()
    ]
    _write(folder, "receipt.json", {"files": [], "sources": sources})
    _write(folder, "samples.json", [{"step": step, "text": f"The {HOSTILE[step % 4]} {step}"} for step in range(31)])
    _write_rest(folder, 'data:\n- /data/<u>one.jsonl@2\n- /data/two.txt@1\n# a text\nsample: "The <u>"')
    return folder


def _file(name: str) -> dict[str, Any]:
    dropped = [{"reason": "not valid <b>JSON</b>", "count": 1, "lines": [f"/data/{name}:9"]}]
    counts = {"documents": 15, "text_bytes": 9000, "tokens": 2728, "dropped": dropped, "said": ["a <b>mark</b>"]}
    return {"path": f"/data/{name}", "sha256": SHA, "bytes": 4711, "format": "jsonl", **counts}


def _write_rest(folder: Path, settings: str) -> None:
    lines = []
    for step in range(1, 31):
        where = {"step": step, "epoch": 1 + step // 16, "examples": 90 * step}
        lines.append({"kind": "train", **where, "loss": 3 + 2 / step, "accuracy": 0.3, "lr": 3e-4 / step})
        if step % 10 == 0:
            lines.append({"kind": "evaluate", **where, "validation_loss": 3.5 + 1 / step})
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "run.yaml").write_text(f"# --- Data ---\n# the <b>files</b>\n{settings}\n", encoding="utf-8")
    manifest = {
        "command": "gptailor train <b>this</b>",
        "seed": 123,
        "versions": {"gptailor": "0.1.0", "torch": "2.13.0"},
        "device": "cpu",
        "git_commit": None,
        "started": "2026-01-01T10:00:00+00:00",
        "timings": {"data": 0.5, "base answers": 4.0, "train": 20.0, "answers": 5.0, "total": 29.5},
        "model": {"base": "random:<b>tiny</b>", "parameters": 437_120, "trainable": 437_120},
    }
    _write(folder, "manifest.json", manifest)


def _write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
