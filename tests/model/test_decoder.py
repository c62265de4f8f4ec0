"""The decoder against its definition, written out in loops, and against what is published about GPT-2."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from gptailor.errors import UserError
from gptailor.model.config import SIZES, ModelConfig, parse_size
from gptailor.model.decoder import (
    Attention,
    Decoder,
    attend_once,
    attention_mask,
    document_mask,
    pick,
    real_positions,
    seen_from,
)
from gptailor.model.freeze import count_parameters

MakeDecoder = Callable[..., Decoder]
T, F = True, False


def ids_of(n_texts: int, n_tokens: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 300, (n_texts, n_tokens), generator=torch.Generator().manual_seed(seed))


def attention_in_loops(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    """Causal attention of one text (T, C), one head and one query at a time."""
    width, n_head = x.size(1), attention.n_head
    q, k, v = (x @ attention.qkv.weight.T + attention.qkv.bias).detach().split(width, dim=1)
    mixed = torch.zeros_like(x)
    for head in range(n_head):
        part = slice(head * width // n_head, (head + 1) * width // n_head)
        for now in range(x.size(0)):
            scores = [float(q[now, part] @ k[then, part]) / math.sqrt(width // n_head) for then in range(now + 1)]
            shares = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
            mixed[now, part] = sum(share * v[then, part] for then, share in enumerate(shares))
    return mixed @ attention.out.weight.T + attention.out.bias


# --- Forward ---


def test_attention_equals_its_definition_in_loops(make_decoder: MakeDecoder):
    attention = make_decoder().blocks[0].attention
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(2))
    expected = torch.stack([attention_in_loops(attention, text) for text in x])
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_one_query_gives_the_row_of_the_full_block(make_decoder: MakeDecoder, masked: bool):
    block = make_decoder().blocks[1]
    x = torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(3))
    at = torch.tensor([0, 4, 8])
    mask = attention_mask(torch.rand(3, 9, generator=torch.Generator().manual_seed(4)) < 0.7, causal=False)
    used = mask if masked else None
    full, single = block(x, used), block(x, used, at)
    assert single.shape == (3, 1, 32)
    torch.testing.assert_close(single, pick(full, at), atol=1e-5, rtol=0)


def test_one_query_of_a_wrapped_layer_is_the_same(make_decoder: MakeDecoder):
    block, x = make_decoder().blocks[1], torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(3))
    at = torch.tensor([0, 4, 8])
    expected = block(x, None, at)
    block.attention.qkv = torch.nn.Sequential(block.attention.qkv)  # as an adapter does
    torch.testing.assert_close(block(x, None, at), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("known", [4, 5])
def test_earlier_tokens_may_come_as_keys_and_values(make_decoder: MakeDecoder, known: int):
    block, x = make_decoder().blocks[1], torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(3))
    attention = block.attention
    _, *earlier = map(attention.split_heads, attention.qkv(block.norm_1(x[:, :known])).chunk(3, dim=-1))

    def past(*new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        k, v = (torch.cat(pair, 2) for pair in zip(earlier, new, strict=True))
        return k, v

    mask = torch.ones(2, 6, 6, dtype=torch.bool).tril()[:, known:]
    torch.testing.assert_close(block(x[:, known:], mask, None, past), block(x)[:, known:], atol=1e-5, rtol=0)


def test_every_norm_has_the_epsilon_of_the_configuration(make_decoder: MakeDecoder):
    norms = [module for module in make_decoder(norm_eps=0.5).modules() if isinstance(module, torch.nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [0.5] * 7  # two in each of three blocks, and the last


def test_a_block_adds_attention_and_then_an_mlp_with_gpt2_s_gelu(make_decoder: MakeDecoder):
    block = make_decoder().blocks[0]
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(2))
    x_attended = x + block.attention(block.norm_1(x))
    up = block.mlp.up(block.norm_2(x_attended))
    gelu = 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    torch.testing.assert_close(block(x), x_attended + block.mlp.down(gelu), atol=1e-5, rtol=1e-5)


def test_a_token_changes_its_own_and_later_positions_and_no_earlier_one(make_decoder: MakeDecoder):
    decoder, ids = make_decoder(), ids_of(1, 10)
    other = ids.clone()
    other[0, 6] = (other[0, 6] + 1) % 300
    difference = (decoder(ids) - decoder(other)).abs().amax(-1)[0]
    assert (difference[:6] == 0).all()
    assert (difference[6:] > 1e-3).all()


def test_positions_count_real_tokens_only(make_decoder: MakeDecoder):
    decoder, ids = make_decoder(), ids_of(1, 5)
    real = torch.tensor([[F, F, T, T, T]])
    tokens, positions = decoder.token_embedding.weight, decoder.position_embedding.weight
    torch.testing.assert_close(decoder.embed(ids)[0], tokens[ids[0]] + positions[:5])
    torch.testing.assert_close(decoder.embed(ids, real_positions(real))[0, 2:], tokens[ids[0, 2:]] + positions[:3])


def test_the_output_head_is_the_token_embedding(make_decoder: MakeDecoder):
    decoder = make_decoder()
    hidden = torch.randn(2, 32, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(decoder.logits(hidden), hidden @ decoder.token_embedding.weight.T)
    assert decoder.logits(decoder(ids_of(1, 4))).std() > 1  # what the other tests compare is no near-zero


# --- Masks, worked by hand ---


@pytest.mark.parametrize(
    ("real", "causal", "expected"),
    [
        ([T, T, F], True, [[T, F, F], [T, T, F], [T, T, T]]),
        ([T, T, F], False, [[T, T, F], [T, T, F], [T, T, T]]),
        ([F, T, T], True, [[T, F, F], [F, T, F], [F, T, T]]),
        ([F, T, T], False, [[T, T, T], [F, T, T], [F, T, T]]),
        ([F, F, T], True, [[T, F, F], [F, T, F], [F, F, T]]),
    ],
)
def test_attention_mask(real: list[bool], causal: bool, expected: list[list[bool]]):
    assert attention_mask(torch.tensor([real]), causal=causal).tolist() == [expected]


def test_masks_and_positions_are_made_where_their_arguments_are():
    real, at = torch.ones(2, 3, dtype=torch.bool, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    made = attention_mask(real, causal=True), attention_mask(real, causal=False), seen_from(at, 3), real_positions(real)
    assert [tensor.device.type for tensor in made] == ["meta"] * 4


def test_pick_and_seen_from():
    x = torch.arange(6).view(2, 3)
    assert pick(x, torch.tensor([2, 0])).tolist() == [[2], [3]]
    assert seen_from(torch.tensor([0, 2]), 3).tolist() == [[[T, F, F]], [[T, T, T]]]


# --- Random weights ---


def test_initialize_draws_as_gpt2_did():
    torch.manual_seed(6)
    decoder = Decoder(ModelConfig(n_layer=8, n_head=4, n_embd=128, vocab_size=1000, context_length=256)).initialize()
    for name, parameter in decoder.state_dict().items():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            std = 0.02 / 4 if residual else 0.02  # 8 blocks add 16 times to the residual stream, and 4 = sqrt(16)
            assert float(parameter.std()) == pytest.approx(std, rel=0.05), name
            assert abs(float(parameter.mean())) < 5 * std / math.sqrt(parameter.numel()), name


def test_initialize_follows_the_seed():
    first, again, other = (torch.manual_seed(seed) and Decoder(SIZES["tiny"]).initialize() for seed in (7, 7, 8))
    assert torch.equal(first.blocks[0].mlp.up.weight, again.blocks[0].mlp.up.weight)
    assert not torch.equal(first.blocks[0].mlp.up.weight, other.blocks[0].mlp.up.weight)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("gpt2-small", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_named_sizes_have_the_published_number_of_parameters(size: str, count: int):
    with torch.device("meta"):
        decoder = Decoder(SIZES[size])
    assert count_parameters(decoder) == (count, count)


# --- Sizes by name and by numbers ---


def test_a_size_by_numbers_takes_the_rest_from_tiny():
    assert parse_size("n_layer=4, n_head=2,n_embd=64") == ModelConfig(4, 2, 64, context_length=512)
    assert parse_size("context_length=96").context_length == 96
    assert parse_size("gpt2-xl") == ModelConfig(n_layer=48, n_head=25, n_embd=1600)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gpt2-smal", "did you mean 'gpt2-small'"),
        ("", "tiny, gpt2-small"),
        ("n_layers=4", "'n_layers=4'"),
        ("n_layer=four", "'n_layer=four'"),
        ("n_layer=-1", "'n_layer=-1'"),
        ("n_layer=²", "'n_layer=²'"),
        ("n_layer=2,", "''"),
        ("vocab_size=9", "'vocab_size=9'"),
        ("n_layer=0", "n_layer is 0"),
        ("n_layer=123456", "n_layer is 123456"),
        ("n_layer=0,n_head=1001", "n_head is 1001"),
        ("n_embd=" + "9" * 5000, "n_embd="),
        ("n_head=3,n_embd=64", "n_embd 64 is not a multiple of n_head 3"),
    ],
)
def test_an_impossible_size_is_one_error_that_names_it(text: str, named: str):
    with pytest.raises(UserError) as caught:
        parse_size(text)
    assert named in str(caught.value)


def test_packed_documents_do_not_see_each_other(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder()
    first, second = ids_of(1, 4), ids_of(1, 3, seed=2)
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    assert document_mask(torch.tensor([[0, 0, 1]])).tolist() == [[[T, F, F], [T, T, F], [F, F, T]]]
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    packed = decoder(torch.cat([first, second], 1), positions, document_mask(documents))
    torch.testing.assert_close(packed, torch.cat([decoder(first), decoder(second)], 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_one_query_attends_as_in_torch(dtype: torch.dtype, near: float):
    random = torch.Generator().manual_seed(4)
    stored = torch.randn(2, 3, 4, 9, 8, generator=random).to(dtype)  # keys and values of more slots than are seen
    q, (k, v) = torch.randn(3, 4, 1, 8, generator=random).to(dtype), stored[:, :, :, :6]
    mask = (torch.arange(6) <= torch.tensor([[5], [0], [3]]))[:, None, None]  # (B, 1, 1, S)
    expected = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    torch.testing.assert_close(attend_once(q, k, v, mask).float(), expected, atol=near, rtol=near)
