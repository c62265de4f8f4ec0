"""Hugging Face folders both ways, against transformers on tiny models, and what is refused."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2Model

from gptailor.errors import UserError
from gptailor.model.config import ModelConfig
from gptailor.model.decoder import Decoder
from gptailor.weights import huggingface
from gptailor.weights.huggingface import (
    WeightFiles,
    config_values,
    decoder_tensors,
    load_decoder,
    read_config,
    read_json,
    write_tensors,
)

MakeDecoder = Callable[..., Decoder]
CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
IDS = torch.randint(0, 300, (3, 20), generator=torch.Generator().manual_seed(1))
# An epsilon this large is felt in the logits: reading it wrongly would show.
SHAPE = {"n_layer": 3, "n_head": 4, "n_embd": 32, "vocab_size": 300, "n_positions": 24, "layer_norm_epsilon": 0.01}


def theirs(kind: type = GPT2LMHeadModel) -> Any:
    """A model of transformers in which every tensor matters."""
    model = kind(GPT2Config(**SHAPE, bos_token_id=0, eos_token_id=0, pad_token_id=0))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@torch.no_grad()
def assert_same(decoder: Decoder, model: Any) -> None:
    """Logits over the vocabulary, within 1e-5."""
    output = model(IDS)
    expected = output.logits if hasattr(output, "logits") else output.last_hidden_state @ model.wte.weight.T
    assert expected.std() > 1
    torch.testing.assert_close(decoder.logits(decoder(IDS)), expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    theirs().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change_config(folder: Path, **values: Any) -> None:
    kept = {key: value for key, value in (read_json(folder / CONFIG) | values).items() if value is not ...}
    (folder / CONFIG).write_text(json.dumps(kept), encoding="utf-8")


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / SINGLE)


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_decoder(folder)
    return str(caught.value)


# --- From transformers to us ---


def test_a_saved_language_model_gives_the_same_logits(saved: Path):
    assert_same(load_decoder(saved), GPT2LMHeadModel.from_pretrained(saved))
    assert read_config(saved) == ModelConfig(3, 4, 32, 300, 24, 0.01)


@pytest.mark.parametrize("kind", [GPT2Model, GPT2LMHeadModel, GPT2ForSequenceClassification])
def test_every_kind_of_folder_gives_its_decoder(tmp_path: Path, kind: type):
    model = theirs(kind)
    model.save_pretrained(tmp_path)
    prefixed = any(name.startswith("transformer.") for name in load_file(tmp_path / SINGLE))
    assert prefixed == (kind is not GPT2Model)
    assert_same(load_decoder(tmp_path), getattr(model, "transformer", model))


def test_shards_are_read(tmp_path: Path):
    model = theirs()
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    assert_same(load_decoder(tmp_path), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_into_float32(tmp_path: Path, dtype: torch.dtype):
    model = theirs().to(dtype)
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / SINGLE)["transformer.wte.weight"].dtype == dtype
    decoder = load_decoder(tmp_path)
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.float32}
    assert_same(decoder, model.float())


def test_a_written_output_head_and_old_mask_buffers_change_nothing(folder: Path, saved: Path):
    def add(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
        tensors |= {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 24, 24).tril() for i in range(3)}
        tensors |= {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(3)}

    change_tensors(folder, add)
    assert_same(load_decoder(folder), GPT2LMHeadModel.from_pretrained(saved))


def test_a_loaded_decoder_can_be_trained(saved: Path):
    decoder = load_decoder(saved)
    decoder.logits(decoder(IDS)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in decoder.parameters())


# --- From us to transformers, and back ---


def write(decoder: Decoder, folder: Path, **options: Any) -> None:
    folder.mkdir(exist_ok=True)
    values = config_values(decoder.config) | {"bos_token_id": 0, "eos_token_id": 0}
    (folder / CONFIG).write_text(json.dumps(values), encoding="utf-8")
    write_tensors(folder, decoder_tensors(decoder), **options)


@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 50_000, 1])
def test_what_we_write_opens_in_transformers(make_decoder: MakeDecoder, tmp_path: Path, shard_bytes: int):
    decoder = make_decoder(norm_eps=0.01)
    write(decoder, tmp_path, shard_bytes=shard_bytes)
    assert (tmp_path / INDEX).exists() == (shard_bytes < 100_000)
    model, report = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("unexpected_keys", "mismatched_keys", "error_msgs"))
    assert set(report["missing_keys"]) <= {"lm_head.weight"}
    assert_same(decoder, model.eval())


@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 50_000])
def test_a_round_trip_keeps_every_bit(make_decoder: MakeDecoder, tmp_path: Path, shard_bytes: int):
    decoder = make_decoder()
    write(decoder, tmp_path / "first", shard_bytes=shard_bytes)
    again = load_decoder(tmp_path / "first")
    assert again.config == decoder.config
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    write(again, tmp_path / "second", shard_bytes=shard_bytes)
    names = sorted(file.name for file in (tmp_path / "first").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "second").iterdir())
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_shards_are_within_their_limit_and_listed_once(make_decoder: MakeDecoder, tmp_path: Path):
    decoder = make_decoder()
    write(decoder, tmp_path, shard_bytes=50_000)
    index, seen = read_json(tmp_path / INDEX), {}
    for file in sorted(tmp_path.glob("*.safetensors")):
        tensors = load_file(file)
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 50_000
        assert file.stat().st_mode & 0o444 == 0o444
        with safe_open(file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}  # earlier versions of transformers insist on it
        seen |= dict.fromkeys(tensors, file.name)
    assert index["weight_map"] == seen
    assert set(seen) == set(decoder_tensors(decoder))
    assert index["metadata"]["total_size"] == 4 * sum(p.numel() for p in decoder.parameters())


# --- Tensors that do not fit ---


def test_all_missing_tensors_are_named_together(folder: Path):
    gone = ["transformer.wte.weight", "transformer.h.1.attn.c_attn.bias", "transformer.h.2.mlp.c_proj.weight"]
    change_tensors(folder, lambda tensors: [tensors.pop(name) for name in gone])
    message = refusal(folder)
    assert f"{folder}: 3 missing tensors: " in message
    assert all(name.removeprefix("transformer.") in message for name in gone)
    assert "h.0" not in message


def test_an_output_head_without_an_embedding_is_a_missing_embedding(folder: Path):
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": tensors.pop("transformer.wte.weight")}))
    assert "1 missing tensors: wte.weight" in refusal(folder)


def test_wrong_shapes_are_named_with_both_shapes(folder: Path):
    def spoil(tensors: dict[str, Tensor]) -> None:
        del tensors["transformer.ln_f.bias"]
        tensors["transformer.wpe.weight"] = torch.zeros(23, 32)
        tensors["transformer.h.0.mlp.c_fc.weight"] = tensors["transformer.h.0.mlp.c_fc.weight"].t()

    change_tensors(folder, spoil)
    message = refusal(folder)
    assert "3 problems" in message
    assert "1 missing tensors: ln_f.bias" in message
    assert "wpe.weight is (23, 32)\n  expected: (24, 32)" in message
    assert "h.0.mlp.c_fc.weight is (128, 32)\n  expected: (32, 128)" in message


def test_more_blocks_than_the_config_says_are_not_left_out(folder: Path):
    change_config(folder, n_layer=2)
    assert "tensors that no GPT-2 has: h.2.attn" in refusal(folder)


@pytest.mark.parametrize("name", ["transformer.h.0.attn.adapter.weight", "transformer.wte.scale", "extra"])
def test_a_tensor_that_would_be_left_out_is_refused(folder: Path, name: str):
    change_tensors(folder, lambda tensors: tensors.update({name: torch.zeros(2)}))
    assert f"tensors that no GPT-2 has: {name.removeprefix('transformer.')}" in refusal(folder)


def test_fewer_blocks_than_the_config_says(folder: Path):
    change_config(folder, n_layer=40)
    message = refusal(folder)
    assert f"{37 * 12} missing tensors: h.3.ln_1.weight" in message
    assert len(message) < 3000


def test_an_untied_output_head_is_refused(folder: Path):
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(300, 32)}))
    message = refusal(folder)
    assert "lm_head.weight is not the token embedding" in message
    assert str(folder) in message


# --- Files that are missing or damaged ---


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_a_truncated_file_is_named(folder: Path, kept: int):
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[:kept])
    message = refusal(folder)
    assert f"{folder / SINGLE} is no readable safetensors file" in message
    assert "copy or download it again" in message


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    theirs().save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    return tmp_path / "shards"


def test_missing_shards_are_named(shards: Path):
    first, second, *_ = sorted(shards.glob("model-*.safetensors"))
    first.unlink(), second.unlink()
    assert f"{shards} lacks {first.name}, {second.name}\n" in refusal(shards)


def test_a_truncated_shard_is_named(shards: Path):
    last = sorted(shards.glob("model-*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    assert f"{last} is no readable safetensors file" in refusal(shards)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/secret", "inner/part.safetensors", 7, None, ["x"]])
def test_an_index_that_points_elsewhere_is_refused(shards: Path, name: object):
    (shards.parent / "secret.safetensors").write_bytes((sorted(shards.glob("model-*"))[0]).read_bytes())
    index = read_json(shards / INDEX)
    index["weight_map"]["transformer.wte.weight"] = name
    (shards / INDEX).write_text(json.dumps(index), encoding="utf-8")
    assert f"{shards / INDEX} names files outside the folder: {name}" in refusal(shards)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}, {"weight_map": None}])
def test_an_index_without_shards_is_refused(shards: Path, index: dict[str, Any]):
    (shards / INDEX).write_text(json.dumps(index), encoding="utf-8")
    assert f"{shards} lacks any shard" in refusal(shards)


def test_a_folder_without_weights(folder: Path):
    (folder / SINGLE).unlink()
    assert f"{folder} has no weights\n" in refusal(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")
    message = refusal(folder)
    assert f"{folder} has no weights, only pytorch_model.bin" in message
    assert "pickle files are never loaded" in message


# --- config.json ---


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "is missing"),
        (b"", "is no readable JSON"),
        (b'{"n_layer": 3', "is no readable JSON"),
        (b"\xff\xfe\x00", "is no readable JSON"),
        (b"[" * 100_000, "is no readable JSON"),
        (b'{"n_layer": ' + b"9" * 5000 + b"}", "is no readable JSON"),
        (b"[1, 2]", "holds a list"),
        (b"null", "holds a NoneType"),
        (b"{}", "n_layer is None"),
    ],
)
def test_a_broken_config_is_named(folder: Path, content: bytes | None, named: str):
    (folder / CONFIG).unlink() if content is None else (folder / CONFIG).write_bytes(content)
    message = refusal(folder)
    assert str(folder / CONFIG) in message
    assert named in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "llama"),
        ("activation_function", "relu"),
        ("activation_function", "gelu"),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
        ("n_inner", 64),
        ("n_inner", "128"),
        ("n_layer", ...),
        ("n_layer", None),
        ("n_layer", "3"),
        ("n_layer", -3),
        ("n_layer", 0),
        ("n_layer", True),
        ("n_layer", 3.5),
        ("n_layer", 10**9),
        ("n_layer", 10**400),
        ("n_head", [4]),
        ("n_head", 5),
        ("n_embd", "wide"),
        ("n_embd", {}),
        ("n_embd", 10**12),
        ("vocab_size", 10**15),
        ("n_positions", -1),
        ("n_positions", 10**10),
        ("layer_norm_epsilon", "1e-5"),
        ("layer_norm_epsilon", None),
        ("layer_norm_epsilon", 0),
        ("layer_norm_epsilon", float("nan")),
        ("layer_norm_epsilon", float("inf")),
    ],
)
def test_a_setting_that_cannot_be_is_named(folder: Path, key: str, value: object):
    change_config(folder, **{key: value})
    message = refusal(folder)
    assert str(folder / CONFIG) in message
    assert {"n_positions": "context_length", "layer_norm_epsilon": "norm_eps"}.get(
        key, key
    ) in message or key in message
    assert len(message) < 400


def test_all_wrong_settings_are_named_together(folder: Path):
    change_config(folder, model_type="bloom", n_inner=7, n_head="4", n_positions=None)
    message = refusal(folder)
    assert "4 problems" in message
    for part in ("model_type is 'bloom'", "n_inner is 7", "n_head is '4'", "n_positions is None"):
        assert part in message


def test_settings_that_only_say_the_usual_are_accepted(folder: Path):
    change_config(folder, n_inner=128, activation_function="gelu_new", layer_norm_epsilon=...)
    assert read_config(folder).norm_eps == 1e-5


def test_a_model_of_a_thousand_blocks_is_refused_fast_when_its_file_is_small(folder: Path):
    change_config(folder, n_layer=1000)
    assert f"{997 * 12} missing tensors" in refusal(folder)


def test_a_file_of_thousands_of_tensors_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Each opening reads the whole header: one for each tensor would take minutes."""
    save_file({f"x{number}": torch.zeros(0) for number in range(3000)}, folder / SINGLE)
    opened: list[Path] = []

    def watched(file: Path, **options: str) -> Any:
        opened.append(file)
        return safe_open(file, **options)

    monkeypatch.setattr(huggingface, "safe_open", watched)
    assert "tensors that no GPT-2 has: x0, " in refusal(folder)
    assert opened == [folder / SINGLE]


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
def test_weights_are_read_in_what_is_asked_for(make_decoder: MakeDecoder, tmp_path: Path, kept: torch.dtype):
    decoder = make_decoder()
    write_tensors(tmp_path, {name: tensor.to(kept) for name, tensor in decoder_tensors(decoder).items()})
    (tmp_path / "config.json").write_text(json.dumps(config_values(decoder.config)), encoding="utf-8")
    for asked in (torch.float32, torch.bfloat16):
        loaded = dict(load_decoder(tmp_path, asked).named_parameters())
        assert {parameter.dtype for parameter in loaded.values()} == {asked}
        for name, parameter in decoder.named_parameters():
            assert torch.equal(loaded[name], parameter.to(kept).to(asked))


@pytest.mark.parametrize("asked", [torch.float32, torch.bfloat16])
def test_reading_holds_one_copy_of_the_weights(
    make_decoder: MakeDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: torch.dtype
):
    decoder, read, places, alive = make_decoder(), WeightFiles.tensor, {}, []
    write_tensors(tmp_path, {name: tensor.to(asked) for name, tensor in decoder_tensors(decoder).items()})
    (tmp_path / "config.json").write_text(json.dumps(config_values(decoder.config)), encoding="utf-8")

    def watched(files: WeightFiles, name: str) -> Tensor:
        tensor = read(files, name)
        places[name] = tensor.data_ptr()
        if tensor.dim() == 2 and ".h." in name:  # a matrix of a block: it is turned, and then it is to go
            assert not any(reference() is not None for reference in alive)
            alive.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(WeightFiles, "tensor", watched)
    loaded = load_decoder(tmp_path, asked)
    assert len(alive) == 4 * decoder.config.n_layer
    assert loaded.token_embedding.weight.data_ptr() == places["transformer.wte.weight"], "mapped, and not copied"
    assert loaded.blocks[0].mlp.up.bias.data_ptr() == places["transformer.h.0.mlp.c_fc.bias"]
