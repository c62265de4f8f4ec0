"""The reader of TensorFlow checkpoints: on a fixture that TensorFlow wrote (scripts/make_tf_fixture.py), and on files
built here byte by byte, so that damage can be made behind right checksums."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from gptailor.errors import UserError
from gptailor.weights.openai import is_openai_folder, read_hparams, read_variables
from tests.weights.checksum import stored_crc

FIXTURE = Path(__file__).parent / "fixtures" / "openai"
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
MAGIC = bytes.fromhex("57fb808b247547db")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "openai"))


# --- A writer of checkpoints, so that damage can be made with right checksums ---


def varint(value: int) -> bytes:
    parts = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([part | 128 for part in parts[:-1]] + parts[-1:])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def nested(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def header(shards: int = 1) -> bytes:
    return number(1, shards)


def entry(
    shape: tuple[int, ...], *, dtype: int = 1, shard: int = 0, offset: int = 0, data: bytes = b"", **other
) -> bytes:
    dimensions = b"".join(nested(2, number(1, dimension)) for dimension in shape)
    size = other.get("size", len(data))
    where = number(3, shard) + number(4, offset) + number(5, size)
    return number(1, dtype) + nested(2, dimensions) + where + varint(6 << 3 | 5) + stored_crc(data)


def block(entries: dict[bytes, bytes]) -> bytes:
    """Keys share their beginnings as far as they can, with a single restart point."""
    out, last = b"", b""
    for key, value in entries.items():
        shared = next((n for n in range(min(len(key), len(last))) if key[n] != last[n]), min(len(key), len(last)))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return out + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def table(blocks: list[bytes], *, compression: int = 0) -> bytes:
    """Data blocks, a block that lists them, and the footer."""
    out, handles = b"", {}

    def add(content: bytes) -> bytes:
        nonlocal out
        handle = varint(len(out)) + varint(len(content))
        content += bytes([compression])
        out += content + stored_crc(content)
        return handle

    for n, content in enumerate(blocks):
        handles[b"%06d" % n] = add(content)
    empty, index = add(block({})), add(block(handles))
    return out + (empty + index).ljust(40, b"\0") + MAGIC


def write(folder: Path, entries: dict[bytes, bytes], data: bytes = b"", **options) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / INDEX).write_bytes(table([block(entries)], **options))
    (folder / DATA).write_bytes(data)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_variables(folder))
    return str(caught.value)


# --- What TensorFlow wrote ---


def test_every_array_of_tensorflows_checkpoint_is_equal():
    read, expected = dict(read_variables(FIXTURE)), load_file(FIXTURE / "expected.safetensors")
    assert sorted(read) == sorted(name.removeprefix("model/") for name in expected)
    assert len(read) == 2 * 12 + 4
    for name, array in read.items():
        theirs = expected[f"model/{name}"]
        assert array.dtype == np.float32
        assert array.shape == (theirs.shape[1:] if name.endswith("/w") else theirs.shape)
        np.testing.assert_array_equal(array, theirs.reshape(array.shape))


def test_arrays_are_views_of_the_file_not_copies():
    array = dict(read_variables(FIXTURE))["wte"]
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    assert type(base).__name__ == "mmap"
    assert not array.flags.writeable


def test_the_fixture_is_recognised_and_its_sizes_read(folder):
    assert is_openai_folder(folder)
    assert read_hparams(folder) == {"n_vocab": 290, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}
    (folder / INDEX).unlink()
    assert not is_openai_folder(folder)
    assert not is_openai_folder(folder / "absent")


# --- What other checkpoints look like ---


def test_an_index_of_several_blocks_over_several_shards(tmp_path):
    arrays = {b"model/h%02d/ln/g" % n: np.arange(n + 1, dtype="<f4") for n in range(30)}
    shards, entries = [b"", b"", b""], {}
    for n, (name, array) in enumerate(arrays.items()):
        data = array.tobytes()
        entries[name] = entry(array.shape, shard=n % 3, offset=len(shards[n % 3]), data=data)
        shards[n % 3] += data
    listed = list(({b"": header(3)} | entries).items())
    blocks = [block(dict(listed[start : start + 7])) for start in range(0, len(listed), 7)]
    (tmp_path / "run-5.index").write_bytes(table(blocks))
    for n, data in enumerate(shards):
        (tmp_path / f"run-5.data-{n:05d}-of-00003").write_bytes(data)
    read = dict(read_variables(tmp_path))
    assert len(read) == 30
    for name, array in read.items():
        np.testing.assert_array_equal(array, arrays[b"model/" + name.encode()])
    (tmp_path / "run-5.data-00001-of-00003").unlink()
    assert "run-5.data-00001-of-00003: not readable" in refusal(tmp_path)


def test_other_types_scalars_and_odd_offsets(tmp_path):
    arrays = {
        b"model/a": np.array([True, False, True]),
        b"model/b": np.array([1.5, -2.5], "<f2"),
        b"model/c": np.array(-7, "<i8"),
        b"model/d": np.array([[1.25]], "<f8"),
    }
    entries, data = {b"": header()}, b""
    for (name, array), dtype in zip(arrays.items(), (10, 19, 9, 2), strict=True):
        entries[name] = entry(array.shape, dtype=dtype, offset=len(data), data=array.tobytes())
        data += array.tobytes()
    for name, array in read_variables(write(tmp_path, entries, data)):
        expected = arrays[b"model/" + name.encode()]
        assert array.dtype == expected.dtype
        assert array.flags.aligned
        np.testing.assert_array_equal(array, expected)


def test_only_matrices_with_a_leading_one_are_squeezed(tmp_path):
    data = np.arange(4, dtype="<f4").tobytes()
    shapes = {b"model/a/w": (1, 2, 2), b"model/b/w": (2, 2, 1), b"model/c": (1, 2, 2), b"model/d/w": (1, 4)}
    entries = {name: entry(shape, offset=16 * n, data=data) for n, (name, shape) in enumerate(shapes.items())}
    read = read_variables(write(tmp_path, {b"": header()} | entries, data * 4))
    assert [array.shape for _, array in read] == [(2, 2), (2, 2, 1), (1, 2, 2), (1, 4)]


def test_variables_outside_the_model_are_left_out(tmp_path):
    data = np.arange(4, dtype="<f4").tobytes()
    entries = {
        b"": header(),
        b"_CHECKPOINTABLE_OBJECT_GRAPH": entry((), dtype=7, size=99),
        b"model/wpe": entry((4,), data=data),
        b"step": entry((), dtype=9, size=8),
    }
    assert [name for name, _ in read_variables(write(tmp_path, entries, data))] == ["wpe"]
    assert "no variable under model/" in refusal(write(tmp_path / "none", {b"": header(), b"step": entry(())}))


def test_the_file_checkpoint_says_which_one_is_meant(folder):
    for part in ("index", "data-00000-of-00001"):
        shutil.copy(folder / f"model.ckpt.{part}", folder / f"model-9.{part}")
    (folder / DATA).write_bytes(b"")
    (folder / "checkpoint").write_text('model_checkpoint_path: "/home/other/run/model-9"\n')
    assert len(dict(read_variables(folder))) == 28
    (folder / "checkpoint").write_text('model_checkpoint_path: "C:\\\\run\\\\model-9"\nall: "model.ckpt"\n')
    assert len(dict(read_variables(folder))) == 28
    for text in ('model_checkpoint_path: "../../absent"', "", "\0\xff"):
        (folder / "checkpoint").write_text(text)
        assert "2 checkpoint indexes: model-9, model.ckpt" in refusal(folder)


# --- Damage ---


@pytest.mark.parametrize("at", [0, 1, 4095, 9000, -1])
def test_a_flipped_bit_of_data_is_found(folder, at):
    content = bytearray((folder / DATA).read_bytes())
    content[at] ^= 16
    (folder / DATA).write_bytes(content)
    assert re.search(rf"{DATA}: the bytes of \S+ do not match their checksum", refusal(folder))


@pytest.mark.parametrize("kept", [0, 1, 16_831])
def test_cut_data_is_refused_before_anything_is_read(folder, kept):
    (folder / DATA).write_bytes((folder / DATA).read_bytes()[:kept])
    with pytest.raises(UserError, match=f"{DATA}: {kept:,} bytes, but the index speaks of 16,832"):
        next(iter(read_variables(folder)))


def test_missing_files_are_named(folder):
    (folder / DATA).unlink()
    assert f"{DATA}: not readable" in refusal(folder)
    (folder / INDEX).unlink()
    assert "0 checkpoint indexes: none" in refusal(folder)


def test_an_index_cut_anywhere_is_refused(folder):
    content = (FIXTURE / INDEX).read_bytes()
    for kept in range(len(content)):
        (folder / INDEX).write_bytes(content[:kept])
        assert INDEX in refusal(folder)


def test_a_changed_byte_of_the_index_is_found_wherever_it_matters(folder):
    """Nothing is read from the block of metadata (13 bytes, then 20 of the index block) and the footer's padding."""
    content = (FIXTURE / INDEX).read_bytes()
    footer = len(content) - 48
    metadata, padding = range(footer - 20 - 13, footer - 20), range(footer + 6, footer + 40)
    unread = [at for at in range(len(content)) if _reads_with_changed_byte(folder, content, at)]
    assert unread == [*metadata, *padding]


