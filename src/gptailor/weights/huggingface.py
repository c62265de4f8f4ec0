"""GPT-2 in the Hugging Face layout (config.json, safetensors), both ways, every name and shape checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gptailor.errors import UserError, listing
from gptailor.model.config import ModelConfig
from gptailor.model.decoder import Decoder
from gptailor.tokenizer import Tokenizer
from gptailor.weights.names import gpt2_names

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
LARGEST_JSON = 50_000_000  # bytes; the index of the largest models has some megabytes
PICKLES = ("pytorch_model.bin", "model.bin", "model.pt", "model.pth")
# Heads, which have their own readers, and the causal masks that old versions of transformers stored beside the weights.
IGNORED, BUFFERS = {"lm_head.weight", "score.weight"}, (".attn.bias", ".attn.masked_bias")
# What GPT-2's class can be told to do differently and this decoder does not.
FIXED = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
# Numbers of config.json: our name, and the types they may have; a bool is no number.
SHAPE = {
    "n_layer": ("n_layer", (int,)),
    "n_head": ("n_head", (int,)),
    "n_embd": ("n_embd", (int,)),
    "vocab_size": ("vocab_size", (int,)),
    "n_positions": ("context_length", (int,)),
    "layer_norm_epsilon": ("norm_eps", (int, float)),
}


class WeightFiles:
    """The tensors of a folder by name, read one at a time from one safetensors file or its shards.

    Attributes:
        file_of: where each tensor is.
        shapes: known without reading a tensor.

    Raises:
        UserError: when there is no safetensors file, or one is damaged or missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file_of: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in self._files():
            try:
                with safe_open(file, framework="pt") as opened:  # once: each opening reads the whole header
                    names = opened.keys()
                    self.file_of.update(dict.fromkeys(names, file))
                    self.shapes.update({name: tuple(opened.get_slice(name).get_shape()) for name in names})
            except (SafetensorError, OSError) as error:
                hint = "copy or download it again: it may be cut short"
                raise UserError(f"{file} is no readable safetensors file: {error}", hint=hint) from None

    def _files(self) -> list[Path]:
        if (self.folder / INDEX).is_file():
            weight_map = read_json(self.folder / INDEX).get("weight_map")
            names = list(weight_map.values()) if isinstance(weight_map, dict) else []
            wrong = [name for name in names if not isinstance(name, str) or Path(name).name != name]
            if wrong:
                raise UserError(f"{self.folder / INDEX} names files outside the folder: {listing(wrong)}")
            absent = [name for name in dict.fromkeys(names) if not (self.folder / name).is_file()]
            if absent or not names:
                raise UserError(
                    f"{self.folder} lacks {listing(absent) or 'any shard'}", expected=f"all that {INDEX} names"
                )
            return [self.folder / name for name in sorted(set(names))]
        if (self.folder / SINGLE).is_file():
            return [self.folder / SINGLE]
        pickles = [name for name in PICKLES if (self.folder / name).exists()]
        hint = "pickle files are never loaded: save the model as safetensors" if pickles else ""
        found = f"{self.folder} has no weights" + (f", only {listing(pickles)}" if pickles else "")
        raise UserError(found, expected=f"{SINGLE} or {INDEX}", hint=hint)

    def tensor(self, name: str) -> Tensor:
        """The tensor, in the precision of the file."""
        with safe_open(self.file_of[name], framework="pt") as opened:
            return opened.get_tensor(name)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ``UserError`` when it is missing, damaged or something else."""
    try:
        if not file.is_file():  # a link to a pipe or a device has no end
            raise UserError(f"{file} is missing, or is no file")
        if file.stat().st_size > LARGEST_JSON:
            raise UserError(f"{file} has {file.stat().st_size:,} bytes", expected=f"at most {LARGEST_JSON:,}")
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is no readable JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{file} holds a {type(value).__name__}", expected="a JSON object")
    return value


def read_config(folder: Path) -> ModelConfig:
    """The decoder's shape from config.json.

    Raises:
        UserError: listing all settings that GPTailor's decoder does not have.
    """
    file = folder / "config.json"
    values: dict[str, Any] = {"layer_norm_epsilon": 1e-5} | read_json(file)
    expected = {key: repr(fixed) for key, fixed in FIXED.items() if key in values and values[key] != fixed}
    expected |= {key: "a number" for key, (_, kinds) in SHAPE.items() if type(values.get(key)) not in kinds}
    if "n_embd" not in expected and values.get("n_inner") not in (None, 4 * values["n_embd"]):
        expected["n_inner"] = "4 times n_embd"
    if expected:
        raise UserError.joined(
            [UserError(f"{file}: {key} is {values.get(key)!r:.80}", expected=right) for key, right in expected.items()]
        )
    try:
        return ModelConfig(**{ours: values[key] for key, (ours, _) in SHAPE.items()})
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def load_decoder(folder: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    """A decoder from any GPT-2 folder: base model, language model or classifier.

    Where the file has the precision that is asked for, it is mapped and nothing is copied: the matrices, which lie
    there the other way round, are looked at in columns.

    Raises:
        UserError: listing all tensors that are missing or have another shape.
    """
    config, files = read_config(folder), WeightFiles(folder)
    prefix = "transformer." if any(name.startswith("transformer.") for name in files.file_of) else ""
    tied = [name for name in ("lm_head.weight", prefix + "wte.weight") if name in files.file_of]
    if len(tied) == 2 and not torch.equal(*map(files.tensor, tied)):
        found = f"{folder}: the output head lm_head.weight is not the token embedding"
        raise UserError(found, expected="tied weights, as in GPT-2")
    return assemble(
        config,
        available={name.removeprefix(prefix): shape for name, shape in files.shapes.items()},
        read=lambda name: files.tensor(prefix + name),
        naming="huggingface",
        source=folder,
        dtype=dtype,
    )


def assemble(
    config: ModelConfig,
    *,
    available: Mapping[str, tuple[int, ...]],
    read: Callable[[str], Tensor],
    naming: str,
    source: Path,
    dtype: torch.dtype = torch.float32,
) -> Decoder:
    """Builds a decoder without weights and puts the tensors of one format in their places, one at a time.

    Args:
        available: names in that format, with shapes.
        read: gives the tensor of a name.
        naming: the column of ``names.Name`` to look in: ``"huggingface"`` or ``"openai"``.
        dtype: in which the weights are kept; each is read and changed alone, so that there is one whole copy at most.
    """
    with torch.device("meta"):
        decoder = Decoder(config)
    expected = {name: tuple(parameter.shape) for name, parameter in decoder.named_parameters()}
    names = gpt2_names(config.n_layer)
    missing = [getattr(name, naming) for name in names if getattr(name, naming) not in available]
    problems = [UserError(f"{source}: {len(missing)} missing tensors: {listing(missing, 50)}")] if missing else []
    for name in names:
        theirs, shape = getattr(name, naming), expected[name.ours][:: -1 if name.transposed else 1]
        if available.get(theirs, shape) != shape:
            problems.append(UserError(f"{source}: {theirs} is {available[theirs]}", expected=f"{shape} by the config"))
    unknown = sorted(set(available) - {getattr(name, naming) for name in names} - IGNORED)
    unknown = [name for name in unknown if not name.endswith(BUFFERS)]
    if unknown:
        problems.append(UserError(f"{source}: tensors that no GPT-2 has: {listing(unknown)}"))
    if problems:
        raise UserError.joined(problems)
    state = {}
    for name in names:
        tensor = read(getattr(name, naming)).to(dtype)
        state[name.ours] = tensor.t() if name.transposed else tensor
    decoder.load_state_dict(state, assign=True)
    return decoder.requires_grad_(True)


def decoder_tensors(decoder: Decoder) -> dict[str, Tensor]:
    """The decoder's tensors under Hugging Face names, as ``transformer.*``."""
    state = decoder.state_dict()
    return {
        f"transformer.{name.huggingface}": (state[name.ours].t() if name.transposed else state[name.ours]).contiguous()
        for name in gpt2_names(decoder.config.n_layer)
    }


def config_values(config: ModelConfig) -> dict[str, Any]:
    """The decoder's shape in the words of config.json."""
    return {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "layer_norm_epsilon": config.norm_eps,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "torch_dtype": "float32",
    }


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], *, shard_bytes: int = 5_000_000_000) -> None:
    """Writes ``model.safetensors``, or shards of at most ``shard_bytes`` and their index."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if size and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().cpu()
        size += tensor.nbytes
    if len(shards) == 1:
        _save(shards[0], folder / SINGLE)
        return
    files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        _save(shard, folder / file)
    weight_map = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _save(tensors: Mapping[str, Tensor], file: Path) -> None:
    save_file(dict(tensors), file, metadata={"format": "pt"})  # transformers refuses files without the format
    file.chmod(0o644)  # safetensors makes it readable for its owner only


def check_tokenizer(tokenizer: Tokenizer, vocab_size: int, source: Path | str) -> None:
    """Raises ``UserError`` when the tokenizer has ids that the model has no embedding for."""
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"{source}: the tokenizer has {tokenizer.vocab_size} tokens and the model {vocab_size}",
            expected="the tokenizer that the model was trained with",
        )
