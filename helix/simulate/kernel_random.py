"""Python's `random` in compiled code: the same 32-bit words, the same draws from them."""

# numpy knows no fields of records and takes elements for arrays; numba checks types as it compiles.
# pyright: basic, reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

import random

import numpy as np

from helix.plan.bare import bare
from helix.simulate.system import Ints

WORDS, MIDDLE = 624, 397  # of the Mersenne twister
ALL, UPPER, LOWER = 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF


def random_state(seed: int) -> Ints:
    """Return what `random.seed(seed)` sets: the words and how many of them are used up."""
    return np.array(random.Random(seed).getstate()[1], np.int64)


@bare
def _renew(state: Ints) -> None:
    for i in range(WORDS):
        word = (state[i] & UPPER) | (state[(i + 1) % WORDS] & LOWER)
        twisted = word >> 1
        if word & 1:
            twisted ^= 0x9908B0DF
        state[i] = state[(i + MIDDLE) % WORDS] ^ twisted
    state[WORDS] = 0


@bare
def _word(state: Ints) -> int:
    if state[WORDS] >= WORDS:
        _renew(state)
    word = state[state[WORDS]]
    state[WORDS] += 1
    word ^= word >> 11
    word ^= (word << 7) & 0x9D2C5680
    word ^= (word << 15) & 0xEFC60000
    return (word ^ (word >> 18)) & ALL


@bare
def draw_below(state: Ints, n: int) -> int:
    """Return `random.randrange(n)` for n of at most 32 bits."""
    bits = 0
    while n >> bits:
        bits += 1
    while True:
        drawn = _word(state) >> (32 - bits)
        if drawn < n:
            return drawn


@bare
def shuffle(state: Ints, items: Ints, count: int) -> None:
    """Do as `random.shuffle` on the first `count` items."""
    for i in range(count - 1, 0, -1):
        j = draw_below(state, i + 1)
        items[i], items[j] = items[j], items[i]
