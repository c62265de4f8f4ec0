"""Bases by name: random sizes, folders of three kinds, and the Hub: offline, out of reach, and one of our own."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from gptailor.data.sources import read_table
from gptailor.errors import UserError
from gptailor.model.config import SIZES, ModelConfig
from gptailor.model.decoder import Decoder
from gptailor.model.head import Classifier
from gptailor.tokenizer import Tokenizer
from gptailor.weights.base import THIMBLE, open_base
from gptailor.weights.folder import ClassifierFolder, ClassifierSettings, load_classifier, save_classifier
from tests.weights.hub import TOKEN, serve

MakeDecoder = Callable[..., Decoder]
OPENAI = Path(__file__).parent / "fixtures" / "openai"
TEXT = "the train was late again, so we walked"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT] * 3, 280)


@pytest.fixture(scope="module")
def classifier(make_decoder: MakeDecoder, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classifier."""
    folder = tmp_path_factory.mktemp("models") / "classifier"
    model = Classifier(make_decoder(vocab_size=tokenizer.vocab_size), 2)
    save_classifier(folder, ClassifierFolder(model, tokenizer, ["a", "b"], ClassifierSettings(max_length=9)))
    return folder


def refusal(name: str, tokenizer: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        open_base(name, tokenizer)
    return str(caught.value)


# --- Random weights ---


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("random:tiny", SIZES["tiny"]),
        ("random:gpt2-xl", SIZES["gpt2-xl"]),  # no weights are made before they are asked for
        ("random:n_layer=3,n_head=2,n_embd=16,context_length=40", ModelConfig(3, 2, 16, context_length=40)),
    ],
)
def test_random_bases_have_the_size_of_their_name(name: str, config: ModelConfig):
    base = open_base(name)
    assert (base.name, base.config, base.pretrained, base.tokenizer) == (name, config, False, None)


def test_a_random_base_is_made_for_the_tokenizer_that_is_used(tokenizer: Tokenizer):
    torch.manual_seed(1)
    decoder = open_base("random:n_layer=2,n_head=2,n_embd=16").load(tokenizer)
    assert decoder.config == ModelConfig(2, 2, 16, tokenizer.vocab_size, 512)
    assert float(decoder.token_embedding.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert (decoder.norm.weight == 1).all()


def test_a_random_base_takes_the_tokenizer_of_a_folder(classifier: Path, tokenizer: Tokenizer):
    given = open_base("random:tiny", str(classifier)).tokenizer
    assert given is not None
    assert given.encode(TEXT) == tokenizer.encode(TEXT)
    assert "no such folder" in refusal("random:tiny", "nowhere")


# --- Thimble ---


def test_thimble_is_small_and_opens_in_a_moment():
    base = open_base("thimble")
    assert base.pretrained and base.config.context_length >= 512 and base.config.vocab_size == 8192
    assert 5e6 <= sum(p.numel() for p in base.load(Tokenizer.load(THIMBLE)).parameters()) <= 10e6
    assert sum(file.stat().st_size for file in THIMBLE.iterdir()) < 16 * 2**20


@pytest.mark.parametrize(
    "sentence",
    [
        "I would like to book a table for two people at the restaurant.",
        "The king and his brother went to the house by the river.",
        "Could you please tell me what time the next train leaves?",
    ],
)
@torch.no_grad()
def test_thimble_knows_english(sentence: str):
    """The sentence is far likelier than the same words from last to first."""
    base = open_base("thimble")
    assert base.tokenizer
    decoder = base.load(base.tokenizer).eval()
    backwards = " ".join(reversed(sentence.split()))
    losses = []
    for text in (sentence, backwards):
        ids = torch.tensor([base.tokenizer.encode(text)])
        logits = decoder.logits(decoder(ids[:, :-1]))
        losses.append(float(torch.nn.functional.cross_entropy(logits[0], ids[0, 1:])))
    assert losses[0] < losses[1] - 1, losses


# --- Names that are none ---

KNOWN = ("thimble", "gpt2-small (openai-community/gpt2)", "gpt2-medium", "gpt2-large", "gpt2-xl", "random:tiny")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("thimbel", "did you mean 'thimble'?"),
        ("gpt2-smal", "did you mean 'gpt2-small'?"),
        ("gpt2_medium", "did you mean 'gpt2-medium'?"),
        ("randomtiny", "did you mean 'random:tiny'?"),
        ("zzz", ""),
        ("./no/such/folder", ""),
        ("/no/folder", ""),
        ("~/no-such-folder", ""),
        ("a/b/c", ""),
        ("", ""),
    ],
)
def test_an_unknown_name_lists_what_exists(name: str, hint: str):
    message = refusal(name)
    assert f"no base is called {name!r}" in message
    assert all(known in message for known in KNOWN)
    assert hint in message
    assert ("did you mean" in message) == bool(hint)


