"""Reader of the original GPT-2 release: a TensorFlow checkpoint folder, read without TensorFlow.

The folder holds ``hparams.json``, the tokenizer's two files and a checkpoint named ``model.ckpt`` in TensorFlow's
"bundle" format: one ``.index``, a sorted table of names, and one or more ``.data-00000-of-00001``, the raw bytes::

    .index  = data block ... data block, index block, footer (48 bytes)
    block   = entries, restart points, 1 byte of compression, 4 bytes of checksum
    entry   = varints (bytes shared with the last key, new bytes, bytes of value), new bytes, value

The index block's values say where the data blocks lie; a data block maps each variable's name to a BundleEntryProto:
type, shape, shard, offset, size, checksum. Nothing is believed before it is checked against the length of the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptailor.errors import UserError, listing
from gptailor.weights.crc32c import crc32c, masked

SCOPE = b"model/"
# The largest values that are believed; GPT-2 XL has 50257, 1024, 1600, 25, 48.
HPARAM_LIMITS = {"n_vocab": 10_000_000, "n_ctx": 1_000_000, "n_embd": 100_000, "n_head": 1000, "n_layer": 1000}
MAX_INDEX_BYTES = 4_000_000  # 9,000 variables make an index of 0.5 MB; GPT-2 XL has 580
MAX_KEY_BYTES = 1000

FOOTER_BYTES, BLOCK_TRAILER_BYTES = 48, 5
TABLE_MAGIC = 0xDB4775248B80FB57
# TensorFlow's DataType numbers; checkpoints of GPT-2 hold the first one.
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 17: "<u2", 19: "<f2"}


class Damage(ValueError):
    """Bytes that are not what the format says; the caller adds the name of the file."""


class Entry(NamedTuple):
    """Where one variable lies: ``size`` bytes at ``offset`` of shard ``shard``."""

    dtype: np.dtype
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


def is_openai_folder(folder: Path) -> bool:
    """Whether ``folder`` looks like the original release: ``hparams.json`` beside the index of a checkpoint."""
    folder = Path(folder)
    return (folder / "hparams.json").is_file() and any(folder.glob("*.index"))


def read_hparams(folder: Path) -> dict[str, int]:
    """The sizes in ``hparams.json``: n_vocab, n_ctx, n_embd, n_head and n_layer, each a positive integer.

    Raises:
        UserError: the file is missing or not JSON, a size is missing, not an integer or out of range, or there is a
            setting besides the five, which may mean another architecture.
    """
    path = Path(folder) / "hparams.json"
    try:
        hparams = json.loads(_read_bytes(path, limit=1_000_000))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(hparams, dict) or set(hparams) != set(HPARAM_LIMITS):
        found = listing(hparams) if isinstance(hparams, dict) else type(hparams).__name__
        raise UserError(f"{path} holds {found or 'nothing'}", expected=f"exactly {listing(HPARAM_LIMITS)}")
    problems = [
        UserError(f"{path}: {name} is {json.dumps(hparams[name])[:40]}", expected=f"an integer from 1 to {limit}")
        for name, limit in HPARAM_LIMITS.items()
        if type(hparams[name]) is not int or not 1 <= hparams[name] <= limit
    ]
    if problems:
        raise UserError.joined(problems)
    if hparams["n_embd"] % hparams["n_head"]:
        found = f"{path}: n_embd {hparams['n_embd']} does not divide by n_head {hparams['n_head']}"
        raise UserError(found, expected="heads of equal size")
    return hparams


def read_variables(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every variable under ``model/``, as (name without that prefix, array), sorted by name.

    Arrays are read-only views of the memory-mapped data file; each is compared with its checksum (above 1 GB/s on
    one core) just before it is handed out. A matrix ``.../w`` loses its leading axis of 1 and is then (in, out).
    Variables outside ``model/``, such as a step counter, are not part of the model and are left out.

    Raises:
        UserError: a file is missing, cut or damaged, or holds what this reader does not know (compressed blocks,
            big-endian data, partitioned variables, text); the file is named.
    """
    prefix = _checkpoint_prefix(Path(folder))
    index = prefix.with_name(prefix.name + ".index")
    try:
        shard_count, entries = _parse_index(_read_bytes(index, limit=MAX_INDEX_BYTES))
    except Damage as error:
        raise UserError(f"{index}: {error}", hint="download the original release again") from error
    shards = [prefix.with_name(f"{prefix.name}.data-{n:05d}-of-{shard_count:05d}") for n in range(shard_count)]
    maps = [
        _map_shard(path, [entry for entry in entries.values() if entry.shard == n]) for n, path in enumerate(shards)
    ]
    for name, entry in entries.items():
        data = maps[entry.shard][entry.offset : entry.offset + entry.size]
        if masked(crc32c(data)) != entry.checksum:
            found = f"{shards[entry.shard]}: the bytes of {name} do not match their checksum"
            raise UserError(found, hint="download the checkpoint again")
        # Only behind a variable of odd size is one not aligned; then it is copied.
        array = np.require(data.view(entry.dtype).reshape(entry.shape), requirements="A")
        yield name, array[0] if name.endswith("/w") and array.ndim == 3 and len(array) == 1 else array


