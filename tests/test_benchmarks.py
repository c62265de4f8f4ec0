"""The benchmarks: peers do the work they stand for, and figures are what they are called. Nothing is timed."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gptailor.model.decoder import Decoder

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MACHINE = {"fp32": 1e9, "bf16": 4e9, "bandwidth": 1e6}


@pytest.fixture(scope="module", autouse=True)
def on_path() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def module(name: str) -> Any:
    return importlib.import_module(name)


@pytest.fixture
def work(on_path: None, tmp_path: Path) -> Any:
    """Six texts and two records for a model of two blocks of width 4, 10 ids and 16 positions."""
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 4, "vocab_size": 10, "context_length": 16}
    texts = [[1, 2, 3], [4, 5], [6], [7, 8], [1], [2, 3, 4, 5]]
    labelled = [(ids, row % 2) for row, ids in enumerate(texts)]
    parts = {"train": labelled[:4], "validation": labelled[4:5], "test": labelled[5:]}
    counts = {"epochs": 3, "batch_size": 2, "new_tokens": 5, "scale": {"texts": 4, "words": 2, "epochs": 1}}
    given = {"texts": ["a"] * 6, "ids": texts, "records": [[1, 2, 3, 4], [5, 6]], "prompts": [[1, 2], [3]]}
    return module("work").Work(folder=tmp_path, shape=shape, pad=0, spam=parts, **counts, **given)


# --- the work ---------------------------------------------------------------------------------------------------------


def test_the_work_is_the_same_after_the_way_over_the_disk(work: Any) -> None:
    work.save()
    read = type(work).load(work.folder)
    assert read.spam["train"][0] == [[1, 2, 3], 0] and read.ids == work.ids and read.learned == work.learned == 3 + 1
    assert read.longest == 3 and read.folder == work.folder


def test_padding_is_on_the_side_that_was_asked_for() -> None:
    padded = module("work").padded
    assert padded([[1, 2, 3], [4]], 0) == ([[1, 2, 3], [4, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    assert padded([[1, 2, 3], [4]], 0, left=True) == ([[1, 2, 3], [0, 0, 4]], [[1, 1, 1], [0, 0, 1]])
    assert padded([[1, 2, 3], [4]], 0, width=2) == ([[1, 2], [4, 0]], [[1, 1], [1, 0]])


def test_batches_hold_every_row_once_and_may_be_of_similar_length(work: Any) -> None:
    lengths = [5, 1, 4, 2, 3]
    for by_length in (False, True):
        batches = work.batches(lengths, 0, by_length=by_length)
        assert sorted(row for batch in batches for row in batch) == [0, 1, 2, 3, 4] and max(map(len, batches)) == 2
    assert sorted(sorted(lengths[row] for row in batch) for batch in batches) == [[1, 2], [3, 4], [5]]
    assert work.batches(list(range(40)), 0) != work.batches(list(range(40)), 1)


# --- floors, by hand --------------------------------------------------------------------------------------------------


def test_floors(work: Any) -> None:
    floors, rows = module("floors"), module("rows")
    plain, half = rows.Contestant("gptailor"), rows.Contestant("gptailor", "bf16")
    assert (floors.block(work), floors.head(work)) == (12 * 16, 40)
    # 13 tokens through one frozen block; 3 epochs of 2 steps move 28 bytes for each weight of the other
    assert floors.spam(work, MACHINE, plain) == pytest.approx(2 * 192 * 13 / 1e9 + 6 * 28 * 192 / 1e6)
    # six texts padded to the longest training text
    book = rows.Contestant("gptailor", options=rows.BOOK)
    assert floors.spam(work, MACHINE, book) == pytest.approx(2 * 192 * 18 / 1e9 + 6 * 28 * 192 / 1e6)
    assert floors.training(work, MACHINE, half) == pytest.approx(4 / (6 * 424 * 4 / 4e9 + 28 * 424 / 1e6))
    assert floors.adapters(work, MACHINE, plain) == pytest.approx(1e9 / (4 * 424))
    frozen = rows.Contestant("gptailor", options={"frozen_in": "bf16"})
    assert floors.adapters(work, MACHINE, frozen) == pytest.approx(4e9 / (4 * 424))
    assert floors.classify(work, MACHINE, plain) == pytest.approx(1e9 * 6 / (2 * 192 * 13))
    assert floors.generate(work, MACHINE, half) == pytest.approx(1e6 / (2 * 424))
    assert floors.generate_many(work, MACHINE, plain) == pytest.approx(2 * 1e6 / (4 * 424))  # bound by reading
    assert floors.classify(work, MACHINE, rows.Contestant("gptailor", "int8")) is None  # no rate is measured for it


# --- the table --------------------------------------------------------------------------------------------------------


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_compares_with_the_first_the_best_peer_and_the_floor() -> None:
    run, rows = module("run"), module("rows")
    ways = {"slow": ("textbook",), "other": ("huggingface",), "ours": ("gptailor",), "new": ("gptailor",)}
    contestants = {label: rows.Contestant(*one) for label, one in ways.items()}
    figures = {"slow": [11, 10, 9], "other": [4, 4, 4], "ours": [2, 2, 8]}
    measured = {
        label: [{"figure": value, "peak_mb": value * 100, "foreign": 0.06 if value == 8 else 0.01} for value in values]
        for label, values in figures.items()
    }
    told = {"new": "not offered: predict --precision int8"}
    seconds = run.table(rows.Row("about", "s", contestants), measured, told, {"ours": 1.0})
    _, _, head, _, slow, other, ours, new = seconds.splitlines()
    assert cells(slow) == ["slow", "10", "9 to 11", "1.00", "0.40", "", "1000", "1.00", "1 %"]
    assert cells(other)[3:5] == ["2.50", "1.00"]
    assert cells(ours) == ["ours", "2", "2 to 8", "5.00", "2.00", "50 %", "200", "0.20", "6 % !"]
    assert cells(new)[:2] == ["new", told["new"]]
    assert {line.count("|") for line in (head, slow, ours, new)} == {head.count("|")}
    rates = run.table(rows.Row("about", "texts/s", contestants), measured, told, {"ours": 8.0})
    assert cells(rates.splitlines()[6])[3:6] == ["0.20", "0.20", "25 %"]  # larger is better now


def test_a_first_contestant_that_fails_is_not_replaced_in_silence() -> None:
    run, rows = module("run"), module("rows")
    contestants = {"slow": rows.Contestant("textbook"), "ours": rows.Contestant("gptailor")}
    measured = {"ours": [{"figure": 2, "peak_mb": 1}]}
    ours = run.table(rows.Row("about", "s", contestants), measured, {"slow": "failed: no"}, {}).splitlines()[4]
    assert cells(ours) == ["ours", "2", "2 to 2", "", "", "", "1", "", ""]


# --- one measurement --------------------------------------------------------------------------------------------------


def test_a_process_is_measured_from_outside() -> None:
    child = "import time; x = b'x' * 200_000_000; begun = time.process_time()\n"
    child += "while time.process_time() < begun + 0.2: pass\nprint('done')"
    # In a process of its own, as a child's peak is never below that of its parent.
    parent = f"import json, run, sys; print(json.dumps(run.run([sys.executable, '-S', '-c', {child!r}], 1)))\n"
    parent += "print('torch' in sys.modules, 'numpy' in sys.modules)"
    command = [sys.executable, "-c", parent]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=BENCHMARKS, timeout=60)
    told, heavy = done.stdout.splitlines()
    figures = json.loads(told)
    assert figures["said"] == "done\n" and heavy == "False False"
    assert 200 < figures["peak_mb"] < 230
    assert 0.2 <= figures["cpu_s"] <= figures["wall_s"] + 0.1
    assert 0 <= figures.get("foreign", 0) <= 1


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(module("work").Skip, match="failed: ValueError: as it should"):
        module("run").run([sys.executable, "-S", "-c", "raise ValueError('as it should')"], threads=1)


def test_contestants_take_turns(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, skip = module("run"), module("work").Skip
    asked: list[str] = []

    def run_once(self: Any, name: str, row: Any, one: Any) -> dict[str, Any]:
        asked.append(one.precision)
        if one.precision == "int8":
            raise skip("not offered")
        return {"figure": 1.0}

    monkeypatch.setattr(run.Bench, "once", run_once)
    runs, skipped = run.Bench(work, MACHINE, 1, 2, install=False).measure("classify")
    ours = ["fp32", "bf16"]
    others = ["fp32", "fp32", "fp32", "fp32", "bf16"]
    assert asked == [*others, *ours, "int8", *others, *ours]
    assert skipped == {"gptailor, int8": "not offered"} and {len(each) for each in runs.values()} == {2}


# --- the contestants --------------------------------------------------------------------------------------------------


def test_every_contestant_has_its_function_with_these_options() -> None:
    for name, row in module("rows").ROWS.items():
        for one in row.contestants.values():
            if not isinstance(one, list):
                tree = ast.parse((BENCHMARKS / "peers" / f"{one.peer}.py").read_text(encoding="utf-8"))
                functions = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
                taken = functions[one.work or name]
                assert taken.kwarg or set(one.options) <= {argument.arg for argument in taken.kwonlyargs}


def test_an_option_that_gptailor_lacks_is_not_offered() -> None:
    options, skip = module("peers.gptailor").options, module("work").Skip
    given = {"pad_to": "data", "read": "last-position"}
    chosen = options(["train", "classifier"], "fp32", given)
    assert given.items() <= chosen.items()
    with pytest.raises(skip, match="not offered: train classifier --warp-speed 9"):
        options(["train", "classifier"], "fp32", {"warp_speed": 9})
    with pytest.raises(skip, match="not offered: train classifier --read sideways"):
        options(["train", "classifier"], "fp32", {"read": "sideways"})
    with pytest.raises(skip, match="not offered: predict --precision fp7"):
        options(["predict"], "fp7", {})


@pytest.fixture
def textbook(work: Any, make_decoder: Callable[..., Decoder]) -> tuple[Any, Decoder]:
    """The textbook's model with the weights of one of our decoders."""
    ours = make_decoder(**work.shape)
    theirs = module("peers.textbook").Model(work.shape)
    with torch.no_grad():
        theirs.tokens.weight.copy_(ours.token_embedding.weight)
        theirs.head.weight.copy_(ours.token_embedding.weight)
        theirs.positions.weight.copy_(ours.position_embedding.weight)
        copy_norm(theirs.norm, ours.norm)
        for to, block in zip(theirs.blocks, ours.blocks, strict=True):
            parts = zip(("query", "key", "value"), block.attention.qkv.weight.chunk(3), strict=True)
            biases = block.attention.qkv.bias.chunk(3)
            for (name, weight), bias in zip(parts, biases, strict=True):
                getattr(to.attention, name).weight.copy_(weight)
                getattr(to.attention, name).bias.copy_(bias)
            to.attention.out.load_state_dict(block.attention.out.state_dict())
            to.up.load_state_dict(block.mlp.up.state_dict())
            to.down.load_state_dict(block.mlp.down.state_dict())
            copy_norm(to.norm_1, block.norm_1)
            copy_norm(to.norm_2, block.norm_2)
    return theirs, ours