@pytest.mark.parametrize(
    ("name", "named"), [("random:huge", "'huge'"), ("random:", "''"), ("random:n_head=0", "n_head is 0")]
)
def test_an_unknown_random_size(name: str, named: str):
    assert named in refusal(name)


def test_a_pretrained_base_brings_its_own_tokenizer(classifier: Path):
    for name in (str(classifier), "gpt2-small"):
        message = refusal(name, "other")
        assert f"--tokenizer other with the pretrained base {name}" in message


# --- Folders ---


def test_the_folder_of_a_classifier_gives_its_decoder(
    classifier: Path, make_decoder: MakeDecoder, tokenizer: Tokenizer
):
    base, expected = open_base(str(classifier)), make_decoder(vocab_size=tokenizer.vocab_size)
    assert (base.pretrained, base.config) == (True, expected.config)
    assert base.tokenizer is not None
    assert base.tokenizer.encode(TEXT) == tokenizer.encode(TEXT)
    decoder = base.load(base.tokenizer)
    assert list(decoder.state_dict()) == list(expected.state_dict())
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name


def theirs_from_tensorflow() -> GPT2LMHeadModel:
    """transformers' model, filled by hand with the arrays that TensorFlow wrote."""
    shape = json.loads((OPENAI / "hparams.json").read_text())
    sizes = {"n_layer": shape["n_layer"], "n_head": shape["n_head"], "n_embd": shape["n_embd"]}
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(**sizes, vocab_size=shape["n_vocab"], n_positions=shape["n_ctx"], **ids))
    kinds = {"g": "weight", "b": "bias", "w": "weight", "wte": "wte.weight", "wpe": "wpe.weight"}
    state = {}
    for name, array in load_file(OPENAI / "expected.safetensors").items():
        *path, kind = name.split("/")[1:]
        if path and path[0].startswith("h"):
            path[0] = "h." + path[0][1:]
        state[".".join(["transformer", *path, kinds[kind]])] = torch.tensor(array).squeeze(0)
    left, unknown = model.load_state_dict(state, strict=False)
    assert (left, unknown) == (["lm_head.weight"], [])
    model.tie_weights()
    return model.eval()


@torch.no_grad()
def test_openais_checkpoint_gives_the_logits_of_transformers():
    base = open_base(str(OPENAI))
    assert base.pretrained
    assert base.tokenizer is not None
    decoder = base.load(base.tokenizer)
    assert decoder.config == base.config
    ids = torch.randint(0, base.config.vocab_size, (3, 16), generator=torch.Generator().manual_seed(1))
    expected = theirs_from_tensorflow()(ids).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(decoder.logits(decoder(ids)), expected, atol=1e-5, rtol=0)


def test_openais_folder_with_other_sizes_names_every_tensor(tmp_path: Path):
    folder = Path(shutil.copytree(OPENAI, tmp_path / "openai"))
    shape = json.loads((folder / "hparams.json").read_text()) | {"n_ctx": 17, "n_layer": 3}
    (folder / "hparams.json").write_text(json.dumps(shape))
    base = open_base(str(folder))
    assert base.tokenizer is not None
    with pytest.raises(UserError) as caught:
        base.load(base.tokenizer)
    message = str(caught.value)
    assert "12 missing tensors: h2/ln_1/g" in message
    assert "wpe is (16, 8)\n  expected: (17, 8)" in message