def _reads_with_changed_byte(folder: Path, content: bytes, at: int) -> bool:
    (folder / INDEX).write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    try:
        return len(dict(read_variables(folder))) == 28
    except UserError:
        return False


def test_an_absurdly_large_index_is_refused_unread(folder):
    with (folder / INDEX).open("r+b") as file:
        file.truncate(10_000_000_000)
    assert "10,000,000,000 bytes" in refusal(folder)


FOUR = np.arange(4, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("said", "entries"),
    [
        ("compressed block", None),
        ("big-endian", {b"": header() + number(2, 1), b"model/a": entry((4,), data=FOUR)}),
        ("0 shards", {b"": b"", b"model/a": entry((4,), data=FOUR)}),
        ("100000 shards", {b"": header(100_000), b"model/a": entry((4,), data=FOUR)}),
        ("shard 0 of 0", {b"model/a": entry((4,), data=FOUR)}),
        ("shard 1 of 1", {b"": header(), b"model/a": entry((4,), shard=1, data=FOUR)}),
        ("partitioned", {b"": header(), b"model/a": entry((4,), data=FOUR) + nested(7, b"")}),
        ("data type 7", {b"": header(), b"model/a": entry((4,), dtype=7, data=FOUR)}),
        ("data type 0", {b"": header(), b"model/a": b""}),
        (r"shape \(5,\) and 16 bytes", {b"": header(), b"model/a": entry((5,), data=FOUR)}),
        (r"shape \(0, 18446744073709551615\)", {b"": header(), b"model/a": entry((0, 2**64 - 1))}),
        ("9 dimensions", {b"": header(), b"model/a": entry((1,) * 9, size=4)}),
        ("speaks of 17", {b"": header(), b"model/a": entry((4,), offset=1, data=FOUR)}),
        ("speaks of 4,000,000,000,000", {b"": header(), b"model/a": entry((10**12,), size=4 * 10**12)}),
        ("speaks of 32", {b"": header(), b"model/a": entry((4,), data=FOUR), b"model/b": entry((4,), data=FOUR)}),
        ("names out of order", {b"": header(), b"model/b": entry((4,), data=FOUR), b"model/a": b""}),
        ("not fit its block", {b"": header(), b"model/" + b"a" * 1000: entry((4,), data=FOUR)}),
        ("wire type 3", {b"": header(), b"model/a": b"\x0b"}),
        ("message that was cut", {b"": header(), b"model/a": b"\x12\x05"}),
        ("integer that was cut", {b"": header(), b"model/a": b"\x08\xff"}),
        ("too long", {b"": header(), b"model/a": b"\x08" + b"\xff" * 20 + b"\x01"}),
        ("field 3 is not a number", {b"": header(), b"model/a": entry((4,), data=FOUR) + nested(3, b"x")}),
    ],
)
def test_what_the_reader_does_not_know_or_believe_is_said(tmp_path, said, entries):
    if entries is None:
        write(tmp_path, {b"": header(), b"model/a": entry((4,), data=FOUR)}, FOUR, compression=1)
    else:
        write(tmp_path, entries, FOUR)
    message = refusal(tmp_path)
    assert re.search(said, message)
    assert "model.ckpt." in message


