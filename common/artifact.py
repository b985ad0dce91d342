"""What a package declares of itself, and the words in which it is asked and answers."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from common.case import case_id
from common.record import Axis, Metric, Origin, RecordFile

OWN = "own"  # the suite of what a user does one by one


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to do: a verb on an experiment (a frozen struct with `name` and `about`)."""

    verb: str
    experiment: Any
    seed: int = 0
    marks: dict[str, Axis] = {}  # what else makes it a case of its own, such as a sweep's point
    limit_s: float | None = None  # over it a case has failed; compiled code is left to its end

    @property
    def config(self) -> dict[str, Any]:
        """All that identifies the case."""
        asked = msgspec.to_builtins(self.experiment)
        return {"verb": self.verb, "seed": self.seed, **self.marks, "experiment": asked}

    @property
    def id(self) -> str:
        """Sixteen hex digits that name the case."""
        return case_id(self.config)


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a case."""

    summary: str  # one sentence
    metrics: tuple[Metric, ...] = ()
    plan: Any = None
    files: tuple[Path, ...] = ()
    axes: dict[str, Axis] = {}  # those that only the answer tells, such as the method chosen
    shows: tuple[Any, ...] = ()  # tables and lines for the terminal, before the summary
    hints: tuple[str, ...] = ()  # lines after it: where files are, what to do next
    value: Any = None  # what the hook `figure` can draw


class Folder(NamedTuple):
    """Where an output folder keeps an artifact's files."""

    out: Path
    artifact: str

    def at(self, *parts: str) -> Path:
        """Return a path in the artifact's part: plans, traces, profiles, figures, runs."""
        return self.out.joinpath(self.artifact, *parts)

    def records(self, suite: str) -> RecordFile:
        """Return the suite's records."""
        return RecordFile(self.at(f"{suite}.jsonl"))


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """How a case is asked, beside what it is."""

    folder: Folder | None = None  # None: nothing is written, as the library does
    suite: str = OWN
    options: dict[str, Any] = {}  # the verb's own that are given: world_size, backend, ray

    @property
    def own(self) -> bool:
        """Whether a user asked this one case, so that it tells and draws all it can."""
        return self.suite == OWN


class Option(NamedTuple):
    """An option of one package's verbs; it sets the field at `path` or is in `Ask.options`."""

    name: str
    verbs: tuple[str, ...]
    help: str
    path: str = ""


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A package's declaration; the shell in `common` does the rest.

    `hooks` are functions as `module:name`, imported when needed. All packages have: `experiment`
    and `plan_type` (types; a plan has `schema`, `experiment`, `method`, `question`), `experiments`
    () -> {name: experiment}, `plan` (case, ask) -> Done, `simulate` and `run` (case, plan, ask) ->
    Done, `profile` (experiment, folder or None, seed) -> (files, lines), `check` (plan, where)
    raising InputError, `question` (experiment, seed) -> digest, `figure` (plan, value) -> Figure.
    Some have: further verbs (case, ask) -> Done; `paper_experiments`; `suites` () -> {suite:
    cases}; `how` (suite, overrides) -> suites.How; `points` (case) -> How of a sweep; `load`
    (experiment) -> experiment with what its files say; `listing` (path) -> tables of what is no
    experiment; `prepare` (case, ask) -> case with this machine's profile; `axes` (case) -> axes;
    `stem` (experiment, seed) -> name of the plan's file; `section` (folder, records) ->
    page.Section; `derived` (records) -> records for claims; `hardware` (experiment) -> words.
    """

    name: str
    sentence: str
    hooks: dict[str, str]
    method: str  # path of the field that `--method` sets
    options: tuple[Option, ...] = ()
    origins: dict[str, Origin] = {}  # of verbs beside plan, simulate and run
    plans_alike: bool = False  # soon, and the same on every rank: only the verb plan writes it down
    shown_by: tuple[str, ...] = ("verb", "method")  # the report shows one record each; (): all

    def __post_init__(self) -> None:
        """Leave out the hooks into a room paper/ that was taken out: the product stands alone."""
        into = {key for key, path in self.hooks.items() if path.startswith(f"{self.name}.paper.")}
        if into:
            face = Path(str(importlib.import_module(self.name).__file__))
            left = {key: path for key, path in self.hooks.items() if key not in into}
            if not face.with_name("paper").is_dir():
                msgspec.structs.force_setattr(self, "hooks", left)

    def hook(self, name: str, default: Any = None) -> Any:
        """Import and return what a hook names; the default where the package has none."""
        module, _, function = self.hooks.get(name, "").partition(":")
        return getattr(importlib.import_module(module), function) if module else default

    def named(self) -> dict[str, Any]:
        """Return all named experiments: those to start one's own from first, then the paper's."""
        return self.hook("experiments")() | self.hook("paper_experiments", dict)()

    def origin(self, verb: str) -> Origin:
        """Return where the numbers of a verb come from."""
        known: dict[str, Origin] = {"plan": "planned", "simulate": "simulated", "run": "measured"}
        return (known | self.origins)[verb]

    def axes(self, case: Case, done: Done | None) -> dict[str, Axis]:
        """Return what tables select a case's record by."""
        own: dict[str, Axis] = self.hook("axes")(case) if "axes" in self.hooks else {}
        found = {"verb": case.verb, "method": field(case.experiment, self.method)}
        return found | own | case.marks | (done.axes if done else {})


def field(struct: Any, path: str) -> Any:
    """Return a struct's field by its dotted path."""
    for step in path.split("."):
        struct = getattr(struct, step)
    return struct


def with_field(struct: Any, path: str, value: object) -> Any:
    """Return the struct with another value in the field of a dotted path."""
    step, _, rest = path.partition(".")
    inner = with_field(getattr(struct, step), rest, value) if rest else value
    return msgspec.structs.replace(struct, **{step: inner})
