"""All that a client may send, typed and ranged in this one place under the OpenAI names.

A field that is not here is refused by its name. The fields of `Harmless` are taken and ignored:
none of them changes an answer. Names that OpenAI does not have are those of vLLM.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from helix.run.refusals import BadRequest

MOST_STOPS, LONGEST_STOP = 4, 256  # texts, characters
MOST_LIKELY = 20  # tokens whose log probabilities are told with each token
MOST_ANSWERS = 128  # of one request, over all its prompts
MOST_BIASED, MOST_STOP_IDS = 1024, 128
MOST_SAID = 80  # characters of a client's own words in an error

Count = Annotated[int, Meta(ge=1, le=1 << 31)]
CountOrNone = Annotated[int, Meta(ge=0, le=1 << 31)]
Seed = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Stop = Annotated[str, Meta(min_length=1, max_length=LONGEST_STOP)]
Answers = Annotated[int, Meta(ge=1, le=MOST_ANSWERS)]
Likely = Annotated[int, Meta(ge=0, le=MOST_LIKELY)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to stream."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """The tokens so far in every event."""


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The form of an answer; only text can be had."""

    type: str


class Harmless(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields for the provider's own books, which change no answer."""

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None


class Generation(Harmless, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What completions and chat have in common: how an answer is made."""

    model: str = ""
    max_tokens: CountOrNone | None = None
    max_completion_tokens: CountOrNone | None = None
    min_tokens: CountOrNone | None = None
    """The answer does not end before, whatever the model or a stop says."""
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1 << 31)] | None = None
    """0 and -1: all."""
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    logit_bias: Annotated[dict[int, Bias], Meta(max_length=MOST_BIASED)] | None = None
    seed: Seed | None = None
    n: Answers | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MOST_STOPS)] | None = None
    stop_token_ids: Annotated[list[int], Meta(max_length=MOST_STOP_IDS)] | None = None
    ignore_eos: bool | None = None
    """Go on to max_tokens whatever comes."""
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> list[str]:
        """Texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def most(self) -> int | None:
        """Most tokens of the answer; None: not said."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def candidates(self) -> int:
        """Answers to each prompt, of which `n` are told."""
        return self.n or 1


class Completion(Generation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/completions."""

    prompt: str | list[int | str | list[int]]
    best_of: Answers | None = None
    echo: bool | None = None
    logprobs: Likely | None = None
    suffix: Annotated[str, Meta(max_length=0)] | None = None

    @property
    def candidates(self) -> int:
        """Answers to each prompt, of which the `n` likeliest are told."""
        return self.best_of or self.n or 1


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message of a conversation; what else than its content it has is for the template."""

    role: Annotated[str, Meta(min_length=1, max_length=64)]
    content: str | list[Part] | UnsetType | None = UNSET
    name: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET
    reasoning_content: str | UnsetType | None = UNSET


Messages = Annotated[list[ChatMessage], Meta(min_length=1)]


class Chat(Generation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/chat/completions."""

    messages: Messages
    logprobs: bool | None = None
    top_logprobs: Likely | None = None
    tools: list[dict[str, Any]] | None = None
    """Are for the template; what the model says of them comes as text."""
    tool_choice: Literal["none", "auto"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /tokenize: a text, or a conversation."""

    model: str = ""
    prompt: str | None = None
    messages: Messages | None = None
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool | None = None


class Detokenize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /detokenize."""

    model: str = ""
    tokens: list[int]


Body = TypeVar("Body", bound=msgspec.Struct)


def read(body: bytes, kind: type[Body]) -> Body:
    """Return the body of a request, or raise `BadRequest` with the field at fault."""
    try:
        asked = msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise _refused(str(error), kind.__name__) from None
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    if isinstance(asked, Generation):
        _check(asked)
    return asked


def _refused(why: str, kind: str) -> BadRequest:
    """Return msgspec's sentence with the field in front."""
    unknown = re.match(r"Object contains unknown field `(.*?)`(?: - at `\$(.*)`)?$", why, re.DOTALL)
    if unknown:
        name = f"{unknown[2] or ''}.{unknown[1]}".removeprefix(".")[:MOST_SAID]
        return BadRequest(f"the field {name!r} is not supported", param=name)
    said, place = why.partition(" - at `")[0], re.search(r"`\$\.?([^`]+)`$", why)
    if place:
        name = place[1][:MOST_SAID]
        return BadRequest(f"{name}: {said}", param=name)
    return BadRequest(f"the body is not a {kind.lower()} request: {said}")


def _check(asked: Generation) -> None:
    """Refuse fields that contradict one another."""
    if asked.response_format is not None and asked.response_format.type != "text":
        kind = asked.response_format.type[:MOST_SAID]
        raise BadRequest(
            f"response_format {kind!r} is not supported; only text is", param="response_format"
        )
    if (
        None not in (asked.max_tokens, asked.max_completion_tokens)
        and asked.max_tokens != asked.most
    ):
        raise BadRequest(
            f"max_tokens is {asked.max_tokens}, but max_completion_tokens {asked.most}",
            param="max_completion_tokens",
        )
    if asked.most == 0 and not (isinstance(asked, Completion) and asked.echo):
        raise BadRequest(
            "max_tokens is 0, expected 1 or more (0 goes with echo)", param="max_tokens"
        )
    if asked.candidates < (asked.n or 1):
        raise BadRequest(f"best_of is {asked.candidates}, less than n {asked.n}", param="best_of")
    if asked.stream and asked.candidates > (asked.n or 1):
        raise BadRequest("a stream cannot tell the best answers of more", param="best_of")
    if isinstance(asked, Chat) and asked.top_logprobs and not asked.logprobs:
        raise BadRequest("top_logprobs goes with logprobs true", param="top_logprobs")