@pytest.mark.parametrize(
    ("missing", "named"), [("config.json", "config.json is missing"), ("tokenizer.json", "no tokenizer in it")]
)
def test_a_folder_that_is_not_whole(classifier: Path, tmp_path: Path, missing: str, named: str):
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    (folder / missing).unlink()
    message = refusal(str(folder))
    assert str(folder) in message
    assert named in message


def test_a_tokenizer_larger_than_the_vocabulary_is_refused_before_weights_are_read(classifier: Path, tmp_path: Path):
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 270}), encoding="utf-8")
    (folder / "model.safetensors").unlink()
    assert f"{folder}: the tokenizer has {config['vocab_size']} tokens and the model 270" in refusal(str(folder))


# --- The Hub ---


@pytest.mark.parametrize(
    ("name", "repository"), [("nobody/nothing-here", "nobody/nothing-here"), ("gpt2-xl", "openai-community/gpt2-xl")]
)
def test_without_a_network_a_hub_name_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, repository: str
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refusal(name)
    assert f"{repository} is no folder here, nor in the cache, and HF_HUB_OFFLINE forbids a download" in message
    assert f"download {repository} where there is a network" in message


@pytest.mark.parametrize("name", ["own er/model", "-owner/model", "owner/mod..el"])
def test_a_name_that_the_hub_cannot_have(name: str):
    assert f"{name!r} is no folder and no Hub name" in refusal(name)


# The client reads its environment when it is imported, hence a process of its own. Its pauses are left out.
ASK = """
import json, sys, time
time.sleep = lambda seconds: None
from gptailor.errors import UserError
from gptailor.weights.base import THIMBLE, open_base
answers = {}
for name in sys.argv[1:]:
    start = time.monotonic()
    try:
        base = open_base(name)
        answers[name] = {"bias": base.load(base.tokenizer).norm.bias.tolist()}
    except UserError as error:
        answers[name] = {"error": str(error)}
    answers[name]["seconds"] = time.monotonic() - start
print(json.dumps(answers))
"""


