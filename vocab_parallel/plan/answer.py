"""The verb `plan`: which method to use, what every rank will see, and its list of passes."""

import msgspec

from common.artifact import Ask, Case, Done
from common.case import case_id
from vocab_parallel.inputs.experiment import Experiment, Training
from vocab_parallel.plan.choose import choose, compare
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.plan.show import (
    band_text,
    choices_table,
    ranks_table,
    schedule_text,
    told,
    without_plan,
)
from vocab_parallel.simulate.memory import GIB
from vocab_parallel.simulate.predict import metrics, predict


def plan(case: Case, ask: Ask) -> Done:
    """Compare all methods (`auto`) or plan by one; InputError where none has a plan that fits."""
    experiment: Experiment = case.experiment
    shows: tuple[object, ...] = ()
    doubt = ""
    if experiment.pipeline.method == "auto":
        choices = compare(experiment)
        found, prediction = choose(experiment, choices)
        shows = (choices_table(experiment, choices), *without_plan(choices))
        doubt = f"; {band_text(choices)}"
    else:
        found = make_plan(experiment, experiment.pipeline.method)
        prediction = predict(found)
    return Done(
        summary=f"{told(found)}: {prediction.iteration_s:.3f} s per iteration, MFU"
        f" {100 * prediction.mfu:.1f} %, at most {max(prediction.needed) / GIB:.1f} of"
        f" {found.machine.memory_gib:g} GiB a rank (reserve included){doubt}",
        metrics=metrics(found, prediction),
        plan=found,
        axes={"chosen": found.method},
        shows=(*shows, ranks_table(found, prediction), schedule_text(found)),
        value=prediction,
    )


def question(experiment: Experiment, seed: int) -> str:
    """Return what identifies the question that a plan answers: all but how to train.

    Of that what memory and the replicas' sums depend on belongs to it.
    """
    training = experiment.training
    kept = Training(
        dtype=training.dtype,
        gradients=training.gradients,
        keep=training.keep,
        block=training.block,
        recompute=training.recompute,
        recompute_layers=training.recompute_layers,
        data_parallel=training.data_parallel,
        shard_optimizer=training.shard_optimizer,
    )
    asked = msgspec.structs.replace(experiment, training=kept, about="")
    return case_id({"experiment": msgspec.to_builtins(asked)})
