"""Adapters: what they add, that they begin as nothing, merge without a trace, and the counts of the book."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gptailor.errors import UserError
from gptailor.model.config import SIZES, ModelConfig
from gptailor.model.decoder import Decoder
from gptailor.model.freeze import count_parameters, freeze_for_lora, frozen_depth
from gptailor.model.head import Classifier
from gptailor.model.lora import AdaptedLinear, LoRA, LoraSettings, adapt, adapted, matrices, merge, use

MakeDecoder = Callable[..., Decoder]
IDS = torch.randint(0, 300, (3, 20), generator=torch.Generator().manual_seed(1))
REAL = torch.ones(3, 20, dtype=torch.bool)
EVERYTHING = ["attention", "mlp", "head"]
KINDS = {
    "plain": LoraSettings(rank=2, alpha=3),
    "stabilised": LoraSettings(rank=4, alpha=3, rank_stabilised=True),
    "dora": LoraSettings(rank=2, alpha=3, dora=True),
}


@torch.no_grad()
def moved(model: nn.Module) -> nn.Module:
    """The model with adapters that have learned something."""
    random = torch.Generator().manual_seed(3)
    for layer in adapted(model).values():
        for lora in layer.adapters.values():
            for parameter in lora.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return model.eval()


def logits(model: nn.Module) -> torch.Tensor:
    if isinstance(model, Classifier):
        return model(IDS, REAL)
    assert isinstance(model, Decoder)
    return model.logits(model(IDS))


def test_what_an_adapter_adds_by_hand() -> None:
    linear = nn.Linear(2, 1)
    linear.weight.data, linear.bias.data = torch.tensor([[1.0, 2.0]]), torch.tensor([0.5])
    layer = AdaptedLinear(linear)
    lora = layer.adapters["mine"] = LoRA(linear.weight, 1, LoraSettings(rank=1, alpha=2))
    layer.active = "mine"
    assert isinstance(lora, LoRA)
    lora.a.data, lora.b.data = torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[10.0]]])
    # x = (1, 1): 1 + 2 + 0.5 of the layer, and 2 / 1 * 10 * (3 + 1) of the adapter
    assert layer(torch.ones(1, 2)).tolist() == [[83.5]]
    assert layer.weight.tolist() == [[61.0, 22.0]]


def test_dora_by_hand() -> None:
    linear = nn.Linear(2, 1, bias=False)
    linear.weight.data = torch.tensor([[3.0, 4.0]])
    layer = AdaptedLinear(linear)
    lora = layer.adapters["mine"] = LoRA(linear.weight, 1, LoraSettings(rank=1, alpha=1, dora=True))
    layer.active = "mine"
    assert isinstance(lora, LoRA) and lora.magnitude is not None and lora.magnitude.tolist() == [5.0]
    lora.a.data, lora.b.data = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[-4.0]]])
    assert layer.weight.tolist() == [[5.0, 0.0]]  # (3, 0) has length 3 and is to have length 5
    lora.magnitude.data.fill_(2.0)
    assert layer.weight.tolist() == [[2.0, 0.0]]
    assert layer(torch.tensor([[7.0, 1.0]])).tolist() == [[14.0]]


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_fresh_adapter_changes_nothing_and_a_moved_one_does(
    make_decoder: MakeDecoder, settings: LoraSettings
) -> None:
    decoder = make_decoder()
    before = logits(decoder).detach()
    freeze_for_lora(decoder, settings, targets=EVERYTHING, unfreeze=[])
    assert frozen_depth(decoder) == 0, "every block has adapters"
    torch.testing.assert_close(logits(decoder), before, atol=2e-5, rtol=0)
    after = logits(moved(decoder))
    assert (after - before).abs().max() > 0.5
    use(decoder, None)
    assert torch.equal(logits(decoder), before)
    use(decoder, "default")
    assert torch.equal(logits(decoder), after)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("classifier", [False, True])
def test_a_merged_model_says_the_same_and_is_plain_again(
    make_decoder: MakeDecoder, settings: LoraSettings, classifier: bool
) -> None:
    model = Classifier(make_decoder(), 4) if classifier else make_decoder()
    names = [name for name, _ in model.named_parameters()]
    targets = EVERYTHING if classifier else ["attention", "mlp"]
    freeze_for_lora(model, settings, targets=targets, unfreeze=[])
    expected = logits(moved(model)).detach()
    merge(model)
    assert [name for name, _ in model.named_parameters()] == names
    torch.testing.assert_close(logits(model), expected, atol=2e-5, rtol=1e-5)


def test_an_adapted_output_head_stays_apart_from_the_embedding(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder()
    freeze_for_lora(decoder, KINDS["plain"], targets=EVERYTHING, unfreeze=[])
    expected, embedded = logits(moved(decoder)).detach(), decoder.embed(IDS)
    merge(decoder)
    torch.testing.assert_close(logits(decoder), expected, atol=2e-5, rtol=1e-5)
    assert list(adapted(decoder)) == ["token_embedding"]
    assert torch.equal(decoder.embed(IDS), embedded)


def test_the_weight_of_a_wrapped_layer_is_the_sum_and_its_gradient_the_same(make_decoder: MakeDecoder) -> None:
    """The last block of a classifier reads parts of the weight: that way and the way through r numbers agree."""
    decoder = make_decoder()
    adapt(decoder, matrices(decoder, "qkv"), KINDS["plain"])
    layer = next(iter(adapted(moved(decoder)).values()))
    assert isinstance(layer, AdaptedLinear)
    x = torch.randn(5, 32)
    parameters = list(layer.adapters.parameters())
    narrow = torch.autograd.grad(layer(x).square().sum(), parameters)
    wide = torch.autograd.grad(F.linear(x, layer.weight, layer.bias).square().sum(), parameters)
    for one, other in zip(narrow, wide, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_only_adapters_have_gradients(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder()
    freeze_for_lora(decoder, KINDS["dora"], targets=["attention"], unfreeze=["norms"])
    logits(decoder).square().sum().backward()
    learning = {name for name, p in decoder.named_parameters() if p.grad is not None}
    assert learning == {name for name, p in decoder.named_parameters() if ".adapters." in name or "norm" in name}


def test_several_adapters_on_one_base(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder()
    names = matrices(decoder, "attention")
    for name in ("one", "two"):
        adapt(decoder, names, KINDS["plain"], adapter=name)
    both = {}
    for name in ("one", "two"):
        use(moved(decoder), name)
        both[name] = logits(decoder).detach()
    use(decoder, "one")
    assert not torch.equal(both["one"], both["two"])
    assert (logits(decoder) - logits(make_decoder())).abs().max() > 0.5


def test_a_frozen_matrix_may_be_kept_in_half_the_bytes(make_decoder: MakeDecoder) -> None:
    decoder, exact = make_decoder(), logits(make_decoder())
    freeze_for_lora(decoder, KINDS["plain"], targets=["attention", "mlp"], unfreeze=[], frozen_in=torch.bfloat16)
    kinds = {layer.frozen.weight.dtype for layer in adapted(decoder).values()}
    assert kinds == {torch.bfloat16} and logits(decoder).dtype == torch.float32
    near = (logits(decoder) - exact).abs().max() / exact.abs().max()
    assert 0 < near < 0.05


@pytest.mark.parametrize(("size", "classes", "count"), [("small", 2, 2_666_528), ("medium", None, 7_898_384)])
def test_the_counts_of_the_book(size: str, classes: int | None, count: int) -> None:
    """Rank 16 on every linear layer: GPT-2 small with a two-class head (that has no bias), medium as language model."""
    with torch.device("meta"):
        shape = SIZES[f"gpt2-{size}"] if f"gpt2-{size}" in SIZES else SIZES[size]
        model: Decoder | Classifier = Decoder(shape)
        model = Classifier(model, classes) if classes else model
        whole, _ = count_parameters(model)
        freeze_for_lora(model, LoraSettings(rank=16, alpha=16), targets=EVERYTHING, unfreeze=[])
    assert count_parameters(model) == (whole + count, count)
    if classes:
        assert whole == 124_441_344  # the book's head has two biases more


def test_what_can_be_adapted(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder(n_layer=2)
    assert matrices(decoder, "attention") == {
        "blocks.0.attention.qkv": 3,
        "blocks.0.attention.out": 1,
        "blocks.1.attention.qkv": 3,
        "blocks.1.attention.out": 1,
    }
    assert list(matrices(decoder, "mlp.up")) == ["blocks.0.mlp.up", "blocks.1.mlp.up"]
    assert list(matrices(decoder, "down")) == ["blocks.0.mlp.down", "blocks.1.mlp.down"]
    assert list(matrices(decoder, "head")) == ["token_embedding"]
    assert list(matrices(Classifier(decoder, 2), "head")) == ["head"]
    assert matrices(decoder, "p") == {}


def test_words_that_mean_nothing_are_told_together(make_decoder: MakeDecoder) -> None:
    with pytest.raises(UserError) as caught:
        freeze_for_lora(make_decoder(), KINDS["plain"], targets=["atention", "mlp"], unfreeze=["head", "norm"])
    told = str(caught.value)
    assert all(part in told for part in ("--targets atention", "--unfreeze head", "--unfreeze norm", "norms, biases"))
    for targets in ([], ["head"]):  # nothing would be left for an adapter's files
        with pytest.raises(UserError, match="names no layer to adapt"):
            freeze_for_lora(Classifier(make_decoder(), 2), KINDS["plain"], targets=targets, unfreeze=[])
    with pytest.raises(UserError, match="has an adapter and is unfrozen"):
        classifier = Classifier(make_decoder(), 2)
        freeze_for_lora(classifier, KINDS["plain"], targets=["head"], unfreeze=["head"])


def test_a_classifier_drops_inputs_in_every_layer_while_it_trains(make_decoder: MakeDecoder) -> None:
    """Also where the last block asks at one position only."""
    model = Classifier(make_decoder(n_layer=1), 2)
    freeze_for_lora(model, LoraSettings(rank=4, dropout=0.5), targets=["qkv"], unfreeze=[])
    moved(model).train()
    assert not torch.equal(model(IDS, REAL), model(IDS, REAL))
    model.eval()
    torch.testing.assert_close(model(IDS, REAL), model.plain(IDS, REAL), atol=2e-5, rtol=1e-5)


def test_dropout_only_while_training() -> None:
    linear = nn.Linear(8, 8)
    adapter = LoRA(linear.weight, 1, LoraSettings(rank=2, alpha=2, dropout=0.5))
    adapter.b.data.fill_(1.0)
    x = torch.ones(1, 8)
    assert not torch.equal(adapter.train()(x), adapter(x))
    assert torch.equal(adapter.eval()(x), adapter(x))


def test_shapes(make_decoder: MakeDecoder) -> None:
    decoder = Decoder(ModelConfig(n_layer=1, n_head=2, n_embd=8, vocab_size=30, context_length=8)).initialize()
    adapt(decoder, matrices(decoder, "qkv"), LoraSettings(rank=3))
    (layer,) = adapted(decoder).values()
    assert layer.adapter is not None
    assert (layer.adapter.a.shape, layer.adapter.b.shape) == ((3, 3, 8), (3, 8, 3))
