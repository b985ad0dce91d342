"""The cost model's constants from the published runs, and how well they foretell runs left out.

Least squares on logarithms of times (so every run counts by its relative error), damped
Gauss-Newton steps on the logarithms of the constants, large errors discounted (soft L1). The
published times are the input here: what this gives is a calibration, and only the errors on
pairs left out of it are predictions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from puzzle.inputs.cluster import Constants
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import known_models
from puzzle.inputs.workload import Workload
from puzzle.simulate.cost import generation_time, inference_time, training_time
from puzzle.simulate.rates import Rates

Table = dict[str, Constants]
"""Constants by cluster."""

TRAINING = (
    "efficiency", "launch_train_s", "backward_factor", "loss_s", "p2p_latency_s",
    "update_s_per_billion", "launch_infer_s", "inference_s",
)  # fmt: skip
GENERATION = ("launch_decode_s", "cache_reads", "decode_p2p_s", "full_ring")
OF_CLUSTER_TRAINING = ("allreduce_gbps",)
OF_CLUSTER_GENERATION = ("decode_allreduce_s",)
START = Constants(
    memory_gbps=1935.0,
    efficiency=0.65,
    launch_train_s=1.2e-3,
    launch_infer_s=5e-4,
    launch_decode_s=3e-4,
    backward_factor=1.9,
    loss_s=0.03,
    allreduce_gbps=20.0,
    allreduce_latency_s=1.7e-5,
    decode_allreduce_s=5e-5,
    p2p_gbps=50.0,
    p2p_latency_s=1e-3,
    decode_p2p_s=1e-4,
    update_s_per_billion=0.25,
    inference_s=0.2,
    weight_reads=0.9,
    cache_reads=1.0,
    full_ring=1.5,
)
"""Where the fit begins; what is in no list above stays at these values."""


class TimedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was measured: what ran, and its mean stage times in seconds."""

    cluster: str
    """Name that the constants of `OF_CLUSTER_TRAINING` and `OF_CLUSTER_GENERATION` belong to."""
    actor: str
    critic: str
    layout: Layout | None
    """None where the engine is not 3D-parallel; the fit takes no such run."""
    generation_layout: Layout | None
    """Where the switch is on."""
    work: Workload | None
    mode: str
    """`bulk` where both models were trained merged."""
    generation_s: float
    inference_s: float | None
    training_s: float
    switch_s: float | None


class Errors(NamedTuple):
    """Mean and largest relative error of the predicted stage times."""

    training: tuple[float, float]
    inference: tuple[float, float]
    generation: tuple[float, float]


def stage_times(run: TimedRun, c: Constants) -> tuple[float, float, float]:
    """Return predicted training, inference and generation times of a run.

    As released: no critic update in the merged schedule, inference one model after another, and
    the measured switch (0 where its log lacks it) inside the generation time.
    """
    models, layout, work = known_models(), run.layout, run.work
    assert layout is not None
    assert work is not None
    actor, critic, on = models[run.actor], models[run.critic], Rates(c)
    merged = run.mode == "bulk"
    return (
        training_time(actor, critic, layout, work, on, merged=merged, steps_critic=False),
        inference_time(actor, critic, layout, work, on, merged=False),
        generation_time(actor, run.generation_layout or layout, work, on) + (run.switch_s or 0.0),
    )


def measured(run: TimedRun) -> tuple[float, float, float]:
    """Return the measured times in the order of `stage_times`."""
    return run.training_s, run.inference_s or float("nan"), run.generation_s


def errors(runs: Sequence[TimedRun], table: Table) -> Errors:
    """Return the relative errors of all runs."""
    pairs = [(stage_times(run, table[run.cluster]), measured(run)) for run in runs]
    off = np.abs(np.array([[p / m - 1 for p, m in zip(*pair, strict=True)] for pair in pairs]))
    return Errors(*((float(c.mean()), float(c.max())) for c in off.T))


def fit(runs: Sequence[TimedRun]) -> Table:
    """Return the constants of every cluster among the runs."""
    clusters = sorted({run.cluster for run in runs})
    table: Table = dict.fromkeys(clusters, START)
    table = _fit(runs, table, clusters, TRAINING, OF_CLUSTER_TRAINING, slice(0, 2))
    return _fit(runs, table, clusters, GENERATION, OF_CLUSTER_GENERATION, slice(2, 3))


def _fit(
    runs: Sequence[TimedRun],
    table: Table,
    clusters: Sequence[str],
    shared: Sequence[str],
    own: Sequence[str],
    columns: slice,
) -> Table:
    keys = [("", name) for name in shared] + [(c, name) for c in clusters for name in own]
    start = np.log([getattr(table[c or clusters[0]], name) for c, name in keys])
    found = _least_squares(lambda x: _residuals(runs, _table(table, keys, x), columns), start)
    return _table(table, keys, found)


def _table(table: Table, keys: Sequence[tuple[str, str]], x: NDArray[np.float64]) -> Table:
    made = {}
    for cluster, constants in table.items():
        values = {
            name: float(value)
            for (c, name), value in zip(keys, np.exp(x), strict=True)
            if c in ("", cluster)
        }
        made[cluster] = msgspec.structs.replace(constants, **values)
    return made


def _residuals(runs: Sequence[TimedRun], table: Table, columns: slice) -> NDArray[np.float64]:
    rows = [
        np.log(np.divide(stage_times(run, table[run.cluster]), measured(run))[columns])
        for run in runs
    ]
    return np.concatenate(rows)


def _least_squares(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Minimise the sum of soft-L1 losses by Levenberg and Marquardt's method."""
    damping, residual = 1e-2, function(x)
    for _ in range(80):
        weight = 1 / np.sqrt(1 + (residual / _SOFT) ** 2)
        jacobian = np.stack([(function(x + step) - residual) / _STEP for step in _steps(len(x))], 1)
        normal = jacobian.T @ (weight[:, None] * jacobian)
        slope = jacobian.T @ (weight * residual)
        moved = np.clip(
            -np.linalg.solve(normal + damping * (np.eye(len(x)) * normal.diagonal().max()), slope),
            -0.7,
            0.7,
        )
        trial = function(x + moved)
        if _loss(trial) < _loss(residual):
            x, residual, damping = x + moved, trial, damping / 3
        else:
            damping *= 4
        if np.abs(moved).max() < 1e-6 or damping > 1e6:
            break
    return x


_SOFT, _STEP = 0.03, 1e-4


def _loss(residual: NDArray[np.float64]) -> float:
    return float(np.sum(np.sqrt(1 + (residual / _SOFT) ** 2) - 1))


def _steps(count: int) -> NDArray[np.float64]:
    return np.eye(count) * _STEP
