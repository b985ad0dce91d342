"""The suites `quick` and `full` as cases of named experiments."""

from collections.abc import Iterable, Iterator

import msgspec

from common.artifact import Case
from puzzle.inputs.examples import examples
from puzzle.inputs.experiment import MethodName
from puzzle.paper.experiments import FIGURE_10, FITTED, PAIRS, named
from puzzle.paper.repeatable import device_count, repeatable


def _case(verb: str, name: str, method: MethodName = "given") -> Case:
    experiment = (named() | examples())[name]
    return Case(verb=verb, experiment=msgspec.structs.replace(experiment, method=method))


def _published() -> Iterator[Case]:
    """Yield what figures 8 to 12 and table 3 need of the model."""
    for cluster, pairs in PAIRS.items():
        for pair in pairs:
            name = f"{cluster}-{pair.actor}-{pair.critic}"
            yield _case("simulate", name, "released")
            yield _case("simulate", name, "given")
            yield _case("simulate", name, "generation")
            yield _case("simulate", f"{name}-base", "base")
    for actor, critic, batch, layout in FIGURE_10:
        name = f"ts-{actor}-{critic}-{batch}-{'-'.join(map(str, layout))}"
        yield _case("simulate", name, "base")
        yield _case("simulate", name, "released")
        yield _case("simulate", name, "given")


def _plans() -> Iterator[Case]:
    """Yield the planner's plans and the authors'."""
    for cluster, pairs in PAIRS.items():
        for pair in pairs:
            name = f"{cluster}-{pair.actor}-{pair.critic}"
            yield _case("plan", name, "auto")
            yield _case("plan", name, "given")


_REAL = (
    "tiny-cpu-1", "tiny-cpu-4", "tiny-cpu-4-in-turn", "tiny-cpu-2", "zero3-cpu-2", "learn-cpu-2",
)  # fmt: skip
_MORE_REAL = (
    "tiny-cpu-4-fused", "tiny-cpu-4-replicas", "tiny-cpu-4-slices", "learn-cpu-1",
    "learn-cpu-2-replicas",
)  # fmt: skip


class _Full:
    """The suite `full`: its cases, then what the GPUs here can repeat, looked for when asked."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self.cases = tuple(cases)

    def __iter__(self) -> Iterator[Case]:
        """Yield the cases; only then is this machine looked at."""
        yield from self.cases
        yield from repeatable(device_count())


def suites() -> dict[str, Iterable[Case]]:
    """Return the suites; `full` leaves out a pair of models at a time and runs more layouts."""
    paper_and_model = [_case("published", FITTED), _case("fit", FITTED)]
    shared = [*_published(), *_plans(), *(_case("run", name) for name in _REAL)]
    more = [_case("run", name) for name in _MORE_REAL]
    full = [*paper_and_model, _case("fit", FITTED, "auto"), *shared, *more]
    return {"quick": [*paper_and_model, *shared], "full": _Full(full)}
