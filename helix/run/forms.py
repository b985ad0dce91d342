"""The bodies of answers in the two forms of the OpenAI interface: completions and chat."""

from collections.abc import Sequence
from typing import Any, Protocol

from helix.run.answers import Answer, Piece, Told
from helix.run.requests_schema import Completion
from helix.run.tokens import REPLACEMENT, Tokenizer

LEAST_LOG = -9999.0  # JSON has no infinity

Body = dict[str, Any]


class Form(Protocol):
    """How one request's answers are told."""

    prefix: str
    whole_object: str
    event_object: str

    def whole(self, answer: Answer) -> Body:
        """Return a finished answer as a choice."""
        ...

    def events(self, answer: Answer, piece: Piece) -> list[Body]:
        """Return a piece as the choices of events, after what comes before an answer's first."""
        ...


class CompletionForm:
    """The form of /v1/completions."""

    prefix, whole_object, event_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, asked: Completion, tokenizer: Tokenizer) -> None:
        """Tell what this request asks for."""
        self._echo, self._likely, self._tokenizer = bool(asked.echo), asked.logprobs, tokenizer
        self._told = dict[int, int]()
        """By answer: characters of the tokens told so far."""

    def whole(self, answer: Answer) -> Body:
        """Return a finished answer as a choice."""
        return self._choice(answer, Piece(answer.text, answer.told, answer.reason))

    def events(self, answer: Answer, piece: Piece) -> list[Body]:
        """Return a piece as the choice of an event."""
        return [self._choice(answer, piece)]

    def _choice(self, answer: Answer, piece: Piece) -> Body:
        first = answer.index not in self._told
        offset = self._told.setdefault(answer.index, 0)
        text, told = piece.text, piece.told
        if first and self._echo:
            text, told = answer.prompt.text + text, [*answer.prompt_told, *told]
        logprobs = None if self._likely is None else self._logprobs(told, offset)
        if logprobs is not None:
            self._told[answer.index] += sum(map(len, logprobs["tokens"]))
        return {
            "index": answer.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": piece.reason,
        }

    def _logprobs(self, told: Sequence[Told], offset: int) -> Body:
        tokens = [self._tokenizer.decode([one.token]) for one in told]
        offsets = list[int]()
        for token in tokens:
            offsets.append(offset)
            offset += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [
                None if one.scored is None else _finite(one.scored.logprob) for one in told
            ],
            "top_logprobs": [self._top(*one) for one in zip(told, tokens, strict=True)]
            if self._likely
            else None,
            "text_offset": offsets,
        }

    def _top(self, told: Told, token: str) -> dict[str, float] | None:
        if told.scored is None:
            return None
        found = dict[str, float]()
        for other, log in told.scored.top:  # tokens of one text: the likeliest counts
            found.setdefault(self._tokenizer.decode([other]), _finite(log))
        found.setdefault(token, _finite(told.scored.logprob))
        return found


class ChatForm:
    """The form of /v1/chat/completions."""

    prefix, whole_object, event_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        """Tell log probabilities or not."""
        self._tokenizer, self._logprobs = tokenizer, logprobs
        self._begun = set[int]()

    def whole(self, answer: Answer) -> Body:
        """Return a finished answer as a choice."""
        return {
            "index": answer.index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": self._told(answer.told),
            "finish_reason": answer.reason,
        }

    def events(self, answer: Answer, piece: Piece) -> list[Body]:
        """Return a piece as choices of events: the role goes before an answer's first."""
        deltas = list[tuple[Body, Sequence[Told], Any]]()
        if answer.index not in self._begun:
            self._begun.add(answer.index)
            deltas.append(({"role": "assistant", "content": ""}, (), None))
        if piece.text or piece.told:
            deltas.append(({"content": piece.text}, piece.told, None))
        if piece.reason is not None:
            deltas.append(({}, (), piece.reason))
        return [
            {
                "index": answer.index,
                "delta": delta,
                "logprobs": self._told(told) if told else None,
                "finish_reason": reason,
            }
            for delta, told, reason in deltas
        ]

    def _told(self, told: Sequence[Told]) -> Body | None:
        if not self._logprobs:
            return None
        content = [
            {
                **self._token(one.token, one.scored.logprob),
                "top_logprobs": [self._token(*other) for other in one.scored.top],
            }
            for one in told
            if one.scored is not None
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, log: float) -> Body:
        text = self._tokenizer.decode([token])
        known = None if REPLACEMENT in text else list(text.encode())
        return {"token": text, "logprob": _finite(log), "bytes": known}


def _finite(log: float) -> float:
    return max(log, LEAST_LOG)
