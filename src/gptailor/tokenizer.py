"""Byte-level BPE behind one small class: GPT-2's files, ``tokenizer.json``, training a new one.

The encoding itself is the ``tokenizers`` library; this file decides what is loaded, what is refused and what a user's
text may never do: ``<|endoftext|>`` written inside a message is thirteen ordinary characters, not the end of the text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from gptailor.errors import UserError, listing

END_OF_TEXT = "<|endoftext|>"
TEMPLATE_FILE = "chat_template.jinja"  # beside the tokenizer of a model that is asked in a certain way
ALPHABET_SIZE = 256  # one symbol per byte: no text is ever out of the vocabulary

# The largest tokenizer.json in common use (256k tokens) has about 35 MB; far more is not a tokenizer.
MAX_FILE_BYTES = 200_000_000
# An encoding carries strings and offsets, over 100 bytes a token: 50k long texts at once would take gigabytes.
TEXTS_PER_CALL = 1000
MAX_ADDED_TOKENS = 20  # besides the end of text, some vocabularies name a few more, such as a mask

# What may stand around the model of a tokenizer.json. The library has more, and some of that can be told to end the
# process, or to take all of its memory or time: regular expressions, tables of characters, texts that grow.
HARMLESS = {
    "normalizer": ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"),
    "pre_tokenizer": ("ByteLevel", "Digits", "Whitespace", "WhitespaceSplit", "Punctuation"),
    "decoder": ("ByteLevel", "ByteFallback", "Fuse"),
}

CONFIG_FILES = ("tokenizer_config.json", "special_tokens_map.json")
TABLE_FILES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))


class Tokenizer:
    """Text to token ids and back.

    Attributes:
        vocab_size: number of ids, the end of text included: every id is in ``0 .. vocab_size - 1``.
        end_of_text: id of the end-of-text token, which is also the padding id.
    """

    vocab_size: int
    end_of_text: int

    def __init__(self, backend: Backend, end_of_text: str = END_OF_TEXT) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.post_processor = None  # nothing is added around a text here, nor by whoever opens the saved file
        backend.model.dropout = None  # a file can ask for random merges; ids must not depend on chance
        backend.add_special_tokens([AddedToken(end_of_text, normalized=False)])
        backend.encode_special_tokens = True  # that is: as ordinary characters
        vocabulary = backend.get_vocab()
        self._backend, self._end_of_text_name = backend, end_of_text
        self.end_of_text = vocabulary[end_of_text]
        self.vocab_size = max(vocabulary.values()) + 1

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer of a model folder.

        Looked for in this order: ``tokenizer.json``; ``encoder.json`` with ``vocab.bpe`` (the original GPT-2 release);
        ``vocab.json`` with ``merges.txt``. The end of text is the ``eos_token`` that the folder's configuration names,
        or else ``<|endoftext|>``.

        Raises:
            UserError: no tokenizer there, a file is damaged or far too large, or no end-of-text token is known.
        """
        backend = _read_backend(Path(folder))
        names = [*_named_ends(Path(folder)), END_OF_TEXT]
        end_of_text = next((name for name in names if backend.token_to_id(name) is not None), None)
        if end_of_text is None:
            raise UserError(
                f"{folder}: the tokenizer has no end-of-text token (looked for {listing(dict.fromkeys(names))})",
                expected="<|endoftext|> in the vocabulary, or an eos_token in tokenizer_config.json",
            )
        return cls(backend, end_of_text)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn a new tokenizer, with GPT-2's way of cutting text into words, from ``texts``.

        The 256 byte symbols come first, then the merges, most frequent pair first; ``<|endoftext|>`` has the last id.
        The same texts give the same tokenizer, in any order. Little text gives fewer than ``vocab_size`` ids, because
        a pair that occurs only once is not merged.

        Raises:
            UserError: ``vocab_size`` is less than 257.
        """
        if vocab_size <= ALPHABET_SIZE:
            expected = f"at least {ALPHABET_SIZE + 1}: one id for each byte, and the end of text"
            raise UserError(f"a vocabulary of {vocab_size}", expected=expected)
        backend = _byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,  # the end of text is added afterwards, so that it never counts as text here
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(map(_encodable, texts), trainer)
        return cls(backend)

    def save(self, folder: Path, *, context_length: int) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``: ``transformers.AutoTokenizer`` gives the same ids.

        ``context_length`` is how many tokens the model can read; transformers warns above it.
        """
        folder = Path(folder)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": context_length,
            "bos_token": self._end_of_text_name,
            "eos_token": self._end_of_text_name,
            "pad_token": self._end_of_text_name,
            "padding_side": "right",
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": True,
        }
        (folder / "tokenizer.json").write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, without any special token; ``""`` gives ``[]``.

        Raises:
            UserError: the text holds half of a surrogate pair, which no encoding can write.
        """
        return self._backend.encode(_encodable(text), add_special_tokens=False).ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """``[encode(text) for text in texts]``, on all cores.

        Raises:
            UserError: as ``encode``.
        """
        ids: list[list[int]] = []
        for start in range(0, len(texts), TEXTS_PER_CALL):
            part = [_encodable(text) for text in texts[start : start + TEXTS_PER_CALL]]
            ids += [encoding.ids for encoding in self._backend.encode_batch_fast(part, add_special_tokens=False)]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``: bytes that are not UTF-8 become U+FFFD, the end of text is shown by its name.

        Ids outside the vocabulary give no text.
        """
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id by itself; a character that is split over several ids shows as U+FFFD in each."""
        return [self.decode([one]) for one in ids]


def _read_backend(folder: Path) -> Backend:
    """The first layout whose files are all in ``folder``, through the library's readers."""
    if (folder / "tokenizer.json").is_file():
        text = _harmless(folder / "tokenizer.json")
        return _parsed(lambda: Backend.from_str(text), folder / "tokenizer.json")
    for vocabulary, merges in TABLE_FILES:
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            return _read_tables(folder / vocabulary, folder / merges)
    raise _nothing_found(folder)


