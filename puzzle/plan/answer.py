"""The verb `plan`: layouts, micro-batches, schedules by the method, and how long a step takes."""

import msgspec

from common.artifact import Ask, Case, Done
from common.case import case_id
from common.devices import find
from common.record import Axis, Metric
from puzzle.inputs.cluster import GIB
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.ppo import Ppo, Running
from puzzle.plan import planner, plans
from puzzle.plan.plans import Plan
from puzzle.plan.show import candidates_table, switch_table
from puzzle.plan.space import most_devices
from puzzle.simulate.predict import Predicted, how_trained, predict


def plan(case: Case, ask: Ask) -> Done:
    """Search (`auto`) or take the layouts that the method says; write what starts the plan."""
    experiment: Experiment = case.experiment
    candidates: tuple[planner.Candidate, ...] = ()
    told = _analytic(experiment)
    if experiment.method == "auto":
        searched = planner.search(experiment)
        candidates = searched.best
        told = f"; {proved(searched)}{_idle(experiment, searched)}{told}"
        found, predicted = candidates[0]
    else:
        found = plans.make_plan(experiment, experiment.method)
        predicted = predict(found, experiment.machines)
        told = f"{_above(experiment, found, predicted)}{told}"
    tables = [candidates_table(experiment, candidates)] if candidates else []
    return Done(
        summary=f"{summary(found, predicted)}{told}",
        metrics=figures(found, predicted),
        plan=found,
        axes=axes(found),
        shows=(*tables, *([switch_table(found)] if found.switch else [])),
        hints=(_launches(experiment, found, ask),) if ask.folder and ask.own else (),
    )


def proved(found: planner.Found) -> str:
    """Say how far the answer may be from the shortest step of its space, by the cost model."""
    step = found.best[0].predicted.times.step
    if not found.unplayed:
        return "no plan searched, named methods included, has a shorter predicted step"
    return (
        f"at most {100 * (step / found.least - 1):.2g} % above the shortest step of its space"
        f" ({found.unplayed} fused orders were too long to be played)"
    )


def _above(experiment: Experiment, plan: Plan, predicted: Predicted) -> str:
    """Say that a plan does not fit, and what of [choice] would make it fit; empty where it does."""
    capacity = experiment.machines.memory_gib
    if predicted.memory.peak <= capacity * GIB:
        return ""
    for names in (("shard_optimizer",), ("recompute",), ("shard_optimizer", "recompute")):
        choice = msgspec.structs.replace(plan.choice, **dict.fromkeys(names, True))
        saving = predict(msgspec.structs.replace(plan, choice=choice), experiment.machines).memory
        if saving.peak <= capacity * GIB:
            ways = " and ".join(f"choice.{name} = true" for name in names)
            return (
                f", more than the {capacity:.1f} GiB that it has: {ways} would need"
                f" {saving.peak / GIB:.1f}"
            )
    return (
        f", more than the {capacity:.1f} GiB that it has, and neither recomputation nor a sharded"
        " optimizer helps: give other layouts, or method = auto"
    )


def _analytic(experiment: Experiment) -> str:
    """Say where times come from nobody's measurement; empty where they do."""
    device = experiment.machines.device
    if not device:
        return ""
    return f"; times by an analytic profile of {find(device).name}, which nobody measured"


def _idle(experiment: Experiment, found: planner.Found) -> str:
    """Say how many devices a plan leaves idle, and why; empty where it uses all."""
    used = found.best[0].plan.world
    if used == experiment.world:
        return ""
    why = (
        "as [choice] has it"
        if used != most_devices(experiment)
        else (
            "for no layout has more: pipeline x tensor x data is their number, pipeline at most the"
            " layers, tensor divides heads, kv_heads, ffn, vocabulary and a node, data divides"
            f" work.batch ({experiment.work.batch})"
        )
    )
    return f"; uses {used} of {experiment.world} devices, {why}"


def question(experiment: Experiment, seed: int) -> str:
    """Return what identifies the question that a plan answers: all but how to align."""
    running, given = Running(dtype=experiment.dtype), experiment.ppo
    ppo = Ppo() if given.critic_learns else Ppo(algorithm="reinforce++")  # what a plan depends on
    asked = msgspec.structs.replace(experiment, ppo=ppo, running=running, about="")
    return case_id({"experiment": msgspec.to_builtins(asked)})


def axes(plan: Plan) -> dict[str, Axis]:
    """Return a plan's layouts, schedule and micro-batches as tables name them."""
    choice, work = plan.choice, plan.work
    sizes = work.cut(choice.training.data)
    return {"plan": f"{choice.training} to {choice.generation}, {choice.schedule}, {sizes}"}


def figures(plan: Plan, predicted: Predicted) -> tuple[Metric, ...]:
    """Return a prediction as metrics; per-rank figures are samples, rank by rank."""
    times = predicted.times
    found = [
        Metric(name="step.time", value=times.step, unit="s"),
        Metric(name="generation.time", value=times.generation, unit="s"),
        Metric(name="switch.time", value=times.switch, unit="s"),
        Metric(name="inference.time", value=times.inference, unit="s"),
        Metric(name="training.time", value=times.training, unit="s"),
        Metric(name="memory.peak", value=predicted.memory.peak / GIB, unit="GiBy"),
    ]
    if plan.switch is not None:
        found.append(_switch_metric("switch.received", plan.switch.received))
        found.append(_switch_metric("switch.kept", plan.switch.kept))
        found.append(Metric(name="switch.peak", value=plan.switch.peak, unit="By"))
    return tuple(found)


def _switch_metric(name: str, by_rank: tuple[int, ...]) -> Metric:
    return Metric(name=name, value=max(by_rank), unit="By", samples=tuple(map(float, by_rank)))


def saved(choice: Choice) -> str:
    """Say what is done for memory; empty where nothing is."""
    again = " with layers recomputed" * choice.recompute
    return (
        again + (" and" * choice.recompute + " with a sharded optimizer") * choice.shard_optimizer
    )


def summary(plan: Plan, predicted: Predicted) -> str:
    """Return a plan in one line."""
    times, choice = predicted.times, plan.choice
    moved = (
        f"switch of {max(plan.switch.received) / 1e9:.3g} GB in {times.switch:.3f} s"
        if plan.switch
        else "no switch"
    )
    return (
        f"train {choice.training}, generate {choice.generation}, {choice.schedule} training"
        f"{saved(choice)},"
        f" micro-batches {plan.work.cut(choice.training.data)}: {times.step:.2f} s a step predicted"
        f" (generation {times.generation:.2f}, inference {times.inference:.2f}, training"
        f" {times.training:.2f} by {how_trained(plan)}, {moved}),"
        f" {predicted.memory.peak / GIB:.1f} GiB a device"
    )


def _launches(experiment: Experiment, plan: Plan, ask: Ask) -> str:
    """Write the launch files beside the plan's and return the line that names them."""
    from puzzle.run.launch_files import write_launch_files

    assert ask.folder is not None
    file = ask.folder.at("plans", f"{experiment.name}.{plan.method}.json")
    _, *scripts = write_launch_files(experiment, plan, file)
    return f"start it on GPUs by torchrun or Slurm: {' '.join(map(str, scripts))}"
