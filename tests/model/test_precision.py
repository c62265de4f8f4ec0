"""Lower precision in use: near fp32 by stated measure, each token by itself, and less memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.generate import generate, generate_batch
from gptailor.model.head import Classifier
from gptailor.model.linear import PackedLinear
from gptailor.model.lora import LoraSettings, adapt
from gptailor.model.precision import HalfHead, LowerEmbedding, check_precision, in_bf16, lower, read_in
from gptailor.model.quantize import Int8Linear

CPU = torch.device("cpu")
# Of the logits' standard deviation, over 3 blocks with weights as large as a trained model's.
NEAR = {"fp32": 0.0, "bf16": 0.06, "int8": 0.1}
IDS = torch.randint(300, (4, 20), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(decoder: Decoder) -> Tensor:
    return decoder.logits(decoder(IDS)).float()


# --- one layer --------------------------------------------------------------------------------------------------------


def test_a_row_is_kept_in_255_levels() -> None:
    layer = Int8Linear(torch.tensor([[0.5, -1.0, 0.2], [0.0, 0.0, 0.0]]), torch.tensor([3.0, 4.0]))
    assert layer.weight[0] * 127 == pytest.approx([64, -127, 25], abs=1e-4)
    assert layer.weight[1].tolist() == [0, 0, 0]
    assert layer(torch.zeros(1, 3)).tolist() == [[3, 4]]


def test_an_int8_product_is_the_product_of_what_was_rounded() -> None:
    random = torch.Generator().manual_seed(0)
    weight, x = torch.randn(24, 64, generator=random), torch.randn(3, 5, 64, generator=random)
    layer = Int8Linear(weight, None)
    assert (layer.weight - weight).abs().max() <= weight.abs().max() / 254 + 1e-6  # half a level
    error = layer(x) - x @ weight.T
    assert error.shape == (3, 5, 24)
    assert 0 < error.abs().max() < 0.03 * (x @ weight.T).std() * 3
    levels = (x / x.abs().amax(-1, keepdim=True) * 127).round()
    assert torch.allclose(layer(x), levels @ layer.weight.T * x.abs().amax(-1, keepdim=True) / 127, atol=1e-4)


def test_a_token_does_not_depend_on_its_neighbours_in_int8() -> None:
    layer, x = Int8Linear(torch.randn(8, 16), torch.randn(8)), torch.randn(6, 16)
    x[0] *= 1000  # would leave the others few levels, were there one scale for all
    assert torch.equal(layer(x)[3:4], layer(x[3:4]))


def test_the_head_in_bf16_tells_large_logits_apart() -> None:
    weight = torch.full((300, 4), 20.0)
    weight[3:10] = 25
    weight[7, 0] += 0.125  # the logit is 100.125, which bf16 makes 100
    hidden = torch.ones(1, 4, dtype=torch.bfloat16)
    assert (hidden @ weight.bfloat16().T).unique().tolist() == [80, 100]
    head = HalfHead(weight.bfloat16())
    assert head(hidden).argmax().item() == 7
    assert head(hidden)[0, 7].item() == 100.125


# --- a whole model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_logits_are_near_those_in_fp32(make_decoder: Callable[..., Decoder], precision: str) -> None:
    exact, lowered = make_decoder(n_embd=64), make_decoder(n_embd=64)
    lower(lowered, precision)
    difference = (logits(lowered) - logits(exact)).abs()
    assert difference.mean() <= NEAR[precision] * logits(exact).std()
    assert (difference.max() > 0) == (precision != "fp32")


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_the_fast_loop_says_what_the_plain_one_says(make_decoder: Callable[..., Decoder], precision: str) -> None:
    decoder = make_decoder()
    lower(decoder, precision)
    prompts = [[5, 9, 1], [7], [3, 3, 8, 1, 2]]
    said = generate_batch(decoder, prompts, max_new_tokens=8)
    assert [one.ids for one in said] == [generate(decoder, prompt, max_new_tokens=8) for prompt in prompts]


@pytest.mark.parametrize("read", ["last", "mean"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_classifier_gives_float32_near_its_own(
    make_decoder: Callable[..., Decoder], precision: str, read: str
) -> None:
    model, real = Classifier(make_decoder(n_embd=64), 3, read=read).eval(), torch.ones_like(IDS, dtype=torch.bool)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    with torch.no_grad():
        before = model(IDS, real)
        lower(model, precision)
        after, plain = model(IDS, real), model.plain(IDS, real)
    assert after.dtype == torch.float32
    for lowered in (after, plain):
        assert 0 < (lowered - before).abs().mean() <= 2 * NEAR[precision] * before.std()


def test_an_adapted_output_head_stays_apart_from_the_embedding(make_decoder: Callable[..., Decoder]) -> None:
    for precision in ("bf16", "int8"):
        decoder = make_decoder()
        adapt(decoder, {"token_embedding": 1}, LoraSettings(rank=2))
        torch.nn.init.normal_(decoder.token_embedding.adapters["default"].b)
        before, vectors = logits(decoder), decoder.token_embedding.frozen.weight.clone()
        lower(decoder, precision)
        assert isinstance(decoder.token_embedding, LowerEmbedding)
        assert torch.allclose(decoder.token_embedding.weight.float(), vectors, atol=4e-3)
        assert (logits(decoder) - before).abs().mean() <= NEAR[precision] * before.std()


def test_bf16_takes_half_the_memory_and_the_head_twice(make_decoder: Callable[..., Decoder]) -> None:
    decoder = make_decoder().to(read_in("bf16"))
    lower(decoder, "bf16")
    sizes = {tensor.data_ptr(): tensor.nbytes for tensor in decoder.parameters()}
    packed = [module for module in decoder.modules() if isinstance(module, PackedLinear)]
    sizes_packed = [2 * one.packed.numel() + (0 if one.bias is None else one.bias.nbytes) for one in packed]
    head = decoder.token_embedding.weight.nbytes if packed else 0  # its rows are also looked up
    whole = 2 * sum(p.numel() for p in make_decoder().parameters())
    assert sum(sizes.values()) + sum(sizes_packed) == whole + head


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match=r"--precision fp8\n  expected: fp32, bf16, int8"):
        check_precision("fp8", CPU)
    with pytest.raises(UserError, match=r"--precision int8 on cuda\n.*--device cpu\n.*--precision bf16"):
        check_precision("int8", torch.device("cuda"))


def test_auto_is_what_the_processor_is_good_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for able in (True, False):
        monkeypatch.setattr("gptailor.model.precision.fast_bf16", lambda device, able=able: able)
        assert [in_bf16(name, CPU) for name in ("fp32", "bf16", "auto")] == [False, True, able]
