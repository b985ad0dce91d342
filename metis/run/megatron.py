"""A plan in the arguments of Megatron-LM, as far as Megatron can express it."""

from common.architecture import Architecture
from metis.inputs.savings import Recompute
from metis.plan.plans import Plan
from metis.run.unlike import unlike

_HEAD = """\
# Arguments of Megatron-LM for this plan, without data, tokenizer and learning rate:
#     torchrun ... pretrain_gpt.py $(grep -v '^#' megatron-args.txt) ...
"""


def megatron_file(plan: Plan) -> str:
    """Return an argument file; where the plan cannot be expressed it says why instead."""
    obstacles = inexpressible(plan)
    if not obstacles:
        return _HEAD + "\n".join(megatron_arguments(plan)) + "\n"
    lines = ["# Megatron-LM cannot express this plan:", *(f"# - {what}" for what in obstacles)]
    if not _foreign(plan):
        lines.append("# The node scripts beside this file run it as it is.")
    lines.append("# What holds of the model:")
    return "\n".join([*lines, *_model(plan)]) + "\n"


def inexpressible(plan: Plan) -> list[str]:
    """Return what Megatron-LM has no way to say, one sentence each."""
    return [*_unsaid(plan), *unlike(plan)]


RECOMPUTE: dict[Recompute, list[str]] = {
    "none": [],
    "selective": ["--recompute-granularity selective", "--recompute-modules mlp"],
    "full": [
        "--recompute-granularity full",
        "--recompute-method uniform",
        "--recompute-num-layers 1",
    ],
}


def megatron_arguments(plan: Plan) -> list[str]:
    """Return the arguments of a plan without obstacles, one `--name value` an entry."""
    stage = plan.stages[0]
    return [
        *_model(plan),
        f"--global-batch-size {plan.model.global_batch}",
        f"--micro-batch-size {stage.samples[0]}",
        f"--tensor-model-parallel-size {stage.tp}",
        f"--pipeline-model-parallel-size {len(plan.stages)}",
        *_split(_blocks(plan)),
        *RECOMPUTE[stage.recompute],
        *(["--use-distributed-optimizer"] if stage.sharded else []),
    ]


def _foreign(plan: Plan) -> Architecture | None:
    """Return the architecture of a model that is no GPT, and that metis' ranks do not train."""
    found = plan.model.architecture() if plan.model.config else None
    return None if found is None or found.family == "gpt2" else found


def _unsaid(plan: Plan) -> list[str]:
    foreign = _foreign(plan)
    if foreign is None:
        return []
    if foreign.family != "llama":
        return [f"the arguments of the family {foreign.family} are not known here."]
    scaled = foreign.rope.get("rope_type", "default")
    return [f"rope of type {scaled!r} is not written here."] if scaled != "default" else []


def _model(plan: Plan) -> list[str]:
    model, foreign = plan.model, _foreign(plan)
    sizes = [
        f"--num-layers {model.layers - 2}",
        f"--hidden-size {model.hidden_size}",
        f"--num-attention-heads {model.heads}",
        f"--seq-length {model.sequence_length}",
        f"--max-position-embeddings {model.sequence_length}",
    ]
    if foreign is not None:
        return sizes + (_llama(foreign) if foreign.family == "llama" else [])
    return [
        *sizes,
        "--position-embedding-type learned_absolute",
        "--untie-embeddings-and-output-weights",
    ]


def _llama(model: Architecture) -> list[str]:
    """Return what sets the llama family apart from a GPT."""
    return [
        f"--ffn-hidden-size {model.mlp_width}",
        f"--kv-channels {model.head_dim}",
        "--group-query-attention",
        f"--num-query-groups {model.kv_heads}",
        "--swiglu",
        "--normalization RMSNorm",
        "--disable-bias-linear",
        "--position-embedding-type rope",
        f"--rotary-base {model.rope['rope_theta']:g}",
        *([] if model.tied else ["--untie-embeddings-and-output-weights"]),
    ]


def _blocks(plan: Plan) -> list[int]:
    """Return the transformer blocks per stage: its layers but the embedding and the head."""
    blocks = [stage.layers for stage in plan.stages]
    blocks[0] -= 1
    blocks[-1] -= 1
    return blocks


def _split(blocks: list[int]) -> list[str]:
    """Return how the blocks are spread over the stages, in Megatron's shortest words."""
    first, middle, last = blocks[0], set(blocks[1:-1]), blocks[-1]
    if len(set(blocks)) == 1:
        return []
    if len(middle) > 1 or 0 in blocks:
        layout = "|".join("t" * count for count in blocks)
        return [f"--pipeline-model-parallel-layout E{layout}L"]
    found = []
    if middle != {first}:
        found.append(f"--decoder-first-pipeline-num-layers {first}")
    if middle and middle != {last}:
        found.append(f"--decoder-last-pipeline-num-layers {last}")
    return found
