"""Tokens to train on: synthetic by seed, or cut out of a file of token ids or of a text."""

from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from vocab_parallel.inputs.model import Model

Ids = NDArray[np.integer]
SONNETS, SONNETS_GPT2 = "sonnets", "sonnets-gpt2"
"""Texts that come along: some of Shakespeare's sonnets (public domain), as bytes, and as ids of
GPT-2's 50257 tokens (by tiktoken 0.14 with the table that openai-whisper 20250625 ships)."""

_SURE = 0.9
"""How often a synthetic token is followed by its usual successor."""


def load_tokens(path: str, model: Model) -> Ids | None:
    """Open a .npy file of token ids without reading it; None for an empty path.

    Of a .txt file the tokens are its bytes (UTF-8); two names stand for texts that come along.
    """
    if not path:
        return None
    if path == SONNETS:
        text = resources.files("vocab_parallel").joinpath("data/sonnets.txt").read_bytes()
        return _checked(np.frombuffer(text, np.uint8), path, model)
    if path == SONNETS_GPT2:
        with resources.files("vocab_parallel").joinpath("data/sonnets-gpt2.npy").open("rb") as file:
            return _checked(np.load(file, allow_pickle=False), path, model)
    if not Path(path).is_file():
        raise InputError(f"tokens: {path}: no such file; expected a .npy file of token ids")
    if path.endswith(".txt"):
        return _checked(np.frombuffer(Path(path).read_bytes(), np.uint8), path, model)
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"tokens: {path}: not a .npy file: {error}") from error
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"tokens: {path}: found {ids.dtype} {ids.shape}, expected one row of ids")
    return _checked(ids, path, model)


def _checked(ids: Ids, path: str, model: Model) -> Ids:
    if len(ids) <= model.sequence:
        raise InputError(
            f"tokens: {path}: {len(ids)} ids are too few for sequences of {model.sequence}"
        )
    if ids.max() >= model.vocabulary or ids.min() < 0:
        raise InputError(
            f"tokens: {path}: ids reach from {ids.min()} to {ids.max()}, but the vocabulary has"
            f" {model.vocabulary}; choose a larger model.vocabulary"
        )
    return ids


def sequences(
    model: Model, count: int, *, seed: int, step: int, ids: Ids | None = None
) -> NDArray[np.int64]:
    """Return int64 [count, sequence + 1]: inputs are all but the last, labels all but the first.

    The same seed and step give the same tokens on every rank. Synthetic text follows a fixed
    random successor of each token most of the time, so that there is something to learn.
    """
    random = np.random.default_rng((seed, step))
    length = model.sequence + 1
    if ids is not None:
        starts = random.integers(0, len(ids) - length + 1, size=count)
        return np.stack([ids[start : start + length] for start in starts]).astype(np.int64)
    successor = np.random.default_rng(seed).permutation(model.vocabulary)
    tokens = random.integers(0, model.vocabulary, size=(count, length))
    follow = random.random((count, length)) < _SURE
    for place in range(1, length):
        usual = successor[tokens[:, place - 1]]
        tokens[:, place] = np.where(follow[:, place], usual, tokens[:, place])
    return tokens
