"""What a run asks: a checkpoint goes on only into the same question.

The answer must not depend on how a run is carried out, so layouts, schedules, micro-batches, the
number of ranks, precision and the road of old log-probabilities may change, and what is written
where. The number of steps may change too: rates then fall with the new number in view. Everything
else that the outcome depends on may not: `ppo`, sampling and end tokens, prompts, reward, batch and
lengths, rates, and the weights begun from, among them the reference's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from common.errors import InputError
from puzzle.inputs.ppo import Running
from puzzle.run.data import Prompts, load_tokenizer, prompts_for
from puzzle.run.ends import end_tokens
from puzzle.run.rewards import terms
from puzzle.run.settings import Job

_ENDS_READ = 2**20
"""Bytes at both ends of a file of weights that tell it from another."""
_FREE_PPO = frozenset({"old_log_probs"})
_ASKED = ("reward", "reward_on_failure", "sampling", "actor_optimizer", "critic_optimizer")
_BEGUN_FROM = ("actor_weights", "critic_weights", "reference_weights", "reward_weights")


def question_of(job: Job) -> dict[str, Any]:
    """Return everything that may not change, by the name of its setting."""
    running, work = job.running, job.plan.work
    tokenizer = load_tokenizer(running.tokenizer)
    prompts = prompts_for(running, tokenizer, work.prompt)
    asked = {
        "ppo": {k: v for k, v in _plain(job.ppo).items() if k not in _FREE_PPO},
        "work": {name: getattr(work, name) for name in ("batch", "prompt", "answer")},
        "running": {name: _plain(getattr(running, name)) for name in _ASKED},
    }
    found = dict(_flat(asked))
    found["running.prompts"] = sha256(_asked(running, prompts)).hexdigest()[:16]
    found["running.sampling.end_tokens"] = list(end_tokens(running, tokenizer))
    found |= {f"running.{name}": _fingerprint(getattr(running, name)) for name in _BEGUN_FROM}
    return found


def _asked(running: Running, prompts: Prompts) -> bytes:
    """Return the prompts, with the columns that a reward of the user's own may read."""
    own = any(term.score.partition(":")[0] not in ("model", "letters") for term in terms(running))
    return json.dumps([prompts.ids, prompts.rows] if own else prompts.ids, default=str).encode()


def manner_of(job: Job) -> dict[str, Any]:
    """Return what may change, by the name of its setting."""
    work = _plain(job.plan.work)
    choice = _plain(job.plan.choice)
    manner = {
        "choice": choice,
        "work": {k: v for k, v in work.items() if k not in ("batch", "prompt", "answer")},
        "ppo": {"old_log_probs": job.ppo.old_log_probs},
        "running": {"dtype": job.plan.dtype, "steps": job.running.steps},
    }
    return dict(_flat(manner))


def check_question(place: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError where a checkpoint is of another question; names the first difference."""
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old != new:
            raise InputError(
                f"{place} was made with {name} = {old!r}, now it is {new!r}; only layouts,"
                " micro-batches, dtype and steps may change: set it back, or name another"
                " running.checkpoint folder"
            )


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return in a line what is carried out otherwise than before; empty where nothing is."""
    names = sorted(before.keys() | now.keys())
    told = [(name, before.get(name), now.get(name)) for name in names]
    return ", ".join(f"{name} {old!r} to {new!r}" for name, old, new in told if old != new)


def _plain(value: object) -> Any:
    """Return a value as it comes back from JSON."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _flat(value: dict[str, Any], stem: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in value.items():
        if isinstance(part, dict):
            yield from _flat(part, f"{stem}{name}.")
        else:
            yield f"{stem}{name}", part


def _fingerprint(folder: str) -> str:
    """Return what tells a folder's weights from others, wherever it lies; empty without one."""
    if not folder:
        return ""
    found = sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        size = path.stat().st_size
        found.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            found.update(file.read(_ENDS_READ))
            file.seek(max(0, size - _ENDS_READ))
            found.update(file.read())
    return found.hexdigest()[:16]
