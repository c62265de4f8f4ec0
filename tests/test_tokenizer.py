"""Tokenizer: exact GPT-2 ids, three file layouts, training, and what a text or a file may never do."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, processors

from gptailor.errors import UserError
from gptailor.tokenizer import Tokenizer

TINY = Path(__file__).parent / "weights" / "fixtures" / "openai"
TURKISH = [
    "Işık sönünce İstanbul'un ışıkları ağır ağır yandı.",
    "ılık bir IRMAK, İNCE bir köprü; şöyle böyle, çok güzel!",
    "Dağda kuş, bağda üzüm: öğleden sonra görüşürüz inşallah…",
    "i̇stanbul (noktalı i birleşik) ile İstanbul aynı değildir",
]
NASTY = [
    "",
    " ",
    "\n\n  \t x",
    "it's we'll I'M",
    "é 日本語 😀👩‍👩‍👧",
    "  two",
    "tail   ",
    "\u3000\xa0\x00\x85",
    "x" * 3000,
]
TRAINING = ["the cat sat on the mat", "the dog sat on the log", "the cat and the dog <|endoftext|> <|endoftext|>"]


@pytest.fixture(scope="module")
def gpt2(shared_data: Path) -> Tokenizer:
    return Tokenizer.load(shared_data / "gpt2_tokenizer")


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    return Tokenizer.load(TINY)


def auto_tokenizer(folder: Path):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(folder)


class Reference:
    """GPT-2's encoding in plain Python: cut words by the regular expression, then merge while a pair has a rank."""

    words = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

    def __init__(self, folder: Path) -> None:
        self.ids = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
        self.ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines) if line}
        printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        others = [byte for byte in range(256) if byte not in printable]
        self.symbols = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
        self.word_ids = cache(self._word_ids)

    def encode(self, text: str) -> list[int]:
        return [token for word in self.words.findall(text) for token in self.word_ids(word)]

    def _word_ids(self, word: str) -> list[int]:
        parts = [self.symbols[byte] for byte in word.encode()]
        while len(parts) > 1:
            ranks = [self.ranks.get(pair, len(self.ranks)) for pair in pairwise(parts)]
            at = ranks.index(min(ranks))
            if ranks[at] == len(self.ranks):
                break
            # GPT-2 merges every place of the pair at once; from the left, one by one, comes to the same.
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.ids[part] for part in parts]


# --- Exact ids ---


def test_published_gpt2_ids(gpt2):
    assert gpt2.encode("Do you have time") == [5211, 345, 423, 640]
    assert gpt2.encode("Akwirw ier") == [33901, 86, 343, 86, 220, 959]
    assert (gpt2.vocab_size, gpt2.end_of_text) == (50257, 50256)


@pytest.mark.parametrize(
    "pattern",
    [
        "sms_spam/SMSSpamCollection",
        "nonenglish/persian*/dev.tsv",
        "nonenglish/swahili*/*",
        "nonenglish/ukrainian*/*",
        "../seeds/004*.txt",
    ],
)
def test_real_texts_equal_the_plain_reference(gpt2, shared_data, pattern):
    files = sorted(shared_data.glob(pattern)) if ".." not in pattern else sorted(shared_data.parent.glob(pattern[3:]))
    if not files:
        pytest.skip(f"no {pattern}")
    reference = Reference(shared_data / "gpt2_tokenizer")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n")]
    assert gpt2.encode_many(lines) == [reference.encode(line) for line in lines]


def test_turkish_and_awkward_texts_equal_the_plain_reference(gpt2, shared_data):
    reference = Reference(shared_data / "gpt2_tokenizer")
    for text in TURKISH + NASTY:
        assert gpt2.encode(text) == reference.encode(text), text


def test_transformers_agrees_on_gpt2(gpt2, shared_data, tmp_path):
    gpt2.save(tmp_path, context_length=1024)
    theirs = auto_tokenizer(tmp_path)
    texts = (shared_data / "sms_spam" / "SMSSpamCollection").read_text(encoding="utf-8").splitlines()[:500]
    for text in [*texts, *TURKISH, *NASTY]:
        assert theirs(text)["input_ids"] == gpt2.encode(text)
    assert (theirs.eos_token_id, theirs.pad_token_id, theirs.model_max_length) == (50256, 50256, 1024)


# --- Layouts of files ---