@pytest.mark.parametrize(
    ("said", "content"),
    [
        ("not fit its block", b"\x05\x01\x00a" + bytes(4) + b"\x01\0\0\0"),  # shares 5 bytes with no key
        ("not fit its block", b"\x00\x09\x00a" + bytes(4) + b"\x01\0\0\0"),  # a key longer than the block
        ("not fit its block", b"\x00\x01\x03a" + bytes(4) + b"\x01\0\0\0"),  # a value that would be the restart point
        ("too short for its restart points", b"\xff\xff\xff\xff"),
        ("too short for its restart points", b""),
    ],
)
def test_blocks_that_contradict_themselves_are_refused(tmp_path, said, content):
    (tmp_path / INDEX).write_bytes(table([content]))
    assert said in refusal(tmp_path)


def test_blocks_that_overlap_are_refused(tmp_path):
    content = block({b"": header(), b"model/a": entry((4,), data=FOUR)})
    signed = content + b"\0" + stored_crc(content + b"\0")
    handle = varint(0) + varint(len(content))
    index = block({b"1": handle, b"2": handle})
    footer = (varint(0) + varint(0) + varint(len(signed)) + varint(len(index))).ljust(40, b"\0") + MAGIC
    (tmp_path / INDEX).write_bytes(signed + index + b"\0" + stored_crc(index + b"\0") + footer)
    assert "overlapping blocks" in refusal(tmp_path)