# --- Files ---


def _checkpoint_prefix(folder: Path) -> Path:
    """The checkpoint that the file ``checkpoint`` names, or the only one in the folder."""
    found = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
    listed = folder / "checkpoint"
    if listed.is_file():
        text = _read_bytes(listed, limit=1_000_000).decode("utf-8", errors="replace")
        latest = re.search(r'^model_checkpoint_path: "([^"]*)"', text, re.MULTILINE)
        # The path is the one of the machine that trained; only its last part can be meant here.
        name = latest.group(1).replace("\\", "/").rpartition("/")[2] if latest else ""
        if name in found:
            return folder / name
    if len(found) != 1:
        raise UserError(
            f"{folder} holds {len(found)} checkpoint indexes: {listing(found) or 'none'}",
            expected="one NAME.index, or a file 'checkpoint' that says which",
        )
    return folder / found[0]


def _map_shard(path: Path, entries: list[Entry]) -> np.ndarray:
    """The bytes of a data file, after checking that all ``entries`` can lie in it."""
    try:
        size = path.stat().st_size
        mapped = np.memmap(path, dtype=np.uint8, mode="r") if size else np.empty(0, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})", hint="download the checkpoint again") from error
    needed = max((entry.offset + entry.size for entry in entries), default=0)
    # The sum bounds the work as well: a damaged index cannot ask for the same bytes a thousand times.
    needed = max(needed, sum(entry.size for entry in entries))
    if needed > size:
        found = f"{path}: {size:,} bytes, but the index speaks of {needed:,}"
        raise UserError(found, hint="the file was cut: download the checkpoint again")
    return mapped.view(np.ndarray)


def _read_bytes(path: Path, limit: int) -> bytes:
    try:
        if not path.is_file():  # a link to a pipe or a device has no end
            raise UserError(f"{path}: not readable (it is missing, or is no file)")
        if path.stat().st_size > limit:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes", expected=f"at most {limit:,}")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from error


# --- The index: a sorted table in blocks ---


def _parse_index(table: bytes) -> tuple[int, dict[str, Entry]]:
    """Number of shards, and the entries under ``model/`` by their name without it."""
    if len(table) < FOOTER_BYTES or int.from_bytes(table[-8:], "little") != TABLE_MAGIC:
        raise Damage("not the index of a TensorFlow checkpoint, or cut at its end")
    shard_count, entries = None, {}
    for key, value in _table_entries(table):
        if key == b"":
            shard_count = _parse_header(value)
        elif key.startswith(SCOPE):
            name = key.removeprefix(SCOPE).decode("utf-8", errors="backslashreplace")
            entries[name] = _parse_entry(name, value, shard_count or 0)
    if not entries:
        raise Damage(f"no variable under {SCOPE.decode()}: not a checkpoint of GPT-2")
    return shard_count or 0, entries


