"""How far a search has come: a bar on a terminal, lines in a log once it takes noticeably long."""

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Lock

from common.log import progress

Advance = Callable[[int], object]

NOTICEABLE_S = 2.0
"""A search that ends sooner says nothing on its way."""

LONGEST_S = 10**6
"""What an unlimited search counts its seconds against."""


@contextmanager
def by_work(total: int, what: str) -> Generator[Advance]:
    """Yield `advance(n)` for work of `total` pieces, which threads may share."""
    started, lock, held = time.monotonic(), Lock(), 0
    with progress(total, what) as tell:

        def advance(n: int) -> None:
            nonlocal held
            with lock:
                held += n
                if time.monotonic() - started > NOTICEABLE_S:
                    tell(held)
                    held = 0

        yield advance


@contextmanager
def by_time(limit_s: float, what: str) -> Generator[Advance]:
    """Yield `advance`, which tells the seconds gone of those that the search may take at most."""
    started, told = time.monotonic(), 0
    with progress(math.ceil(min(limit_s, LONGEST_S)), f"{what}, seconds") as tell:

        def advance(_: int) -> None:
            nonlocal told
            gone = int(time.monotonic() - started)
            if gone > told:
                tell(gone - told)
                told = gone

        yield advance