@given(st.data())
@settings(max_examples=150, deadline=2000)
def test_random_damage_of_the_index_gives_the_same_arrays_or_one_clear_error(tmp_path_factory, data):
    folder = _damaged(tmp_path_factory, data, (FIXTURE / INDEX).read_bytes())
    _reads_or_refuses(folder)


@given(st.data())
@settings(max_examples=150, deadline=2000)
def test_random_damage_behind_right_checksums_gives_arrays_or_one_clear_error(tmp_path_factory, data):
    entries = {b"": header()} | {b"model/%d/w" % n: entry((2, 2), offset=16 * n, data=FOUR) for n in range(4)}
    content = bytearray(block(entries))
    _change(content, data)
    folder = tmp_path_factory.mktemp("signed")
    (folder / INDEX).write_bytes(table([bytes(content)]))
    (folder / DATA).write_bytes(FOUR * 4)
    _reads_or_refuses(folder)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=2000)
def test_random_bytes_as_an_index_are_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("random")
    (folder / INDEX).write_bytes(content + MAGIC)
    (folder / DATA).write_bytes(b"")
    assert INDEX in refusal(folder)


def _damaged(tmp_path_factory, data, content: bytes) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    changed = bytearray(content)
    _change(changed, data)
    (folder / INDEX).write_bytes(changed)
    shutil.copy(FIXTURE / DATA, folder)
    return folder


def _change(content: bytearray, data) -> None:
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[at] = data.draw(st.integers(0, 255))


def _reads_or_refuses(folder: Path) -> None:
    try:
        arrays = dict(read_variables(folder))
    except UserError as error:
        assert str(folder) in str(error)
    else:
        assert all(array.nbytes <= (folder / DATA).stat().st_size for array in arrays.values())


# --- Sizes ---


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not readable JSON"),
        (b"[1, 2]", "holds list"),
        (b"{}", "holds nothing"),
        (b"\xff", "not readable JSON"),
        (b"[" * 100_000, "not readable JSON"),
        (json.dumps({"n_vocab": 1, "n_ctx": 1, "n_embd": 1, "n_head": 1}).encode(), "exactly n_vocab"),
        (json.dumps({"n_vocab": 1, "n_ctx": 1, "n_embd": 1, "n_head": 1, "n_layer": 1, "moe": 8}).encode(), "moe"),
        (json.dumps({"n_vocab": 0, "n_ctx": 1, "n_embd": 1, "n_head": 1, "n_layer": 1}).encode(), "n_vocab is 0"),
        (json.dumps({"n_vocab": 9, "n_ctx": True, "n_embd": 1, "n_head": 1, "n_layer": 1}).encode(), "n_ctx is true"),
        (json.dumps({"n_vocab": 9, "n_ctx": 1, "n_embd": 1.0, "n_head": 1, "n_layer": 1}).encode(), "n_embd is 1.0"),
        (
            json.dumps({"n_vocab": 9, "n_ctx": 1, "n_embd": 1, "n_head": 1, "n_layer": 10**9}).encode(),
            "n_layer is 1000",
        ),
        (json.dumps({"n_vocab": 9, "n_ctx": 1, "n_embd": 7, "n_head": 2, "n_layer": 1}).encode(), "does not divide"),
    ],
)
def test_odd_sizes_are_refused(tmp_path, content, said):
    (tmp_path / "hparams.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_hparams(tmp_path)
    assert said in str(caught.value)
    assert "hparams.json" in str(caught.value)


def test_all_odd_sizes_are_reported_together(tmp_path):
    (tmp_path / "hparams.json").write_text('{"n_vocab": -1, "n_ctx": null, "n_embd": 8, "n_head": 2, "n_layer": "2"}')
    with pytest.raises(UserError, match="3 problems") as caught:
        read_hparams(tmp_path)
    assert all(name in str(caught.value) for name in ("n_vocab", "n_ctx", "n_layer"))


def test_missing_sizes_are_said(tmp_path):
    with pytest.raises(UserError, match=r"hparams\.json: not readable"):
        read_hparams(tmp_path)
