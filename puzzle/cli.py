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
from puzzle import cases, show
from puzzle.experiments import SUITES, named
from puzzle.inputs.experiment import Experiment, MethodName
from puzzle.launch_files import write_launch_files

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Puzzle: PPO alignment with light-weight context switches.",
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
    """Print an experiment as TOML, checked; or, of a folder of logs, its runs and its faults."""
    with guard(verbose):
        if Path(experiment).is_dir():
            Console(width=160).print(show.logs_table(Path(experiment)))
            return
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
    """Measure this machine on the experiment's actor, into constants for `[cluster.constants]`."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        from puzzle.profiling import profile_experiment

        file, told = profile_experiment(value, folder.home / "profiles")
        for line in told:
            print(line)
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
    """Find layouts, micro-batches and schedules; say stage times, switch and memory."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        chosen = _method(method, value)
        _, done = cases.do("plan", value, chosen, folder, seed=seed)
        if done.candidates:
            Console().print(show.candidates_table(value, done.candidates))
        assert done.plan is not None
        if done.plan.switch is not None:
            Console().print(show.switch_table(done.plan))
        print(done.summary)
        print(f"plan: {folder.plan(value, chosen)}")
        launches = write_launch_files(value, done.plan, folder.plan(value, chosen))
        print("start it on GPUs by torchrun or Slurm:", *launches[1:])


@app.command()
def simulate(
    experiment: Name,
    plan: PlanFile = None,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Play the pass lists beside the closed form; write a Perfetto trace."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        _, done = cases.do("simulate", value, value.method, folder, seed=seed, given=plan)
        Console().print(show.times_table(done.metrics))
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
    """Align by PPO on real ranks; print stage times, rewards and what the switch moved."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        _, done = cases.do(
            "run",
            value,
            value.method,
            folder,
            seed=seed,
            given=plan,
            world_size=world_size,
            backend=backend,
        )
        if done.failed:
            raise InputError(done.summary)
        if cases.is_first_rank():
            Console().print(show.times_table(done.metrics))
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
    app(prog_name="puzzle")


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
    from puzzle.report import write_report

    if suite is not None and suite not in (*SUITES, cases.OWN):
        raise InputError(f"no suite {suite!r}; expected one of {', '.join((*SUITES, cases.OWN))}")
    if not write_report(cases.Folder(out), suite):
        sys.exit(1)


def _experiment(name: str, overrides: list[str] | None) -> Experiment:
    return resolve(name, named(), Experiment, overrides or ())


def _method(wanted: str | None, experiment: Experiment) -> MethodName:
    if wanted is None:
        return experiment.method
    for method in get_args(MethodName):
        if method == wanted:
            return method
    raise InputError(f"--method is {wanted!r}, expected one of {', '.join(get_args(MethodName))}")
