"""Documents become a store, a schedule and batches: nothing is lost, repeated or seen across a border."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptailor.data import rows
from gptailor.data import store as store_module
from gptailor.data.documents import Document, DocumentReceipt, identity, read_documents
from gptailor.data.rows import NOT_LEARNED, Schedule, TokenBatch, collate_rows, held_out_batches
from gptailor.data.store import Part, Store, build_store, is_held_out
from gptailor.errors import UserError
from gptailor.tokenizer import Tokenizer
from tests.data.files import PROPERTY

END = 0
PANGRAM = "the quick brown fox jumps over the lazy dog and the cat"
# Documents as ids; the end of text never occurs within one.
DOCUMENTS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=12)
CONTEXT = st.integers(1, 9)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([PANGRAM] * 3, 280)


def ids_of(documents: Sequence[Sequence[int]]) -> np.ndarray:
    return np.array([token for document in documents for token in (*document, END)], np.uint16)


def stream(texts: Sequence[str], name: str = "f") -> Iterator[Document]:
    return (Document(text, f"{name}:{line}") for line, text in enumerate(texts, 1))


def documents_in(tokens: np.ndarray, end: int) -> list[list[int]]:
    """The documents without their ends of text; the last token must be one."""
    if not len(tokens):
        return []
    assert tokens[-1] == end
    cuts = np.flatnonzero(tokens == end)
    return [part[:-1].tolist() for part in np.split(tokens, cuts + 1)[:-1]]


def learned(batch: TokenBatch) -> list[tuple[int, int]]:
    """Input and label wherever something is learned."""
    mask = batch.labels != NOT_LEARNED
    return list(zip(batch.input_ids[mask].tolist(), batch.labels[mask].tolist(), strict=True))


def pairs_within(documents: Sequence[Sequence[int]]) -> Counter[tuple[int, int]]:
    """Each token with the one that follows in its document, the end of text included."""
    return Counter(pair for each in documents for pair in zip(each, [*each[1:], END], strict=True))


def store_of(tmp_path: Path, documents: Sequence[Sequence[int]]) -> Store:
    """A store that holds out all of ``documents``."""
    tokens = ids_of(documents)
    (tmp_path / "held.bin").write_bytes(tokens.astype("<u2").tobytes())
    return Store(tmp_path, "<u2", END, Part(), Part(len(documents), len(tokens), 0), {})


def check_segments(batch: TokenBatch) -> None:
    """Positions count from 0 within each document of a row, and documents are numbered from 0 without a gap."""
    for positions, documents in zip(batch.positions.tolist(), batch.documents.tolist(), strict=True):
        pairs = groupby(zip(documents, positions, strict=True), lambda pair: pair[0])
        groups = [(number, [position for _, position in group]) for number, group in pairs]
        assert [number for number, _ in groups] == list(range(len(groups)))
        assert all(places == list(range(len(places))) for _, places in groups)


# --- the store --------------------------------------------------------------------------------------------------------


@PROPERTY
@given(texts=TEXTS, pending=st.integers(1, 500), share=st.sampled_from([0.0, 0.3, 0.9]), seed=st.integers(0, 99))
def test_a_store_holds_every_document_in_its_part(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    texts: list[str],
    pending: int,
    share: float,
    seed: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "PENDING", pending)
        folder = tmp_path_factory.mktemp("store") / "s"
        store = build_store(folder, stream(texts), tokenizer, share, seed, inputs=["x"])
    held = [number > 0 and is_held_out(seed, text, share) for number, text in enumerate(texts)]
    for name, part, wanted in (("train", store.train, False), ("held_out", store.held_out, True)):
        own = [text for text, out in zip(texts, held, strict=True) if out == wanted]
        tokens = store.tokens(name)
        assert [tokenizer.decode(each) for each in documents_in(tokens, tokenizer.end_of_text)] == own
        assert part == Part(len(own), len(tokens), sum(len(text.encode()) for text in own))


def test_the_second_passage_of_a_text_is_measured_on(tmp_path: Path, tokenizer: Tokenizer) -> None:
    passages = [Document(f"passage {n}", f"f:{n}", passage=True) for n in range(9)]
    for share, held_out in ((1e-9, ["passage 1"]), (0.0, [])):
        store = build_store(tmp_path / f"s{share}", passages, tokenizer, share, 1, inputs=["x"])
        held = documents_in(store.tokens("held_out"), tokenizer.end_of_text)
        assert [tokenizer.decode(each) for each in held] == held_out
    store = build_store(tmp_path / "one", passages[:1], tokenizer, 0.5, 1, inputs=["x"])
    assert (store.train.documents, store.held_out.documents) == (1, 0)


def test_copies_of_a_document_share_a_part(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = ["first", *(f"text {n % 40}" for n in range(200))]
    store = build_store(tmp_path / "s", stream(texts), tokenizer, 0.3, 1, inputs=["x"])
    train, held = (
        {tuple(each) for each in documents_in(store.tokens(name), tokenizer.end_of_text)}
        for name in ("train", "held_out")
    )
    assert len(train) + len(held) == 41 and len(held) > 3 and not train & held


def test_the_share_that_is_held_out() -> None:
    chosen = [{n for n in range(20_000) if is_held_out(seed, f"text {n}", 0.1)} for seed in (1, 2)]
    for each in chosen:
        assert abs(len(each) - 2000) < 4 * math.sqrt(20_000 * 0.1 * 0.9)
    assert len(chosen[0] & chosen[1]) < 300  # 200 by chance: another seed, other documents
    assert chosen[0] <= {n for n in range(20_000) if is_held_out(1, f"text {n}", 0.2)}


def test_a_finished_store_is_taken_up_and_only_for_the_same_inputs(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def unread() -> Iterator[Document]:
        raise AssertionError("the documents were read again")
        yield

    folder = tmp_path / "s"
    made = build_store(folder, stream(["one", "two"]), tokenizer, 0.1, 5, inputs=["x"])
    assert build_store(folder, unread(), tokenizer, 0.1, 5, inputs=["x"]) == made
    tokenizer.save(tmp_path, context_length=9)
    assert build_store(folder, unread(), Tokenizer.load(tmp_path), 0.1, 5, inputs=["x"]) == made
    other = Tokenizer.train([PANGRAM.translate(str.maketrans("theo", "ehot"))] * 3, 280)  # of the same size
    assert (other.vocab_size, other.end_of_text) == (tokenizer.vocab_size, tokenizer.end_of_text)
    for changed in ({"inputs": ["y"]}, {"seed": 6}, {"held_out": 0.2}, {"tokenizer": other}):
        arguments: dict[str, Any] = {"tokenizer": tokenizer, "held_out": 0.1, "seed": 5, "inputs": ["x"]} | changed
        with pytest.raises(AssertionError, match="read again"):
            build_store(folder, unread(), **arguments)
    again = build_store(folder, stream(["three"]), tokenizer, 0.1, 5, inputs=["y"])
    assert again.train.documents == 1
    assert sorted(entry.name for entry in folder.iterdir()) == ["held.bin", "store.json", "train.bin"]


def test_an_unfinished_or_damaged_store_is_made_again(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def dies() -> Iterator[Document]:
        yield from stream(["one"])
        raise KeyboardInterrupt

    folder = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        build_store(folder, dies(), tokenizer, 0.1, 5, inputs=["x"])
    assert not folder.exists()
    texts = ["one", "two"]
    whole = build_store(folder, stream(texts), tokenizer, 0.1, 5, inputs=["x"])
    content = whole.tokens("train").tolist()
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]
    for name, damage in (("train.bin", b"\0"), ("store.json", b""), ("store.json", b"[]"), ("store.json", b'{"key')):
        (folder / name).write_bytes(damage)
        assert build_store(folder, stream(texts), tokenizer, 0.1, 5, inputs=["x"]).tokens("train").tolist() == content


def test_nothing_that_is_no_store_is_replaced(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = tmp_path / "s"
    build_store(folder, stream(["one"]), tokenizer, 0.0, 5, inputs=["x"])
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for path in (folder, tmp_path / "file", tmp_path):
        with pytest.raises(UserError, match="is no token store"):
            build_store(path, stream(["two"]), tokenizer, 0.0, 5, inputs=["y"])
    assert (folder / "train.bin").exists()
    assert (folder / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_a_store_needs_a_document_a_share_and_room(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no document"):
        build_store(tmp_path / "s", [], tokenizer, 0.1, 5, inputs=["x"])
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(UserError, match="held-out share"):
            build_store(tmp_path / "s", stream(["one"]), tokenizer, share, 5, inputs=["x"])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*s: No space left"):
        build_store(tmp_path / "s", stream(["one"]), tokenizer, 0.1, 5, inputs=["x"])


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "<u2"), (65_537, "<u4")])
def test_ids_take_two_bytes_where_they_fit(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    class Wide(Tokenizer):
        def __init__(self) -> None:
            self.vocab_size, self.end_of_text = vocab_size, vocab_size - 1

        def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
            return [[vocab_size - 2] for _ in texts]

        def save(self, folder: Path, *, context_length: int) -> None:
            (folder / "tokenizer.json").write_text("")

    store = build_store(tmp_path / "s", stream(["one"]), Wide(), 0.0, 5, inputs=["x"])
    assert store.dtype == dtype
    assert store.tokens("train").tolist() == [vocab_size - 2, vocab_size - 1]


def test_the_receipt_counts_tokens_and_stays_with_the_store(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path, receipt = tmp_path / "a.jsonl", DocumentReceipt()
    path.write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(50)) + "broken\n")

    def build() -> Store:
        given = read_documents(path, receipt)
        return build_store(tmp_path / "s", given, tokenizer, 0.2, 5, inputs=identity([path]), receipt=receipt)

    store = build()
    assert store.held_out.documents > 0
    assert store.receipt == receipt.to_dict()
    assert store.receipt["tokens"] == store.train.tokens + store.held_out.tokens
    assert (store.receipt["documents"], store.receipt["dropped"]) == (50, 1)
    receipt = DocumentReceipt()
    assert build() == store


# --- the schedule -----------------------------------------------------------------------------------------------------

SOURCES = st.lists(st.tuples(st.integers(0, 60), st.sampled_from([0.0, 0.3, 1.0, 2.0, 7.0])), min_size=1, max_size=5)


def made(
    sources: Sequence[tuple[int, float]], *, n_batches: int, context: int = 4, size: int = 3, seed: int = 1
) -> Schedule:
    n_tokens, weights = zip(*sources, strict=True)
    return Schedule(n_tokens, weights, context_length=context, batch_size=size, n_batches=n_batches, seed=seed)


def all_rows(schedule: Schedule) -> list[tuple[int, int]]:
    return [row for number in range(len(schedule)) for row in schedule.rows(number)]


def useful(sources: Sequence[tuple[int, float]]) -> bool:
    return any(weight and n > 1 for n, weight in sources)


@PROPERTY
@given(sources=SOURCES.filter(useful), context=CONTEXT, size=st.integers(1, 7), seed=st.integers(0, 5))
def test_each_pass_is_a_new_permutation_of_all_rows(
    sources: list[tuple[int, float]], context: int, size: int, seed: int
) -> None:
    visits = all_rows(made(sources, n_batches=60, context=context, size=size, seed=seed))
    assert len(visits) == 60 * size
    for source, (n_tokens, _) in enumerate(sources):
        starts = [start for at, start in visits if at == source]
        every = list(range(0, n_tokens - 1, context))
        passes = [starts[i : i + len(every)] for i in range(0, len(starts), len(every) or 1)]
        assert all(sorted(each) == every for each in passes[:-1])
        assert all(len(set(each)) == len(each) and set(each) <= set(every) for each in passes[-1:])


def test_the_order_is_new_in_each_pass_and_with_each_seed() -> None:
    orders = [[start for _, start in all_rows(made([(401, 1.0)], n_batches=20, size=10, seed=seed))] for seed in (1, 2)]
    passes = [tuple(order[i : i + 100]) for order in orders for i in (0, 100)]
    assert len({*passes, tuple(sorted(passes[0]))}) == 5


@PROPERTY
@given(sources=SOURCES.filter(useful), size=st.integers(1, 7), n_batches=st.integers(1, 60))
def test_weights_are_respected_all_along(sources: list[tuple[int, float]], size: int, n_batches: int) -> None:
    schedule = made(sources, n_batches=n_batches, size=size)
    mass = [weight * math.ceil(max(0, n - 1) / 4) for n, weight in sources]
    seen: Counter[int] = Counter()
    for count, (source, _) in enumerate(all_rows(schedule), 1):
        seen[source] += 1
        for at, part in enumerate(mass):
            # At time t each source is within half a visit of t * share, so the row number is within half of them of t.
            share = part / sum(mass)
            assert abs(seen[at] - count * share) < 0.5 + share * sum(map(bool, mass)) / 2 + 1e-6
    for (n, _), part, passes in zip(sources, mass, schedule.passes, strict=True):
        wanted = n_batches * size * part / sum(mass)
        assert math.isclose(passes * math.ceil(max(0, n - 1) / 4), wanted, abs_tol=1e-9)


def test_twice_the_weight_is_twice_the_passes() -> None:
    schedule = made([(801, 1.0), (81, 2.0), (41, 2.0)], n_batches=520)  # 200, 20 and 10 rows: 200 + 40 + 20 a turn
    seen = Counter(all_rows(schedule))
    assert schedule.passes == pytest.approx([6, 12, 12])
    assert [{seen[row] for row in seen if row[0] == source} for source in range(3)] == [{6}, {12}, {12}]


@PROPERTY
@given(
    sources=SOURCES.filter(useful),
    size=st.integers(1, 7),
    numbers=st.lists(st.integers(0, 39), max_size=15),
    more=st.integers(0, 9),
)
def test_a_batch_is_the_same_in_any_order_of_asking(
    sources: list[tuple[int, float]], size: int, numbers: list[int], more: int
) -> None:
    in_order = made(sources, n_batches=40, size=size)
    wanted = [in_order.rows(number) for number in range(40)]
    asked = made(sources, n_batches=40 + more, size=size)
    assert [asked.rows(number) for number in numbers] == [wanted[number] for number in numbers]


def test_a_worked_schedule() -> None:
    schedule = made([(9, 1.0), (5, 2.0)], n_batches=4, size=2)
    assert schedule.passes == [2, 4]
    batches = [schedule.rows(number) for number in range(4)]
    assert [[source for source, _ in batch] for batch in batches] == [[0, 1]] * 4
    assert Counter(all_rows(schedule)) == {(0, 0): 2, (0, 4): 2, (1, 0): 4}


def test_a_schedule_far_on_is_as_quick_and_as_even() -> None:
    schedule = made([(10**6, 1.0), (10**5, 0.37), (999, 5.0)], n_batches=10**12, size=8)
    batches = [schedule.rows(number) for number in range(10**11, 10**11 + 50)]
    assert all(len(batch) == 8 for batch in batches)
    share = sum(source == 0 for batch in batches for source, _ in batch) / 400
    wanted = 250_000 / (250_000 + 25_000 * 0.37 + 250 * 5)
    assert abs(share - wanted) < 0.02


def test_sources_without_rows_and_wrong_weights() -> None:
    assert {source for source, _ in all_rows(made([(1, 1.0), (30, 1.0), (30, 0.0)], n_batches=9))} == {1}
    for sources in ([(1, 1.0)], [(30, 0.0)], [(0, 1.0), (30, 0.0)]):
        with pytest.raises(UserError, match="no row to learn from"):
            made(sources, n_batches=9)
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(UserError, match="source weight of"):
            made([(30, weight), (30, 1.0)], n_batches=9)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_worked_batch() -> None:
    batch = collate_rows([np.array([5, 6, 0, 7, 8, 9, 0], np.uint16)], [(0, 0), (0, 4)], 4, END)
    assert batch.input_ids.tolist() == [[5, 6, 0, 7], [8, 9, 0, 0]]
    assert batch.labels.tolist() == [[6, 0, -100, 8], [9, 0, -100, -100]]
    assert batch.positions.tolist() == [[0, 1, 2, 0], [0, 1, 2, 0]]
    assert batch.documents.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]
    tensors = (batch.input_ids, batch.labels, batch.positions, batch.documents)
    assert all(tensor.dtype == torch.int64 and tensor.shape == (2, 4) for tensor in tensors)
    assert torch.equal(batch.to(torch.device("cpu")).labels, batch.labels)


@PROPERTY
@given(documents=DOCUMENTS, context=CONTEXT)
def test_the_rows_of_a_pass_are_the_documents(documents: list[list[int]], context: int) -> None:
    tokens = ids_of(documents)
    starts = range(0, len(tokens) - 1, context)
    batch = collate_rows([tokens], [(0, start) for start in starts], context, END)
    padded = [*tokens.tolist(), *[END] * context]
    assert batch.input_ids.flatten().tolist() == padded[: batch.input_ids.numel()]
    assert Counter(learned(batch)) == pairs_within(documents)
    check_segments(batch)
    ends = batch.input_ids == END
    assert torch.equal(batch.documents[:, 1:] - batch.documents[:, :-1], ends[:, :-1].long())
    assert (batch.labels[ends] == NOT_LEARNED).all()


@PROPERTY
@given(documents=DOCUMENTS, others=DOCUMENTS, context=CONTEXT, seed=st.integers(0, 9))
def test_a_pass_of_the_schedule_learns_every_target_once(
    documents: list[list[int]], others: list[list[int]], context: int, seed: int
) -> None:
    sources = [ids_of(documents), ids_of(others)]
    n_rows = sum(math.ceil((len(tokens) - 1) / context) for tokens in sources)
    schedule = Schedule([len(tokens) for tokens in sources], [1.0, 1.0], context, 1, n_rows, seed)
    seen = Counter(learned(collate_rows(sources, all_rows(schedule), context, END)))
    assert seen == pairs_within(documents) + pairs_within(others)


# --- held-out rows ----------------------------------------------------------------------------------------------------


def test_worked_held_out_batches(tmp_path: Path) -> None:
    batches, count = held_out_batches(store_of(tmp_path, [[5, 6], [7, 8, 9]]), 4, 8)
    (batch,) = batches
    assert count == 5
    assert batch.input_ids.tolist() == [[5, 6, 0, 0], [7, 8, 9, 0]]
    assert batch.labels.tolist() == [[6, 0, -100, -100], [8, 9, 0, -100]]
    assert batch.positions.tolist() == [[0, 1, 0, 1], [0, 1, 2, 0]]
    assert batch.documents.tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]


@PROPERTY
@given(documents=DOCUMENTS, context=CONTEXT, max_tokens=st.integers(1, 40), chunk=st.integers(1, 20))
def test_every_held_out_target_once(
    tmp_path: Path, documents: list[list[int]], context: int, max_tokens: int, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "CHUNK", chunk)
        batches, count = held_out_batches(store_of(tmp_path, documents), context, max_tokens)
        found = list(batches)
    assert Counter(pair for batch in found for pair in learned(batch)) == pairs_within(documents)
    assert count == sum(map(len, documents)) == sum((batch.labels != NOT_LEARNED).sum().item() for batch in found)
    assert all(batch.input_ids.numel() <= max(max_tokens, context) for batch in found)
    for batch in found:
        check_segments(batch)
        assert (
            batch.input_ids.dtype == batch.labels.dtype == batch.positions.dtype == batch.documents.dtype == torch.int64
        )


@PROPERTY
@given(documents=DOCUMENTS, context=CONTEXT)
def test_what_a_held_out_token_sees_does_not_depend_on_its_neighbours(
    tmp_path: Path, documents: list[list[int]], context: int
) -> None:
    def windows(held: list[list[int]]) -> list[list[int]]:
        batch = next(held_out_batches(store_of(tmp_path, held), context, 10**6)[0])
        cuts = batch.documents + 1000 * torch.arange(len(batch.documents)).unsqueeze(1)
        ids, labels = batch.input_ids.flatten().tolist(), batch.labels.flatten().tolist()
        groups = groupby(zip(cuts.flatten().tolist(), ids, labels, strict=True), lambda x: x[0])
        found = [[(token, label) for _, token, label in group] for _, group in groups]
        return [[token for token, _ in each] for each in found if each[0][1] != NOT_LEARNED]

    assert windows(documents) == [window for document in documents for window in windows([document])]
    assert [token for window in windows(documents) for token in window] == [t for each in documents for t in each]


def test_nothing_held_out_gives_no_batch(tmp_path: Path, tokenizer: Tokenizer) -> None:
    store = build_store(tmp_path / "s", stream(["one"]), tokenizer, 0.0, 1, inputs=["x"])
    batches, count = held_out_batches(store, 8, 64)
    assert (list(batches), count) == ([], 0)


# --- memory, and real texts -------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_documents(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PENDING", 1 << 13)
    monkeypatch.setattr(rows, "CHUNK", 1 << 10)

    def peak(count: int) -> int:
        tracemalloc.start()
        texts = (Document(f"the quick brown fox number {n}", f"f:{n}") for n in range(count))
        store = build_store(tmp_path / str(count), texts, tokenizer, 0.3, 1, inputs=["y"])
        seen = sum((batch.labels != NOT_LEARNED).sum().item() for batch in held_out_batches(store, 64, 256)[0])
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seen > 2 * count
        return highest

    peak(10)  # what is loaded once
    assert peak(10_000) < 1.3 * peak(1_000)


def test_real_texts(tmp_path: Path, shared_data: Path) -> None:
    folder, receipt = shared_data / "pretrain_text", DocumentReceipt()
    files = [folder / "african_storybook.jsonl.xz", folder / "taskmaster4.jsonl.xz"]
    texts = [[document.text for document in read_documents(file, receipt)] for file in files]
    tokenizer = Tokenizer.train((text for each in texts for text in each[:200]), 1000)
    stores = []
    for file in files:
        given = read_documents(file, receipt)
        stores.append(
            build_store(tmp_path / file.stem, given, tokenizer, 0.05, 3, inputs=identity([file]), receipt=receipt)
        )
    assert [store.train.documents + store.held_out.documents for store in stores] == [315, 2966]
    for store, own in zip(stores, texts, strict=True):
        assert store.train.bytes + store.held_out.bytes == sum(len(text.encode()) for text in own)
        held = documents_in(store.tokens("held_out"), tokenizer.end_of_text)
        assert [tokenizer.decode(each) for each in held] == [t for t in own[1:] if is_held_out(3, t, 0.05)]
        batches, count = held_out_batches(store, 128, 2048)
        assert sum((batch.labels != NOT_LEARNED).sum().item() for batch in batches) == count == sum(map(len, held))
    sources = [store.tokens("train") for store in stores]
    n_rows = sum(math.ceil((len(tokens) - 1) / 128) for tokens in sources)
    schedule = Schedule([len(tokens) for tokens in sources], [1.0, 1.0], 128, 1, n_rows, 3)
    batch = collate_rows(sources, all_rows(schedule), 128, tokenizer.end_of_text)
    targets = sum(store.train.tokens - store.train.documents for store in stores)
    assert (batch.labels != NOT_LEARNED).sum().item() == targets
