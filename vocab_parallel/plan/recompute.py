"""Which layers of a stage the backward pass computes again from their inputs, and in what groups.

Full activation recomputation (Korthikanti et al. 2022, §5; Megatron-LM's methods uniform and
block, torchtitan's every n-th layer): of a group of layers only the input is kept, and B runs the
group's forward pass once more.
"""

from vocab_parallel.inputs.experiment import Recompute


def recomputed_groups(recompute: Recompute, each: int, layers: range) -> list[range]:
    """Return the groups of a stage's layers that are computed again, in order.

    `uniform`: all layers in groups of `each`; `block`: the first `each` layers one by one;
    `every`: the last of each `each` layers.
    """
    if recompute == "none":
        return []
    if recompute == "block":
        return [layers[place : place + 1] for place in range(min(each, len(layers)))]
    if recompute == "every":
        return [layers[place : place + 1] for place in range(each - 1, len(layers), each)]
    return [layers[place : place + each] for place in range(0, len(layers), each)]
