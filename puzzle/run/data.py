"""Prompts and tokenizers: a shipped set and bytes, or a user's files and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from puzzle.inputs.ppo import Overlong, Running
from puzzle.run.rows import Messages, Row, asked, load_rows

PAD, BEGIN, END, FIRST_BYTE = 0, 1, 2, 3


class Tokenizer(Protocol):
    """What turns text into ids and back."""

    pad: int
    end: int
    size: int

    def encode(self, text: str) -> list[int]:
        """Return a text's ids, the begin token first."""
        ...

    def chat(self, messages: Messages) -> list[int]:
        """Return the ids of messages by the chat template, up to where an answer begins."""
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

    def chat(self, messages: Messages) -> list[int]:
        """Refuse messages: bytes have no chat template."""
        raise InputError(
            "running.prompts has messages, but the tokenizer 'bytes' has no chat template; name a"
            " Hugging Face tokenizer's folder in running.tokenizer"
        )

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

    def chat(self, messages: Messages) -> list[int]:
        """Return the ids of messages by the tokenizer's chat template, as transformers does."""
        if not self.inner.chat_template:
            raise InputError(
                "running.prompts has messages, but the tokenizer has no chat template; give texts"
                " in the column 'prompt', or a tokenizer that has one"
            )
        made = self.inner.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return list(made)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, without special tokens."""
        return str(self.inner.decode(ids, skip_special_tokens=True))


def load_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer of that name or folder."""
    return Bytes() if name == "bytes" else HuggingFace(name)


def encoded(rows: list[Row], tokenizer: Tokenizer) -> list[list[int]]:
    """Return what each row asks as ids; refuses one that is empty."""
    found: list[list[int]] = []
    for number, row in enumerate(rows, 1):
        value = asked(row)
        ids = tokenizer.encode(value) if isinstance(value, str) else tokenizer.chat(value)
        if not ids:
            raise InputError(f"prompt {number} has no tokens; leave it out")
        found.append(ids)
    return found


class Prompts(NamedTuple):
    """What a run asks: prompts as ids with their rows, and how many were too long to be asked."""

    ids: list[list[int]]
    rows: list[Row]
    left_out: int
    cut: int
    """Asked by their last tokens alone."""

    def told(self, length: int) -> str:
        """Return in a line what became of overlong prompts; empty where there are none."""
        given = len(self.ids) + self.left_out
        if self.left_out:
            return f"{self.left_out} of {given} prompts have over {length} tokens and are left out"
        if self.cut:
            return f"of {self.cut} of {given} prompts only the last {length} tokens are asked"
        return ""


def fitting(
    rows: list[Row], tokenizer: Tokenizer, length: int, overlong: Overlong = "filter"
) -> Prompts:
    """Return what can be asked of some rows, at most `length` ids each.

    Of a longer one the last `length` ids are kept by `keep-end`; by `filter` it is left out. Raises
    InputError where none is left.
    """
    found = encoded(rows, tokenizer)
    if overlong == "keep-end":
        cut = sum(len(ids) > length for ids in found)
        return Prompts([ids[-length:] for ids in found], rows, 0, cut)
    kept = [(ids, row) for ids, row in zip(found, rows, strict=True) if len(ids) <= length]
    if not kept:
        least = min(len(ids) for ids in found)
        raise InputError(
            f"no prompt can be asked: all {len(found)} have more than work.prompt ({length})"
            f" tokens, the shortest {least}; raise work.prompt"
        )
    ids, of = map(list, zip(*kept, strict=True))
    return Prompts(ids, of, len(found) - len(kept), 0)


def prompts_for(running: Running, tokenizer: Tokenizer, length: int) -> Prompts:
    """Return the prompts of a run."""
    return fitting(load_rows(running.prompts), tokenizer, length, running.overlong_prompts)


def held_prompts(running: Running, tokenizer: Tokenizer, length: int) -> Prompts | None:
    """Return the prompts of evaluations, None where there are none."""
    if not running.evaluate_every:
        return None
    rows = load_rows(running.evaluation_prompts)
    return fitting(rows, tokenizer, length, running.overlong_prompts)


class Asked(NamedTuple):
    """A batch of prompts, and the number that its draws depend on."""

    prompts: Prompts
    order: list[int]
    """Which of the prompts, by answer."""
    number: int


def order_of(count: int, batch: int, step: int, seed: int, samples: int = 1) -> list[int]:
    """Return which of `count` prompts a step asks, each `samples` times, one after the other.

    Each epoch goes through all prompts once in an order of its own, every prompt once (the
    original takes each twice); the same for a step whatever was done before.
    """
    different = batch // samples
    places = [divmod(step * different + i, count) for i in range(different)]
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(count)
        for epoch in {epoch for epoch, _ in places}
    }
    return [int(orders[epoch][number]) for epoch, number in places for _ in range(samples)]


def batch_of(
    ids: list[list[int]], pad: int, length: int, order: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the prompts of an order, left-padded, and which ids are real, B x L."""
    tokens = np.full((len(order), length), pad, dtype=np.int64)
    valid = np.zeros((len(order), length), dtype=np.int64)
    for row, number in enumerate(order):
        tokens[row, length - len(ids[number]) :] = ids[number]
        valid[row, length - len(ids[number]) :] = 1
    return tokens, valid
