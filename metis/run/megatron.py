"""A plan in the arguments of Megatron-LM, as far as Megatron can express it."""

from metis.plan.plans import Plan

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
    lines.append("# The node scripts beside this file run it as it is. What holds of the model:")
    return "\n".join([*lines, *_model(plan)]) + "\n"


def inexpressible(plan: Plan) -> list[str]:
    """Return what Megatron-LM has no way to say, one sentence each."""
    layouts = [f"stage {n} dp{stage.dp} tp{stage.tp}" for n, stage in enumerate(plan.stages)]
    samples = {count for stage in plan.stages for count in stage.samples}
    found = []
    if len({(stage.dp, stage.tp) for stage in plan.stages}) > 1:
        found.append(f"it gives all stages the same degrees; here: {', '.join(layouts)}.")
    elif len(samples) > 1:
        found.append(
            "it gives all replicas the same micro-batch size; here: "
            + ", ".join(f"stage {n} {list(s.samples)}" for n, s in enumerate(plan.stages))
            + "."
        )
    return found


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
    ]


def _model(plan: Plan) -> list[str]:
    model = plan.model
    return [
        f"--num-layers {model.layers - 2}",
        f"--hidden-size {model.hidden_size}",
        f"--num-attention-heads {model.heads}",
        f"--seq-length {model.sequence_length}",
        f"--max-position-embeddings {model.sequence_length}",
        "--position-embedding-type learned_absolute",
        "--untie-embeddings-and-output-weights",
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
