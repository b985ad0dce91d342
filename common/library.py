"""The same few functions in all packages: load, experiments, plan, simulate, profile, run.

Nothing is written to disk unless a folder is given (`out`), and importing loads nothing heavy.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from common.artifact import Artifact, Done
    from common.record import Metric

E = TypeVar("E")
P = TypeVar("P")


class Outcome(NamedTuple, Generic[P]):
    """What came of a simulation or a run."""

    summary: str
    metrics: tuple[Metric, ...]
    plan: P
    files: tuple[Path, ...]
    artifact: Artifact
    value: Any

    def to_pandas(self) -> Any:
        """Return the metrics as a pandas DataFrame: name, value, unit. Needs pandas."""
        rows = [{"name": m.name, "value": m.value, "unit": m.unit} for m in self.metrics]
        return importlib.import_module("pandas").DataFrame(rows)

    def figure(self) -> Any:
        """Return a matplotlib Figure of it. Needs matplotlib."""
        return self.artifact.hook("figure")(self.plan, self.value)


class Library(Generic[E, P]):
    """A package's functions, from its declaration `<package>.artifact:ARTIFACT`."""

    def __init__(self, package: str) -> None:
        self.package = package

    @property
    def artifact(self) -> Artifact:
        """The package's declaration."""
        return importlib.import_module(f"{self.package}.artifact").ARTIFACT

    def load(self, name: str | Path, *changes: str) -> E:
        """Return a named experiment or a TOML file's, with `path=value` changes. InputError."""
        from common.acts import experiment_of

        return experiment_of(self.artifact, str(name), changes)

    def experiments(self) -> dict[str, E]:
        """Return all named experiments."""
        return self.artifact.named()

    def plan(
        self, experiment: E, *, method: str | None = None, seed: int = 0,
        out: Path | str | None = None,
    ) -> P:  # fmt: skip
        """Return the best plan for the experiment, a frozen value. Raises InputError."""
        from common.acts import choose

        experiment = choose(self.artifact, experiment, "method", self.artifact.method, method)
        return self._do("plan", experiment, None, seed, out).plan

    def simulate(
        self, experiment: E, plan: P | None = None, *, seed: int = 0, out: Path | str | None = None
    ) -> Outcome[P]:
        """Return what the plan (or else the best one) is predicted to do. Raises InputError."""
        return self._outcome(self._do("simulate", experiment, plan, seed, out))

    def run(
        self, experiment: E, plan: P | None = None, *, seed: int = 0,
        out: Path | str | None = None, world_size: int | None = None, backend: str | None = None,
    ) -> Outcome[P]:  # fmt: skip
        """Carry out the plan on real processes and return what was measured.

        Raises InputError, and CaseError where processes failed.
        """
        options = {"world_size": world_size, "backend": backend}
        return self._outcome(self._do("run", experiment, plan, seed, out, **options))

    def profile(self, experiment: E, out: Path | str, *, seed: int = 0) -> list[Path]:
        """Measure this machine for the experiment and return the files, all below `out`."""
        from common.artifact import Folder

        folder = Folder(Path(out), self.package)
        return list(self.artifact.hook("profile")(experiment, folder, seed)[0])

    def _outcome(self, done: Done) -> Outcome[P]:
        parts = (done.summary, done.metrics, done.plan, done.files, self.artifact, done.value)
        return Outcome[P](*parts)

    def _do(
        self, verb: str, experiment: E, plan: P | None, seed: int, out: Any, **more: Any
    ) -> Done:
        from common.artifact import Ask, Case, Folder
        from common.suites import carry_out

        folder = None if out is None else Folder(Path(out), self.package)
        ask = Ask(folder=folder, options={k: v for k, v in more.items() if v is not None})
        case = Case(verb=verb, experiment=experiment, seed=seed)
        return carry_out(self.artifact, case, ask, plan)


def callable_rooms(library: Library[Any, Any]) -> None:
    """Let the rooms of a package (`helix.plan`, modules) be called as the functions they hold."""
    for name in ("plan", "simulate", "run"):
        room = importlib.import_module(f"{library.package}.{name}")
        function = staticmethod(getattr(library, name))
        sys.modules[room.__name__].__class__ = type("Room", (ModuleType,), {"__call__": function})