def test_three_layouts_give_the_same_ids(tiny, tmp_path):
    other, saved = tmp_path / "other", tmp_path / "saved"
    other.mkdir()
    saved.mkdir()
    shutil.copy(TINY / "encoder.json", other / "vocab.json")
    shutil.copy(TINY / "vocab.bpe", other / "merges.txt")
    tiny.save(saved, context_length=16)
    for text in TURKISH + NASTY + ["the morning train <|endoftext|> leaves"]:
        ids = tiny.encode(text)
        for folder in (other, saved):
            again = Tokenizer.load(folder)
            assert again.encode(text) == ids
            assert (again.vocab_size, again.end_of_text) == (290, 289)


def test_tokenizer_json_comes_before_the_tables(tiny, tmp_path):
    shutil.copytree(TINY, tmp_path / "both")
    trained = Tokenizer.train(TRAINING, 260)
    trained.save(tmp_path / "both", context_length=16)
    assert Tokenizer.load(tmp_path / "both").vocab_size == trained.vocab_size != tiny.vocab_size


@pytest.mark.parametrize("written", ["<stop>", {"content": "<stop>", "lstrip": False}])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_end_of_text_by_the_name_in_the_configuration(tmp_path, file, written):
    Tokenizer.train(TRAINING, 270).save(tmp_path, context_length=16)
    (tmp_path / "tokenizer_config.json").unlink()
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8").replace("<|endoftext|>", "<stop>")
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="no end-of-text token"):
        Tokenizer.load(tmp_path)
    (tmp_path / file).write_text(json.dumps({"eos_token": written}), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path)
    assert loaded.decode([loaded.end_of_text]) == "<stop>"


def test_the_configuration_decides_when_there_are_two_ends(tmp_path):
    tokenizer = Tokenizer.train(TRAINING, 270)
    tokenizer.save(tmp_path, context_length=16)
    assert tokenizer.decode([100]) != "<|endoftext|>"
    chosen = Backend.from_file(str(tmp_path / "tokenizer.json")).id_to_token(100)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": chosen}), encoding="utf-8")
    assert Tokenizer.load(tmp_path).end_of_text == 100
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<absent>"}', encoding="utf-8")
    assert Tokenizer.load(tmp_path).end_of_text == 269


# --- Text and specials ---


@pytest.mark.parametrize("text", ["<|endoftext|>", "win <|endoftext|> now", "<|endoftext|><|endoftext|>"])
def test_a_text_never_injects_the_end_of_text(tiny, tmp_path, text):
    ids = tiny.encode(text)
    assert tiny.end_of_text not in ids
    assert tiny.decode(ids) == text
    tiny.save(tmp_path, context_length=16)
    theirs = auto_tokenizer(tmp_path)
    assert theirs(text)["input_ids"] == theirs([text, "x"])["input_ids"][0] == ids
    assert Tokenizer.load(tmp_path).encode_many([text]) == [ids]


def test_an_end_of_text_not_marked_as_special_is_not_injected_either(tiny, tmp_path):
    tiny.save(tmp_path, context_length=16)
    written = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    written["added_tokens"][0]["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(written), encoding="utf-8")
    assert Backend.from_file(str(tmp_path / "tokenizer.json")).encode("<|endoftext|>").ids == [289]  # as it stands
    assert 289 not in Tokenizer.load(tmp_path).encode("<|endoftext|>")


def test_what_a_strangers_file_adds_around_texts_or_by_chance_is_undone(tiny, tmp_path):
    tiny.save(tmp_path, context_length=16)
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    backend.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 289)]
    )
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    backend.model.dropout = 0.9
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path)
    loaded.save(tmp_path, context_length=16)
    theirs = auto_tokenizer(tmp_path)
    for text in ("the", "the morning train leaves at seven, and the evening train at nine"):
        assert theirs(text)["input_ids"] == loaded.encode(text) == tiny.encode(text)


@given(st.text())
def test_decode_undoes_encode(text):
    tokenizer = _tiny()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < tokenizer.vocab_size and token != tokenizer.end_of_text for token in ids)


@cache
def _tiny() -> Tokenizer:
    return Tokenizer.load(TINY)


@given(st.lists(st.text(max_size=20), max_size=30))
@settings(max_examples=30)
def test_encode_many_is_encode_of_each(texts):
    assert _tiny().encode_many(texts) == [_tiny().encode(text) for text in texts]


def test_encode_many_keeps_the_order_over_several_calls(tiny):
    texts = [f"the {number} trains" for number in range(2500)]
    assert tiny.encode_many(texts) == [tiny.encode(text) for text in texts]


def test_decode_shows_the_end_broken_bytes_and_ignores_unknown_ids(tiny):
    euro = tiny.encode("€")
    assert tiny.decode([*tiny.encode("the"), tiny.end_of_text]) == "the<|endoftext|>"
    assert tiny.decode(euro[:1]) == "\N{REPLACEMENT CHARACTER}"
    assert tiny.decode([5000]) == ""


