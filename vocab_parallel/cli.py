"""The command line: parse, call, print. The verbs and options are the same in every package."""

import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
import typer
from rich.console import Console

from common.case import resolve, to_toml
from common.errors import InputError
from common.log import guard, setup
from vocab_parallel import cases, show
from vocab_parallel.experiments import SUITES, named
from vocab_parallel.inputs.experiment import Experiment, MethodName
from vocab_parallel.inputs.megatron import read_megatron

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Vocabulary Parallelism: pipelines balanced for large vocabularies.",
)

Name = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="A named experiment or the path of a TOML.")
]
Out = Annotated[Path, typer.Option(help="Folder of plans, records and the report.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Set = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH=VALUE", help="Change a field of the experiment; repeatable."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show details and tracebacks.")]
PlanFile = Annotated[Path | None, typer.Option(help="Take this plan instead of making one.")]
Again = Annotated[bool, typer.Option(help="Redo finished cases too.")]

RESULTS = Path("results")


@app.command(name="list")
def list_(
    json: Annotated[bool, typer.Option(help="Print JSON.")] = False,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """List the named experiments and what their last records cost."""
    with guard(verbose):
        rows = show.listed(cases.Folder(out))
        if json:
            print(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        else:
            Console().print(show.listed_table(rows))


@app.command()
def inputs(
    experiment: Name,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Print an experiment as TOML, checked: the file to start one's own from."""
    with guard(verbose):
        value = _experiment(experiment, set)
        print(to_toml(value), end="")


@app.command()
def profile(
    experiment: Name,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Measure this machine on the experiment's model, into constants for `[constants]`."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        from vocab_parallel.profiling import profile_experiment

        file = profile_experiment(value, folder.home / "profiles", seed=seed)
        print(f"an experiment with this machine's constants: {file}")


@app.command()
def plan(
    experiment: Name,
    method: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(get_args(MethodName))}.")
    ] = None,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Say which method to use, what each rank will see, and write the schedule."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        chosen = _method(method, value)
        _, done = cases.do("plan", value, chosen, folder, seed=seed)
        made = cases.plan_of(done)
        if done.choices:
            Console().print(show.choices_table(value, done.choices))
            print(show.without_plan(done.choices), end="")
        assert done.prediction is not None
        Console().print(show.ranks_table(made, done.prediction))
        print(show.schedule_text(made))
        print(done.summary)
        print(f"plan: {folder.plan(value, chosen)}")


@app.command()
def simulate(
    experiment: Name,
    plan: PlanFile = None,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Play the schedule: times, MFU, memory per rank, pictures and a Perfetto trace."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        method = value.pipeline.method
        _, done = cases.do("simulate", value, method, folder, seed=seed, given=plan)
        assert done.prediction is not None
        Console().print(show.ranks_table(cases.plan_of(done), done.prediction))
        print(done.summary)
        print("open the trace at https://ui.perfetto.dev:", done.files[0])


@app.command()
def run(
    experiment: Name,
    plan: PlanFile = None,
    world_size: Annotated[int | None, typer.Option(help="Ranks to start; the plan's.")] = None,
    backend: Annotated[str, typer.Option(help="gloo or nccl; default by what is there.")] = "",
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Train by the schedule on real ranks; print measured beside simulated times."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        _, done = cases.do(
            "run",
            value,
            value.pipeline.method,
            folder,
            seed=seed,
            given=plan,
            world_size=world_size,
            backend=backend,
        )
        cases.plan_of(done)
        if cases.is_first_rank():
            print(done.summary)


@app.command()
def report(
    suite: Annotated[str | None, typer.Argument(help="quick, full or own; default all.")] = None,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Print the claims, write figures and report.html; exit 1 if a claim fails."""
    with guard(verbose):
        setup(cases.ARTIFACT, None, verbose)
        _report(out, suite)


@app.command()
def quick(
    again: Again = False,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Do the quick suite (minutes on a laptop) and report."""
    _suite("quick", again, out, seed, set, verbose)


@app.command()
def full(
    again: Again = False,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Do all experiments and report."""
    _suite("full", again, out, seed, set, verbose)


def main() -> None:
    """Run the command line."""
    app(prog_name="vocab_parallel")


def _suite(
    suite: Literal["quick", "full"],
    again: bool,
    out: Path,
    seed: int,
    overrides: list[str] | None,
    verbose: bool,
) -> None:
    with guard(verbose):
        if overrides:
            raise InputError(
                f"--set changes one experiment, but {suite} is a fixed suite; use"
                " 'plan EXPERIMENT --set ...'"
            )
        setup(cases.ARTIFACT, out, verbose)
        cases.run_suite(suite, cases.Folder(out), seed=seed, again=again)
        _report(out, suite)


def _report(out: Path, suite: str | None) -> None:
    from vocab_parallel.report import write_report

    if suite is not None and suite not in (*SUITES, cases.OWN):
        raise InputError(f"no suite {suite!r}; expected one of {', '.join((*SUITES, cases.OWN))}")
    if not write_report(cases.Folder(out), suite):
        sys.exit(1)


def _experiment(name: str, overrides: list[str] | None) -> Experiment:
    value = resolve(name, named(), Experiment, overrides or ())
    return read_megatron(value, Path(value.megatron)) if value.megatron else value


def _method(wanted: str | None, experiment: Experiment) -> MethodName:
    if wanted is None:
        return experiment.pipeline.method
    for method in get_args(MethodName):
        if method == wanted:
            return method
    raise InputError(f"--method is {wanted!r}, expected one of {', '.join(get_args(MethodName))}")
