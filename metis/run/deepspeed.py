"""A plan as a config of DeepSpeed, as far as DeepSpeed can express it.

Its pipeline shares a list of entries out evenly (partition "uniform"), so that an uneven split is
said by a list with an entry for each stage, and an even one by an entry for each layer. Ranks of
its pipeline are laid out as the plan's: stages, in them replicas.
"""

import msgspec

from metis.inputs.analytic import Dtype
from metis.plan.plans import Plan
from metis.run.unlike import unlike

FILE, LIST = "deepspeed.json", "deepspeed-layers.json"


def obstacles(plan: Plan, dtype: Dtype) -> list[str]:
    """Return what DeepSpeed's config has no way to say, one sentence each."""
    found, stage, piped = unlike(plan), plan.stages[0], len(plan.stages) > 1
    if piped and stage.tp > 1:
        found.append(
            f"its pipeline leaves tensor groups to the model's own code; here: tp{stage.tp}"
            " (search.max_tp = 1 leaves them out)."
        )
    if any(s.recompute == "selective" for s in plan.stages):
        found.append(
            "its config says no recomputation of MLPs alone; here: selective"
            ' (search.recompute = ["none", "full"] leaves that out).'
        )
    elif stage.recompute == "full" and not piped:
        found.append(
            "without a pipeline the model's own code says what is recomputed; here: full"
            ' (search.recompute = ["none"] leaves it out).'
        )
    elif stage.recompute == "full" and not _even(plan):
        layers = "|".join(str(s.layers) for s in plan.stages)
        found.append(
            f"it recomputes layer by layer only where it shares layers out evenly; here: {layers}"
            ' (search.recompute = ["none"] leaves it out).'
        )
    return found


def _even(plan: Plan) -> bool:
    """Say whether its pipeline splits the layers so: evenly, what is left over in front."""
    each, more = divmod(plan.model.layers, len(plan.stages))
    return all(stage.layers == each + (n < more) for n, stage in enumerate(plan.stages))


def content(plan: Plan, dtype: Dtype) -> str:
    """Return the config of a plan without obstacles."""
    stage, stages = plan.stages[0], len(plan.stages)
    config: dict[str, object] = {
        "train_batch_size": plan.model.global_batch,
        "train_micro_batch_size_per_gpu": stage.samples[0],
        "gradient_accumulation_steps": plan.batches,
        "zero_optimization": {"stage": 1 if stage.sharded else 0},
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
    }
    if stages > 1:
        config["pipeline"] = {
            "stages": stages,
            "partition": "uniform",
            "activation_checkpoint_interval": int(stage.recompute == "full"),
        }
    elif stage.tp > 1:
        config["tensor_parallel"] = {"autotp_size": stage.tp}
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode() + "\n"


def entries(plan: Plan) -> list[list[int]]:
    """Return the layers of every entry of the list that the pipeline is made of: [first, end)."""
    if _even(plan):
        return [[layer, layer + 1] for layer in range(plan.model.layers)]
    return [[stage.first_layer, stage.end_layer] for stage in plan.stages]


def said(plan: Plan) -> str:
    """Return what the training script has to say itself."""
    if len(plan.stages) == 1:
        return "deepspeed: pass the config to deepspeed.initialize"
    what = "layer" if _even(plan) else "stage"
    return (
        f"deepspeed: PipelineModule(layers, num_stages={len(plan.stages)},"
        f" partition_method='uniform') with an entry for each {what} ({LIST}: the layers of each)"
    )