@pytest.mark.parametrize("encode", [lambda t, text: t.encode(text), lambda t, text: t.encode_many(["ok", text])])
def test_half_a_surrogate_pair_is_named(tiny, encode):
    with pytest.raises(UserError, match=r"character 3 of a text is U\+D83D"):
        encode(tiny, json.loads('"hi\\ud83d"'))


# --- Training ---


def test_training_learns_the_frequent_pairs_and_puts_the_end_last():
    tokenizer = Tokenizer.train(TRAINING, 270)
    assert tokenizer.vocab_size == 270
    assert tokenizer.end_of_text == 269
    assert len(tokenizer.encode(" the")) == 1
    assert tokenizer.encode("<|endoftext|>").count(tokenizer.end_of_text) == 0


def test_a_pair_that_occurs_once_is_not_merged():
    assert Tokenizer.train(["xyz"], 300).vocab_size == 257
    assert Tokenizer.train(["xyz xyz"], 300).vocab_size > 257


def test_every_text_can_be_written_with_a_vocabulary_from_no_text_at_all():
    tokenizer = Tokenizer.train([], 300)
    assert tokenizer.vocab_size == 257
    for text in TURKISH + NASTY:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert len(tokenizer.encode(text)) == len(text.encode())


def test_training_is_the_same_in_any_order_of_texts_and_in_another_process(tmp_path):
    for name, texts in (("a", TRAINING), ("b", TRAINING[::-1])):
        (tmp_path / name).mkdir()
        Tokenizer.train(texts, 280).save(tmp_path / name, context_length=16)
    (tmp_path / "c").mkdir()
    code = (
        "import sys; from gptailor.tokenizer import Tokenizer; "
        "Tokenizer.train(sys.argv[2:], 280).save(sys.argv[1], context_length=16)"
    )
    environment = os.environ | {"RAYON_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c"), *TRAINING], check=True, env=environment)
    first, *others = [(tmp_path / name / "tokenizer.json").read_bytes() for name in "abc"]
    assert others == [first, first]


def test_a_trained_tokenizer_opens_in_transformers_with_the_same_ids(tmp_path):
    tokenizer = Tokenizer.train(TRAINING + TURKISH, 300)
    tokenizer.save(tmp_path, context_length=16)
    theirs = auto_tokenizer(tmp_path)
    for text in TRAINING + TURKISH + NASTY:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.eos_token_id == theirs.pad_token_id == tokenizer.end_of_text
    assert len(theirs) == tokenizer.vocab_size


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(UserError, match="vocabulary of 256"):
        Tokenizer.train(TRAINING, 256)


# --- Damaged folders ---


def test_a_folder_without_a_tokenizer_is_told_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "encoder.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError) as caught:
        Tokenizer.load(tmp_path)
    for name in ("tokenizer.json", "vocab.bpe", "vocab.json", "merges.txt", "it holds encoder.json, notes.txt"):
        assert name in str(caught.value)
    with pytest.raises(UserError, match="no such folder"):
        Tokenizer.load(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1", b"null", b"\xff\xfe", b"[" * 100_000, b'{"model": 3}'])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "encoder.json"])
def test_a_damaged_json_file_is_named(tiny, tmp_path, file, content):
    if file == "encoder.json":
        shutil.copy(TINY / "vocab.bpe", tmp_path)
    else:
        tiny.save(tmp_path, context_length=16)
    (tmp_path / file).write_bytes(content)
    if file == "tokenizer_config.json" and content in (b"{}", b"null", b'{"model": 3}'):
        assert Tokenizer.load(tmp_path).end_of_text == 289  # it says nothing about the end; the usual name is there
        return
    with pytest.raises(UserError, match=file):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 8])
