"""The model that a run starts from: thimble, a folder, a name on the Hub, or random weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gptailor.config import user_path
from gptailor.errors import UserError, did_you_mean, listing
from gptailor.model.config import SIZES, ModelConfig, parse_size
from gptailor.model.decoder import Decoder
from gptailor.model.lora import merge
from gptailor.tokenizer import TEMPLATE_FILE, Tokenizer
from gptailor.weights import openai
from gptailor.weights.adapters import CONFIG, WEIGHTS, Adapter, attach, fingerprint, is_adapter, read_adapter
from gptailor.weights.huggingface import WeightFiles, assemble, check_tokenizer, load_decoder, read_config, read_json

HUB_NAMES = {
    "gpt2-small": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
THIMBLE = Path(__file__).parents[1] / "assets" / "thimble"  # comes with GPTailor
ADAPTER_FILES = (CONFIG, WEIGHTS)
HUB_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json", "vocab.json", "merges.txt"]
HUB_FILES += [TEMPLATE_FILE]


@dataclass(frozen=True)
class Base:
    """A model to start from; ``load`` reads or makes the weights only when it is called.

    Attributes:
        pretrained: False for random weights.
        tokenizer: None when one is to be trained on the user's texts (random weights only).
        template: the file with the chat template that comes with the model; None where there is none.
        read: see ``load``.
    """

    name: str
    config: ModelConfig
    pretrained: bool
    tokenizer: Tokenizer | None
    template: Path | None
    read: Callable[[Tokenizer, torch.dtype], Decoder]

    def shape_with(self, tokenizer: Tokenizer) -> ModelConfig:
        """The decoder's shape; that of random weights follows the tokenizer that will be used."""
        return self.config if self.pretrained else replace(self.config, vocab_size=tokenizer.vocab_size)

    def load(self, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32) -> Decoder:
        """The decoder with weights of this type, for the vocabulary of the tokenizer that will be used."""
        return self.read(tokenizer, dtype)


def open_base(name: str, tokenizer: str | None = None, *, above: tuple[Path, ...] = ()) -> Base:
    """Finds the base called ``name`` without reading its weights.

    Args:
        name: ``thimble``, ``random:SIZE``, a folder (Hugging Face, an adapter in PEFT's layout, or OpenAI's original),
            or a name on the Hub.
        tokenizer: a folder with a tokenizer; for random weights only.
        above: the adapters whose base this is.

    Raises:
        UserError: for a name that is none of these, listing what exists.
    """
    if name.startswith("random:"):
        return _random(name, tokenizer)
    if tokenizer is not None:
        raise UserError(
            f"--tokenizer {tokenizer} with the pretrained base {name}", hint="a base brings its own tokenizer"
        )
    folder = THIMBLE if name == "thimble" else user_path(name)
    if name and folder.is_dir():
        if is_adapter(folder):
            return _adapted(name, folder, above)
        return _openai(name, folder) if openai.is_openai_folder(folder) else _huggingface(name, folder)
    repository = HUB_NAMES.get(name, name)
    if repository.count("/") == 1 and not name.startswith((".", "/", "~")):
        return _huggingface(name, fetch(repository))
    catalogue = [f"{short} ({hub})" for short, hub in HUB_NAMES.items()]
    random = [f"random:{size}" for size in SIZES]
    raise UserError(
        f"no base is called {name!r}, and there is no such folder",
        expected=f"thimble (comes with GPTailor), a folder, a Hub name owner/model such as {listing(catalogue)}, "
        f"or random weights: {listing(random)}, random:n_layer=4,n_head=4,n_embd=256",
        hint=did_you_mean(name, ["thimble", *HUB_NAMES, *random]),
    )


def _random(name: str, tokenizer: str | None) -> Base:
    config = parse_size(name.removeprefix("random:"))

    def read(used: Tokenizer, dtype: torch.dtype) -> Decoder:
        return Decoder(replace(config, vocab_size=used.vocab_size)).initialize().to(dtype)

    return Base(name, config, False, Tokenizer.load(Path(tokenizer)) if tokenizer else None, None, read)


