"""Batches of records: the book's, to the token; and packed ones, in which the model computes the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptailor.data.instruction import Record
from gptailor.data.packing import collate_records, pack
from gptailor.model.decoder import Decoder, document_mask

E = 50256


def record(*ids: int, prompt: int = 1) -> Record:
    """A record of these tokens and the end of text, of which the first ``prompt`` are not learned."""
    learned = np.arange(len(ids) + 1) >= prompt
    return Record([], "t:1", np.array([*ids, E], np.int32), learned)


BOOK = [record(0, 1, 2, 3, 4), record(5, 6), record(7, 8, 9)]


def test_the_book_s_batch() -> None:
    batch = collate_records([[one] for one in BOOK], E)
    assert batch.input_ids.tolist() == [[0, 1, 2, 3, 4], [5, 6, E, E, E], [7, 8, 9, E, E]]
    assert batch.labels.tolist() == [[1, 2, 3, 4, E], [6, E, -100, -100, -100], [8, 9, E, -100, -100]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 0, 1, 2], [0, 1, 2, 0, 1]]
    assert batch.documents.tolist() == [[0] * 5, [0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]
    assert {tensor.dtype for tensor in vars(batch).values()} == {torch.int64}


def test_of_masked_instructions_only_the_answer_is_a_label() -> None:
    batch = collate_records([[record(1, 2, 3, 4, prompt=3)], [record(5, 6, prompt=2)]], E)
    assert batch.labels.tolist() == [[-100, -100, 4, E], [-100, E, -100, -100]]


def test_several_records_share_a_row() -> None:
    batch = collate_records([[BOOK[0]], BOOK[1:], [BOOK[1]]], E)
    assert batch.input_ids.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [5, 6, E, E, E]]
    assert batch.labels.tolist() == [[1, 2, 3, 4, E], [6, E, 8, 9, E], [6, E, -100, -100, -100]]
    assert batch.positions.tolist()[1] == [0, 1, 0, 1, 2]
    assert batch.documents.tolist()[1] == [0, 0, 1, 1, 1]


def test_the_model_computes_the_same_for_packed_records(make_decoder: Callable[..., Decoder]) -> None:
    decoder, random = make_decoder(), np.random.default_rng(3)
    records = [record(*random.integers(0, 300, n).tolist()) for n in (3, 9, 5, 1, 7)]
    for one in records:
        one.ids[-1] = 299
    batch = collate_records([records[:3], records[3:]], 299)
    with torch.no_grad():
        packed = decoder(batch.input_ids, batch.positions, document_mask(batch.documents))
        alone = [decoder(torch.from_numpy(one.ids[None, :-1].astype(np.int64)))[0] for one in records]
    lengths = [one.n_inputs for one in records]
    assert torch.allclose(packed[0], torch.cat(alone[:3]), atol=1e-5)
    assert torch.allclose(packed[1, : sum(lengths[3:])], torch.cat(alone[3:]), atol=1e-5)


def test_a_worked_packing() -> None:
    assert pack([3, 5, 2, 4], 8) == [[1, 0], [3, 2]]
    assert pack([9, 1], 8) == [[0], [1]]
    assert pack([], 8) == []


@given(st.lists(st.integers(1, 12), max_size=60))
def test_each_record_is_packed_once_and_no_row_is_overfull(lengths: list[int]) -> None:
    rows = pack(lengths, 12)
    assert sorted(record for row in rows for record in row) == list(range(len(lengths)))
    loads = [sum(lengths[record] for record in row) for row in rows]
    assert all(load <= 12 for load in loads)
    assert sum(load <= 6 for load in loads) <= 1  # two half-empty rows would have been one