def _table_entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All (key, value) of the table, in the strictly ascending order of keys that the format demands."""
    footer = table[-FOOTER_BYTES:]
    _, at = _handle(footer, 0)  # of the block of metadata, which checkpoints leave empty
    (offset, size), _ = _handle(footer, at)
    last_key, end = None, 0
    for _, value in _block_entries(_block(table, offset, size)):
        (offset, size), _ = _handle(value, 0)
        if offset < end:
            raise Damage("overlapping blocks")
        end = offset + size + BLOCK_TRAILER_BYTES
        for key, entry in _block_entries(_block(table, offset, size)):
            if last_key is not None and key <= last_key:
                raise Damage("names out of order")
            last_key = key
            yield key, entry


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """(offset, size) of a block, and the position after them."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _block(table: bytes, offset: int, size: int) -> bytes:
    """The contents of one block, checked against their checksum."""
    end = offset + size + BLOCK_TRAILER_BYTES
    if end > len(table):
        raise Damage("a block beyond the end of the file")
    stored = int.from_bytes(table[end - 4 : end], "little")
    if masked(crc32c(np.frombuffer(table, np.uint8, size + 1, offset))) != stored:
        raise Damage("a block does not match its checksum")
    if table[offset + size] != 0:
        raise Damage("a compressed block, which this reader does not know")
    return table[offset : offset + size]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of a block; a key is stored as the part that differs from the key before it."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts  # restart points serve binary search, which a full read does not need
    if end < 0:
        raise Damage("a block too short for its restart points")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or shared + fresh > MAX_KEY_BYTES or at + fresh + length > end:
            raise Damage("an entry that does not fit its block")
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


# --- The entries: protocol buffers ---


def _parse_header(message: bytes) -> int:
    """Number of shards of a BundleHeaderProto."""
    fields = _parse_message(message)
    if _integer(fields, 2):
        raise Damage("big-endian data, which this reader does not know")
    shards = _integer(fields, 1)
    if not 1 <= shards <= 99_999:
        raise Damage(f"{shards} shards")
    return shards


def _parse_entry(name: str, message: bytes, shard_count: int) -> Entry:
    """A BundleEntryProto whose size fits its shape and whose shard exists."""
    fields = _parse_message(message)
    if 7 in fields:
        raise Damage(f"{name} is partitioned, which this reader does not know")
    code = _integer(fields, 1)
    if code not in DTYPES:
        raise Damage(f"{name} has TensorFlow's data type {code}, which this reader does not know")
    dtype, shape = np.dtype(DTYPES[code]), _parse_shape(fields.get(2, []))
    entry = Entry(dtype, shape, *(_integer(fields, number) for number in (3, 4, 5, 6)))
    if not all(shape) or math.prod(shape) * dtype.itemsize != entry.size:
        raise Damage(f"{name} has shape {shape} and {entry.size} bytes")
    if entry.shard >= shard_count:
        raise Damage(f"{name} lies in shard {entry.shard} of {shard_count}")
    return entry


def _parse_shape(messages: list[int | bytes]) -> tuple[int, ...]:
    """Dimensions of a TensorShapeProto; () for a scalar."""
    shapes = [_parse_message(message) for message in messages if isinstance(message, bytes)]
    dimensions = [dimension for shape in shapes for dimension in shape.get(2, [])]
    if len(dimensions) > 8:
        raise Damage(f"a tensor of {len(dimensions)} dimensions")
    return tuple(_integer(_parse_message(part), 1) for part in dimensions if isinstance(part, bytes))


def _parse_message(data: bytes) -> dict[int, list[int | bytes]]:
    """Fields of a protocol buffer by number; a nested message stays bytes."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _parse_value(data, at, tag & 7)
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _parse_value(data: bytes, at: int, wire_type: int) -> tuple[int | bytes, int]:
    if wire_type == 0:
        return _varint(data, at)
    if wire_type == 2:
        length, at = _varint(data, at)
    elif wire_type in (1, 5):
        length = 8 if wire_type == 1 else 4
    else:
        raise Damage(f"wire type {wire_type}")
    if at + length > len(data):
        raise Damage("a message that was cut")
    value = data[at : at + length]
    return (value if wire_type == 2 else int.from_bytes(value, "little")), at + length


def _integer(fields: dict[int, list[int | bytes]], number: int) -> int:
    """The last value of a field, as the format demands; 0 when it was left out."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise Damage(f"field {number} is not a number")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer in groups of seven bits, lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise Damage("an integer that was cut or is too long")