def copy_norm(to: Any, norm: torch.nn.LayerNorm) -> None:
    to.scale.copy_(norm.weight)
    to.shift.copy_(norm.bias)


@torch.no_grad()
def test_the_textbook_computes_what_we_compute(textbook: tuple[Any, Decoder]) -> None:
    theirs, ours = textbook
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]])
    torch.testing.assert_close(theirs(ids), ours.logits(ours(ids)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_textbook_says_the_same_with_a_cache(textbook: tuple[Any, Decoder]) -> None:
    theirs, _ = textbook
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    begun = theirs(ids[:, :3], keep=True)
    step = theirs(ids[:, 3:4], 3, keep=True)
    last = theirs(ids[:, 4:], 4, keep=True)
    whole = theirs(ids)
    torch.testing.assert_close(torch.cat((begun, step, last), dim=1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_every_row_runs(tmp_path: Path) -> None:
    out = tmp_path / "bench.jsonl"
    command = [sys.executable, BENCHMARKS / "run.py", "--tiny", "--repeats", "1", "--threads", "1", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == list(module("rows").ROWS)
    for line in lines:
        assert all(reason.startswith(("not offered", "its env")) for reason in line["skipped"].values())
        figures = [one["figure"] for measured in line["runs"].values() for one in measured]
        assert figures and min(figures) > 0 and line["machine"]["fp32"] > 0


# --- what pretraining is worth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["random weights", "TF-IDF"])
def test_every_way_is_measured_on_the_same_texts(
    on_path: None, moods: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    transfer = module("transfer")
    monkeypatch.setitem(transfer.SETS, "moods", {"data": str(moods)})
    monkeypatch.setitem(transfer.WAYS, "random weights", "random:n_layer=1,n_head=2,n_embd=16,context_length=64")
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # it is for a process of its own
    found = transfer.measure(moods.parent, "moods", "50", way, 123)
    assert (found["size"], found["way"]) == ("50", way) and 0 < found["right"] <= found["n"] == 24


def test_a_test_part_that_comes_with_the_set_counts_once(on_path: None) -> None:
    transfer = module("transfer")
    found = [
        {"data": name, "size": "50", "way": "thimble", "seed": seed, "right": right, "n": 100, "macro_f1": 0.5}
        for name in ("trec", "rotten-tomatoes")
        for seed, right in ((123, 80), (124, 84), (125, 82))
    ]
    rows = {line.split(" | ")[0].strip("| "): line for line in transfer.table(found).splitlines() if " | 50 | " in line}
    assert "82.0 (73.3-88.3), 0.500" in rows["trec"]  # 82 of 100
    assert "82.0 (77.3-85.9), 0.500" in rows["rotten-tomatoes"]  # 246 of 300


# --- how sure labels are ----------------------------------------------------------------------------------------------


def test_labels_of_nearly_the_same_texts_are_compared(on_path: None) -> None:
    near = [f"the delivery of parcel number {n} to the hotel by the river is late again" for n in (7, 88, 999)]
    other = ["what a lovely warm evening it was in the garden!", "What a lovely warm evening it was in the garden"]
    found = module("agreement").agreement([*near, *other, "nothing is like this"], [0, 0, 1, 1, 1, 0])
    assert sorted(found.shares) == [pytest.approx(1 / 3), 1]  # one pair of three, and the only pair
    assert (found.n_texts, found.chance) == (5, pytest.approx((1 + 3) / 10))
