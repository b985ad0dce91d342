"""The command line: parse, call, print. The verbs and options are the same in every package."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console

from beta import cases, show
from beta.experiments import named
from beta.inputs.experiment import Experiment
from beta.plan.plans import Plan
from common.case import resolve, to_toml
from common.log import guard, setup

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Beta (AlpaServe): place many models on few devices, sharing them by model parallelism.",
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
PlanFile = Annotated[Path | None, typer.Option(help="Take this plan instead of searching one.")]
Again = Annotated[bool, typer.Option(help="Redo finished cases too.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Spread the points over this Ray cluster, such as auto."
    ),
]

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
        print(to_toml(_experiment(experiment, set)), end="")


@app.command()
def profile(
    experiment: Name,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Measure this machine's device for the experiment's models, into a profile file."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        from beta.measure import measure_experiment

        path = measure_experiment(value, folder.profile(value))
        print(f"profile: {path}; plan with it by --set profile={path}")


@app.command()
def plan(
    experiment: Name,
    method: Annotated[
        str | None, typer.Option(help="A method, such as mp-search-sep; a wrong one lists all.")
    ] = None,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Place the models by the training workload; write the plan under the output folder."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        chosen = method or value.placement.method
        _, done = cases.do("plan", value, chosen, folder, seed=seed)
        _print_plan(done.plan)
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
    """Play the plan on the test workload: who is served, when, and in time."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        method = value.placement.method
        _, done = cases.do("simulate", value, method, folder, seed=seed, given=plan)
        _print_plan(done.plan)
        print(done.summary)


@app.command()
def run(
    experiment: Name,
    plan: PlanFile = None,
    world_size: Annotated[int | None, typer.Option(help="Most devices to serve on.")] = None,
    backend: Annotated[str, typer.Option(help="gloo or nccl; default by what is there.")] = "",
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Serve the plan on Ray, put the traffic on it, and print measured beside simulated."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        method = value.placement.method
        _, done = cases.do(
            "run",
            value,
            method,
            folder,
            seed=seed,
            given=plan,
            backend=cases.backend_of(backend),
            world_size=world_size,
        )
        _print_plan(done.plan)
        Console().print(show.served_table(done.metrics))
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
    ray: RayAddress = None,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Do the quick suite (minutes on a laptop) and report."""
    _suite("quick", again, ray, out, seed, set, verbose)


@app.command()
def full(
    again: Again = False,
    ray: RayAddress = None,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Do all figures that fit the stated budget and report."""
    _suite("full", again, ray, out, seed, set, verbose)


def main() -> None:
    """Run the command line."""
    app(prog_name="beta")


def _suite(
    suite: Literal["quick", "full"],
    again: bool,
    ray: str | None,
    out: Path,
    seed: int,
    overrides: list[str] | None,
    verbose: bool,
) -> None:
    with guard(verbose):
        overrides = [*(overrides or ()), *([f"ray={ray}"] if ray else ())]
        how = resolve(suite, {suite: cases.SuiteSettings()}, cases.SuiteSettings, overrides)
        setup(cases.ARTIFACT, out, verbose)
        cases.run_suite(suite, cases.Folder(out), seed=seed, again=again, settings=how)
        _report(out, suite, how.chosen())


def _print_plan(plan: Plan) -> None:
    Console().print(show.plan_table(plan))
    if said := show.unplaced(plan):
        print(said)


def _report(out: Path, suite: str | None, only: tuple[str, ...] = ()) -> None:
    from beta.report import write_report

    if not write_report(cases.Folder(out), suite and cases.suite_of(suite), only):
        sys.exit(1)


def _experiment(name: str, overrides: list[str] | None) -> Experiment:
    return resolve(name, named(), Experiment, overrides or ())