def _huggingface(name: str, folder: Path) -> Base:
    config, tokenizer = read_config(folder), Tokenizer.load(folder)
    check_tokenizer(tokenizer, config.vocab_size, folder)
    return Base(name, config, True, tokenizer, template_in(folder), lambda used, dtype: load_decoder(folder, dtype))


def template_in(folder: Path) -> Path | None:
    """The file with the chat template of the model in ``folder``; None where there is none."""
    file = folder / TEMPLATE_FILE
    return file if file.is_file() else None


def _adapted(name: str, folder: Path, above: tuple[Path, ...]) -> Base:
    """An adapter and its base as one model, merged."""
    if folder.resolve() in above:
        raise UserError(f"{folder} names itself as its base", expected="the model that it was trained on")
    adapter = read_adapter(folder)
    base = base_of(folder, adapter, above)
    tokenizer = Tokenizer.load(folder) if (folder / "tokenizer.json").is_file() else base.tokenizer

    def read(used: Tokenizer, dtype: torch.dtype) -> Decoder:
        return load_adapted(folder, adapter, base, used).to(dtype)

    return Base(name, base.config, True, tokenizer, template_in(folder) or base.template, read)


def base_of(folder: Path, adapter: Adapter, above: tuple[Path, ...] = ()) -> Base:
    """The base that an adapter was trained on. Raises ``UserError`` when it is not there any more."""
    hint = f"gptailor merge {folder} --base PLACE joins it with a base that lies elsewhere"
    if adapter.base is None:
        raise UserError(f"{folder} does not say what its base is", hint=hint)
    if adapter.base.startswith("random:"):  # no adapter belongs to those, and they can be of any size
        raise UserError(f"the adapter in {folder} names random weights as its base", hint=hint)
    try:
        return open_base(adapter.base, above=(*above, folder.resolve()))
    except UserError as error:
        raise UserError(f"the base of the adapter in {folder}: {error}", hint=hint) from None


def load_adapted(folder: Path, adapter: Adapter, base: Base, tokenizer: Tokenizer) -> Decoder:
    """The base with the adapter merged into it, in float32.

    Raises:
        UserError: when the weights of the base are not those that the adapter was trained on.
    """
    decoder = base.load(tokenizer)
    check_base(folder, decoder, base.name)
    attach(decoder, adapter)
    merge(decoder)
    return decoder.requires_grad_(True)


def identity(name: str, decoder: Decoder) -> str:
    """What a base is known by: the fingerprint of its weights.

    Merged weights are rounded otherwise on another processor: an adapter is known by its files and its own base.
    """
    folder = user_path(name)
    if not (name and folder.is_dir() and is_adapter(folder)):
        return fingerprint(decoder)
    digest = hashlib.sha256(str(trained_on(folder)).encode())
    for file in ADAPTER_FILES:
        digest.update((folder / file).read_bytes())
    return digest.hexdigest()


def trained_on(folder: Path) -> str | None:
    """The ``identity`` of the base that an adapter was trained on; PEFT's do not say."""
    settings = read_json(folder / "config.json").get("gptailor") if (folder / "config.json").is_file() else None
    return settings.get("base_sha256") if isinstance(settings, dict) else None


def check_base(folder: Path, decoder: Decoder, name: str) -> None:
    """Raises ``UserError`` when the adapter in ``folder`` says that it was trained on other weights."""
    expected = trained_on(folder)
    if expected is not None and expected != identity(name, decoder):
        raise UserError(
            f"the adapter in {folder} was trained on other weights than those of {name}",
            expected=f"the base that its adapter_config.json names, with the sha256 {expected}",
        )


