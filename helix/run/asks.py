"""What a client wants, as the head is asked for it: an ask for every answer to every prompt."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from helix.run.chat_template import ChatTemplate, chat_template_of
from helix.run.decoder_config import DecoderConfig
from helix.run.messages import Sampling
from helix.run.refusals import BadRequest
from helix.run.request import Ask
from helix.run.requests_schema import MOST_ANSWERS, Chat, Completion, Generation, Tokenize
from helix.run.sampling import uniform
from helix.run.tokens import Tokenizer, tokenizer_of

log = logging.getLogger("helix")

DEFAULT_TOKENS = 16  # of a completion, as the OpenAI interface has it; a chat has all the room

COLDEST = 1e-5
"""A temperature below it is 0: the likeliest token, which is what it would draw."""


class Model(NamedTuple):
    """What is to be known of a model to ask it."""

    name: str
    config: DecoderConfig
    tokenizer: Tokenizer
    template: ChatTemplate


def model_of(name: str, config: DecoderConfig, folder: str) -> Model:
    """Return the model with the tokenizer and the chat template of its folder."""
    template = chat_template_of(folder)
    if folder and template.origin != folder:
        log.warning("%s has no chat template; chats are written by %s", folder, template.origin)
    return Model(name, config, tokenizer_of(folder), template)


class Prompt(NamedTuple):
    """A prompt as tokens, and as text where it is to be told again."""

    ids: list[int]
    text: str = ""


def completion_prompts(asked: Completion, model: Model) -> list[Prompt]:
    """Return the prompts of a completion: a text, ids, or a list of these."""
    given = asked.prompt
    if not given:
        raise BadRequest("the prompt is empty", param="prompt")
    if isinstance(given, str) or all(isinstance(one, int) for one in given):
        given = [given]
    elif any(isinstance(one, int) for one in given):
        raise BadRequest("prompt mixes tokens with prompts", param="prompt")
    if len(given) * asked.candidates > MOST_ANSWERS:
        raise BadRequest(
            f"{len(given)} prompts times {asked.candidates} answers are more than {MOST_ANSWERS}",
            param="prompt",
        )
    return [_prompt(one, model) for one in given]


def _prompt(given: Any, model: Model) -> Prompt:
    if isinstance(given, str):
        prompt = Prompt(model.tokenizer.encode(given), given)
    else:
        checked_ids(given, model, "prompt")
        prompt = Prompt(list(given), model.tokenizer.decode(given))
    if not prompt.ids:
        raise BadRequest("the prompt is empty", param="prompt")
    checked_ids(prompt.ids, model, "prompt")
    return prompt


def chat_prompt(asked: Chat | Tokenize, model: Model) -> Prompt:
    """Return a conversation as the prompt that its template makes of it."""
    tools = None if isinstance(asked, Chat) and asked.tool_choice == "none" else asked.tools
    text = model.template.text(asked.messages or (), tools, asked.chat_template_kwargs)
    ids = model.tokenizer.encode(text, marks=False)  # the template writes them
    if not ids:
        raise BadRequest("the chat template makes no text of these messages", param="messages")
    checked_ids(ids, model, "messages")
    return Prompt(ids, text)


def checked_ids(ids: Sequence[int], model: Model, field: str) -> None:
    """Refuse ids that the model does not have."""
    size = model.config.vocabulary
    outside = next((i for i in ids if not 0 <= i < size), None)
    if outside is not None:
        said = outside if abs(outside) < 1 << 63 else "of a huge number"
        raise BadRequest(f"token {said} is outside the vocabulary of {size}", param=field)


def asks_of(
    asked: Completion | Chat, prompts: Sequence[Prompt], model: Model, number: int, room: int
) -> list[Ask]:
    """Return an ask for every candidate of every prompt, in order.

    `number` seeds the draws of a client that gives no seed; `room` is the most tokens of a request.
    """
    ends = () if asked.ignore_eos else model.config.ends
    stops = tuple(asked.stop_token_ids or ())
    checked_ids(stops, model, "stop_token_ids")
    ends = tuple(dict.fromkeys((*ends, *stops)))
    if asked.min_tokens and len(ends) >= model.config.vocabulary:
        raise BadRequest("stop_token_ids with min_tokens leave no token", param="stop_token_ids")
    checked_ids(tuple(asked.logit_bias or ()), model, "logit_bias")
    how = _sampling(asked, number)
    if asked.min_tokens:
        how = how._replace(least=asked.min_tokens, banned=ends)
    return [
        Ask(
            ids=prompt.ids,
            most=_most(asked, len(prompt.ids), room),
            sampling=how._replace(seed=seed_of(how.seed, i)),
            ends=ends,
        )
        for prompt in prompts
        for i in range(asked.candidates)
    ]


def seed_of(seed: int, candidate: int) -> int:
    """Return the seed of one of several answers to a prompt; the first has the client's own."""
    return seed if candidate == 0 else int(uniform(seed, -candidate) * (1 << 62))


def _most(asked: Completion | Chat, prompt: int, room: int) -> int:
    """Return the most tokens of the answer; one is computed even if none is to be told."""
    most = asked.most
    if most is None:
        most = room - prompt if isinstance(asked, Chat) else DEFAULT_TOKENS
    if (asked.min_tokens or 0) > max(most, 0):
        raise BadRequest(
            f"min_tokens is {asked.min_tokens}, more than the {max(most, 0)} of max_tokens",
            param="min_tokens",
        )
    return max(1, most)


def _sampling(asked: Generation, number: int) -> Sampling:
    temperature = _or(asked.temperature, 1.0)
    logprobs, prompt_logprobs = _likely(asked)
    return Sampling(
        temperature=temperature if temperature >= COLDEST else 0.0,
        top_p=_or(asked.top_p, 1.0),
        seed=number if asked.seed is None else asked.seed,
        top_k=max(0, asked.top_k or 0),
        min_p=asked.min_p or 0.0,
        presence=asked.presence_penalty or 0.0,
        frequency=asked.frequency_penalty or 0.0,
        repetition=_or(asked.repetition_penalty, 1.0),
        bias=tuple((asked.logit_bias or {}).items()),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def _likely(asked: Generation) -> tuple[int, int]:
    """Return how many of the likeliest are told with tokens of the answer and of the prompt."""
    if isinstance(asked, Chat):
        return (asked.top_logprobs or 0) if asked.logprobs else -1, -1
    if not isinstance(asked, Completion):
        return -1, -1
    judged = asked.candidates > (asked.n or 1)  # the best are found by their log probabilities
    told = -1 if asked.logprobs is None else asked.logprobs
    return max(told, 0 if judged else -1), told if asked.echo else -1


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
