"""How many token ids a Megatron training has: by its argument or its tokenizer's file, padded.

Megatron pads to a multiple of `--make-vocab-size-divisible-by` (128) x tensor parallel ranks; the
padded rows are rows of the matrices like any other. Nothing is guessed.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from common.errors import InputError
from vocab_parallel.inputs.arguments import Given

_SIZED = ("NullTokenizer", "TikTokenizer", "")
"""Tokenizers whose size is the argument."""
_READ = ("GPT2BPETokenizer", "HuggingFaceTokenizer", "Llama2Tokenizer", "GPTSentencePieceTokenizer")
"""Tokenizers whose size is counted in their file."""


def padded_size(given: Given, tensor: int, folder: Path) -> int:
    """Return the rows of the vocabulary matrices; InputError where neither says how many."""
    each = given.number("--make-vocab-size-divisible-by", 128) * tensor
    if given.has("--padded-vocab-size"):
        return given.number("--padded-vocab-size")
    return -(-_size(given, folder) // each) * each


def _size(given: Given, folder: Path) -> int:
    """Return the token ids before padding."""
    kind = given.text("--tokenizer-type") if given.has("--tokenizer-type") else ""
    if not kind and given.has("--vocab-file") and not given.has("--vocab-size"):
        kind = "GPT2BPETokenizer"
    if kind in _SIZED:
        if not given.has("--vocab-size"):
            raise InputError(
                "--vocab-size is not given, nor a tokenizer whose file says it; give it"
            )
        return given.number("--vocab-size") + (kind == "NullTokenizer")  # its end of document
    if kind not in _READ:
        raise InputError(f"--tokenizer-type {kind} is not read here; give --padded-vocab-size")
    name = "--vocab-file" if kind == "GPT2BPETokenizer" else "--tokenizer-model"
    path = _file(given, name, folder)
    if path is None:
        if given.has("--vocab-size"):
            return given.number("--vocab-size")
        where = given.text(name) if given.has(name) else "not given"
        raise InputError(
            f"{name} is {where}: no such file to count the tokens of; give --vocab-size"
        )
    return _counted(kind, path)


def _file(given: Given, name: str, folder: Path) -> Path | None:
    """Return the tokenizer's file, beside the script or by its path."""
    if not given.used.get(name):
        return None
    for place in (Path(given.text(name)), folder / given.text(name)):
        found = place / "tokenizer.json" if place.is_dir() else place
        if found.is_file():
            return found
    return None


def _counted(kind: str, path: Path) -> int:
    try:
        if kind == "GPT2BPETokenizer":
            return len(json.loads(path.read_bytes()))
        if kind == "HuggingFaceTokenizer":
            return _hugging_face(path)
        return sum(1 for _ in _pieces(path.read_bytes()))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path}: no file of a {kind}: {error}") from error


def _hugging_face(path: Path) -> int:
    """Return the ids of a `tokenizer.json`, added tokens among them."""
    about = json.loads(path.read_bytes())
    vocabulary = about["model"]["vocab"]
    names = vocabulary if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary]
    return len({*names, *(token["content"] for token in about.get("added_tokens", ()))})


def _pieces(data: bytes) -> Iterator[bytes]:
    """Return the pieces of a sentencepiece model: field 1 of a protocol buffer.

    Protocol Buffers encoding: a key is (field << 3 | wire type), lengths are varints.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 != 2:
            raise ValueError(f"a field of wire type {key & 7} at byte {at}")
        length, at = _varint(data, at)
        if key >> 3 == 1:
            yield data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
