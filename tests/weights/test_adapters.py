"""Adapters on disk: against peft both ways, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptailor.config import ClassifierConfig
from gptailor.data.templates import TEMPLATE_FILE, TEMPLATES
from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.model.freeze import freeze_for_lora
from gptailor.model.head import Classifier
from gptailor.model.lora import LoraSettings, adapted
from gptailor.tasks.merge import merge_command
from gptailor.tasks.tuning import freeze_as
from gptailor.tokenizer import Tokenizer
from gptailor.weights.adapters import adapter_of, attach, fingerprint, read_adapter
from gptailor.weights.base import identity, open_base
from gptailor.weights.folder import (
    AdapterBase,
    ClassifierFolder,
    ClassifierSettings,
    load_classifier,
    save_classifier,
    save_language_model,
)

MakeDecoder = Callable[..., Decoder]
IDS = torch.randint(0, 300, (3, 20), generator=torch.Generator().manual_seed(1))
REAL = torch.ones(3, 20, dtype=torch.bool)
KINDS = {
    "plain": LoraSettings(rank=2, alpha=3),
    "stabilised": LoraSettings(rank=4, alpha=3, rank_stabilised=True),
    "dora": LoraSettings(rank=2, alpha=3, dora=True),
}
TARGETS = {"all": ["attention", "mlp"], "one": ["mlp.up"], "query": ["qkv"]}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["some words to learn from, some more words"], 300)


@pytest.fixture(scope="module")
def base(make_decoder: MakeDecoder, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base that adapters are put on."""
    folder = tmp_path_factory.mktemp("base")
    save_language_model(folder, make_decoder(), tokenizer, task="base", dtype=torch.float32)
    return folder


@torch.no_grad()
def adapted_model(
    base: Path, settings: LoraSettings, targets: list[str], unfreeze: list[str], classes: int | None = None
) -> tuple[Any, AdapterBase]:
    """A model with an adapter on the base that has learned something, everywhere it can."""
    opened = open_base(str(base))
    assert opened.tokenizer
    decoder = opened.load(opened.tokenizer)
    on = AdapterBase(str(base), fingerprint(decoder))
    torch.manual_seed(7)
    model = Classifier(decoder, classes) if classes else decoder
    freeze_for_lora(model, settings, targets=targets, unfreeze=unfreeze)
    random = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return model.eval(), on


def lm_logits(decoder: Decoder) -> Tensor:
    return decoder.logits(decoder(IDS)).detach()


def assert_same(given: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the largest logit: the sums of float32 are taken in another order."""
    assert expected.std() > 0.1
    assert (given - expected).detach().abs().max() <= 1e-5 * max(1.0, float(expected.detach().abs().max()))


def in_peft(kind: str, base: Path, adapter: Path) -> Any:
    """The folder of an adapter as peft opens it."""
    import transformers
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        more = {"num_labels": 4} if kind == "AutoModelForSequenceClassification" else {}
        model = getattr(transformers, kind).from_pretrained(base, **more)
        model.config.pad_token_id = 0
        return PeftModel.from_pretrained(model, adapter).eval()


@pytest.mark.parametrize("unfreeze", [[], ["norms"], ["biases"], ["norms", "biases"]])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_peft_opens_ours(
    base: Path, tokenizer: Tokenizer, tmp_path: Path, settings: LoraSettings, targets: list[str], unfreeze: list[str]
) -> None:
    decoder, on = adapted_model(base, settings, targets, unfreeze)
    save_language_model(tmp_path, decoder, tokenizer, task="base", dtype=torch.float32, adapter_on=on)
    theirs = in_peft("AutoModelForCausalLM", base, tmp_path)
    assert (lm_logits(decoder) - lm_logits(open_base(str(base)).load(tokenizer))).abs().max() > 0.5
    assert_same(theirs(IDS).logits.detach(), lm_logits(decoder))
    reopened = open_base(str(tmp_path))
    assert reopened.tokenizer
    assert_same(lm_logits(reopened.load(tokenizer)), lm_logits(decoder))


@pytest.mark.filterwarnings("ignore")
def test_peft_opens_an_adapted_output_head(base: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoder, on = adapted_model(base, KINDS["plain"], ["attention", "head"], [])
    save_language_model(tmp_path, decoder, tokenizer, task="base", dtype=torch.float32, adapter_on=on)
    theirs = in_peft("AutoModelForCausalLM", base, tmp_path)
    assert_same(theirs(IDS).logits.detach(), lm_logits(decoder))
    assert_same(lm_logits(open_base(str(tmp_path)).load(tokenizer)), lm_logits(decoder))


@pytest.mark.parametrize(("targets", "unfreeze"), [(["attention"], ["head"]), (["mlp", "head"], ["biases"])])
def test_a_classifier_comes_back_with_its_head(
    base: Path, tokenizer: Tokenizer, tmp_path: Path, targets: list[str], unfreeze: list[str]
) -> None:
    model, on = adapted_model(base, KINDS["plain"], targets, unfreeze, classes=4)
    saved = ClassifierFolder(model, tokenizer, ["a", "b", "c", "d"], ClassifierSettings())
    save_classifier(tmp_path, saved, adapter_on=on)
    expected = model(IDS, REAL).detach()
    theirs = in_peft("AutoModelForSequenceClassification", base, tmp_path)
    assert_same(theirs(IDS).logits.detach(), expected)
    ours = load_classifier(tmp_path)
    assert ours.labels == ["a", "b", "c", "d"] and not adapted(ours.model)
    assert_same(ours.model(IDS, REAL).detach(), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("targets", "options"),
    [
        (["lm_head"], {}),
        (["c_attn"], {}),
        (["c_attn"], {"use_rslora": True}),
        (["c_attn", "attn.c_proj", "mlp.c_proj"], {"use_dora": True}),
        (["attn.c_proj", "mlp.c_proj"], {"bias": "all"}),
    ],
    ids=str,
)
def test_ours_opens_what_peft_wrote(
    base: Path, tokenizer: Tokenizer, tmp_path: Path, targets: list[str], options: dict[str, Any]
) -> None:
    """A fused adapter of query, key and value becomes three that share A."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=3, lora_alpha=5, target_modules=targets, fan_in_fan_out=True, **options
    )
    theirs = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name or (options.get("bias") == "all" and name.endswith("bias")):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
    theirs.save_pretrained(tmp_path)
    ours = open_base(str(tmp_path)).load(tokenizer)
    assert_same(lm_logits(ours), theirs(IDS).logits.detach())


