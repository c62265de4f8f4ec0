"""Generation: both loops against transformers and against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from gptailor.model.decoder import Decoder
from gptailor.model.generate import Continuation, generate, generate_batch
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


# --- The plain loop ---


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


# --- Many prompts at once, in float64: no two logits are so near that the order of a sum decides ---

CONTEXT = 24


@pytest.fixture(scope="module")
def exact(make_decoder: MakeDecoder) -> Decoder:
    return lively(make_decoder(5)).double()


def prompts_of(lengths: Sequence[int], seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 300, (length,), generator=generator).tolist() for length in lengths]


def plain(decoder: Decoder, prompt: list[int], most: int, **options: Any) -> Continuation:
    """What the plain loop says while the context lasts."""
    if len(prompt) > CONTEXT:
        return Continuation([], "context")
    room = CONTEXT + 1 - len(prompt)
    ids = generate(decoder, prompt, max_new_tokens=min(most, room), **options)
    if len(ids) < min(most, room):
        return Continuation(ids, "end of text")
    return Continuation(ids, "length" if most <= room else "context")


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, CONTEXT + 2), max_size=6),
    seed=st.integers(0, 99),
    most=st.integers(1, 16),
    end=st.integers(0, 5),
)
def test_each_prompt_gets_what_the_plain_loop_says_to_it_alone(
    exact: Decoder, lengths: list[int], seed: int, most: int, end: int
):
    prompts = prompts_of(lengths, seed)
    said = [id_ for prompt in prompts if len(prompt) <= CONTEXT for id_ in generate(exact, prompt, max_new_tokens=most)]
    end_of_text = said[end * len(said) // 6] if said else None  # so that rows end early, and not together
    batch = generate_batch(exact, prompts, max_new_tokens=most, end_of_text=end_of_text)
    assert batch == [plain(exact, prompt, most, end_of_text=end_of_text) for prompt in prompts]


def test_prompts_end_for_different_reasons_in_one_batch(exact: Decoder):
    prompts = prompts_of([2, 9, CONTEXT - 3, CONTEXT, CONTEXT + 1, 5])
    said = [generate(exact, prompt, max_new_tokens=8) for prompt in prompts]
    end = next(id_ for id_ in said[1] if sum(id_ in ids for ids in said) == 1)
    batch = generate_batch(exact, prompts, max_new_tokens=8, end_of_text=end)
    assert [each.ended for each in batch] == ["length", "end of text", "context", "context", "context", "length"]
    assert [len(each.ids) for each in batch] == [8, said[1].index(end), 4, 1, 0, 8]
    assert batch == [plain(exact, prompt, 8, end_of_text=end) for prompt in prompts]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_greedy_batch_equals_transformers_on_prompts_of_different_lengths(make_decoder: MakeDecoder, seed: int):
    decoder = lively(make_decoder(seed, context_length=32)).double()
    prompts = prompts_of([1, 12, 5, 8], seed)
    padded = torch.tensor([[0] * (12 - len(prompt)) + prompt for prompt in prompts])
    real = torch.tensor([[0] * (12 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    config = GenerationConfig(max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)
    model = theirs(decoder).double()
    expected = model.generate(padded, attention_mask=real, generation_config=config)[:, 12:].tolist()
    batch = generate_batch(decoder, prompts, max_new_tokens=20)
    assert [each.ids for each in batch] == expected and len(set(map(tuple, expected))) == 4


@pytest.mark.parametrize("penalty", [0.7, 1.3, 5.0])
def test_the_repetition_penalty_is_that_of_transformers(make_decoder: MakeDecoder, penalty: float):
    decoder = lively(make_decoder(1, context_length=32)).double()
    prompts, model = prompts_of([4, 9]), theirs(decoder).double()
    config = GenerationConfig(
        max_new_tokens=20, do_sample=False, repetition_penalty=penalty, eos_token_id=None, pad_token_id=0
    )
    inputs = [torch.tensor([prompt]) for prompt in prompts]  # one by one, for theirs counts padding as said
    said = [model.generate(ids, generation_config=config)[0, ids.size(1) :].tolist() for ids in inputs]
    batch = generate_batch(decoder, prompts, max_new_tokens=20, repetition_penalty=penalty)
    assert [each.ids for each in batch] == said
    assert batch != generate_batch(decoder, prompts, max_new_tokens=20)


def test_draws_follow_the_seed_of_each_prompt_and_no_neighbour(exact: Decoder):
    how: dict[str, Any] = {"temperature": 1.5, "top_k": 50, "top_p": 0.95}
    prompts, seeds = prompts_of([3, 8, 1, 6]), [11, 12, 13, 11]
    expected = [
        plain(exact, prompt, 12, generator=torch.Generator().manual_seed(seed), **how)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert generate_batch(exact, prompts, max_new_tokens=12, seeds=seeds, **how) == expected
    turned = generate_batch(exact, prompts[::-1], max_new_tokens=12, seeds=seeds[::-1], **how)
    assert turned[::-1] == expected
    same = generate_batch(exact, [prompts[0]] * 3, max_new_tokens=12, seeds=[7, 8, 7], **how)
    assert same[0] == same[2] != same[1]


def test_ids_are_told_as_they_come(exact: Decoder):
    prompts, told = prompts_of([7, 2, 4]), []
    end = generate(exact, prompts[2], max_new_tokens=6)[-1]
    batch = generate_batch(
        exact, prompts, max_new_tokens=6, end_of_text=end, on_token=lambda row, id_: told.append((row, id_))
    )
    assert [[id_ for row, id_ in told if row == number] for number in range(3)] == [each.ids for each in batch]
    assert [row for row, _ in told[:3]] == [0, 1, 2], "one of each prompt, and not one prompt after the other"


def letters(ids: Sequence[int]) -> str:
    """A text of which each id is two letters, so that a stop string may begin and end inside one."""
    return "".join(chr(97 + id_ // 20) + chr(97 + id_ % 20) for id_ in ids)


def test_a_stop_string_ends_the_text_with_the_token_that_completes_it(exact: Decoder):
    how: dict[str, Any] = {"max_new_tokens": 12, "temperature": 2.0, "seeds": [1, 2, 3]}
    prompts = prompts_of([3, 8, 5])
    whole = [each.ids for each in generate_batch(exact, prompts, **how)]
    stop = [letters(whole[0])[5:8], letters(whole[1])[9:14]]
    batch = generate_batch(exact, prompts, stop=stop, decode=letters, **how)
    assert [each.ended for each in batch] == ["stop string", "stop string", "length"]
    for each, ids in zip(batch, whole, strict=True):
        found = [n for n in range(1, 13) if any(one in letters(ids[:n]) for one in stop)]
        assert each.ids == ids[: found[0] if found else 12]


def test_nothing_to_do_is_done(exact: Decoder):
    assert generate_batch(exact, [], max_new_tokens=5) == []
    assert generate_batch(exact, [[1], [2, 3]], max_new_tokens=0) == [Continuation([], "length")] * 2


def test_bf16_products_need_nothing_else(decoder: Decoder):
    with torch.autocast("cpu", torch.bfloat16):
        batch = generate_batch(decoder, prompts_of([3, 9]), max_new_tokens=10)
    assert [len(each.ids) for each in batch] == [10, 10]
