"""What the page of an assistant says: its answers against those of its base, figures, curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gptailor.evaluate import charts
from gptailor.evaluate.answers import reference_scores
from gptailor.evaluate.dots import Dots, dot
from gptailor.evaluate.format import SMALL, number, p_value, signed
from gptailor.evaluate.run import Run
from gptailor.evaluate.verdict import SIGNIFICANT, Verdict

ANSWERS = 200  # records that the page holds
FIRST = 20  # of them that it shows before it is asked for all
SAID = {"base_response": "its base", "model_response": "this model"}
SCORES = {"chrf": "chrF", "rouge_l": "ROUGE-L"}


def assistant_page(run: Run) -> dict[str, Any]:
    """What the page of an assistant is given."""
    tuned, base = (run.metrics.get(key) or {} for key in ("test", "base"))
    answers = run.rows("responses.json")
    return {
        "tuned": tuned,
        "base": base,
        "difference": run.metrics.get("difference") or {},
        "verdict": verdict(run.metrics),
        "dots": _dots(tuned, base),
        "answers": answer_rows(answers[:ANSWERS]),
        "answers_in_all": len(answers),
        "first": FIRST,
        "curves": _curves(run),
        "lengths": charts.length_histogram(run.receipt.get("lengths") or {}, run.cut_limit, "record"),
    }


def verdict(metrics: dict[str, Any]) -> Verdict:
    """Whether the answers came nearer to their references than those of the base, by the paired difference in chrF."""
    told = (metrics.get("difference") or {}).get("chrf") or {}
    if told.get("p") is None:
        return Verdict("unknown", "Too few records have a reference to tell the model from its base.")
    tuned, base = (metrics[key]["answers"]["chrf"]["mean"] for key in ("test", "base"))
    kind = "same" if told["p"] >= SIGNIFICANT else "better" if told["difference"] > 0 else "worse"
    says = {
        "better": "Its answers are nearer to the references than those of its base",
        "same": "Its answers are not distinguishable from those of its base on these records",
        "worse": "Its answers are further from the references than those of its base: the training did harm here",
    }
    low, high = told["interval"]
    evidence = (
        f"Paired bootstrap over the same {told['n']:,} records: chrF {signed(told['difference'])}, 95{SMALL}% interval "
        f"{signed(low)} to {signed(high)}, {p_value(told['p'])}."
    )
    return Verdict(kind, f"{says[kind]} (chrF {number(tuned, 1)} against {number(base, 1)}).", evidence)


def answer_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records with the scores of their answers, and their places in three orders.

    Returns:
        Each record with ``said``, what base and model answered: name, text, ``chrf`` (None where there is no
        reference) and ``exact``, whether it is right word for word; and with its places from 0 in the ``file``, by the
        ``low`` chrF of the model, and by what it has ``lost`` against its base.
    """
    references = [str(record.get("output") or "") for record in records]
    rows: list[dict[str, Any]] = [{**record, "said": []} for record in records]
    for key, name in SAID.items():
        texts = [str(record.get(key) or "") for record in records]
        scores = reference_scores(references, texts)
        each = zip(rows, references, texts, scores["chrf"], scores["exact"], strict=True)
        for row, reference, text, chrf, exact in each:
            known = bool(reference.strip())
            score = float(chrf) if known else None
            row["said"].append({"name": name, "text": text, "chrf": score, "exact": known and bool(exact)})
    for place, row in enumerate(rows):
        row["file"] = place
    _rank(rows, "low", lambda base, tuned: tuned)
    _rank(rows, "lost", lambda base, tuned: tuned - base)
    return rows


def _rank(rows: list[dict[str, Any]], name: str, key: Callable[[float, float], float]) -> None:
    """Notes under ``name`` the place of each row by its two chrF; those without come last, ties in the file's order."""

    def score(row: dict[str, Any]) -> float:
        base, tuned = (said["chrf"] for said in row["said"])
        return math.inf if tuned is None else key(base, tuned)

    for place, row in enumerate(sorted(rows, key=score)):
        row[name] = place


def _dots(tuned: dict[str, Any], base: dict[str, Any]) -> list[Dots]:
    """chrF and ROUGE-L of the model and of its base, where there are references."""
    charts_of = []
    for key, title in SCORES.items():
        rows = []
        for name, figures, kind in (("this model", tuned, "model"), ("its base", base, "base")):
            score = (figures.get("answers") or {}).get(key) or {}
            if score.get("mean") is not None:
                ends = [end / 100 for end in score["interval"]] if score["interval"] else None
                rows.append(dot(name, score["mean"] / 100, ends, kind))
        if rows:
            charts_of.append(Dots(f"{title}, with 95{SMALL}% interval", rows, unit="points"))
    return charts_of


def _curves(run: Run) -> list[tuple[str, str]]:
    learned = (run.receipt.get("tokens") or {}).get("train", {}).get("learned") or 1
    course = charts.Course(learned, counted="tokens learned")
    curves = {
        "Loss, nats per learned token": charts.learning_curve(run.history, "loss", run.kept_step, course),
        "Learning rate": charts.rate_curve(run.history, course),
    }
    return [(title, curve) for title, curve in curves.items() if curve]