def test_nothing_is_trained_on_a_head_that_cannot_be_merged(base: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoder, on = adapted_model(base, KINDS["plain"], ["attention", "head"], [])
    save_language_model(tmp_path, decoder, tokenizer, task="base", dtype=torch.float32, adapter_on=on)
    config = ClassifierConfig(data="d.csv", base=str(tmp_path), layers="lora")
    with pytest.raises(UserError, match="its output head has an adapter"):
        freeze_as(config, open_base(str(tmp_path)).load(tokenizer))


def test_three_adapters_of_one_matrix_come_back_as_three(base: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoder, on = adapted_model(base, KINDS["stabilised"], ["qkv"], [])
    save_language_model(tmp_path, decoder, tokenizer, task="base", dtype=torch.float32, adapter_on=on)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["rank_pattern"]) == (4, {"attn.c_attn": 12})
    mine, back = adapter_of(decoder, str(base)), read_adapter(tmp_path)
    for name, lora in back.layers.items():
        assert torch.equal(lora.a, mine.layers[name].a) and torch.equal(lora.b, mine.layers[name].b)
        assert lora.settings.scale == pytest.approx(mine.layers[name].settings.scale)


def test_a_template_is_looked_for_where_the_model_was_found(
    base: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where its name leads: an adapter has its base's, and the bundled thimble none of a folder of that name."""
    whole, adapter, merged = tmp_path / "whole", tmp_path / "thimble", tmp_path / "merged"
    shutil.copytree(base, whole)
    (whole / TEMPLATE_FILE).write_text(TEMPLATES["chatml"], encoding="utf-8")
    decoder, on = adapted_model(whole, KINDS["plain"], ["attention"], [])
    save_language_model(adapter, decoder, tokenizer, task="base", dtype=torch.float32, adapter_on=on)
    assert open_base(str(whole)).template == open_base(str(adapter)).template == whole / TEMPLATE_FILE
    merge_command(adapter, merged, None, "fp32", Console(quiet=True))
    assert (merged / TEMPLATE_FILE).read_text() == TEMPLATES["chatml"]
    (adapter / TEMPLATE_FILE).write_text(TEMPLATES["plain"], encoding="utf-8")
    assert open_base(str(adapter)).template == adapter / TEMPLATE_FILE
    monkeypatch.chdir(tmp_path)
    assert open_base("thimble").template is None


def test_another_base_is_refused(base: Path, tokenizer: Tokenizer, tmp_path: Path, make_decoder: MakeDecoder) -> None:
    decoder, on = adapted_model(base, KINDS["plain"], ["attention"], [])
    place = tmp_path / "base"
    save_language_model(place, make_decoder(seed=0), tokenizer, task="base", dtype=torch.float32)
    folder = tmp_path / "adapter"
    save_language_model(
        folder, decoder, tokenizer, task="base", dtype=torch.float32, adapter_on=on._replace(name=str(place))
    )
    open_base(str(folder)).load(tokenizer)
    save_language_model(place, make_decoder(seed=9), tokenizer, task="base", dtype=torch.float32)
    with pytest.raises(UserError, match="trained on other weights than those of"):
        open_base(str(folder)).load(tokenizer)
    save_language_model(place, make_decoder(n_embd=16), tokenizer, task="base", dtype=torch.float32)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"gptailor": {"task": "base"}}))
    with pytest.raises(UserError, match="6 problems") as caught:
        open_base(str(folder)).load(tokenizer)
    assert "the adapter of blocks.0.attention.qkv is for a matrix (96, 32)" in str(caught.value)


