"""The cache against the decoder without one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gptailor.model import cache as cache_file
from gptailor.model.cache import Cache
from gptailor.model.decoder import Decoder

MakeDecoder = Callable[..., Decoder]


@pytest.fixture(scope="module")
def decoder(make_decoder: MakeDecoder) -> Decoder:
    return make_decoder(3)


def texts_of(lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(0, 300, (length,), generator=generator).tolist() for length in lengths]


def cache_for(decoder: Decoder, n_rows: int, n_slots: int) -> Cache:
    return Cache(decoder.config, n_rows, n_slots, decoder.token_embedding.weight)


@torch.no_grad()
def last_hidden(decoder: Decoder, text: list[int]) -> torch.Tensor:
    return decoder(torch.tensor([text]))[0, -1]


@pytest.mark.parametrize("at_once", [16, 512])
@torch.no_grad()
def test_rows_of_different_lengths_read_on_as_if_alone(decoder: Decoder, monkeypatch: pytest.MonkeyPatch, at_once: int):
    monkeypatch.setattr(cache_file, "tokens_at_once", lambda device: at_once)  # three parts, or one
    texts, ahead = texts_of([9, 24, 13, 10]), 8  # the second ends with the context
    cache = cache_for(decoder, 4, 24)
    hidden = cache.read(decoder, [text[:-ahead] for text in texts])
    for left in range(ahead, 0, -1):
        expected = torch.stack([last_hidden(decoder, text[: len(text) - left]) for text in texts])
        torch.testing.assert_close(hidden, expected, atol=1e-4, rtol=1e-4)
        hidden = cache.read(decoder, [[text[-left]] for text in texts])
    expected = torch.stack([last_hidden(decoder, text) for text in texts])
    torch.testing.assert_close(hidden, expected, atol=1e-4, rtol=1e-4)
    assert cache.lengths == [9, 24, 13, 10]


@torch.no_grad()
def test_what_is_in_slots_that_a_row_has_not_reached_is_not_read(decoder: Decoder):
    texts, hidden = texts_of([3, 12]), []
    for junk in (0.0, 1e6):
        cache = cache_for(decoder, 2, 20)
        cache.read(decoder, texts)
        for store in (cache.keys, cache.values):
            store[:, 0, :, 3:] = junk
            store[:, 1, :, 12:] = junk
        hidden.append(cache.read(decoder, [[5], [6]]))
    assert torch.equal(*hidden)


@torch.no_grad()
def test_rows_that_leave_make_room_and_the_others_read_on(decoder: Decoder):
    texts = texts_of([4, 7, 5, 9, 6])
    cache = cache_for(decoder, 5, 20)
    cache.read(decoder, texts)
    assert cache.keep([0, 2, 4]) == [0, 4, 2] and cache.lengths == [4, 6, 5]
    hidden = cache.read(decoder, [[1], [2], [3]])
    expected = [last_hidden(decoder, [*texts[row], token]) for row, token in ((0, 1), (4, 2), (2, 3))]
    torch.testing.assert_close(hidden, torch.stack(expected), atol=1e-4, rtol=1e-4)
    assert cache.keep([1, 2]) == [2, 1]
    hidden = cache.read(decoder, [[8], [9]])
    expected = [last_hidden(decoder, [*texts[2], 3, 8]), last_hidden(decoder, [*texts[4], 2, 9])]
    torch.testing.assert_close(hidden, torch.stack(expected), atol=1e-4, rtol=1e-4)
    assert cache.keep([0, 1]) == [0, 1] and cache.keep([]) == [] == cache.lengths
