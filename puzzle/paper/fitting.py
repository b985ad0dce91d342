"""The verb `fit`: the cost model against the published runs, by shipped and by new constants."""

from common.artifact import Ask, Case, Done
from common.record import Metric
from puzzle.inputs.cluster import known_clusters
from puzzle.paper.published import distinct_runs
from puzzle.simulate import fit as fitted
from puzzle.simulate.fit import Errors, errors

STAGES = ("training", "inference", "generation")


def fit(case: Case, ask: Ask) -> Done:
    """Hold the cost model against the published runs; `auto` fits anew with pairs left out."""
    anew = case.experiment.method == "auto"
    metrics = left_out() if anew else (*calibration(), *calibration("plain"))
    prefix = "left_out" if anew else "error"
    values = {metric.name: metric.value for metric in metrics}
    each = ", ".join(f"{stage} {values[f'{prefix}.{stage}.mean']:.1f} %" for stage in STAGES)
    return Done(summary=f"mean relative errors: {each}", metrics=metrics)


def calibration(variant: str = "") -> tuple[Metric, ...]:
    """Return the errors of the shipped constants on all distinct runs (in-sample)."""
    suffix = f"-{variant}" if variant else ""
    table = {
        cluster: known_clusters()[f"{cluster}{suffix}"].constants
        for cluster in ("orion", "phoenix")
    }
    found = errors(distinct_runs(), table)
    name = f"error.{variant}" if variant else "error"
    return (*_metrics(name, found), Metric(name="runs", value=len(distinct_runs()), unit="1"))


def left_out() -> tuple[Metric, ...]:
    """Return, pair by pair, the errors of a fit that has not seen the pair."""
    runs, made = distinct_runs(), list[Metric]()
    for pair in sorted({run.pair for run in runs}):
        table = fitted.fit([run for run in runs if run.pair != pair])
        found = errors([run for run in runs if run.pair == pair], table)
        made += _metrics(f"left_out.{pair}", found)
    for stage in STAGES:
        each = [m.value for m in made if m.name.endswith(f".{stage}.mean")]
        made.append(Metric(name=f"left_out.{stage}.mean", value=sum(each) / len(each), unit="%"))
    return (*made, *_metrics("refit", errors(runs, fitted.fit(runs))))


def _metrics(name: str, found: Errors) -> tuple[Metric, ...]:
    return tuple(
        Metric(name=f"{name}.{stage}.{kind}", value=100 * value, unit="%")
        for stage, pair in zip(STAGES, found, strict=True)
        for kind, value in zip(("mean", "largest"), pair, strict=True)
    )
