"""Bodies that no client should send: of the right names with odd values, and plain noise."""

import json
import random
from typing import Any

CHAT = [{"role": "user", "content": "Hi"}]
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 16, 0.5, -0.0, 1e-45, 5e-324, 1e-9, 1e300, 2**31, 2**53,
    -(2**63), 2**63, 2**64, 1180591620717411303424, 10**400, "", "a", "\x00", "é",
    "\U0001f600", "</s>", "null", "x" * 300, [], [None], ["a"], ["a", ""], [[]], [[1]], [1, "a"],
    [1, 2], [-1], [258], [2**40], [True], list(range(128)), ["a"] * 5, ["a"] * 200, {}, {"a": 1},
    {"5": 1.0}, {"-5": 100}, {"5": -100, "6": 100}, {"5": 1e300}, {"include_usage": True},
    {"continuous_usage_stats": True}, {"type": "text"}, {"type": "json_object"}, CHAT, CHAT * 3,
    [{"role": "user"}], [{"role": "user", "content": None}], [{"role": "", "content": ""}],
    [{"role": "tool", "content": [{"type": "text", "text": "a"}], "tool_call_id": "x"}],
    [{"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": "{"}}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}],
    {"messages": []}, {"enable_thinking": True},
]  # fmt: skip
GENERATION = [
    "model", "max_tokens", "max_completion_tokens", "min_tokens", "temperature", "top_p", "top_k",
    "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "seed",
    "n", "stop", "stop_token_ids", "ignore_eos", "response_format", "stream", "stream_options",
    "user", "metadata", "logprobs", "unheard_of", "__class__", "",
]  # fmt: skip
NAMES = {
    "/v1/completions": [*GENERATION, "prompt", "best_of", "echo", "suffix"],
    "/v1/chat/completions": [
        *GENERATION, "messages", "top_logprobs", "tools", "tool_choice", "chat_template_kwargs",
    ],
    "/tokenize": ["model", "prompt", "messages", "tools", "add_special_tokens", "other"],
    "/detokenize": ["model", "tokens", "other"],
}  # fmt: skip
SHORT: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Hi"},
    "/v1/chat/completions": {"messages": CHAT},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [72]},
}
LIMITED = ("max_tokens", "max_completion_tokens")


def asked(draw: random.Random) -> tuple[str, bytes]:
    """A path and a body: a request with some fields replaced, its text damaged, or noise."""
    path = draw.choices(list(NAMES), (5, 5, 1, 1))[0]
    kind = draw.random()
    if kind < 0.1:
        return path, draw.randbytes(draw.randrange(200))
    body = dict(SHORT[path]) if draw.random() < 0.9 else {}
    for _ in range(draw.randrange(4)):
        body[draw.choice(NAMES[path])] = draw.choice(ODD)
    short = any(isinstance(body.get(name), int) and body[name] < 20 for name in LIMITED)
    if "completions" in path and not short and draw.random() < 0.95:  # most answers are short
        body["max_tokens"] = draw.randint(1, 4)
    text = json.dumps(body).encode()
    if kind < 0.2:
        at = draw.randrange(len(text))
        text = text[:at] + draw.randbytes(draw.randrange(3)) + text[at + draw.randrange(3) :]
    elif kind < 0.22:
        text = text[:-1] + b',"user":' + b"[" * draw.choice((10, 1000, 100_000))
    return path, text