def _openai(name: str, folder: Path) -> Base:
    shape = openai.read_hparams(folder)
    config = ModelConfig(
        n_layer=shape["n_layer"],
        n_head=shape["n_head"],
        n_embd=shape["n_embd"],
        vocab_size=shape["n_vocab"],
        context_length=shape["n_ctx"],
    )
    tokenizer = Tokenizer.load(folder)
    check_tokenizer(tokenizer, config.vocab_size, folder)
    return Base(name, config, True, tokenizer, None, lambda used, dtype: load_openai(folder, config, dtype))


def load_openai(folder: Path, config: ModelConfig, dtype: torch.dtype = torch.float32) -> Decoder:
    """The decoder of an original TensorFlow checkpoint folder."""
    arrays = dict(openai.read_variables(folder))
    return assemble(
        config,
        available={name: array.shape for name, array in arrays.items()},
        read=lambda name: torch.tensor(arrays[name]),
        naming="openai",
        source=folder,
        dtype=dtype,
    )


def fetch(repository: str) -> Path:
    """The folder of a Hub model: from the cache, or downloaded into it.

    Raises:
        UserError: when it is not whole in the cache and the Hub cannot be reached (one attempt), does not have it, or
            sends something else.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(repository, local_files_only=True, allow_patterns=HUB_FILES))
        fault = _fault(cached)
        if not fault:
            return cached
        held = f"{repository} is in the cache, but cannot be used ({fault})"
    except LocalEntryNotFoundError as error:
        begun = hasattr(error, "snapshot_path")
        found = "only partly in the cache (a download broke off)" if begun else "no folder here, nor in the cache"
        held = f"{repository} is {found}"
    except HFValidationError as error:
        raise UserError(f"{repository!r} is no folder and no Hub name: {error}") from None
    hint = f"download {repository} where there is a network, copy the folder here, and give its path as --base"
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{held}, and HF_HUB_OFFLINE forbids a download", hint=hint)
    _ask_once(repository, constants.ENDPOINT, held, hint)
    try:
        downloaded = Path(snapshot_download(repository, allow_patterns=HUB_FILES))
        _check_sums(downloaded)
        return downloaded
    except Exception as error:  # also a connection that breaks, whose class belongs to the client's own HTTP library
        raise UserError(f"downloading {repository} failed: {error}", hint="run the command again to continue") from None


def _fault(folder: Path) -> str:
    """Why the files of a model cannot be used; a download that broke off leaves some of them in the cache."""
    try:
        read_config(folder), WeightFiles(folder), Tokenizer.load(folder)
    except UserError as error:
        return error.found
    return ""


def _check_sums(folder: Path) -> None:
    """Compares the large files with their SHA-256, by which the Hub's cache names them: its client looks at sizes only.

    Raises:
        OSError: when a file is another; it is then in the cache no longer.
    """
    for file in folder.rglob("*"):
        stored, digest = file.resolve(), hashlib.sha256()
        if not re.fullmatch("[0-9a-f]{64}", stored.name):
            continue
        with stored.open("rb") as opened:
            while chunk := opened.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != stored.name:
            file.unlink()
            stored.unlink()
            raise OSError(f"the sha256 of {file.name} is {digest.hexdigest()}, not {stored.name}; it was not kept")


def _ask_once(repository: str, endpoint: str, held: str, hint: str) -> None:
    """Fails within seconds where the Hub's own client would retry for half a minute per file."""
    from huggingface_hub import model_info
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        model_info(repository, timeout=10)
    except RepositoryNotFoundError:
        raise UserError(
            f"there is no folder {repository}, and {endpoint} has no such public model",
            hint="check the name; private models need a login",
        ) from None
    except HfHubHTTPError:
        return  # it is there, and the download will say what it has against us
    except Exception as error:  # no answer: the class belongs to the client's own HTTP library
        found = f"{held}, and {endpoint} cannot be reached: {error}"
        raise UserError(found, hint=hint) from None
