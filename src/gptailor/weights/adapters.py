"""LoRA adapters in the layout of PEFT: adapter_config.json and adapter_model.safetensors.

GPT-2's query, key and value are one matrix there, and three adapters of rank r are written as one of rank 3 r whose B
is zero outside of three blocks (``rank_pattern`` and ``alpha_pattern`` say so). Read back, such a one becomes three
again; any other becomes three that share A.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gptailor.errors import UserError, listing
from gptailor.model.config import LIMITS
from gptailor.model.decoder import Decoder
from gptailor.model.head import Classifier
from gptailor.model.lora import LoRA, LoraSettings, adapted, use, wrap
from gptailor.weights.huggingface import read_json
from gptailor.weights.names import gpt2_names

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
HEAD = "head.weight"  # the class head, in ``Adapter.whole``
MOST_PATTERNS = 10_000  # settings of single layers: each layer looks through all of them
QKV = 3  # parts of a fused query, key and value
UNCHANGED = (None, True, False, "gaussian", "orthogonal", "eva")  # ways to begin that leave the base as it is
UNKNOWN = ("lora_bias", "layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora", "target_parameters")


@dataclass(frozen=True)
class Adapter:
    """What was trained on a frozen base.

    Attributes:
        base: the name or folder of the base.
        layers: the adapter of each matrix, by the decoder's name of it.
        whole: parameters that were trained whole, by the decoder's name of them; a class head as ``head.weight``.
    """

    base: str | None
    layers: dict[str, LoRA]
    whole: dict[str, Tensor]


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and not a whole model."""
    return (folder / CONFIG).is_file()


