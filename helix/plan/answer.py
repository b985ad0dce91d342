"""The verb `plan`: place the layers by the experiment's method, and say how good that is."""

import logging
from pathlib import Path

import msgspec

from common.artifact import Ask, Case, Done
from common.case import case_id
from common.errors import InputError
from common.files import write_plan
from common.log import progress
from common.record import Metric
from helix.inputs.experiment import Experiment
from helix.inputs.sources import contents
from helix.plan.clock import Clock, heard
from helix.plan.methods import make_plan
from helix.plan.plans import Plan
from helix.plan.question import ask as question_of
from helix.plan.show import compared_table, plan_table

EXPORTS = ("vllm",)

_log = logging.getLogger("helix")


def plan(case: Case, ask: Ask) -> Done:
    """Return the placement found; CaseError where the method finds none that work passes through.

    Reads and writes nothing but the files that the experiment names.
    """
    form = ask.options.get("export")
    if form not in (None, *EXPORTS):
        raise InputError(f"--export is {form!r}, expected one of {', '.join(EXPORTS)}")
    found = _placed(case.experiment, case.seed)
    if found.ended == "interrupted":
        _keep(found, case, ask)
        raise KeyboardInterrupt
    said, files = _exported(found, case, ask) if form else ((), ())
    tables = (plan_table(found), *((compared_table(found),) if found.compared else ()))
    return Done(
        summary=summary_of(found),
        metrics=_metrics(found),
        plan=found,
        shows=tables,
        files=files,
        hints=(*found.notes, *said),
    )


def _exported(found: Plan, case: Case, ask: Ask) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Write the plan for another engine; return what that form keeps of it and the files."""
    from helix.run.vllm import export

    if ask.folder is None:
        return (), ()
    folder = ask.folder.at("exports", stem(case.experiment, case.seed))
    engines, files = export(found, case.experiment, folder)
    return (engines.said,), files


def _keep(found: Plan, case: Case, ask: Ask) -> None:
    """Write down the best plan until Ctrl-C; it answers no question, so it is not taken for one."""
    if ask.folder is None:
        return
    path = ask.folder.at("plans", f"{stem(case.experiment, case.seed)}.json")
    write_plan(found, path)
    _log.warning("the best placement so far is kept in %s (%s)", path, summary_of(found))


def question(experiment: Experiment, seed: int) -> str:
    """Return what identifies the question that a plan answers.

    The workload is part of it as far as answers are judged by it: in the portfolio and the search.
    Files count by their content too: of the model, the profile, the cluster and the workload.
    """
    from helix.simulate.workload import waiting

    asked, method = msgspec.to_builtins(experiment), experiment.search.method
    parts = {key: asked[key] for key in ("model", "cluster", "profile", "search")}
    if method == "portfolio":
        parts["workload"] = asked["workload"]
    elif method == "search":
        parts["workload"] = msgspec.to_builtins(waiting(experiment.workload))
    files = contents(experiment, workload=method == "portfolio")
    return case_id({**parts, **({"contents": files} if files else {}), "seed": seed})


def stem(experiment: Experiment, seed: int) -> str:
    """Return the plan file's stem: experiments that ask the same share a plan."""
    return f"{experiment.model.stem}-{experiment.search.method}-{question(experiment, seed)}"


def summary_of(plan: Plan) -> str:
    """Return a plan in one sentence."""
    who = plan.method + (f" ({plan.found_by})" if plan.found_by else "")
    said = f"{who}: flow {plan.flow:.2f} tokens/s"
    if plan.bounded:
        said += f", bound {plan.bound:.2f}"
        said += f" (gap {100 * plan.gap:.1f} %)" if plan.gap >= 0 else ""
    if plan.estimate is not None:
        said += f"; about {plan.estimate:.0f} decoded tokens/s under load"
    if plan.simulated is not None:
        said += f", {plan.simulated:.1f} simulated{_of_bound(plan)}"
    if plan.kv_tokens:
        said += f"; {_held(plan)}KV cache of {plan.kv_tokens:,} tokens"
    said += f"; {plan.profile}" if plan.profile else ""
    if plan.evaluations:
        said += f"; {plan.evaluations:,} placements evaluated, {plan.simulations} simulated"
    if plan.solver:
        said += f"; {plan.solver}" + (f" ({plan.licence})" if plan.licence else "")
    said += f", in {plan.seconds:.1f} s{f' ({plan.ended})' if plan.ended else ''}"
    return said + (f"; not done: {', '.join(plan.cut)}" if plan.cut else "")


def _of_bound(plan: Plan) -> str:
    """Return how far the simulated rate is below a bound on any placement's."""
    if plan.served_bound is None or plan.simulated is None:
        return ""
    gap = max(1 - plan.simulated / plan.served_bound, 0.0)
    return f" of at most {plan.served_bound:.1f} (gap {100 * gap:.1f} %)"


def _held(plan: Plan) -> str:
    """Return the weights of all machines in use beside their memory, if that is known."""
    weights, memory = (sum(one.weights for one in plan.held), sum(one.memory for one in plan.held))
    return f"weights {weights / 1e9:.2f} of {memory / 1e9:g} GB, " if memory else ""


def _placed(experiment: Experiment, seed: int) -> Plan:
    from helix.simulate.judge import Simulations
    from helix.simulate.warm import warm_up

    search = experiment.search
    own = search.method in ("portfolio", "search")
    if own:
        warm_up()
    simulator = Simulations(experiment, question_of(experiment), seed)
    units = search.chains + (search.simulations if search.objective == "simulated" else 0)
    with (
        progress(units if own else 0, f"place {experiment.name}") as advance,
        Clock(search.time_limit_s) as clock,
        heard(clock),
    ):
        return make_plan(
            experiment, search.method, search.objective, seed, simulator, advance, clock
        )


def _metrics(plan: Plan) -> tuple[Metric, ...]:
    found = [
        Metric(name="plan.flow", value=plan.flow, unit="token/s"),
        Metric(name="plan.bound", value=plan.bound, unit="token/s"),
        Metric(name="plan.evaluations", value=plan.evaluations, unit="1"),
        Metric(name="plan.simulations", value=plan.simulations, unit="1"),
        Metric(name="plan.kv_tokens", value=plan.kv_tokens, unit="token"),
        Metric(name="plan.time", value=plan.seconds, unit="s"),
    ]
    loaded = (plan.estimate, plan.simulated, plan.served_bound)
    for name, value in zip(("estimate", "simulated", "served_bound"), loaded, strict=True):
        if value is not None:
            found.append(Metric(name=f"plan.{name}", value=value, unit="token/s"))
    return tuple(found)
