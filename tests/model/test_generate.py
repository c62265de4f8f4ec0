"""Generation: greedy against transformers, and the distributions of sampling worked by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from gptailor.model.decoder import Decoder
from gptailor.model.generate import choose, generate, nucleus
from gptailor.weights.huggingface import config_values, decoder_tensors

MakeDecoder = Callable[..., Decoder]
PROMPT = [5, 17, 250, 3, 3]


def theirs(decoder: Decoder) -> GPT2LMHeadModel:
    """transformers' model with the weights of ours."""
    model = GPT2LMHeadModel(GPT2Config(**config_values(decoder.config)))
    left, unknown = model.load_state_dict(decoder_tensors(decoder), strict=False)
    assert (left, unknown) == (["lm_head.weight"], [])  # tied to the embedding
    model.tie_weights()
    return model.eval()


def lively(decoder: Decoder) -> Decoder:
    """Half of the final norm turned round and positions made loud, or the same token is said for ever."""
    decoder.position_embedding.weight.data *= 4
    decoder.norm.weight.data[::2] *= -1
    return decoder


@pytest.fixture(scope="module")
def decoder(make_decoder: MakeDecoder) -> Decoder:
    return lively(make_decoder())


# --- The loop ---


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_greedy_equals_transformers_for_twenty_tokens(make_decoder: MakeDecoder, seed: int):
    decoder = lively(make_decoder(seed, context_length=32))
    config = GenerationConfig(max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)
    expected = theirs(decoder).generate(torch.tensor([PROMPT]), generation_config=config)[0, len(PROMPT) :].tolist()
    assert len(set(expected)) > 5
    assert generate(decoder, PROMPT, max_new_tokens=20) == expected


@torch.no_grad()
def test_a_prompt_longer_than_the_context_is_cropped_from_the_left(decoder: Decoder):
    context, model = decoder.config.context_length, theirs(decoder)
    prompt = torch.randint(0, 300, (context + 10,), generator=torch.Generator().manual_seed(1)).tolist()
    ids = list(prompt)
    for _ in range(20):
        ids.append(int(model(torch.tensor([ids[-context:]])).logits[0, -1].argmax()))
    expected = ids[len(prompt) :]
    assert len(set(expected)) > 3
    assert generate(decoder, prompt, max_new_tokens=20) == expected


def test_the_prompt_is_left_as_it_was_and_no_tokens_give_nothing(decoder: Decoder):
    prompt = list(PROMPT)
    assert generate(decoder, prompt, max_new_tokens=0) == []
    assert len(generate(decoder, prompt, max_new_tokens=3)) == 3
    assert prompt == PROMPT


def test_generation_stops_before_the_end_of_text(decoder: Decoder):
    whole = generate(decoder, PROMPT, max_new_tokens=10)
    end = whole[4]
    assert generate(decoder, PROMPT, max_new_tokens=10, end_of_text=end) == whole[: whole.index(end)]


def sampled(decoder: Decoder, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return generate(decoder, PROMPT, max_new_tokens=15, temperature=1.5, top_k=50, top_p=0.95, generator=generator)


def test_the_same_seed_draws_the_same_text_and_another_another(decoder: Decoder):
    torch.manual_seed(1)
    first = sampled(decoder, 1)
    torch.manual_seed(2)  # the global random state takes no part
    assert sampled(decoder, 1) == first
    assert sampled(decoder, 2) != first


# --- One choice: logits log 8, log 4, log 2, log 1, log 1 are probabilities of 8, 4, 2, 1, 1 in 16 ---

LOGITS = torch.tensor([1.0, 4.0, 1.0, 8.0, 2.0]).log()  # ids 3, 1, 4 in falling order, then 0 and 2
DRAWS = 4000


def shares(temperature: float, top_k: int | None = None, top_p: float | None = None) -> dict[int, float]:
    generator = torch.Generator().manual_seed(3)
    drawn = Counter(choose(LOGITS, temperature, top_k, top_p, generator) for _ in range(DRAWS))
    return {token: count / DRAWS for token, count in drawn.items()}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 1.0}, {3: 8, 1: 4, 4: 2, 0: 1, 2: 1}),
        ({"temperature": 0.5}, {3: 64, 1: 16, 4: 4, 0: 1, 2: 1}),  # p to the power of 1 / temperature
        ({"temperature": 2.0}, {3: 8**0.5, 1: 2, 4: 2**0.5, 0: 1, 2: 1}),
        ({"temperature": 1.0, "top_k": 1}, {3: 1}),
        ({"temperature": 1.0, "top_k": 2}, {3: 2, 1: 1}),
        ({"temperature": 1.0, "top_k": 99}, {3: 8, 1: 4, 4: 2, 0: 1, 2: 1}),
        ({"temperature": 1.0, "top_p": 0.4}, {3: 1}),
        ({"temperature": 1.0, "top_p": 0.7}, {3: 2, 1: 1}),  # 8/16 is too few, 12/16 reaches it
        ({"temperature": 1.0, "top_p": 0.8}, {3: 4, 1: 2, 4: 1}),
        ({"temperature": 1.0, "top_p": 1.0}, {3: 8, 1: 4, 4: 2, 0: 1, 2: 1}),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.6}, {3: 2, 1: 1}),  # of the three, 8/14 is too few
        ({"temperature": 0.5, "top_p": 0.7}, {3: 1}),  # temperature comes first: 64/86 reaches it
    ],
)
def test_ids_are_drawn_with_their_probabilities(settings: dict[str, float], expected: dict[int, float]):
    drawn, total = shares(**settings), sum(expected.values())
    assert set(drawn) == set(expected)
    for token, weight in expected.items():
        share = weight / total
        deviation = math.sqrt(share * (1 - share) / DRAWS)
        assert drawn[token] == pytest.approx(share, abs=4 * deviation)


def test_temperature_zero_takes_the_largest_and_draws_nothing():
    generator = torch.Generator().manual_seed(4)
    before = generator.get_state()
    assert choose(LOGITS, 0.0, 2, 0.5, generator) == 3
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("probabilities", "top_p", "kept"),
    [
        ([0.5, 0.3, 0.2], 0.7, [0.5, 0.3, 0.0]),
        ([0.2, 0.5, 0.3], 0.7, [0.0, 0.5, 0.3]),
        ([0.5, 0.25, 0.25], 0.5, [0.5, 0.0, 0.0]),
        ([0.5, 0.25, 0.25], 1.0, [0.5, 0.25, 0.25]),
        ([0.5, 0.3, 0.2], 1e-9, [0.5, 0.0, 0.0]),
    ],
)
def test_nucleus(probabilities: list[float], top_p: float, kept: list[float]):
    values: Tensor = nucleus(torch.tensor(probabilities), top_p)
    torch.testing.assert_close(values, torch.tensor(kept))