def fingerprint(decoder: Decoder) -> str:
    """A sha256 of all weights in float32: the same for the same model in any file layout."""
    digest = hashlib.sha256()
    for name, tensor in sorted(decoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def adapter_of(model: Decoder | Classifier, base: str) -> Adapter:
    """The adapter in use on a model, and what else of it was trained; an adapted class head is merged."""
    decoder = model.decoder if isinstance(model, Classifier) else model
    layers = {name: layer.adapter for name, layer in adapted(decoder).items() if layer.adapter is not None}
    whole = {
        name.replace(".frozen.", "."): parameter.detach()
        for name, parameter in decoder.named_parameters()
        if parameter.requires_grad and ".adapters." not in name
    }
    if isinstance(model, Classifier):
        whole[HEAD] = model.head.weight.detach().float()
    return Adapter(base, layers, whole)


def attach(decoder: Decoder, adapter: Adapter, name: str = "default") -> None:
    """Puts an adapter on a decoder and switches to it; a class head is left to the caller.

    Raises:
        UserError: listing everything that does not fit the decoder.
    """
    problems = []
    shapes = {key: tuple(p.shape) for key, p in decoder.named_parameters()}
    for key, lora in adapter.layers.items():
        fits = (lora.b.size(0) * lora.b.size(1), lora.a.size(2))
        own = shapes.get(f"{key}.weight", shapes.get(f"{key}.frozen.weight"))
        if own != fits:
            problems.append(UserError(f"the adapter of {key} is for a matrix {fits}", expected=f"{own} by the base"))
    for key, tensor in adapter.whole.items():
        if key != HEAD and shapes.get(key) != tuple(tensor.shape):
            problems.append(UserError(f"{key} is {tuple(tensor.shape)}", expected=f"{shapes.get(key)} by the base"))
    if problems:
        raise UserError.joined(problems)
    parameters = dict(decoder.named_parameters())
    for key, tensor in adapter.whole.items():
        if key != HEAD:
            parameters[key].data = tensor.to(parameters[key])
    for key, lora in adapter.layers.items():
        wrap(decoder, key).adapters[name] = lora
    use(decoder, name)


def write_adapter(folder: Path, adapter: Adapter, n_layer: int) -> None:
    """Writes the two files of an adapter."""
    names = _their_names(n_layer)
    tensors: dict[str, Tensor] = {}
    for ours, lora in adapter.layers.items():
        key = PREFIX + names[ours]
        tensors[f"{key}.lora_A.weight"] = lora.a.detach().flatten(0, 1)
        tensors[f"{key}.lora_B.weight"] = torch.block_diag(*lora.b.detach())
        if lora.magnitude is not None:
            tensors[f"{key}.lora_magnitude_vector"] = lora.magnitude.detach()
    for ours, tensor in adapter.whole.items():
        module, _, last = ours.rpartition(".")
        wrapped = ".base_layer" if module in adapter.layers else ""
        key = "score" if ours == HEAD else names[module]
        tensors[f"{PREFIX}{key}{wrapped}.{last}"] = tensor
    save_file({key: tensor.float().cpu().contiguous() for key, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)
    config = _config(adapter, names)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _config(adapter: Adapter, names: Mapping[str, str]) -> dict[str, Any]:
    settings = next(iter(adapter.layers.values())).settings
    targets = sorted({_kind(names[ours]) for ours in adapter.layers})
    fused = sorted({_kind(names[ours]) for ours, lora in adapter.layers.items() if len(lora.a) > 1})
    alpha = settings.alpha * (math.sqrt(QKV) if settings.rank_stabilised else QKV)
    norms = sorted({_kind(names[key.rpartition(".")[0]]) for key in adapter.whole if "norm" in key})
    biases = any(key.endswith("bias") and "norm" not in key for key in adapter.whole)
    classifies = HEAD in adapter.whole
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if classifies else "CAUSAL_LM",
        "base_model_name_or_path": adapter.base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rank_stabilised,
        "use_dora": settings.dora,
        "target_modules": targets,
        "rank_pattern": dict.fromkeys(fused, QKV * settings.rank),
        "alpha_pattern": dict.fromkeys(fused, alpha),
        "fan_in_fan_out": True,  # transformers' GPT-2 keeps its matrices as (in, out)
        "bias": "all" if biases else "none",
        "modules_to_save": [*norms, *(["score"] if classifies else [])] or None,
        "inference_mode": True,
    }


def read_adapter(folder: Path) -> Adapter:
    """An adapter for GPT-2 that GPTailor or PEFT wrote.

    Raises:
        UserError: listing what in it cannot be used.
    """
    config = read_json(folder / CONFIG)
    problems = [
        UserError(f"{folder / CONFIG}: {key} is {config[key]!r:.60}", expected="not used")
        for key in UNKNOWN
        if config.get(key)
    ]
    begun = config.get("init_lora_weights", True)
    if begun not in UNCHANGED:  # PiSSA and its like take something out of the base first
        problems.append(
            UserError(f"{folder / CONFIG}: init_lora_weights is {begun!r:.60}", expected="an untouched base")
        )
    if config.get("peft_type") != "LORA":
        problems.append(UserError(f"{folder / CONFIG}: peft_type is {config.get('peft_type')!r:.60}", expected="LORA"))
    try:
        if not (folder / WEIGHTS).is_file():  # opening a pipe would wait for ever
            raise OSError("it is missing, or is no file")
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        problems.append(UserError(f"{folder / WEIGHTS} cannot be read: {error}", expected="the weights of an adapter"))
        tensors = {}
    if problems:
        raise UserError.joined(problems)
    n_layer = 1 + max((int(key.split(".h.")[1].split(".")[0]) for key in tensors if _of_block(key)), default=0)
    ours_of = {theirs: ours for ours, theirs in _their_names(n_layer).items()} | {"score": "head"}
    layers: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in tensors.items():
        module, _, rest = key.removeprefix(PREFIX).partition(".lora_")
        if rest:
            part = {"A.weight": "a", "B.weight": "b", "magnitude_vector": "magnitude"}.get(rest)
        else:
            module, _, part = module.replace(".base_layer", "").rpartition(".")
        if module not in ours_of or part is None:
            unknown.append(key)
        elif rest:
            layers.setdefault(ours_of[module], {})[part] = tensor.float()
        else:
            whole[f"{ours_of[module]}.{part}"] = tensor.float()
    unknown += [
        name
        for name, parts in layers.items()
        if not {"a", "b"} <= set(parts) or any(parts[part].dim() != 2 for part in "ab")
    ]
    if "token_embedding.weight" in whole and "token_embedding" not in layers:
        found = f"{folder / WEIGHTS}: an output head that was trained whole, and so apart from the token embedding"
        raise UserError(found, expected="a head that shares the weights of the token embedding")
    if unknown:
        raise UserError(f"{folder / WEIGHTS}: tensors that GPTailor has no place for: {listing(unknown)}")
    theirs_of, patterns = {ours: theirs for theirs, ours in ours_of.items()}, _patterns(config, folder)
    settings = {name: _settings(config, patterns, theirs_of[name], folder) for name in layers}
    loras = {name: _lora(name, parts, settings[name], folder) for name, parts in layers.items()}
    base = config.get("base_model_name_or_path")
    return Adapter(base if isinstance(base, str) else None, loras, whole)


def _of_block(key: str) -> bool:
    _, found, rest = key.partition(".h.")
    number = rest.split(".")[0]
    return bool(found) and number.isdecimal() and len(number) < 6 and int(number) < LIMITS["n_layer"]


def _patterns(config: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Settings of single layers, by the ends of their names."""
    found = {name: config.get(name) or {} for name in ("rank_pattern", "alpha_pattern")}
    for name, patterns in found.items():
        if not isinstance(patterns, dict) or len(patterns) > MOST_PATTERNS:
            expected = f"an object of at most {MOST_PATTERNS:,} settings, or nothing"
            raise UserError(f"{folder / CONFIG}: {name} is {patterns!r:.40}", expected=expected)
        strange = [end for end in patterns if not re.fullmatch(r"[\w.]+", end)]
        if strange:
            told = f"{folder / CONFIG}: {name} names {listing(strange)}"
            raise UserError(told, expected="ends of names such as attn.c_attn; expressions are not read")
    return found


def _settings(
    config: Mapping[str, Any], patterns: Mapping[str, Mapping[str, Any]], theirs: str, folder: Path
) -> LoraSettings:
    """The settings of one layer: a pattern that its name ends with comes before the general value."""
    ends = {theirs.split(".", dots)[-1] for dots in range(theirs.count(".") + 1)}

    def value(key: str, pattern: str, default: float) -> float:
        special = next((one for end, one in patterns[pattern].items() if end in ends), None)
        return special if special is not None else config.get(key, default)

    rank, alpha = value("r", "rank_pattern", 8), value("lora_alpha", "alpha_pattern", 8)
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float) and math.isfinite(alpha)):
        raise UserError(f"{folder / CONFIG}: rank {rank!r:.40} and alpha {alpha!r:.40}", expected="two numbers above 0")
    return LoraSettings(rank, float(alpha), 0.0, bool(config.get("use_rslora")), bool(config.get("use_dora")))


def _lora(name: str, tensors: Mapping[str, Tensor], settings: LoraSettings, folder: Path) -> LoRA:
    """The adapter of one layer. Raises ``UserError`` when its tensors do not belong together."""
    a, b, rank = tensors["a"], tensors["b"], settings.rank
    expected = {"a": (rank, a.size(-1)), "b": (b.size(0), rank), "magnitude": (b.size(0),)}
    wrong = [f"{key} of {name} is {tuple(t.shape)}" for key, t in tensors.items() if tuple(t.shape) != expected[key]]
    if wrong or settings.dora != ("magnitude" in tensors):
        raise UserError(f"{folder / WEIGHTS}: {listing(wrong) or name}", expected=f"tensors of rank {rank} by {CONFIG}")
    parts_a, parts_b = a[None], b[None]
    if name.endswith("qkv"):
        blocks = b.unflatten(0, (QKV, -1)).unflatten(2, (QKV, -1)) if rank % QKV == 0 else None  # (3, out/3, 3, r/3)
        diagonal = None if blocks is None else torch.stack([blocks[i, :, i] for i in range(QKV)])
        if diagonal is not None and torch.equal(torch.block_diag(*diagonal), b):
            parts_a, parts_b = a.unflatten(0, (QKV, -1)), diagonal
            alpha = settings.alpha / (math.sqrt(QKV) if settings.rank_stabilised else QKV)
            settings = replace(settings, rank=rank // QKV, alpha=alpha)
        else:
            parts_a, parts_b = a.expand(QKV, -1, -1), b.unflatten(0, (QKV, -1))
    lora = LoRA(torch.empty(b.size(0), a.size(1), device="meta"), len(parts_a), replace(settings, dora=False))
    lora.settings = settings
    lora.a, lora.b = nn.Parameter(parts_a.contiguous()), nn.Parameter(parts_b.contiguous())
    lora.magnitude = nn.Parameter(tensors["magnitude"]) if settings.dora else None
    return lora


def _their_names(n_layer: int) -> dict[str, str]:
    """Hugging Face's names of modules by ours; the token embedding is the output head there."""
    names = {
        name.ours.rpartition(".")[0]: f"transformer.{name.huggingface.rpartition('.')[0]}"
        for name in gpt2_names(n_layer)
    }
    return names | {"token_embedding": "lm_head"}


def _kind(theirs: str) -> str:
    """What stays of a name without the model and the block: transformer.h.3.attn.c_attn -> attn.c_attn."""
    return theirs.removeprefix("transformer.").split(".", 2)[-1] if ".h." in theirs else theirs.rpartition(".")[2]
