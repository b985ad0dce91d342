"""The one training that a launch script starts: its arguments, and how many ranks there are.

torchrun (`python -m torch.distributed.run`) starts nodes x processes ranks; deepspeed, mpirun and
srun by their own options, srun also by `#SBATCH` lines. A program without a launcher, and a file
that begins with an argument and has arguments alone, do not say how many.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from vocab_parallel.inputs.shell.script import Script, Started
from vocab_parallel.inputs.shell.tokens import tokens
from vocab_parallel.inputs.shell.values import UNKNOWN, told

_TORCHRUN_FLAGS = frozenset({"--standalone", "--no-python", "-m", "--module", "--run-path"})
_OLD_LAUNCH_FLAGS = frozenset({"--use-env"})
_OTHER_MODELS = re.compile(r"bert|t5|retro|ict|biencoder|vision|vlm|mamba|hybrid|multimodal|mimo")
_SHORT = {"-N": "--nodes", "-n": "--ntasks", "-np": "--ntasks"}


class Launch(NamedTuple):
    """Megatron's arguments, the ranks that they are given (None: not said), variables not set."""

    arguments: tuple[str, ...]
    world: int | None
    missing: tuple[str, ...]


def find_launch(text: str, folder: Path) -> Launch:
    """Return the training of a script; raises InputError where there is none, or several."""
    found = tokens(text)
    first = next((token for token in found if token.text != "\n"), None)
    if first is not None and first.text.startswith("--"):
        words = " \\\n".join(token.text for token in found if token.text != "\n")
        script = Script(f"arguments {words}", folder)
        return Launch(script.started[0].words[1:], None, tuple(script.variables.missing))
    slurm = _directives(text)
    script = Script(text, folder, _slurm_variables(slurm))
    for item in script.started:
        if item.words[0].startswith("--"):
            raise InputError(
                f"line {item.line} begins with {item.words[0]}: the line before does not end in a"
                " backslash, or has a blank or a comment behind it"
            )
    trainings = {item.words: item for item in script.started if _is_training(item.words)}
    if len(trainings) != 1:
        lines = ", ".join(map(str, sorted({i.line for i in trainings.values()}))) or "none"
        raise InputError(
            f"{len(trainings)} commands with --num-layers or a pretrain_gpt.py (lines: {lines}),"
            " expected one training"
        )
    (item,) = trainings.values()
    arguments, world = _taken_apart(item, slurm, script)
    return Launch(arguments, world, tuple(script.variables.missing))


def _is_training(words: Sequence[str]) -> bool:
    if words[0] in ("echo", "printf", "tee"):
        return False
    named = any(re.search(r"pretrain_\w+(\.py)?$|(^|/)train\.py$", word) for word in words)
    return named or any(word.split("=")[0].strip() == "--num-layers" for word in words)


def _taken_apart(
    item: Started, slurm: dict[str, str], script: Script
) -> tuple[tuple[str, ...], int | None]:
    words = item.words
    for place, word in enumerate(words):
        name = word.rpartition("/")[2]
        if name == "torchrun" or re.fullmatch(r"torch\.distributed\.(run|launch)", word):
            options, rest = _options(words[place + 1 :], _TORCHRUN_FLAGS | _OLD_LAUNCH_FLAGS)
            return _program(rest), _product(options, {"nnodes": "1", "nproc-per-node": "1"}, script)
        if name == "deepspeed":
            options, rest = _options(words[place + 1 :], frozenset())
            return _program(rest), _product(options, {"num-nodes": "", "num-gpus": ""}, script)
        if name in ("srun", "mpirun", "mpiexec"):
            inner = next((w for w in words[place + 1 :] if "python" in w or w == "torchrun"), "")
            if inner and not inner.endswith("torchrun") and "torch.distributed" not in str(words):
                options = slurm | _given(words[place + 1 : words.index(inner)])
                return _program(words[words.index(inner) :]), _tasks(name, options, script)
    named = script.variables.values.get("WORLD_SIZE")
    return _program(words), _whole("WORLD_SIZE", named[0], script) if named else None


def _program(words: Sequence[str]) -> tuple[str, ...]:
    """Return what follows the name of the program that trains."""
    for place, word in enumerate(words):
        if re.search(r"\.py$|^pretrain_\w+$", word):
            if other := _OTHER_MODELS.search(word.rpartition("/")[2]):
                raise InputError(f"{word} trains a model ({other[0]}) of another kind than GPT")
            return tuple(words[place + 1 :])
        if word.startswith("--") and place and not words[0].startswith("-"):
            return tuple(words[place:])
    raise InputError(f"{shlex.join(words)[:80]!r} names no program, expected pretrain_gpt.py")


def _options(words: Sequence[str], flags: frozenset[str]) -> tuple[dict[str, str], Sequence[str]]:
    """Return a launcher's own options, by names with dashes, and what follows them."""
    found: dict[str, str] = {}
    place = 0
    while place < len(words) and words[place].startswith("-"):
        name, equals, value = words[place].replace("_", "-").partition("=")
        raw = words[place].partition("=")[2]
        if name in flags or equals:
            found[name.lstrip("-")] = raw if equals else value
            place += 1
            continue
        more = words[place + 1] if place + 1 < len(words) else ""
        found[name.lstrip("-")] = "" if more.startswith("--") else more
        place += 1 if more.startswith("--") else 2
    return found, words[place:]


def _product(options: dict[str, str], factors: dict[str, str], script: Script) -> int:
    world = 1
    for name, usual in factors.items():
        world *= _whole(f"--{name}", options.get(name, usual), script)
    return world


def _tasks(launcher: str, options: dict[str, str], script: Script) -> int:
    if "ntasks" in options:
        return _whole("--ntasks", options["ntasks"], script)
    if {"nodes", "ntasks-per-node"} <= options.keys():
        return _product(options, {"nodes": "1", "ntasks-per-node": ""}, script)
    raise InputError(
        f"{launcher} does not say how many ranks there are; write --ntasks, or --nodes and"
        " --ntasks-per-node, into the script"
    )


def _whole(name: str, text: str, script: Script) -> int:
    if UNKNOWN in text:
        raise InputError(f"{name} is what {told(text)} prints; write the number")
    if not text.isdigit() or text == "0":
        missing = ", ".join(f"${name}" for name in script.variables.missing)
        also = f" (not set in the script: {missing})" if missing and not text else ""
        raise InputError(f"{name} is {text!r}{also}, expected a whole number from 1")
    return int(text)


def _directives(text: str) -> dict[str, str]:
    """Return the options of `#SBATCH` lines."""
    found: dict[str, str] = {}
    for line in re.findall(r"^#SBATCH\s+(.*)$", text, re.MULTILINE):
        found |= _given(shlex.split(line, comments=True))
    return found


def _given(words: Sequence[str]) -> dict[str, str]:
    """Return the counts among slurm's or MPI's options."""
    found: dict[str, str] = {}
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if not equals:
            value = words[place + 1] if place + 1 < len(words) else ""
        name = _SHORT.get(name, name)
        if name in ("--nodes", "--ntasks", "--ntasks-per-node", "--gpus-per-node"):
            found[name.lstrip("-")] = value
    return found


def _slurm_variables(options: dict[str, str]) -> dict[str, str]:
    """Return the variables that slurm sets by those options."""
    names = {
        "nodes": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
        "ntasks": ("SLURM_NTASKS", "SLURM_NPROCS"),
        "ntasks-per-node": ("SLURM_NTASKS_PER_NODE",),
        "gpus-per-node": ("SLURM_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE"),
    }
    return {name: options[key] for key in options for name in names[key]}
