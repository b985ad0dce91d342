"""The verb `run`: serve the plan on Ray under its traffic; measured stands beside simulated."""

from beta.inputs.experiment import Experiment
from beta.inputs.load import load
from beta.plan.plans import Plan
from beta.plan.show import plan_table, unplaced
from beta.run.launch import serve
from beta.run.served import metrics_of, played, simulated, summary_of
from beta.run.show import served_table
from common.artifact import Ask, Case, Done
from common.errors import InputError
from common.ranks import choose_backend


def run(case: Case, plan: Plan, ask: Ask) -> Done:
    """Serve the plan; InputError where it cannot be served here, CaseError where serving failed."""
    experiment: Experiment = case.experiment
    backend = choose_backend(ask.options.get("backend", ""))
    _check_size(plan, ask.options.get("world_size"))
    loaded = load(experiment, case.seed)
    measured = serve(experiment, plan, loaded, backend=backend, seed=case.seed)
    predicted = simulated(experiment, plan, loaded, case.seed)
    metrics = metrics_of(experiment, loaded, measured, predicted)
    return Done(
        summary=summary_of(metrics),
        metrics=metrics,
        plan=plan,
        axes={"method": plan.method},
        shows=(plan_table(plan), served_table(metrics)),
        hints=unplaced(plan),
        value=played(experiment, loaded, measured),
    )


def _check_size(plan: Plan, wanted: int | None) -> None:
    needed = sum(group.op * group.pp for group in plan.periods[0].groups)
    if wanted not in (None, needed):
        raise InputError(
            f"the plan needs {needed} devices, but --world-size is {wanted}; plan for {wanted} by"
            f" --set cluster.devices={wanted}"
        )
