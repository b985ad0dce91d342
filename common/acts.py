"""What each verb does: ask the package, keep, and print for people or, with `--json`, programs.

With `--json` a verb prints one JSON value and nothing else: `list` rows of `listing.Listed`;
`inputs` the experiment; `plan`, `simulate` and `run` an `Answer` (a sweep: its records); `profile`
{files, lines}; `report`, `quick` and `full` a `report.Told`; `doctor` rows of `doctor.Check`.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from common import doctor, report, suites, teach
from common.artifact import OWN, Artifact, Ask, Case, Done, Folder, with_field
from common.case import choices, resolve
from common.errors import InputError
from common.files import plain_numbers
from common.listing import listed, print_listed
from common.names import near
from common.provenance import is_first_rank
from common.record import Metric, latest


class Answer(msgspec.Struct, frozen=True):
    """What came of a case."""

    verb: str
    experiment: str
    summary: str
    metrics: tuple[Metric, ...]
    files: tuple[str, ...]
    plan: Any = None


def experiment_of(artifact: Artifact, name: str, overrides: Sequence[str] | None = ()) -> Any:
    """Return a named experiment or a TOML file's, with fields changed by `path=value`, checked."""
    value = resolve(name, artifact.named(), artifact.hook("experiment"), overrides or ())
    return artifact.hook("load")(value) if "load" in artifact.hooks else value


def choose(artifact: Artifact, experiment: Any, said: str, path: str, wanted: str | None) -> Any:
    """Return the experiment with a choice (None: as it is) in the field of a path.

    InputError for what is no choice calls the field as the user has (`said`).
    """
    known = choices(artifact.hook("experiment"), path)
    if wanted is not None and known and wanted not in known:
        raise InputError(f"{said} is {wanted!r}, expected one of {', '.join(known)}")
    return experiment if wanted is None else with_field(experiment, path, wanted)


def show(value: object) -> None:
    """Print a value as JSON."""
    content = msgspec.json.encode(value, enc_hook=plain_numbers)
    print(msgspec.json.format(content, indent=2).decode())


def list_(artifact: Artifact, _: str, pattern: str | None, out: Path, json: bool) -> None:
    """List the experiments whose names fit."""
    rows = [row for row in listed(artifact, out) if fnmatchcase(row.name, pattern or "*")]
    if not rows:
        raise InputError(f"no experiment fits {pattern}{near(str(pattern), artifact.named())}")
    show(rows) if json else print_listed(rows)


def inputs(
    artifact: Artifact, _: str, experiment: str, all: bool, set: list[str] | None, json: bool
) -> None:
    """Print an experiment, or what the package says of a folder that is none."""
    shown = artifact.hook("listing")(Path(experiment)) if "listing" in artifact.hooks else None
    if shown is not None:
        return Console(width=160).print(*shown)
    value = experiment_of(artifact, experiment, set)
    return show(value) if json else print(teach.taught(value, everything=all), end="")


def profile(
    artifact: Artifact, _: str, experiment: str, out: Path, seed: int, set: Any, json: bool
) -> None:
    """Measure this machine."""
    value = experiment_of(artifact, experiment, set)
    files, lines = artifact.hook("profile")(value, Folder(out, artifact.name), seed)
    show({"files": [*map(str, files)], "lines": lines}) if json else print(*lines, sep="\n")


def answer(
    artifact: Artifact, verb: str, experiment: str, out: Path, seed: int, set: Any, json: bool,
    plan: Path | None = None, **options: Any,
) -> None:  # fmt: skip
    """Plan, simulate or run."""
    value = experiment_of(artifact, experiment, set)
    paths = {"method": artifact.method} | {o.name: o.path for o in artifact.options if o.path}
    for name in paths.keys() & options.keys():
        value = choose(artifact, value, f"--{name}", paths[name], options.pop(name))
    case, folder = Case(verb=verb, experiment=value, seed=seed), Folder(out, artifact.name)
    ask = Ask(folder=folder, options={k: v for k, v in options.items() if v is not None})
    sweeps = verb == "simulate" and "points" in artifact.hooks
    if how := artifact.hook("points")(case, ask) if sweeps else None:
        return _points(artifact, how, case, folder, ask, plan, json)
    done = suites.do(artifact, case, folder, ask, plan)
    return _tell_done(case, done, json) if is_first_rank() else None


def _tell_done(case: Case, done: Done, json: bool) -> None:
    if json:
        files, name = tuple(map(str, done.files)), case.experiment.name
        return show(Answer(case.verb, name, done.summary, done.metrics, files, done.plan))
    for shown in done.shows:
        print(shown) if isinstance(shown, str) else Console().print(shown)
    planned = [f"plan: {done.files[-1]}"] if case.verb == "plan" else []
    return print("\n".join([done.summary, *planned, *done.hints]))


def _points(
    artifact: Artifact, how: suites.How, case: Case, folder: Folder, ask: Ask, plan: Any, json: bool
) -> None:
    """Do a sweep's points, those without a record, and show all."""
    failed = suites.do_all(artifact, how, folder, ask, again=False, given=plan)
    wanted = {point.id for point in how.cases}
    records = [r for r in latest(folder.records(ask.suite).read()) if r.case_id in wanted]
    table = artifact.hook("points_table")
    show(records) if json else Console().print(table(case.experiment, records))
    if failed:
        raise SystemExit(1)


def report_(artifact: Artifact, _: str, suite: str | None, out: Path, json: bool) -> None:
    """Write and print the report of the records that there are."""
    known = (*artifact.hook("suites", dict)(), OWN)
    if suite is not None and suite not in known:
        raise InputError(f"no suite {suite!r}; expected one of {', '.join(known)}")
    _tell(artifact, report.write_report(artifact, Folder(out, artifact.name), suite), json)


def suite(
    artifact: Artifact, verb: str, again: bool, only: str, out: Path, seed: int, set: Any,
    json: bool, **options: Any,
) -> None:  # fmt: skip
    """Do a suite and report, whatever of it failed."""
    changes = [*(set or ()), *(f"{name}={value}" for name, value in options.items() if value)]
    how = suites.suite_of(artifact, verb, changes, seed, only)
    folder = Folder(out, artifact.name)
    suites.do_all(artifact, how, folder, Ask(folder=folder, suite=verb), again=again)
    _tell(artifact, report.write_report(artifact, folder, verb, how.claims), json)


def _tell(artifact: Artifact, told: report.Told, json: bool) -> None:
    show(told) if json else report.print_report(artifact, told)
    if not told.holds:
        raise SystemExit(1)


def look(artifact: Artifact, _: str, json: bool) -> None:
    """Look for what is missing on this machine."""
    checks = doctor.checks(artifact.name)
    show(checks) if json else Console().print(doctor.table(checks))
    if not all(check.ok for check in checks):
        raise SystemExit(1)


ACTS = {
    "list": list_, "inputs": inputs, "profile": profile, "plan": answer, "simulate": answer,
    "run": answer, "report": report_, "quick": suite, "full": suite, "doctor": look,
}  # fmt: skip
