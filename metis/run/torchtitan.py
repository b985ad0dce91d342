"""A plan as a job config of torchtitan, as far as torchtitan can express it.

Its fully sharded replicas keep whole weights from forward to backward pass where they are told
never to reshard, and share main weights and moments out: the plan's sharded optimizer. Its ranks
are laid out as the plan's: stages, in them replicas, in them slices. Keys are those of torchtitan's
job config of 2025 (torchtitan/config/job_config.py).
"""

import tomli_w

from common.architecture import Architecture
from common.devices import find
from common.errors import InputError
from common.model import read
from metis.inputs.analytic import Dtype
from metis.inputs.model import ENDS, Model
from metis.plan.plans import Plan
from metis.run.unlike import unlike

FILE = "torchtitan.toml"

FLAVORS = {
    "Llama-3-8B": ("llama3", "8B"),
    "Llama-3-70B": ("llama3", "70B"),
    "Llama-3.1-405B": ("llama3", "405B"),
    "Qwen3-0.6B": ("qwen3", "0.6B"),
    "Qwen3-8B": ("qwen3", "8B"),
    "Qwen3-32B": ("qwen3", "32B"),
}
"""torchtitan's model and flavor by the catalogue's model."""

SIZES = ("family", "layers", "hidden", "heads", "kv_heads", "head_dim", "mlp_width", "vocabulary")

_HEAD = """\
# Job config of torchtitan for this plan, without data, tokenizer and learning rate. Start it on
# every node with its count of devices; node ranks are those of the plan's node scripts.
"""


def obstacles(plan: Plan, dtype: Dtype) -> list[str]:
    """Return what torchtitan has no way to say, one sentence each."""
    found, stage = unlike(plan), plan.stages[0]
    if flavor(plan.model) is None:
        found.append(
            f"it has no flavor of {plan.model.config or plan.model.name}'s sizes here (known:"
            f" {', '.join(FLAVORS)})."
        )
    if any(s.recompute == "selective" for s in plan.stages):
        found.append(
            'it does not recompute MLPs alone; here: selective (search.recompute = ["none",'
            ' "full"] leaves that out).'
        )
    alone = len(plan.stages) == 1 and stage.tp == 1
    if stage.dp > 1 and not stage.sharded and not alone:
        found.append(
            "replicas that each hold the whole optimizer have neither pipeline nor tensor groups"
            f" with it; here: dp{stage.dp} (search.optimizer = 'sharded' shares it out)."
        )
    if dtype == "float16":
        found += [
            f"it trains in bfloat16 or float32, and {device} knows no bfloat16."
            for device in sorted({kind for s in plan.stages for kind in s.device_types})
            if not _knows_bfloat16(device)
        ]
    return found


def _knows_bfloat16(device: str) -> bool:
    """Say whether a device computes in bfloat16; one without a data sheet counts as a new one."""
    try:
        sheet = find(device)
    except InputError:
        return True
    return "bf16" in sheet.tflops


def flavor(model: Model) -> tuple[str, str] | None:
    """Return torchtitan's name and flavor of a model; None where it has none of these sizes."""
    if not model.config:
        return None
    mine = _sizes(model.architecture())
    return next((f for name, f in FLAVORS.items() if _sizes(read(name)) == mine), None)


def _sizes(a: Architecture) -> tuple[object, ...]:
    return (*(getattr(a, name) for name in SIZES), a.tied)


def content(plan: Plan, dtype: Dtype) -> str:
    """Return the job config of a plan without obstacles."""
    stage, stages, known = plan.stages[0], len(plan.stages), flavor(plan.model)
    assert known is not None, "a model without flavor is an obstacle"
    micro = stage.samples[0]
    local = micro * plan.batches if stages > 1 else micro
    shards = stage.dp if stage.sharded else 1
    parallelism: dict[str, object] = {
        "data_parallel_replicate_degree": stage.dp // shards,
        "data_parallel_shard_degree": shards,
        "fsdp_reshard_after_forward": "never",
        "tensor_parallel_degree": stage.tp,
        "pipeline_parallel_degree": stages,
    }
    if stages > 1:
        parallelism |= {
            "pipeline_parallel_schedule": "1F1B",
            "pipeline_parallel_microbatch_size": micro,
        }
        if not _usual(plan):
            parallelism["module_fqns_per_model_part"] = modules(plan)
    tables = {
        "model": {"name": known[0], "flavor": known[1]},
        "training": {
            "local_batch_size": local,
            "global_batch_size": plan.model.global_batch,
            "seq_len": plan.model.sequence_length,
            "mixed_precision_param": "float32" if dtype == "float32" else "bfloat16",
        },
        "parallelism": parallelism,
        "activation_checkpoint": {"mode": stage.recompute},
    }
    return _HEAD + tomli_w.dumps(tables)


def _usual(plan: Plan) -> bool:
    """Say whether torchtitan splits so by itself: all layers evenly, what is left over in front."""
    each, more = divmod(plan.model.layers, len(plan.stages))
    return all(stage.layers == each + (n < more) for n, stage in enumerate(plan.stages))


def modules(plan: Plan) -> list[list[str]]:
    """Return the names of the modules of every stage."""
    last = plan.model.layers - 1
    names = ["tok_embeddings", *(f"layers.{i}" for i in range(plan.model.layers - ENDS))]
    parts = [names[stage.first_layer : min(stage.end_layer, last)] for stage in plan.stages]
    return [*parts[:-1], [*parts[-1], "norm", "output"]]
