"""What head and workers send one another: a header in MessagePack, then the activations as bytes.

A request that is routed anew gets another attempt number, so that what is left of the former way
is known by its key and dropped.
"""

from typing import NamedTuple

import msgspec

HEAD = -1
"""The head's number among the machines."""


class Key(NamedTuple):
    """One attempt at one request."""

    request: int
    attempt: int


class Stop(NamedTuple):
    """A machine on a request's way, and the layers [begin, end) that it computes there."""

    machine: int
    begin: int
    end: int


class Sampling(NamedTuple):
    """How the next token is chosen; temperature 0 takes the likeliest."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Mark(NamedTuple):
    """When one machine had a pass; seconds of its own monotonic clock."""

    machine: int
    sent: float
    """By the one before, on the sender's clock."""
    arrived: float
    left: float


class Hello(msgspec.Struct, frozen=True, tag="hello", array_like=True):
    """First on every connection: who calls, and the secret that only the head's workers know."""

    sender: int
    secret: str


class Pass(msgspec.Struct, tag="pass", array_like=True):
    """Tokens on their way through the layers; `ids` before the first, activations after it."""

    key: Key
    way: list[Stop]
    hop: int
    """Index of the stop that this is sent to."""
    begin: int
    """Position of the first token."""
    count: int
    prompt: bool
    sampling: Sampling
    ids: list[int]
    sent: float = 0.0
    marks: list[Mark] = []


class Answer(msgspec.Struct, frozen=True, tag="answer", array_like=True):
    """The next token of a request, from the last machine to the head."""

    key: Key
    token: int
    sent: float
    marks: list[Mark]


class Refused(msgspec.Struct, frozen=True, tag="refused", array_like=True):
    """A machine could not take a request's pass, because its KV cache is full or a link is gone."""

    key: Key
    machine: int
    why: str


class Free(msgspec.Struct, frozen=True, tag="free", array_like=True):
    """The head is done with these attempts: their KV blocks are free, their passes dropped."""

    keys: list[Key]


Message = Hello | Pass | Answer | Refused | Free
