"""The class head: the fast path against its plain twin, what a text's answer may depend on, and what is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.freeze import count_parameters, freeze, frozen_depth
from gptailor.model.head import Classifier, Read, last_token

MakeDecoder = Callable[..., Decoder]
Build = Callable[..., Classifier]

LENGTHS = (3, 7, 1, 5)
TEXTS = [torch.randint(0, 300, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in LENGTHS]
SIDES = ("right", "left")

every_head = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
every_read = pytest.mark.parametrize("read", get_args(Read))
every_side = pytest.mark.parametrize("side", SIDES)


@pytest.fixture
def build(make_decoder: MakeDecoder) -> Build:
    def make(read: Read = "last", causal: bool = True, n_classes: int = 5) -> Classifier:
        model = Classifier(make_decoder(), n_classes, read=read, causal=causal)
        generator = torch.Generator().manual_seed(9)
        torch.nn.init.normal_(model.head.weight, std=0.5, generator=generator)
        return model.eval()

    return make


def padded(texts: list[list[int]], side: str, width: int = 0, pad: int = 299) -> tuple[Tensor, Tensor]:
    """Ids and which of them are real, (B, T) each."""
    width = max(width, *map(len, texts))
    fill = [[pad] * (width - len(text)) for text in texts]
    rows = [text + more if side == "right" else more + text for text, more in zip(texts, fill, strict=True)]
    kept = [[True] * len(text) + [False] * (width - len(text)) for text in texts]
    return torch.tensor(rows), torch.tensor([row if side == "right" else row[::-1] for row in kept])


def alone(model: Classifier, texts: list[list[int]]) -> Tensor:
    """Each text by itself, without padding, through the plain twin: (B, K)."""
    rows = [model.plain(torch.tensor([text]), torch.ones(1, len(text), dtype=torch.bool)) for text in texts]
    return torch.cat(rows).detach()


# --- The fast path and its twin ---


@every_head
@every_read
@every_side
def test_the_fast_path_equals_the_plain_one(build: Build, read: Read, causal: bool, side: str):
    model = build(read, causal)
    ids, real = padded(TEXTS, side)
    fast, plain = model(ids, real), model.plain(ids, real)
    assert plain.std() > 0.5
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)


@every_head
@every_read
@every_side
def test_the_gradients_of_both_paths_are_equal(build: Build, read: Read, causal: bool, side: str):
    model = build(read, causal)
    ids, real = padded(TEXTS, side)
    gradients = []
    for path in (model.forward, model.plain):
        model.zero_grad()
        F.cross_entropy(path(ids, real), torch.tensor([0, 1, 2, 3])).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    fast, plain = gradients
    assert len(plain) == 1 + 4 + 3 * 12
    for name, expected in plain.items():
        scale = float(expected.abs().max())
        assert scale > 1e-4, name
        torch.testing.assert_close(fast[name], expected, atol=1e-5 * max(1, scale), rtol=0, msg=name)


@every_head
@every_read
@every_side
def test_an_answer_depends_on_the_text_alone(build: Build, read: Read, causal: bool, side: str):
    model = build(read, causal)
    expected = alone(model, TEXTS)
    for width in (0, 12, model.decoder.config.context_length):  # neighbours, and ever more padding
        for pad in (299, 0):
            answers = model(*padded(TEXTS, side, width, pad))
            torch.testing.assert_close(answers, expected, atol=1e-5, rtol=0)


@every_head
@every_read
@every_side
def test_trunk_and_top_together_are_forward_at_every_depth(build: Build, read: Read, causal: bool, side: str):
    model = build(read, causal)
    ids, real = padded(TEXTS, side)
    expected = model.plain(ids, real)
    for depth in range(model.decoder.config.n_layer + 1):
        hidden = model.trunk(ids, real, depth)
        assert hidden.shape == (*ids.shape, 32)
        torch.testing.assert_close(model.top(hidden, real, depth), expected, atol=1e-5, rtol=0)


# --- What is read, and what it sees ---


@every_head
def test_the_readings_are_what_their_names_say(build: Build, causal: bool):
    model = build(causal=causal)
    text = TEXTS[1]
    mask = None if causal else torch.ones(1, len(text), len(text), dtype=torch.bool)
    hidden = model.decoder(torch.tensor([text]), None, mask)[0].detach()
    last, first, mean = hidden[-1], hidden[0], hidden.mean(0)
    expected = {"last": last, "first": first, "mean": mean, "last+mean": (last + mean) / 2}
    assert set(expected) == set(get_args(Read))
    for read, vector in expected.items():
        model.read = read
        ids, real = padded([text], "right", 10)
        torch.testing.assert_close(model(ids, real)[0], model.head.weight.detach() @ vector, atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_only_without_the_causal_mask_the_first_token_sees_later_ones(build: Build, causal: bool):
    model = build("first", causal)
    text = TEXTS[1]
    changed = [*text[:-1], (text[-1] + 1) % 300]
    difference = (alone(model, [text]) - alone(model, [changed])).abs().max()
    fast = model(*padded([text], "right", 9)) - model(*padded([changed], "right", 9))
    if causal:
        assert difference == 0
        assert fast.abs().max() == 0
    else:
        assert difference > 0.01
        assert fast.abs().max() > 0.01


@pytest.mark.parametrize(
    ("real", "last"), [([0, 1, 1, 0], 2), ([1, 1, 1, 1], 3), ([1, 0, 0, 0], 0), ([0, 0, 0, 1], 3), ([1, 1, 0, 0], 1)]
)
def test_last_token(real: list[int], last: int):
    assert last_token(torch.tensor([real, real], dtype=torch.bool)).tolist() == [last, last]


def test_the_head_has_no_bias_and_starts_small(make_decoder: MakeDecoder):
    torch.manual_seed(1)
    head = Classifier(make_decoder(), 400).head
    assert head.bias is None
    assert float(head.weight.std().detach()) == pytest.approx(0.02, rel=0.05)


# --- What is trained ---

NORM = {"decoder.norm.weight", "decoder.norm.bias"}
PARTS = ("norm_1", "attention.qkv", "attention.out", "norm_2", "mlp.up", "mlp.down")
BLOCK = [{f"decoder.blocks.{i}.{part}.{kind}" for part in PARTS for kind in ("weight", "bias")} for i in range(3)]
EMBEDDINGS = {"decoder.token_embedding.weight", "decoder.position_embedding.weight"}
HEAD = {"head.weight"}


@pytest.mark.parametrize(
    ("layers", "depth", "expected"),
    [
        ("head", 3, HEAD),
        ("1", 2, HEAD | NORM | BLOCK[2]),
        ("2", 1, HEAD | NORM | BLOCK[2] | BLOCK[1]),
        ("3", 0, HEAD | NORM | BLOCK[2] | BLOCK[1] | BLOCK[0]),
        ("all", 0, HEAD | NORM | BLOCK[2] | BLOCK[1] | BLOCK[0] | EMBEDDINGS),
    ],
)
@pytest.mark.parametrize("before", ["head", "all"])
def test_freeze_leaves_exactly_these_trainable(build: Build, before: str, layers: str, depth: int, expected: set[str]):
    model = build()
    freeze(model, before)
    assert freeze(model, layers) == depth == frozen_depth(model.decoder)
    trained = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(trained) == expected
    assert count_parameters(model) == (sum(p.numel() for p in model.parameters()), sum(trained.values()))


@pytest.mark.parametrize("layers", ["4", "100"])
def test_more_layers_than_there_are_is_an_error(build: Build, layers: str):
    with pytest.raises(UserError, match=f"--layers {layers}: the model has 3 blocks"):
        freeze(build(), layers)


@pytest.mark.parametrize("layers", ["head", "1", "2"])
def test_a_step_changes_what_is_trained_and_nothing_else(build: Build, layers: str):
    model = build()
    depth = freeze(model, layers)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids, real = padded(TEXTS, "right")
    with torch.no_grad():
        hidden = model.trunk(ids, real, depth)
    F.cross_entropy(model.top(hidden, real, depth), torch.tensor([0, 1, 2, 3])).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1).step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