def ask(endpoint: str, home: Path, *names: str) -> dict[str, dict[str, Any]]:
    """What a process with an empty environment of its own gets for each base."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().startswith(("hf_", "http"))}
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
    own["HF_HUB_DOWNLOAD_TIMEOUT"] = own["HF_HUB_DISABLE_PROGRESS_BARS"] = own["HF_HUB_DISABLE_TELEMETRY"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], env=kept | own, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def closed_port() -> str:
    """An address at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_hub_model_is_downloaded_once_and_what_fails_says_why(classifier: Path, tmp_path: Path):
    for name in ("tiny/model", "private/model", "gated/model"):
        shutil.copytree(classifier, tmp_path / "hub" / name)
    (tmp_path / "hub" / "tiny" / "model" / "pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "hub" / "tiny" / "empty").mkdir()
    home, bias = tmp_path / "home", open_base(str(classifier)).load(Tokenizer.load(classifier)).norm.bias.tolist()

    with serve(tmp_path / "hub") as endpoint:
        answers = ask(endpoint, home, "tiny/model", "private/model", "gated/model", "tiny/empty", "tiny/absent")
    assert answers["tiny/model"]["bias"] == bias
    assert not list(home.rglob("*.bin")), "a pickle has been downloaded"
    assert f"there is no folder tiny/absent, and {endpoint} has no such public model" in answers["tiny/absent"]["error"]
    assert answers["private/model"]["bias"] == bias, "the login was not used"
    assert "downloading gated/model failed" in answers["gated/model"]["error"]
    assert "config.json is missing" in answers["tiny/empty"]["error"]

    nobody = closed_port()
    answers = ask(nobody, home, "tiny/model", "tiny/other")
    assert answers["tiny/model"]["bias"] == bias, "the cache was not enough"
    error = answers["tiny/other"]["error"]
    assert f"tiny/other is no folder here, nor in the cache, and {nobody} cannot be reached: " in error
    assert "download tiny/other where there is a network" in error
    assert answers["tiny/other"]["seconds"] < 15


WRONGLY = {"cut": "without sending complete", "short": "should be of size", "endless": "redirects"}
WRONGLY |= {"changed": "the sha256 of model.safetensors"}


@pytest.mark.parametrize("said", [WRONGLY, pytest.param({"stalling": "timed out"}, marks=pytest.mark.slow)])
def test_a_hub_that_sends_something_else_is_told_from_none_at_all(
    classifier: Path, tmp_path: Path, said: dict[str, str]
):
    home, names = tmp_path / "home", {f"{owner}/model": why for owner, why in said.items()}
    for name in names:
        shutil.copytree(classifier, tmp_path / "hub" / name)
    with serve(tmp_path / "hub", honest=False) as endpoint:
        answers = ask(endpoint, home, *names)
    for name, why in names.items():
        assert f"downloading {name} failed: " in answers[name]["error"]
        assert why in answers[name]["error"]

    nobody = closed_port()
    for name, answer in ask(nobody, home, *names).items():
        assert f"{name} is only partly in the cache (a download broke off), and {nobody} cannot be" in answer["error"]
    assert not list(home.rglob("model.safetensors")), "half a file is in the cache"

    bias = open_base(str(classifier)).load(Tokenizer.load(classifier)).norm.bias.tolist()
    with serve(tmp_path / "hub") as endpoint:
        answers = ask(endpoint, home, *names)
    assert [answer.get("bias") for answer in answers.values()] == [bias] * len(names)


# --- Pickles ---


class Trap:
    """What runs code when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.sprung,)


PICKLED = ["pytorch_model.bin", "model.bin", "model.pt", "model.pth", "weights.pt"]
PICKLED += ["model.safetensors", "adapter_model.safetensors", "adapter_model.bin", "tokenizer.json", "config.json"]


@pytest.mark.parametrize(
    ("save", "load"),
    [(pickle.dump, pickle.load), (torch.save, partial(torch.load, weights_only=False))],
    ids=["pickle", "torch"],
)
@pytest.mark.parametrize("name", PICKLED)
def test_no_pickle_is_ever_loaded(classifier: Path, tmp_path: Path, name: str, save: Any, load: Any):
    folder, sprung = Path(shutil.copytree(classifier, tmp_path / "model")), tmp_path / "sprung"
    (folder / "model.safetensors").unlink()
    if "adapter" in name:
        adapter = {"peft_type": "LORA", "base_model_name_or_path": "thimble"}
        (folder / "adapter_config.json").write_text(json.dumps(adapter))
    with (folder / name).open("wb") as file:
        save(Trap(sprung), file)
    for base in (folder, folder / name):
        with pytest.raises(UserError):
            opened = open_base(str(base))
            opened.load(Tokenizer.load(folder))
    with pytest.raises(UserError):
        load_classifier(folder)
    with pytest.raises(UserError):
        read_table(folder / name)
    assert not sprung.exists()
    with (folder / name).open("rb") as file:
        load(file)
    assert sprung.exists(), "the trap does not work"


# --- Links ---

# A process of its own: what waits for a pipe inside of a library can only be killed.
OPEN = """
import resource, sys
from pathlib import Path
from gptailor.errors import UserError
from gptailor.weights.adapters import read_adapter
from gptailor.weights.base import open_base
from gptailor.weights.folder import load_classifier
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
for folder in map(Path, sys.argv[1:]):
    for read in (load_classifier, read_adapter, lambda folder: open_base(str(folder)).load(None)):
        try:
            read(folder)
        except UserError:
            pass
"""
LINKED = {"classifier": ["config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"]}
LINKED["classifier"] += ["tokenizer_config.json", "adapter_config.json", "adapter_model.safetensors"]
LINKED["openai"] = ["hparams.json", "checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001", "vocab.bpe"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the memory in use")
def test_a_link_to_what_never_ends_is_no_file(classifier: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    whole, folders = {"classifier": classifier, "openai": OPENAI}, []
    for kind, names in LINKED.items():
        for name in names:
            for target in (tmp_path / "pipe", Path("/dev/zero"), Path(name), tmp_path):
                folder = Path(shutil.copytree(whole[kind], tmp_path / f"model-{len(folders)}"))
                if name.startswith("adapter_model"):
                    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
                (folder / name).unlink(missing_ok=True)
                (folder / name).symlink_to(target)
                folders.append(str(folder))
    command = [sys.executable, "-c", OPEN, *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
