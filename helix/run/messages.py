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
    top_k: int = 0
    """Only so many of the likeliest; 0: all."""
    min_p: float = 0.0
    """Only what has this share of the likeliest one's probability."""
    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0
    bias: tuple[tuple[int, float], ...] = ()
    """Added to the scores of tokens."""
    least: int = 0
    """So many tokens come before one of `banned` may."""
    banned: tuple[int, ...] = ()
    logprobs: int = -1
    """Tell the token's log probability and those of so many of the likeliest; -1: nothing."""
    prompt_logprobs: int = -1
    """The same of the prompt's tokens, once."""

    @property
    def penalized(self) -> bool:
        """Whether it depends on the tokens so far."""
        return bool(self.presence or self.frequency or self.repetition != 1.0)

    @property
    def changes(self) -> bool:
        """Whether it changes scores before anything is chosen by them."""
        return bool(self.penalized or self.bias or (self.least and self.banned))

    @property
    def filters(self) -> bool:
        """Whether it leaves tokens out of a draw."""
        return bool(self.top_k or self.min_p or self.top_p < 1.0)


class Scored(NamedTuple):
    """The log probability of a token, and the likeliest tokens with theirs, best first."""

    logprob: float
    top: list[tuple[int, float]]


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
    ids: list[int]
    sampling: Sampling | None = None
    """Comes with the prompt; the machine that has the last layer keeps it."""
    asked: int = 0
    """Tokens of the prompt that are the client's; what follows are answers of former attempts."""
    past: list[int] = []
    """The prompt's tokens again where choosing needs them; unlike `ids` it goes all the way."""
    sent: float = 0.0
    marks: list[Mark] = []


class Answer(msgspec.Struct, frozen=True, tag="answer", array_like=True):
    """The next token of a request, from the last machine to the head."""

    key: Key
    token: int
    sent: float
    marks: list[Mark]
    scored: Scored | None = None
    prompt: list[Scored] = []


class Refused(msgspec.Struct, frozen=True, tag="refused", array_like=True):
    """A machine could not take a request's pass, because its KV cache is full or a link is gone."""

    key: Key
    machine: int
    why: str


class Failed(msgspec.Struct, frozen=True, tag="failed", array_like=True):
    """Computing a request's pass raised an error; all else on the machine goes on."""

    key: Key
    machine: int
    signature: str
    """The error's type and first line."""


class Broken(msgspec.Struct, frozen=True, tag="broken", array_like=True):
    """A link between two machines is gone; from the machine at its tail to the head."""

    tail: int
    head: int
    why: str


class Free(msgspec.Struct, frozen=True, tag="free", array_like=True):
    """The head is done with these attempts: their KV blocks are free, their passes dropped."""

    keys: list[Key]


Message = Hello | Pass | Answer | Refused | Failed | Broken | Free
