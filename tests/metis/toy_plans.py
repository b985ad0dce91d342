"""Small plans for the tests that run them."""

from metis.inputs.model import Model
from metis.plan.plans import Plan, Stage

MODEL = Model(layers=5, hidden_size=16, sequence_length=6, vocabulary=11, heads=4, global_batch=8)


def make_plan(stages, *, batches=2, model=MODEL, experiment="toy"):
    """A plan of stages given as (dp, tp, layers, samples per replica[, device types])."""
    rank = layer = 0
    made = []
    for dp, tp, layers, samples, *types in stages:
        made.append(
            Stage(
                first_rank=rank,
                device_types=types[0] if types else ("CPU",) * (dp * tp),
                dp=dp,
                tp=tp,
                first_layer=layer,
                end_layer=layer + layers,
                samples=samples,
                execution_ms=7.0,
            )
        )
        rank, layer = rank + dp * tp, layer + layers
    return Plan(
        experiment=experiment,
        method="optimal",
        mode="strict",
        model=model,
        node_sequence=tuple(dict.fromkeys(kind for stage in made for kind in stage.device_types)),
        batches=batches,
        stages=tuple(made),
        cost_ms=42.0,
    )
