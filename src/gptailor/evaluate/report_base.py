"""What the page of a base model says: its loss against models that count, its sources, how its samples developed."""

from __future__ import annotations

from typing import Any

from gptailor.evaluate import charts
from gptailor.evaluate.format import number, percent
from gptailor.evaluate.run import Run
from gptailor.evaluate.verdict import Verdict

SAMPLES = 12  # of all evaluations, evenly spread, that the page shows


def base_page(run: Run) -> dict[str, Any]:
    """What the page of a base model is given."""
    return {
        "models": models(run.metrics),
        "verdict": verdict(run.metrics),
        "curves": _curves(run),
        "samples": _samples(run),
        "sources": sources(run),
        "speed": _speed(run),
    }


def models(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The model and those that only count, with loss, perplexity and bits per byte; the best n-gram model first."""
    if "bits_per_byte" not in metrics:
        return []
    counting = [{"name": f"{name} model", **figures} for name, figures in (metrics.get("baselines") or {}).items()]
    rows: list[dict[str, Any]] = [
        {"name": "this model", **metrics},
        *sorted(counting, key=lambda row: row["bits_per_byte"]),
    ]
    most = max(row["bits_per_byte"] for row in rows)
    return [{**row, "share": row["bits_per_byte"] / most} for row in rows]


def verdict(metrics: dict[str, Any]) -> Verdict:
    """Whether the model foretells the held-out text better than the best of those that only count."""
    rows = models(metrics)
    if len(rows) < 2:
        return Verdict("unknown", "")
    model, rival = rows[:2]
    apart = percent(abs(1 - model["bits_per_byte"] / rival["bits_per_byte"]))
    figures = f"{number(model['bits_per_byte'])} against {number(rival['bits_per_byte'])} bits per byte"
    against = f"bits than the {rival['name']} of the same text ({figures})"
    if model["bits_per_byte"] < rival["bits_per_byte"]:
        return Verdict("better", f"It foretells held-out text with {apart} fewer {against}.")
    return Verdict("worse", f"It needs {apart} more {against}: a table of counts wins here.")


def sources(run: Run) -> list[dict[str, Any]]:
    """Each file with its counts, and the tokens that were read from it so far (rows take turns evenly)."""
    entries = run.receipt.get("sources") or []
    planned = sum(each["passes"] * each["train"]["tokens"] for each in entries)
    done = (run.metrics.get("tokens_seen") or 0) / max(1, planned)
    return [
        {
            **each["files"][0],
            **{key: each[key] for key in ("weight", "train", "held_out")},
            "passes": done * each["passes"],
            "read": round(done * each["passes"] * each["train"]["tokens"]),
        }
        for each in entries
    ]


def _samples(run: Run) -> list[dict[str, Any]]:
    """How a text was continued at evaluations spread over the run, the first and the last among them."""
    losses = {line["step"]: line["validation_loss"] for line in run.history if line.get("kind") == "evaluate"}
    rows = [{**row, "loss": losses.get(row.get("step"))} for row in run.rows("samples.json")]
    if len(rows) <= SAMPLES:
        return rows
    return [rows[round(place * (len(rows) - 1) / (SAMPLES - 1))] for place in range(SAMPLES)]


def _curves(run: Run) -> list[tuple[str, str]]:
    steps = [line for line in run.history if line.get("step") and line.get("examples")]
    course = charts.Course(steps[-1]["examples"] / steps[-1]["step"] if steps else 1.0, "steps", "tokens learned")
    levels = {row["name"]: row["validation_loss"] for row in models(run.metrics)[1:]}
    curves = {
        "Loss, nats per token": charts.learning_curve(run.history, "loss", run.kept_step, course, levels),
        "Learning rate": charts.rate_curve(run.history, course),
    }
    return [(title, curve) for title, curve in curves.items() if curve]


def _speed(run: Run) -> float | None:
    """Tokens read in a second of training."""
    seconds = (run.manifest.get("timings") or {}).get("train")
    return run.metrics.get("tokens_seen", 0) / seconds if seconds else None
