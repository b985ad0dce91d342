"""What a client of /v1/completions may ask, checked; every refusal is one sentence."""

from collections.abc import Sequence
from typing import Any

import msgspec

from helix.run.head import Ask, NotNow
from helix.run.messages import Sampling
from helix.run.tokens import Tokenizer

DEFAULT_TOKENS = 16  # as the OpenAI interface has it
MOST_STOPS = 4


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to stream."""

    include_usage: bool = False


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a request; fields of the OpenAI interface that change nothing are ignored."""

    prompt: str | list[int | str | list[int]]
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | None = None
    suffix: str | None = None
    ignore_eos: bool = False
    """Of other servers too: go on to max_tokens whatever comes."""

    @property
    def stops(self) -> list[str]:
        """Texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class BadRequest(Exception):
    """A request that cannot be served as it is; `status` is HTTP's."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


def read(body: bytes, model: str) -> Completion:
    """Return the checked request."""
    try:
        asked = msgspec.json.decode(body, type=Completion)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not a completion request: {error}") from None
    if asked.model not in ("", model):
        raise BadRequest(f"there is no model {asked.model!r}; this is {model!r}", 404)
    for field, only in (("n", 1), ("best_of", 1), ("echo", False), ("suffix", "")):
        if getattr(asked, field) not in (None, only):
            raise BadRequest(f"{field} {getattr(asked, field)!r} is not supported")
    if asked.logprobs is not None:
        raise BadRequest("logprobs are not supported")
    for field, low, high in (("temperature", 0.0, 2.0), ("top_p", 1e-6, 1.0)):
        value = getattr(asked, field)
        if value is not None and not low <= value <= high:
            raise BadRequest(f"{field} is {value:g}, expected {low:g} to {high:g}")
    if asked.max_tokens is not None and asked.max_tokens < 1:
        raise BadRequest(f"max_tokens is {asked.max_tokens}, expected 1 or more")
    if len(asked.stops) > MOST_STOPS or not all(asked.stops):
        raise BadRequest(f"stop has to be at most {MOST_STOPS} texts, none of them empty")
    return asked


def ask_of(
    asked: Completion, tokenizer: Tokenizer, vocabulary: int, ends: tuple[int, ...], number: int
) -> Ask:
    """Return what the head is asked; `number` seeds the draws of a client that gives no seed."""
    ids = _ids(asked.prompt, tokenizer)
    if not ids:
        raise BadRequest("the prompt is empty")
    outside = next((i for i in ids if not 0 <= i < vocabulary), None)
    if outside is not None:
        raise BadRequest(f"token {outside} is outside the vocabulary of {vocabulary}")
    return Ask(
        ids=ids,
        most=asked.max_tokens or DEFAULT_TOKENS,
        sampling=Sampling(
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            seed=number if asked.seed is None else abs(asked.seed),
        ),
        ends=() if asked.ignore_eos else ends,
    )


def _ids(prompt: str | Sequence[Any], tokenizer: Tokenizer) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    if prompt and not isinstance(prompt[0], int):
        if len(prompt) > 1:
            raise BadRequest("one prompt a request, please; send several requests")
        return _ids(prompt[0], tokenizer)
    return list(prompt)


class StopAt:
    """Finds the texts that end an answer; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Begin with nothing held back."""
        self._stops, self._held = stops, ""
        self.found = False

    def add(self, text: str) -> str:
        """Return what can be sent on."""
        if not self._stops:
            return text
        self._held += text
        places = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            out, self._held = self._held[: min(places)], ""
            return out
        keep = max(self._overlap(stop) for stop in self._stops)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def rest(self) -> str:
        """Return what was held back after all."""
        out, self._held = self._held, ""
        return out

    def _overlap(self, stop: str) -> int:
        """Return how many characters at the end may begin the text."""
        sizes = range(min(len(stop) - 1, len(self._held)), 0, -1)
        return next((size for size in sizes if self._held.endswith(stop[:size])), 0)


class Refusal(msgspec.Struct, frozen=True):
    """An error as the OpenAI interface words it."""

    message: str
    type: str
    code: int


def refusal(error: BadRequest | NotNow) -> dict[str, Refusal]:
    """Return the body of an error response."""
    kind = "invalid_request_error" if error.status < 500 else "service_unavailable"
    return {"error": Refusal(str(error), kind, error.status)}
