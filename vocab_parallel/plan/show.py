"""Methods compared, and a plan, as tables and lines for the terminal."""

from collections.abc import Iterable

from rich.table import Table

from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.plan.bands import band
from vocab_parallel.plan.choose import Choice, least_memory, may_lose, within_band
from vocab_parallel.plan.plans import Plan
from vocab_parallel.simulate.memory import GIB
from vocab_parallel.simulate.predict import Prediction

_SHOWN = 24


def told(plan: Plan) -> str:
    """Return a plan's method, of virtual stages with their number."""
    schedule = plan.schedule
    looped = f" of {schedule.chunks} chunks a rank" if schedule.layout == "loop" else ""
    return f"{plan.method}{looped}"


def choices_table(experiment: Experiment, choices: Iterable[Choice]) -> Table:
    """Return all methods for an experiment, fastest first."""
    capacity = experiment.rank_machine.memory_gib
    table = Table(
        title=f"{experiment.name}: methods, seconds per iteration (a rank has {capacity:g} GiB)",
        title_justify="left",
    )
    columns = ("method", "s", "± %", "MFU %", "fullest GiB", "emptiest GiB", "fits")
    for column in columns:
        left = column in ("method", "fits")
        table.add_column(column, justify="left" if left else "right", no_wrap=column == "method")
    for choice in choices:
        prediction = choice.prediction
        if prediction is None:
            table.add_row(choice.method, "", "", "", "", "", "no plan")
            continue
        assert choice.plan is not None
        table.add_row(
            told(choice.plan),
            f"{prediction.iteration_s:.3f}",
            f"{100 * band(choice.plan).time:.1f}",
            f"{100 * prediction.mfu:.2f}",
            f"{max(prediction.needed) / GIB:.2f}",
            f"{min(prediction.needed) / GIB:.2f}",
            "yes" if choice.fits() else "no",
        )
    return table


def band_text(choices: list[Choice]) -> str:
    """Return which methods the model's error cannot tell apart, and which of them needs least."""
    near = within_band(choices)
    names = ", ".join(choice.method for choice in near)
    least = least_memory(near)
    assert least.prediction is not None
    return (
        f"within the error band: {names}; least memory among them: {least.method}"
        f" ({max(least.prediction.needed) / GIB:.1f} GiB); {near[0].method} is at most"
        f" {100 * may_lose(choices):.1f} % slower than another"
    )


def without_plan(choices: Iterable[Choice]) -> list[str]:
    """Return why methods have no plan, one line per reason."""
    methods: dict[str, list[str]] = {}
    for choice in choices:
        if choice.plan is None:
            methods.setdefault(choice.why_not, []).append(choice.method)
    return [f"no plan by {', '.join(names)}: {why}" for why, names in methods.items()]


def ranks_table(plan: Plan, prediction: Prediction) -> Table:
    """Return what every rank will see."""
    table = Table(
        title=f"{plan.experiment}: {told(plan)}, {plan.schedule.batches} micro-batches,"
        f" {prediction.iteration_s:.3f} s, MFU {100 * prediction.mfu:.2f} %",
        title_justify="left",
    )
    columns = ("rank", "layers", "busy %", "live micro-batches", "allocated GiB", "reserved GiB")
    for column in columns:
        table.add_column(column, justify="right")
    schedule = plan.schedule
    for rank in range(schedule.ranks):
        layers = [plan.layers[schedule.stage(rank, chunk)] for chunk in range(schedule.chunks)]
        table.add_row(
            str(rank),
            " + ".join(map(str, layers)),
            f"{100 * prediction.busy[rank]:.1f}",
            str(prediction.live[rank]) + (" chunks" if schedule.chunks > 1 else ""),
            f"{prediction.allocated[rank] / GIB:.2f}",
            f"{prediction.reserved[rank] / GIB:.2f}",
        )
    return table


def schedule_text(plan: Plan) -> str:
    """Return the first passes of every rank, as the papers write them."""
    lines = [
        f"rank {rank:2d}: {' '.join(plan.schedule.label(item) for item in program[:_SHOWN])}"
        + (" ..." if len(program) > _SHOWN else "")
        for rank, program in enumerate(plan.schedule.programs)
    ]
    return "\n".join(lines)
