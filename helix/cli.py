"""The command line: parse, call, print. The verbs and options are the same in every package."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import typer
from rich.console import Console

from common.case import resolve, to_toml
from common.errors import InputError
from common.log import guard, setup
from helix import cases, show
from helix.experiments import SUITES, named
from helix.inputs.experiment import HERE, Experiment, Method, Objective

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Helix: one large model served over unlike GPUs and networks.",
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
        cluster = value.cluster.load()
        if value.profile.source != HERE:
            value.load_profiles(cluster)
        print(to_toml(value), end="")


@app.command()
def profile(
    experiment: Name,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Measure one layer of the experiment's model on this machine, into profile files."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        from helix.measure import measure

        print(measure(value, folder.profiles(value), seed))
        print(f"  --set profile.source={folder.profiles(value)}")


@app.command()
def plan(
    experiment: Name,
    method: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(get_args(Method))}.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help=f"Of search: one of {', '.join(get_args(Objective))}.")
    ] = None,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Place the model's layers; print flow, bound and gap; write the plan."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        value = cases.with_method(
            value,
            _one_of(method, get_args(Method), "--method"),
            _one_of(objective, get_args(Objective), "--objective"),
        )
        _, done = cases.do("plan", value, folder, seed=seed)
        Console().print(show.plan_table(done.plan))
        print(done.summary)
        print(f"plan: {folder.plan(value)}")


@app.command()
def simulate(
    experiment: Name,
    plan: PlanFile = None,
    ray: Annotated[
        str | None, typer.Option(help="Spread a sweep over this Ray cluster, such as auto.")
    ] = None,
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Serve the experiment's workload by the plan, simulated request by request."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        if value.sweep:
            from helix.sweep import sweep

            Console().print(show.sweep_table(value, sweep(value, folder, seed, plan, ray)))
            return
        record, done = cases.do("simulate", value, folder, seed=seed, given=plan)
        Console().print(show.machine_table(done))
        Console().print(show.latency_table(record))
        print(done.summary)
        for path in done.files:
            print(f"timeline, to open at https://ui.perfetto.dev: {path}")


@app.command()
def run(
    experiment: Name,
    plan: PlanFile = None,
    world_size: Annotated[
        int | None, typer.Option(help="Refuse unless there are so many machines.")
    ] = None,
    backend: Annotated[str, typer.Option(help="cpu or cuda; default as in the experiment.")] = "",
    out: Out = RESULTS,
    seed: Seed = 0,
    set: Set = None,
    verbose: Verbose = False,
) -> None:
    """Serve the plan for real: to clients over HTTP, or the experiment's own workload."""
    with guard(verbose):
        setup(cases.ARTIFACT, out, verbose)
        value, folder = _experiment(experiment, set), cases.Folder(out)
        value = _served_on(value, world_size, backend)
        record, done = cases.do("run", value, folder, seed=seed, given=plan)
        if value.serve.load == "workload":
            Console().print(show.latency_table(record))
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
    app(prog_name="helix")


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
    from helix.report import write_report

    if suite is not None and suite not in (*SUITES, cases.OWN):
        raise InputError(f"no suite {suite!r}; expected one of {', '.join((*SUITES, cases.OWN))}")
    if not write_report(cases.Folder(out), suite):
        sys.exit(1)


def _experiment(name: str, overrides: list[str] | None) -> Experiment:
    return resolve(name, named(), Experiment, overrides or ())


def _served_on(value: Experiment, world_size: int | None, device: str) -> Experiment:
    machines = len(value.cluster.load().nodes)
    if world_size not in (None, machines):
        raise InputError(
            f"--world-size is {world_size}, but the experiment's cluster has {machines} machines"
        )
    if device not in ("", "cpu", "cuda"):
        raise InputError(f"--backend is {device!r}, expected cpu or cuda")
    serve = msgspec.structs.replace(value.serve, device=device or value.serve.device)
    return msgspec.structs.replace(value, serve=serve)


def _one_of(wanted: str | None, known: tuple[str, ...], option: str) -> Any:
    if wanted is None or wanted in known:
        return wanted
    raise InputError(f"{option} is {wanted!r}, expected one of {', '.join(known)}")
