"""Prompts and tokenizers: a shipped set and bytes, or a user's files and tokenizer."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError

PAD, BEGIN, END, FIRST_BYTE = 0, 1, 2, 3


class Tokenizer(Protocol):
    """What turns text into ids and back."""

    pad: int
    end: int
    size: int

    def encode(self, text: str) -> list[int]:
        """Return a text's ids, the begin token first."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, without special tokens."""
        ...


class Bytes:
    """A token per byte of UTF-8, after padding, begin and end."""

    pad, end, size = PAD, END, FIRST_BYTE + 256

    def encode(self, text: str) -> list[int]:
        """Return a text's ids."""
        return [BEGIN, *(byte + FIRST_BYTE for byte in text.encode())]

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids; a byte that is none becomes a replacement character."""
        kept = bytes(i - FIRST_BYTE for i in ids if FIRST_BYTE <= i < self.size)
        return kept.decode(errors="replace")


class HuggingFace:
    """A tokenizer from a folder that transformers can read."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer

        if not Path(folder).is_dir():
            raise InputError(f"running.tokenizer {folder!r} is neither 'bytes' nor a folder")
        try:
            self.inner = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"running.tokenizer {folder!r} holds no tokenizer that transformers can read"
            ) from error
        if self.inner.eos_token_id is None:
            raise InputError(f"running.tokenizer {folder!r} has no end-of-text token")
        self.end = int(self.inner.eos_token_id)
        self.pad = self.end if self.inner.pad_token_id is None else int(self.inner.pad_token_id)
        self.size = len(self.inner)

    def encode(self, text: str) -> list[int]:
        """Return a text's ids."""
        return list(self.inner.encode(text))

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, without special tokens."""
        return str(self.inner.decode(ids, skip_special_tokens=True))


def load_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer of that name or folder."""
    return Bytes() if name == "bytes" else HuggingFace(name)


def load_prompts(name: str) -> list[str]:
    """Return the prompts of a JSONL or parquet file with a column `prompt`, or the shipped ones."""
    if name == "small":
        text = resources.files("puzzle").joinpath("data/prompts.jsonl").read_text(encoding="utf-8")
        return _from_lines(text, "small")
    path = Path(name)
    if not path.is_file():
        raise InputError(f"running.prompts {name!r} is neither 'small' nor a file")
    if path.suffix == ".parquet":
        return _from_parquet(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}") from error
    return _from_lines(text, name)


def _from_lines(text: str, name: str) -> list[str]:
    found: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            prompt = json.loads(line)["prompt"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{name}, line {number}: no JSON object with a 'prompt'") from error
        found.append(_text(prompt, f"{name}, line {number}"))
    return _some(found, name)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: the prompt is {str(value)[:40]!r}, expected text")
    return value


def _some(found: list[str], name: str) -> list[str]:
    if not found:
        raise InputError(f"{name}: no prompts in it")
    return found


def _from_parquet(path: Path) -> list[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        column = parquet.read_table(path, columns=["prompt"]).column("prompt")
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path}: no whole parquet file with a column 'prompt'") from error
    rows = enumerate(column.to_pylist(), 1)
    return _some([_text(value, f"{path}, row {row}") for row, value in rows], str(path))


def prompt_ids(prompts: list[str], tokenizer: Tokenizer, length: int) -> list[list[int]]:
    """Return all prompts as ids; refuses one that is empty or longer than the limit."""
    found = [tokenizer.encode(prompt) for prompt in prompts]
    for number, ids in enumerate(found):
        if not ids:
            raise InputError(f"prompt {number + 1} has no tokens; leave it out")
        if len(ids) > length:
            raise InputError(
                f"prompt {number + 1} has {len(ids)} tokens, more than work.prompt ({length});"
                " raise the limit or leave the prompt out"
            )
    return found


def batch_of(
    ids: list[list[int]], pad: int, length: int, batch: int, step: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a step's prompts, left-padded, and which ids are real, B x L.

    Each epoch goes through all prompts once in an order of its own, every prompt once (the
    original takes each twice); the same for a step whatever was done before.
    """
    places = [divmod(step * batch + i, len(ids)) for i in range(batch)]
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(len(ids))
        for epoch in {epoch for epoch, _ in places}
    }
    chosen = [int(orders[epoch][number]) for epoch, number in places]
    tokens = np.full((batch, length), pad, dtype=np.int64)
    valid = np.zeros((batch, length), dtype=np.int64)
    for row, number in enumerate(chosen):
        tokens[row, length - len(ids[number]) :] = ids[number]
        valid[row, length - len(ids[number]) :] = 1
    return tokens, valid
