"""What a checkpoint is of, read before any rank is started: its question, step and digests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from common.errors import InputError
from common.files import digest
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama
from puzzle.inputs.ppo import ResumeName
from puzzle.run.adapted import Adapted
from puzzle.run.digests import first_damaged, read_sums, write_sums
from puzzle.run.question import changes, check_question, manner_of, question_of
from puzzle.run.settings import Job

_ABOUT = "about.json"


class About(msgspec.Struct, frozen=True):
    """What a checkpoint belongs to."""

    actor: Llama
    critic: Llama
    seed: int
    step: int
    """Steps done."""
    layout: Layout
    adapted: Adapted
    question: dict[str, Any]
    """Settings that may not change, and below it those that may."""
    manner: dict[str, Any]

    def at(self, step: int, adapted: Adapted) -> Self:
        """Return the same after a step."""
        return msgspec.structs.replace(self, step=step, adapted=adapted)


def about_of(job: Job) -> About:
    """Return what a job's checkpoint is of, before its first step; reads prompts and weights."""
    plan = job.plan
    return About(
        plan.actor,
        plan.critic,
        job.seed,
        0,
        plan.choice.training,
        Adapted(job.ppo.kl),
        question_of(job),
        manner_of(job),
    )


def newest_first(folder: Path) -> list[Path]:
    """Return the finished checkpoints of a folder."""
    return sorted(folder.glob("step-????????"), reverse=True)


def remedy(place: Path) -> str:
    """Return what to do about a checkpoint that cannot be used."""
    before = [path.name for path in newest_first(place.parent) if path.name < place.name]
    rest = f"to go on from {before[0]}" if before else "to begin anew"
    way = ', or set running.resume = "last-whole"' if before else ""
    return f"copy it anew from where it is whole, or delete the folder {place} {rest}{way}"


Wrong = Callable[[Path], str]
"""Says what is wrong with a checkpoint's files; empty if nothing is."""


def chosen(folder: Path, resume: ResumeName, wrong: Wrong) -> tuple[Path | None, list[str]]:
    """Return the checkpoint to go on from, None without one, and what was passed over.

    Raises InputError where `resume` is `last` and that is damaged, and where none is whole.
    """
    passed: list[str] = []
    places = newest_first(folder)
    for place in places:
        told = wrong(place)
        if not told:
            return place, passed
        if resume == "last":
            raise InputError(f"{told}; {remedy(place)}")
        passed.append(told)
    if passed:
        raise InputError(
            f"{passed[0]}, and no other checkpoint of the {len(places)} in {folder} is whole; name"
            " another running.checkpoint folder to begin anew"
        )
    return None, passed


def all_wrong(place: Path) -> str:
    """Return what is wrong with the first file of a checkpoint that is not as it was written."""
    try:
        sums = read_sums(place)
    except InputError as error:
        return str(error)
    return first_damaged(place, sums, sorted(sums))


def about_wrong(place: Path) -> str:
    """Return what is wrong with what tells of a checkpoint; its weights are not read."""
    try:
        return first_damaged(place, read_sums(place), [_ABOUT])
    except InputError as error:
        return str(error)


def write_about(place: Path, about: About, digests: Mapping[str, str]) -> None:
    """Write what a checkpoint is of, and the digests of all its files."""
    (place / _ABOUT).write_bytes(msgspec.json.encode(about))
    write_sums(place, {**digests, _ABOUT: digest(place / _ABOUT)})


def read_about(place: Path) -> About:
    """Return what a checkpoint is of; raises InputError where that is damaged."""
    if wrong := about_wrong(place):
        raise InputError(f"{wrong}; {remedy(place)}")
    try:
        return msgspec.json.decode((place / _ABOUT).read_bytes(), type=About)
    except msgspec.DecodeError as error:
        raise InputError(f"{place} is no checkpoint of this version: {error}") from error


def check_about(place: Path, found: About, now: About) -> None:
    """Raise InputError where a checkpoint is of other models or another question."""
    if (found.actor, found.critic, found.seed) != (now.actor, now.critic, now.seed):
        raise InputError(
            f"{place} is of other models or another seed; name another running.checkpoint folder"
        )
    check_question(place, found.question, now.question)


def check_resume(job: Job) -> str:
    """Refuse a checkpoint that the job cannot go on from; return what it goes on with in a line.

    Empty without a checkpoint.
    """
    if not job.running.checkpoint:
        return ""
    resume = job.running.resume
    wrong = about_wrong if resume == "last" else all_wrong  # ranks read weights, each its part
    place, passed = chosen(Path(job.running.checkpoint), resume, wrong)
    if place is None:
        return ""
    found, now = read_about(place), about_of(job)
    check_about(place, found, now)
    told = changes(found.manner, now.manner)
    over = "".join(f"{one}, passed over; " for one in passed)
    return f"{over}going on from {place}" + (f", otherwise carried out: {told}" if told else "")