def _harmless(path: Path) -> str:
    """A ``tokenizer.json`` with only what is used of it, written anew: what is read then is what was looked at here."""
    values = _read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a readable tokenizer (it holds a {type(values).__name__})")
    values |= {"truncation": None, "padding": None, "post_processor": None}
    for name, known in HARMLESS.items():
        whole, inner = values.get(name), f"{name.replace('_', '')}s"
        sequence = isinstance(whole, dict) and whole.get("type") == "Sequence" and isinstance(whole.get(inner), list)
        steps = [step for step in (whole[inner] if sequence else [whole]) if step is not None]
        unknown = [step for step in steps if not isinstance(step, dict) or step.get("type") not in known]
        if unknown:
            kinds = listing(str(step.get("type") if isinstance(step, dict) else step)[:40] for step in unknown)
            raise UserError(f"{path}: the {name} has {kinds}", expected=f"nothing but {listing(known)}")
    model = values.get("model")
    if isinstance(model, dict) and model.get("continuing_subword_prefix"):
        raise UserError(f"{path}: the model has a continuing_subword_prefix", expected="none, as in GPT-2")
    return json.dumps(values)


def _read_tables(vocabulary: Path, merges: Path) -> Backend:
    """GPT-2's two tables: JSON of token -> id, and one merge a line in order of rank."""
    for path in (vocabulary, merges):
        _check_size(path)

    def read() -> Backend:
        ids, pairs = models.BPE.read_file(str(vocabulary), str(merges))
        never = set(ids) - {left + right for left, right in pairs} - set(pre_tokenizers.ByteLevel.alphabet())
        if len(never) > MAX_ADDED_TOKENS:  # no other sign tells a file of merges that was cut between two lines
            raise ValueError(f"no merge makes {len(never)} of the tokens, such as {listing(sorted(never), 3)}")
        return _byte_level(models.BPE(ids, pairs))

    return _parsed(read, vocabulary, merges)


def _byte_level(model: models.BPE) -> Backend:
    """GPT-2's pipeline around a model: its regular expression cuts words, bytes are written as printable symbols."""
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _named_ends(folder: Path) -> list[str]:
    """The end-of-text tokens that the folder's configuration files name, as text or as ``{"content": text}``."""
    names = []
    for path in (folder / file for file in CONFIG_FILES):
        config = _read_json(path) if path.is_file() else {}
        token = config.get("eos_token") if isinstance(config, dict) else None
        name = token.get("content") if isinstance(token, dict) else token
        if isinstance(name, str) and name:
            names.append(name)
    return names


def _parsed(read: Callable[[], Backend], *paths: Path) -> Backend:
    """``read()``, with whatever the library makes of a damaged file turned into one UserError."""
    files = " and ".join(map(str, paths))
    try:
        backend = read()
    except Exception as error:  # the library raises no narrower class
        raise UserError(f"{files}: not a readable tokenizer ({error})", hint="copy the files again") from error
    if not isinstance(backend.model, models.BPE):
        raise UserError(f"{files}: a {type(backend.model).__name__} tokenizer", expected="byte-pair encoding (BPE)")
    _check_vocabulary(backend, files)
    return backend


def _check_vocabulary(backend: Backend, files: str) -> None:
    """Refuse what would lose characters in silence, and ids that would make an embedding of absurd size."""
    vocabulary = backend.get_vocab()
    missing = [symbol for symbol in pre_tokenizers.ByteLevel.alphabet() if symbol not in vocabulary]
    if missing and not (backend.model.byte_fallback or backend.model.unk_token):
        found = f"{files}: no token for {len(missing)} of the {ALPHABET_SIZE} bytes"
        raise UserError(found, expected="a token for each byte, or text would lose characters unseen")
    largest = max(vocabulary.values(), default=0)
    if largest >= 2 * len(vocabulary):
        raise UserError(
            f"{files}: {len(vocabulary)} tokens with ids up to {largest}", expected="ids without large gaps"
        )


def _read_json(path: Path) -> object:
    try:
        return json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from error


def _read_text(path: Path) -> str:
    _check_size(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as UTF-8 text ({error})") from error


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise UserError(f"{path}: {size:,} bytes", expected=f"a tokenizer file of at most {MAX_FILE_BYTES:,} bytes")


def _nothing_found(folder: Path) -> UserError:
    if not folder.is_dir():
        return UserError(f"{folder}: no such folder", expected="a folder that holds a tokenizer")
    layouts = ["tokenizer.json", *(f"{vocabulary} with {merges}" for vocabulary, merges in TABLE_FILES)]
    there = listing(sorted(path.name for path in folder.iterdir())) or "nothing"
    return UserError(f"{folder}: no tokenizer in it; it holds {there}", expected=", or ".join(layouts))


def _encodable(text: str) -> str:
    """``text``, after checking that it can be written in UTF-8, which JSON's escapes do not promise."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        found = f"character {error.start + 1} of a text is {half}, half of a surrogate pair"
        raise UserError(found, hint="mend the text: it was cut inside an emoji, or escaped wrongly") from error
    return text
