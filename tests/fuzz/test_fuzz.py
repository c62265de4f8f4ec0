"""Files from strangers: hundreds of broken ones by default, a hundred thousand in the slow tier.

Each target reads what a stranger may send. It may refuse it by a ``UserError``; any other exception, ten seconds, half
a gigabyte, or a file that is touched outside of the folder is a defect. The slow tier takes ``FUZZ`` inputs of each.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gptailor.config import TASKS, load_config
from gptailor.data.download import Download, _explained, _unpacked
from gptailor.data.sources import read_table
from gptailor.data.templates import Message, Template
from gptailor.tokenizer import Tokenizer
from gptailor.weights.adapters import attach, read_adapter
from gptailor.weights.base import open_base
from gptailor.weights.folder import load_classifier
from gptailor.weights.huggingface import load_decoder, read_config
from tests.fuzz.bounds import bounded, safetensors, try_folder

FEW, MANY = 60, int(os.environ.get("FUZZ", "12000"))
DRAWN: dict[str, int] = {}  # inputs by target

# --- what is drawn ----------------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([0, 1, 2, 3, -1, 16, 300, 2**31, 2**63, 2**64, 10**30, 1e308, 0.5, True, float("nan")])
WORDS = st.sampled_from(
    ["", "a", "../secret.txt", "/etc/passwd", "F32", "F16", "BF16", "U8", "gpt2", "LORA", "\0", "é", "\ud800"]
)
VALUES = st.recursive(
    st.none() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


def changed(whole: dict[str, Any], values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[bytes]:
    """JSON of an object in which some values, down to the third level, are others or gone."""

    @st.composite
    def draw(draw: st.DrawFn) -> bytes:
        value = json.loads(json.dumps(whole))
        for _ in range(draw(st.integers(1, 3))):
            at = value
            while True:
                keys = sorted(at) if isinstance(at, dict) else list(range(len(at)))
                key = draw(st.sampled_from(keys)) if keys else None
                if key is None or not isinstance(at[key], dict | list) or not at[key] or draw(st.booleans()):
                    break
                at = at[key]
            if key is None:
                break
            if draw(st.integers(0, 4)):
                at[key] = draw(values)
            else:
                del at[key]
        return json.dumps(value).encode()

    return draw()


def torn(content: bytes) -> st.SearchStrategy[bytes]:
    """A file with some bytes changed, cut out or doubled."""

    @st.composite
    def draw(draw: st.DrawFn) -> bytes:
        made = content
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(made)))
            how = draw(st.sampled_from(["change", "cut", "insert", "double"]))
            if how == "cut":
                made = made[:at]
            elif how == "double":
                made = made[:at] + made[at : at + 64] * 2 + made[at + 64 :]
            else:
                made = made[:at] + draw(st.binary(max_size=4)) + made[at + (how == "change") :]
        return made

    return draw()


def fuzz(target: str, **drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """The test of a target twice: with a few inputs by default, and with many when it is asked for."""

    def decorate(check: Callable[..., None]) -> Any:
        def run(examples: int, *fixed: Any) -> None:
            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=examples == FEW,
                phases=[Phase.explicit, Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )
            @given(**drawn)
            def each(**values: Any) -> None:
                DRAWN[target] = DRAWN.get(target, 0) + 1
                check(*fixed, **values)

            each()

        CHECKS[target] = run
        return check

    return decorate


CHECKS: dict[str, Callable[..., None]] = {}


# --- a model folder ---------------------------------------------------------------------------------------------------

CONFIG = {
    "model_type": "gpt2",
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "vocab_size": 300,
    "n_positions": 8,
    "n_inner": None,
}
CONFIG |= {"id2label": {"0": "a", "1": "b"}, "gptailor": {"task": "classifier", "read": "last", "max_length": 8}}
HEADER = {
    "score.weight": {"dtype": "F32", "shape": [2, 16], "data_offsets": [0, 128]},
    "__metadata__": {"format": "pt"},
}
INDEX = {"metadata": {}, "weight_map": {"score.weight": "a.safetensors", "transformer.wte.weight": "b.safetensors"}}
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "random:n_layer=1,n_head=2,n_embd=16"}
LORA |= {"rank_pattern": {"c_proj": 2}, "alpha_pattern": {"c_proj": 4}, "use_dora": False, "use_rslora": False}
NAMES = {
    f"base_model.model.transformer.h.0.attn.c_proj.lora_{x}.weight": shape
    for x, shape in (("A", (2, 16)), ("B", (16, 2)))
}
TOKENIZER = json.loads(Tokenizer.train(["a few words"] * 3, 270)._backend.to_str())


def written(tensors: dict[str, torch.Tensor], place: Path) -> bytes:
    save_file(tensors, place)
    return place.read_bytes()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    return written({name: torch.ones(shape) for name, shape in NAMES.items()}, place)


@fuzz(
    "safetensors header",
    header=changed(HEADER) | st.binary(max_size=60),
    size=st.sampled_from([0, 127, 128, 400]),
    far=NUMBERS,
)
def read_weights(header: bytes, size: int, far: Any) -> None:
    content = safetensors(header, bytes(size))
    if isinstance(far, int) and 300 < far < 2**64:  # a header that says of itself that it is huge
        content = far.to_bytes(8, "little") + content[8:]
    try_folder({"config.json": json.dumps(CONFIG).encode(), "model.safetensors": content}, load_decoder)


@fuzz("shard index", index=changed(INDEX) | torn(json.dumps(INDEX).encode()))
def read_shards(index: bytes) -> None:
    shard = safetensors(json.dumps(HEADER).encode(), bytes(128))
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors.index.json": index}
    try_folder(files | {"a.safetensors": shard, "b.safetensors": shard}, load_decoder)


@fuzz("config.json", config=changed(CONFIG) | torn(json.dumps(CONFIG).encode()))
def read_model_config(config: bytes) -> None:
    files = {"config.json": config, "tokenizer.json": json.dumps(TOKENIZER).encode()}
    try_folder(files, read_config)
    try_folder(files, load_classifier)


@fuzz(
    "adapter",
    config=changed(LORA),
    tensors=st.sampled_from(["whole", "torn"]),
    torn_at=st.integers(0, 400),
    byte=st.binary(min_size=1, max_size=1),
)
def read_an_adapter(adapter: bytes, config: bytes, tensors: str, torn_at: int, byte: bytes) -> None:
    weights = adapter if tensors == "whole" else adapter[:torn_at] + byte + adapter[torn_at + 1 :]

    def read(folder: Path) -> None:
        found = read_adapter(folder)
        base = open_base("random:n_layer=1,n_head=2,n_embd=16,context_length=8")
        attach(base.load(SMALL), found)

    try_folder({"adapter_config.json": config, "adapter_model.safetensors": weights}, read)


SMALL = Tokenizer.train(["a few words"] * 3, 270)

# What the library can do around the model; the first six end the process, or take its memory or time, unless refused.
STEP = st.sampled_from(
    [
        {"type": "Precompiled", "precompiled_charsmap": "////f2FhYWE="},
        {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10**5},
        {"type": "Replace", "pattern": {"Regex": ""}, "content": "a"},
        {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
        {"type": "Strip", "content": "a", "start": 10**9, "stop": 1},
        {"type": "FixedLength", "length": 0},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "Digits", "individual_digits": True},
        *({"type": kind} for kind in ("NFKD", "Lowercase", "Whitespace", "ByteFallback", "Fuse", None)),
    ]
)
STEPS = STEP | st.builds(
    lambda steps: {"type": "Sequence", "normalizers": steps, "pretokenizers": steps, "decoders": steps},
    st.lists(STEP, max_size=3),
)
AROUND = st.builds(
    lambda parts: json.dumps(TOKENIZER | parts).encode(),
    st.dictionaries(st.sampled_from(["normalizer", "pre_tokenizer", "decoder"]), STEPS, min_size=1),
)


@fuzz(
    "tokenizer.json",
    content=changed(TOKENIZER) | torn(json.dumps(TOKENIZER).encode()) | AROUND,
    text=st.text(max_size=20) | st.sampled_from(["a" * 3000 + "b"]),
)
def read_tokenizer(content: bytes, text: str) -> None:
    def read(folder: Path) -> None:
        found = Tokenizer.load(folder)
        ids = found.encode(text)
        assert all(0 <= one < found.vocab_size for one in ids)
        found.decode(ids)

    try_folder({"tokenizer.json": content}, read)


# --- chat templates ---------------------------------------------------------------------------------------------------

ATOMS = [
    "messages",
    "messages[0]",
    "messages[0].content",
    "'a'",
    "10**9",
    "99999",
    "range(100000)",
    "ns",
    "ns.x",
    "[ns.x, ns.x]",
]
ATOMS += [
    "''.__class__",
    "namespace.__init__.__globals__",
    "self",
    "loop",
    "f(ns.x)",
    "'%9999999999d'",
    "'{:9999999999}'",
    "{'a': ns.x}",
]
JOINS = [" + ", " * ", " ** ", " ~ ", " % ", " == ", " in ", " - ", " // ", " and "]
FILTERS = [
    "length",
    "list",
    "string",
    "tojson",
    "center(10**9)",
    "join('ab')",
    "replace('a', 'aaaa')",
    "map('list')",
    "sort",
    "upper",
]
FILTERS += [
    "batch(3)",
    "slice(9)",
    "sum",
    "reverse",
    "indent(10**9)",
    "format(1)",
    "attr('__class__')",
    "items",
    "dictsort",
    "trim",
]
EXPRESSIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: (
        st.builds("({}{}{})".format, inner, st.sampled_from(JOINS), inner)
        | st.builds("({}|{})".format, inner, st.sampled_from(FILTERS))
        | st.builds(
            "{}.{}".format,
            inner,
            st.sampled_from(["x", "ljust(10**9)", "join(messages)", "split('')", "format(1)", "mro()"]),
        )
        | st.builds("{}[{}:]".format, inner, inner)
    ),
    max_leaves=6,
)
STATEMENTS = st.recursive(
    st.builds("{{{{ {} }}}}".format, EXPRESSIONS)
    | st.builds("{{% set ns.x = {} %}}".format, EXPRESSIONS)
    | st.text(max_size=5),
    lambda inner: (
        st.builds("{{% for i in {} %}}{}{{% endfor %}}".format, EXPRESSIONS, inner)
        | st.builds("{{% for i in {} recursive %}}{}{{{{ loop(i) }}}}{{% endfor %}}".format, EXPRESSIONS, inner)
        | st.builds("{{% macro f(n) %}}{}{{% endmacro %}}{{{{ f(1) }}}}".format, inner)
        | st.builds("{{% if {} %}}{}{{% endif %}}".format, EXPRESSIONS, inner)
        | st.builds("{{% set ns.x %}}{}{{% endset %}}".format, inner)
        | st.builds("{}{}".format, inner, inner)
    ),
    max_leaves=5,
)
FITS = "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"


@fuzz("chat template", body=STATEMENTS)
def read_template(body: str) -> None:
    def read(folder: Path) -> None:
        made = Template("fuzz", "{% set ns = namespace(x='a') %}" + body + FITS)
        made.segments([Message("user", "hello"), Message("assistant", "yes")])

    try_folder({}, read)


# --- data, downloads, options -----------------------------------------------------------------------------------------

ROWS = b'text,label\r\n"a ""b"", c",x\r\n\xc3\xa9 d,y\n\n"e\nf",z\n'
RECORDS = {"data": [{"text": "a", "label": "x"}, {"text": "b", "label": 1}, {"text": None, "label": {"c": [1, 2]}}]}
LINES = b'{"text": "a", "label": "x"}\n{"text": "\\ud83d\\ude00", "label": "y"}\n[1]\n'
TABLES = {
    "data.csv": torn(ROWS),
    "data.tsv": torn(ROWS.replace(b",", b"\t")),
    "data.json": changed(RECORDS) | torn(json.dumps(RECORDS).encode()),
    "data.jsonl": torn(LINES),
    "data.txt": torn(b"ham\tsome words\nspam\tother words\n") | st.binary(max_size=80),
    "data.csv.gz": torn(gzip.compress(ROWS)),
    "data.jsonl.xz": torn(lzma.compress(LINES)),
}


@fuzz(
    "csv, tsv, json, jsonl, text",
    file=st.sampled_from(sorted(TABLES)).flatmap(lambda name: st.tuples(st.just(name), TABLES[name])),
)
def read_data(file: tuple[str, bytes]) -> None:
    try_folder(dict([file]), lambda folder: read_table(folder / file[0]))


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    arrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    place = tmp_path_factory.mktemp("parquet") / "data.parquet"
    writer.write_table(arrow.table({"text": ["a", "b"], "label": ["x", "y"]}), place)
    return place.read_bytes()


@fuzz("parquet", cuts=st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=3)), min_size=1, max_size=4))
def read_parquet(parquet: bytes, cuts: list[tuple[int, bytes]]) -> None:
    for at, other in cuts:
        parquet = parquet[: at % len(parquet)] + other + parquet[at % len(parquet) + len(other) :]
    try_folder({"data.parquet": parquet}, lambda folder: read_table(folder / "data.parquet"))


PATHS = st.sampled_from(
    ["good.txt", "../secret.txt", "/tmp/secret.txt", "a/../../secret.txt", "sub/good.txt", "..", "a\0b"]
)


PACKED = {"zip": zipfile.ZIP_DEFLATED, "zip, not packed": zipfile.ZIP_STORED}
PACKED |= {"zip, bzip2": zipfile.ZIP_BZIP2, "zip, lzma": zipfile.ZIP_LZMA}


def archive(kind: str, members: list[tuple[str, bytes, str]]) -> bytes:
    made = io.BytesIO()
    if kind in PACKED:
        with zipfile.ZipFile(made, "w", PACKED[kind]) as box:
            for name, content, _ in members:
                box.writestr(name.replace("\0", ""), content)
        return made.getvalue()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content, what in members:
            member = tarfile.TarInfo(name)
            member.type = {"file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}[what]
            member.linkname, member.size = "../secret.txt", len(content) if what == "file" else 0
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


MEMBERS = st.lists(
    st.tuples(PATHS, st.sampled_from([b"a", b"", bytes(100_000)]), st.sampled_from(["file", "link", "hard"])),
    max_size=4,
)


@fuzz(
    "archive",
    kind=st.sampled_from(["tar", *PACKED]),
    members=MEMBERS,
    broken=st.none() | st.tuples(st.integers(0, 500), st.binary(max_size=3)),
)
def unpack(kind: str, members: list[tuple[str, bytes, str]], broken: tuple[int, bytes] | None) -> None:
    content = archive(kind, members)
    if broken:
        content = content[: broken[0]] + broken[1] + content[broken[0] + len(broken[1]) :]

    def read(folder: Path) -> None:
        import hashlib

        (scratch := folder / "scratch").mkdir()
        (scratch / "fetched").write_bytes(content)
        wanted = b"a" if kind in PACKED else content
        member = "good.txt" if kind in PACKED else r"(?:sub/)?(\w+\.txt)"
        what = Download("", "t", f"sha256:{hashlib.sha256(wanted).hexdigest()}", 10_000, member)
        try:
            with _explained(folder):
                made = _unpacked(what, scratch / "fetched", scratch)
                assert made.resolve().is_relative_to(scratch.resolve())
        finally:
            import shutil

            assert not any(path.is_symlink() for path in scratch.rglob("*"))
            assert sum(path.stat().st_size for path in scratch.rglob("*") if path.name != "fetched") <= 20_000
            shutil.rmtree(scratch)

    try_folder({}, read)


RUN = b"data: a.csv\nbase: random:tiny\nepochs: 2\nlr: 0.1\nlayers: all\nseeds: 1\nmax_length: null\n"
ALIASES = b"a: &a [1, 2]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b]\ndata: *a\n"


@fuzz(
    "run.yaml",
    content=torn(RUN)
    | torn(ALIASES)
    | st.sampled_from([b"data: !!python/object/apply:os.system ['true']", b"[" * 2000, b"? {a: 1}", b"lr: 2001-99-99"]),
)
def read_options(content: bytes) -> None:
    def read(folder: Path) -> None:
        for kind in TASKS.values():
            load_config(kind, folder / "run.yaml", {})

    try_folder({"run.yaml": content}, read)


# --- a few and many ---------------------------------------------------------------------------------------------------


def fixed(target: str, request: pytest.FixtureRequest) -> list[Any]:
    return [request.getfixturevalue(target)] if target in ("adapter", "parquet") else []


@pytest.mark.parametrize("target", CHECKS)
def test_a_few_broken_files_are_refused(target: str, request: pytest.FixtureRequest) -> None:
    CHECKS[target](FEW, *fixed(target, request))


@pytest.mark.slow
@pytest.mark.parametrize("target", CHECKS)
def test_many_broken_files_are_refused(target: str, request: pytest.FixtureRequest) -> None:
    DRAWN.clear()
    CHECKS[target](MANY, *fixed(target, request))
    print(f"{target}: {DRAWN[target]:,} inputs")


def test_the_bounds_bind() -> None:
    with pytest.raises(MemoryError), bounded():
        bytes(1 << 31)
    with pytest.raises(AssertionError):
        try_folder({}, lambda folder: (folder.parent / "escaped").touch())