def test_a_base_that_is_gone_or_the_adapter_itself_or_random(base: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoder, on = adapted_model(base, KINDS["plain"], ["attention"], [])
    huge = "random:n_layer=900,n_head=1,n_embd=100000"
    for name, told in (
        (str(tmp_path / "gone"), "no base is called"),
        (str(tmp_path), "names itself as its base"),
        (huge, "names random weights as its base"),
    ):
        place = on._replace(name=name)
        save_language_model(tmp_path, decoder, tokenizer, task="base", dtype=torch.float32, adapter_on=place)
        with pytest.raises(UserError, match=told) as caught:
            open_base(str(tmp_path))
        assert f"gptailor merge {tmp_path} --base PLACE" in str(caught.value)


def test_damaged_adapters_are_told(base: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoder, on = adapted_model(base, KINDS["plain"], ["attention"], [])
    save_language_model(tmp_path, decoder, tokenizer, task="base", dtype=torch.float32, adapter_on=on)
    weights, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    tensors, values = load_file(weights), json.loads(config.read_text())
    key = "base_model.model.transformer.h.1.attn.c_attn.lora_A.weight"

    def told(changed: dict[str, Tensor] | None = None, **settings: object) -> str:
        save_file(tensors | (changed or {}), weights)
        config.write_text(json.dumps(values | settings))
        with pytest.raises(UserError) as caught:
            read_adapter(tmp_path)
        return str(caught.value)

    assert "'IA3'" in told(peft_type="IA3")
    assert "lora_bias" in told(lora_bias=True)
    assert "alpha_pattern is 1" in told(alpha_pattern=1)
    assert "'pissa'" in told(init_lora_weights="pissa")
    assert "expressions are not read" in told(alpha_pattern={"h.[01]": 4})
    assert "rank 'two'" in told(rank_pattern={}, r="two")
    assert "a of blocks.1.attention.qkv is (5, 32)" in told({key: torch.zeros(5, 32)})
    assert "no place for: base_model.model.transformer.h.0.attn.other.weight" in told(
        {"base_model.model.transformer.h.0.attn.other.weight": torch.zeros(1)}
    )
    assert "blocks.1.attention.qkv" in told({key: torch.zeros(())})
    head = "base_model.model.lm_head.weight"  # PEFT's modules_to_save: it unties the head from the embedding
    assert "head that was trained whole" in told({head: torch.zeros(320, 32)})
    assert "rank_pattern is {'x0': 1, 'x1': 1" in told(rank_pattern={f"x{number}": 1 for number in range(10_001)})
    far = "base_model.model.transformer.h.1000.attn.c_attn.lora_A.weight"  # names of so many blocks would take hours
    assert f"no place for: {far}" in told({far: torch.zeros(4, 32)})
    weights.write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read"):
        read_adapter(tmp_path)


def test_the_fingerprint_is_of_the_weights_and_not_of_their_layout(make_decoder: MakeDecoder) -> None:
    decoder = make_decoder()
    assert fingerprint(decoder) == fingerprint(make_decoder()) != fingerprint(make_decoder(seed=1))
    with torch.no_grad():
        decoder.norm.bias[3] += 1e-6
    assert fingerprint(decoder) != fingerprint(make_decoder())


def test_an_adapter_on_an_adapter_is_known_by_its_files(base: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """And not by merged weights, which another processor rounds otherwise."""
    decoder, on = adapted_model(base, KINDS["plain"], ["attention"], [])
    below, above = tmp_path / "below", tmp_path / "above"
    save_language_model(below, decoder, tokenizer, task="base", dtype=torch.float32, adapter_on=on)
    second, _ = adapted_model(below, KINDS["plain"], ["mlp"], [])
    merged = open_base(str(below)).load(tokenizer)
    known = AdapterBase(str(below), identity(str(below), merged))
    save_language_model(above, second, tokenizer, task="base", dtype=torch.float32, adapter_on=known)
    with torch.no_grad():
        merged.norm.weight.add_(1e-6)
    assert identity(str(below), merged) == known.sha256
    assert_same(lm_logits(open_base(str(above)).load(tokenizer)), lm_logits(second))
    config = json.loads((below / "adapter_config.json").read_text())
    (below / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 4.0}))
    with pytest.raises(UserError, match="trained on other weights"):
        open_base(str(above)).load(tokenizer)


def test_attaching_switches_to_the_adapter(base: Path, tokenizer: Tokenizer) -> None:
    model, on = adapted_model(base, KINDS["plain"], ["mlp"], [])
    decoder = open_base(str(base)).load(tokenizer)
    attach(decoder, adapter_of(model, on.name), "mine")
    assert torch.equal(lm_logits(decoder), lm_logits(model))
