"""Which stage holds which layers, as megatron-core 0.16 says it: layout strings, uneven ends.

Of v virtual stages per rank there are v x p, which go round the ranks v times.

A layout has `E` embedding, `t` layer, `L` loss, `|` between stages, `x*n` and `(x)*n` repeated.
"""

import re
from typing import NamedTuple

from common.errors import InputError
from vocab_parallel.inputs.arguments import Given

_FIRST, _LAST = "--decoder-first-pipeline-num-layers", "--decoder-last-pipeline-num-layers"
_EMBEDDING = "--account-for-embedding-in-pipeline-split"
_LOSS = "--account-for-loss-in-pipeline-split"
_VIRTUAL = "--num-virtual-stages-per-pipeline-rank"
_LAYERS_EACH = "--num-layers-per-virtual-pipeline-stage"


class Stages(NamedTuple):
    """Virtual stages of every rank, and the layers of every stage in the pipeline's order."""

    virtual: int
    layers: tuple[int, ...]
    """Empty where the arguments leave that to the method."""


def given_stages(given: Given, layers: int, ranks: int) -> Stages:
    """Return what the arguments say; raises InputError where Megatron would refuse it."""
    if given.has("--pipeline-model-parallel-layout"):
        every = (_FIRST, _LAST, _EMBEDDING, _LOSS, _VIRTUAL, _LAYERS_EACH)
        others = [name for name in every if given.has(name)]
        if others:
            raise InputError(
                f"--pipeline-model-parallel-layout and {others[0]} contradict each other"
            )
        return stage_layers(given.text("--pipeline-model-parallel-layout"), layers, ranks)
    if given.has(_FIRST) or given.has(_LAST):
        return _each_shared(given, _uneven(given, layers, ranks))
    embedding, loss = given.has(_EMBEDDING), given.has(_LOSS)
    each, rest = divmod(layers + embedding + loss, ranks)
    if rest:
        also = " with embedding and loss as they are counted" if embedding or loss else ""
        raise InputError(
            f"--num-layers {layers}{also} is no multiple of --pipeline-model-parallel-size"
            f" {ranks}, which Megatron refuses; give --pipeline-model-parallel-layout"
        )
    virtual = _virtual(given, each)
    if not (embedding or loss):
        return Stages(virtual, ())
    found = [each // virtual] * (ranks * virtual)
    found[0] -= embedding
    found[-1] -= loss
    if min(found) < 0:
        raise InputError(
            f"--num-layers {layers} leave no layer for the first or last of {len(found)} stages"
        )
    return Stages(virtual, tuple(found))


def _virtual(given: Given, each: int) -> int:
    """Return the virtual stages of a rank that holds `each` layers."""
    if given.has(_VIRTUAL) and given.has(_LAYERS_EACH):
        raise InputError(f"{_VIRTUAL} and {_LAYERS_EACH} exclude each other")
    name = _LAYERS_EACH if given.has(_LAYERS_EACH) else _VIRTUAL
    count = given.number(name, 1)
    if each % count:
        raise InputError(f"{name} {count} does not divide the {each} layers of a rank")
    return each // count if name == _LAYERS_EACH else count


def _each_shared(given: Given, ranks: tuple[int, ...]) -> Stages:
    """Return every rank's layers shared out over its virtual stages."""
    if given.has(_LAYERS_EACH):
        raise InputError(f"{_LAYERS_EACH} and uneven ranks exclude each other; give {_VIRTUAL}")
    virtual = max(_virtual(given, each) for each in ranks)
    return Stages(virtual, tuple(each // virtual for each in ranks) * virtual)


def _uneven(given: Given, layers: int, stages: int) -> tuple[int, ...]:
    """Return layers where those of the first, the last or both stages are given."""
    if given.has(_EMBEDDING) or given.has(_LOSS):
        both = _EMBEDDING if given.has(_EMBEDDING) else _LOSS
        raise InputError(f"{_FIRST if given.has(_FIRST) else _LAST} and {both} exclude each other")
    first = given.number(_FIRST) if given.has(_FIRST) else None
    last = given.number(_LAST) if given.has(_LAST) else None
    between = stages - (first is not None) - (last is not None)
    left = layers - (first or 0) - (last or 0)
    each = left // between if between > 0 else 0
    if left < 0 or between < 0 or each * between != left or bool(each) != bool(between):
        raise InputError(
            f"--num-layers {layers} less those of the first and last stage are {left}, which the"
            f" {max(between, 0)} other stages do not share evenly; change {_FIRST} or {_LAST}"
        )
    head = () if first is None else (first,)
    tail = () if last is None else (last,)
    return (*head, *(each,) * between, *tail)


def stage_layers(layout: str, layers: int, ranks: int) -> Stages:
    """Return the stages of a layout such as `Et*3|(t*4|)*6,t*5L`; of v x p of them v per rank."""
    spelled = _expand(layout.replace(" ", "").replace(",", ""))
    parts = spelled.split("|")
    counts = tuple(part.count("t") for part in parts)
    ends = spelled.replace("|", "")
    if "m" in ends:
        raise InputError(
            f"--pipeline-model-parallel-layout {layout!r} has layers for further tokens (m), of"
            " which there are none here; leave them out"
        )
    if set(ends) - set("EtL") or not (ends.startswith("E") and ends.endswith("L")):
        raise InputError(
            f"--pipeline-model-parallel-layout {layout!r}: expected E first, then layers t, then L"
        )
    if ends.count("E") + ends.count("L") != 2:
        raise InputError(f"--pipeline-model-parallel-layout {layout!r}: expected one E and one L")
    if len(parts) % ranks or sum(counts) != layers:
        raise InputError(
            f"--pipeline-model-parallel-layout {layout!r} has {len(parts)} stages and"
            f" {sum(counts)} layers, expected a multiple of {ranks} and {layers}"
        )
    return Stages(len(parts) // ranks, counts)


def _expand(layout: str) -> str:
    """Write repetitions out, innermost first."""
    pattern = re.compile(r"\(([^()]*)\)\*(\d+)|([EtmL|])\*(\d+)")
    while match := pattern.search(layout):
        unit, times = match[1] if match[1] is not None else match[3], match[2] or match[4]
        if len(layout) + len(unit) * int(times) > _LONGEST:
            raise InputError(f"--pipeline-model-parallel-layout {layout[:40]!r} is too long")
        layout = layout[: match.start()] + unit * int(times) + layout[match.end() :]
    return layout


_LONGEST = 100_000
