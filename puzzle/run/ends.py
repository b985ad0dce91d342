"""Which tokens end an answer."""

from __future__ import annotations

import json
from pathlib import Path

from common.errors import InputError
from puzzle.inputs.ppo import Running
from puzzle.run.data import Tokenizer

GENERATION_CONFIG = "generation_config.json"


def end_tokens(running: Running, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the ids that end an answer: those given, or the tokenizer's and the checkpoint's."""
    if running.sampling.end_tokens:
        return running.sampling.end_tokens
    found = [tokenizer.end]
    if running.actor_weights:
        found += _generation_config_ends(Path(running.actor_weights) / GENERATION_CONFIG)
    return tuple(dict.fromkeys(found))


def _generation_config_ends(path: Path) -> list[int]:
    """Return a checkpoint's `eos_token_id`, one or several; none where the file is not there."""
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a JSON object; mend or remove it") from error
    ids = [] if found is None else found if isinstance(found, list) else [found]
    if any(type(token) is not int or token < 0 for token in ids):
        raise InputError(
            f"{path}: eos_token_id is {found!r}, expected an id or several; set"
            " running.sampling.end_tokens"
        )
    return ids
