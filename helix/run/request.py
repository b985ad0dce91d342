"""One request's life: what was asked, its tokens so far, how it ends; and the books of all."""

import asyncio
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from helix.run.lane import Lane, Way
from helix.run.messages import Key, Mark, Sampling, Scored

MOST_LOSSES = 3
"""So many machines lost under one request without a token in between, and it fails."""

Outcome = Literal["served", "rejected", "failed", "cancelled"]
Reason = Literal["stop", "length"]


class NotNow(Exception):
    """The service cannot take or finish a request; the text says why, `status` is HTTP's."""

    def __init__(self, why: str, status: int = 503) -> None:
        super().__init__(why)
        self.status = status


class Ask(NamedTuple):
    """What a client wants: a prompt, at most so many tokens, and what ends the answer."""

    ids: Sequence[int]
    most: int
    sampling: Sampling = Sampling()
    ends: tuple[int, ...] = ()
    lane: str = ""
    """Only this service; empty: any."""
    patient: bool = True
    """Wait for room; otherwise be rejected where there is none."""


class Token(NamedTuple):
    """One token of an answer, with when its pass was sent and came back (loop's clock)."""

    id: int
    sent: float
    back: float
    scored: Scored | None = None


class Done(NamedTuple):
    """The end of an answer."""

    reason: Reason | None
    error: NotNow | None = None


class Running:
    """A request from its coming until its end; `out` yields tokens, then how it ended."""

    def __init__(self, number: int, ask: Ask, now: float) -> None:
        self.number, self.ask, self.came = number, ask, now
        self.out = asyncio.Queue[Token | Done]()
        self.tokens = list[int]()
        self.prompt_scored = list[Scored]()  # from its second token on, if asked for
        self.attempt = 0
        self.losses = 0  # machines lost under it since its last token
        self.errors = list[str]()  # signatures
        self.lane: Lane | None = None
        self.way: Way | None = None
        self.reserved = 0  # tokens that the lane's books have for it
        self.sent = self.progress = now
        self.marks = list[tuple[float, list[Mark]]]()
        self.over = False

    @property
    def key(self) -> Key:
        """This attempt."""
        return Key(self.number, self.attempt)

    @property
    def suspect(self) -> bool:
        """Whether it may be what ends machines: it gets one only when no other suspect has one."""
        return self.losses >= MOST_LOSSES - 1

    @property
    def so_far(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.ask.ids) + len(self.tokens)


class Books(msgspec.Struct):
    """How every request that ever came ended, or that it has not."""

    sent: int = 0
    served: int = 0
    rejected: int = 0
    failed: int = 0
    cancelled: int = 0
    again: int = 0
    """Attempts begun anew: a machine or link was lost, its cache was full, or it erred."""
    tokens: int = 0

    def open(self) -> int:
        """Return how many are neither served nor ended otherwise."""
        return self.sent - self.served - self.rejected - self.failed - self.cancelled