def test_merges_that_were_cut_between_two_lines_are_refused(tmp_path, kept):
    shutil.copytree(TINY, tmp_path / "cut")
    lines = (TINY / "vocab.bpe").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "cut" / "vocab.bpe").write_text("".join(lines[:kept]), encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab\.bpe.*no merge makes"):
        Tokenizer.load(tmp_path / "cut")


@pytest.mark.parametrize("line", [b"only\n", b"zz qq\n", b"\xff \xff\n"])
def test_a_bad_line_of_merges_is_refused(tmp_path, line):
    shutil.copytree(TINY, tmp_path / "bad")
    with (tmp_path / "bad" / "vocab.bpe").open("ab") as file:
        file.write(line)
    with pytest.raises(UserError, match=r"vocab\.bpe"):
        Tokenizer.load(tmp_path / "bad")


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    Backend(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="WordLevel"):
        Tokenizer.load(tmp_path)


REGEX = {"pattern": {"Regex": "(a+)+$"}}
TEXT = {"pattern": {"String": ""}}


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "////f2FhYWE="}),  # ends the process
        ("normalizer", {"precompiled_charsmap": "////f2FhYWE="}),
        ("normalizer", {"type": None, "precompiled_charsmap": "////f2FhYWE="}),
        ("normalizer", {"type": "Replace", **REGEX, "content": ""}),
        ("normalizer", {"type": "Replace", **TEXT, "content": "aa"}),
        ("pre_tokenizer", {"type": "Split", **REGEX, "behavior": "Isolated", "invert": False}),
        ("pre_tokenizer", {"type": "FixedLength", "length": 0}),
        ("decoder", {"type": "Strip", "content": "a", "start": 10**9, "stop": 0}),
        ("decoder", "Strip"),
        ("model", {"continuing_subword_prefix": "##"}),
    ],
)
def test_a_step_that_can_do_harm_is_refused(tiny, tmp_path, part, step):
    tiny.save(tmp_path, context_length=16)
    path = tmp_path / "tokenizer.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    inner = part.replace("_", "") + "s"
    steps = [step, {"type": "Sequence", inner: [None, step]}, {"type": "Sequence", inner: step}]
    for one in [whole["model"] | step] if part == "model" else steps:
        path.write_text(json.dumps(whole | {part: one}), encoding="utf-8")
        with pytest.raises(UserError, match=rf"tokenizer\.json: the {part} has "):
            Tokenizer.load(tmp_path)


def test_of_a_part_that_is_there_twice_only_the_one_that_was_looked_at_is_read(tiny, tmp_path):
    tiny.save(tmp_path, context_length=16)
    path = tmp_path / "tokenizer.json"
    bad = '{"normalizer": {"type": "Precompiled", "precompiled_charsmap": "////f2FhYWE="},'
    path.write_text(path.read_text(encoding="utf-8").replace("{", bad, 1), encoding="utf-8")
    assert Tokenizer.load(tmp_path).encode("the train") == tiny.encode("the train")


def test_steps_that_do_no_harm_are_read(tiny, tmp_path):
    tiny.save(tmp_path, context_length=16)
    path = tmp_path / "tokenizer.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    steps = [{"type": "Digits", "individual_digits": True}, whole["pre_tokenizer"]]
    changes = {"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    path.write_text(json.dumps(whole | changes), encoding="utf-8")
    assert Tokenizer.load(tmp_path).encode("the e\u0301") == tiny.encode("the \u00e9")


def test_a_vocabulary_that_would_lose_characters_is_refused(tmp_path):
    Backend(models.BPE({"a": 0, "<|endoftext|>": 1}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="no token for 255 of the 256 bytes"):
        Tokenizer.load(tmp_path)


def test_ids_with_large_gaps_are_refused(tmp_path):
    shutil.copytree(TINY, tmp_path / "gaps")
    ids = json.loads((TINY / "encoder.json").read_text(encoding="utf-8")) | {"<|endoftext|>": 4_000_000_000}
    (tmp_path / "gaps" / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
    with pytest.raises(UserError, match="ids up to 4000000000"):
        Tokenizer.load(tmp_path / "gaps")


@pytest.mark.parametrize("file", ["tokenizer.json", "encoder.json", "vocab.bpe", "tokenizer_config.json"])
def test_a_file_of_absurd_size_is_refused_unread(tiny, tmp_path, file):
    shutil.copytree(TINY, tmp_path / "big")
    if file.startswith("tokenizer"):
        tiny.save(tmp_path / "big", context_length=16)
    os.truncate(tmp_path / "big" / file, 10_000_000_000)  # a hole on disk, not 10 GB
    with pytest.raises(UserError, match=rf"{file}: 10,000,000,000 bytes"):
        Tokenizer.load(tmp_path / "big")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_random_damage_of_tokenizer_json_gives_a_tokenizer_or_one_clear_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    _tiny().save(folder, context_length=16)
    content = bytearray((folder / "tokenizer.json").read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    whole = data.draw(st.booleans())
    (folder / "tokenizer.json").write_bytes(content if whole else content[: data.draw(st.integers(0, len(content)))])
    try:
        tokenizer = Tokenizer.load(folder)
    except UserError as error:
        assert str(folder) in str(error)
    else:
        tokenizer.decode(tokenizer.encode("the morning train"))
