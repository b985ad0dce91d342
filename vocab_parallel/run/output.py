"""The sharded output layer: S, T and what lies between them (paper §4, Algorithms 1 and 2).

Explicit tensor code without autograd. Statistics are float32 (float64 where X is), products run in
X's own type. Shape suffixes: N tokens, H hidden, V the rows of the vocabulary that this rank holds,
P ranks, K statistics.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vocab_parallel.run.accumulate import add_product

IGNORED = -100
"""Label of a token without loss."""

Algorithm = Literal["vocab-1", "vocab-2", "vocab-2-published"]
Keep = Literal["softmax", "logits", "nothing"]


class Shard(NamedTuple):
    """This rank's rows of the output matrix: `first`, `first` + 1, ...; `real` are no padding.

    `vocabulary` is the number of real rows of all ranks.
    """

    weight: Tensor  # V, H
    first: int
    real: int
    vocabulary: int


class Rules(NamedTuple):
    """How S and T compute.

    `block`: tokens at a time, 0 for all; `keep`: what S leaves for T; `kernel`: who does S's
    elementwise part (triton: not for float64).
    """

    algorithm: Algorithm = "vocab-1"
    smoothing: float = 0.0
    block: int = 0
    keep: Keep = "softmax"
    kernel: Literal["torch", "triton"] = "torch"
    softcap: float = 0.0
    """Logits z are softcap x tanh(z / softcap); 0: as they are. T then needs them again, so that S
    keeps them where it would keep the softmax."""


class Labels(NamedTuple):
    """A micro-batch's labels as this rank sees them; `gamma` is dL / dloss of every token."""

    row: Tensor  # N
    """Row of the shard, 0 where another rank owns the label."""
    owned: Tensor  # N
    valid: Tensor  # N
    gamma: Tensor  # N


class Passed(NamedTuple):
    """What a rank keeps from S for T. `local` are the statistics as they were sent."""

    local: Tensor  # K, N
    kept: tuple[Tensor, ...]
    product: Tensor | None = None  # N, H
    """Algorithm 2: (P' - target) W, or P' W as published."""
    target: Tensor | None = None  # N, H
    """Algorithm 2: the target's rows of W."""


class Combined(NamedTuple):
    """What all ranks' statistics give."""

    maximum: Tensor  # N
    total: Tensor  # N
    share: Tensor  # N
    """c: this shard's part of the softmax's denominator."""
    others: Tensor  # N
    """1 - c, summed from the other ranks' parts, so exact where c is nearly 1."""
    loss: Tensor  # N


def shard_labels(labels_N: Tensor, gamma_N: Tensor, shard: Shard) -> Labels:
    """Return labels relative to a shard; ignored tokens get no gradient."""
    row_N = labels_N - shard.first
    owned_N = (row_N >= 0) & (row_N < shard.real)
    valid_N = labels_N != IGNORED
    return Labels(row_N.where(owned_N, 0), owned_N, valid_N, gamma_N.where(valid_N, 0))


def s_pass(x_NH: Tensor, shard: Shard, labels: Labels, rules: Rules) -> Passed:
    """Run S: local maximum, sum and label logit of every token; Algorithm 2 also its products."""
    parts = []
    for x_BH, part in _blocks(x_NH, labels, rules.block):
        if rules.kernel == "triton":
            parts.append(_s_block_triton(x_BH @ shard.weight.T, shard, part, rules))
            continue
        logits_BV = logits(x_BH, shard, rules.softcap)
        parts.append(_s_block(logits_BV, _maximum(logits_BV), shard, part, rules))
        del logits_BV  # before the next block's are made
    return _joined(parts)


def logits(x_NH: Tensor, shard: Shard, softcap: float = 0.0) -> Tensor:
    """Return logits_NV in the statistics' type; padded rows have -inf and so no probability."""
    logits_NV = (x_NH @ shard.weight.T).to(statistics_type(x_NH.dtype))
    if softcap:
        logits_NV = logits_NV.div_(softcap).tanh_().mul_(softcap)
    logits_NV[:, shard.real :] = -torch.inf
    return logits_NV


def slope(logits_NV: Tensor, shard: Shard, softcap: float) -> Tensor:
    """Return how capped logits change with those before: 1 - (z / softcap)^2; 0 in padded rows."""
    slope_NV = 1 - (logits_NV / softcap).square_()
    slope_NV[:, shard.real :] = 0
    return slope_NV


def s_first(x_NH: Tensor, shard: Shard, softcap: float = 0.0) -> tuple[Tensor, Tensor]:
    """Run the first part of the three-barrier S: the logits and their local maximum."""
    logits_NV = logits(x_NH, shard, softcap)
    return logits_NV, _maximum(logits_NV)


def s_second(
    logits_NV: Tensor, maximum_N: Tensor, shard: Shard, labels: Labels, rules: Rules
) -> Passed:
    """Run its second part: exponentials and sum, relative to the maximum over all ranks."""
    blocks = _blocks(logits_NV, labels, rules.block)
    maxima = maximum_N.split(rules.block or max(1, len(maximum_N)))
    return _joined(
        [
            _s_block(logits_BV, maximum_B, shard, part, rules)
            for (logits_BV, part), maximum_B in zip(blocks, maxima, strict=True)
        ]
    )


def combine(
    gathered_PKN: Tensor, rank: int, shard: Shard, labels: Labels, rules: Rules
) -> Combined:
    """Return maximum, sum and loss over all ranks, and this rank's share of the sum."""
    maximum_PN, sum_PN, label_PN, every_PN = gathered_PKN.unbind(1)
    maximum_N = maximum_PN.amax(0)
    parts_PN = sum_PN * (maximum_PN - maximum_N).exp()
    total_N = parts_PN.sum(0)
    others_N = (parts_PN[:rank].sum(0) + parts_PN[rank + 1 :].sum(0)) / total_N
    # The label's logit is shifted by the maximum before anything is added: both may be large.
    loss_N = total_N.log() - (label_PN.sum(0) - maximum_N)
    if rules.smoothing:
        mean_N = every_PN.sum(0) / shard.vocabulary
        spread_N = total_N.log() - (mean_N - maximum_N)
        loss_N = (1 - rules.smoothing) * loss_N + rules.smoothing * spread_N
    return Combined(
        maximum=maximum_N,
        total=total_N,
        share=parts_PN[rank] / total_N,
        others=others_N,
        loss=loss_N.where(labels.valid, 0),
    )


def early_gradient(passed: Passed, found: Combined, labels: Labels, rules: Rules) -> Tensor:
    """Return Algorithm 2's part of dX, to be summed over ranks; needs no T.

    Stable: c (P' - target) W + (c - 1) target W. As published: c P' W - target W, each rounded to
    X's type before they are subtracted, which cancels where a label is predicted with certainty.
    """
    assert passed.product is not None
    assert passed.target is not None
    product_NH, target_NH = passed.product, passed.target
    kind, exact = product_NH.dtype, found.share.dtype
    share_N1, gamma_N1 = found.share[:, None], labels.gamma[:, None].to(exact)
    if rules.algorithm == "vocab-2-published":
        gradient_NH = ((share_N1 * product_NH).to(kind) - target_NH).to(exact)
    else:
        gradient_NH = share_N1 * product_NH - found.others[:, None] * target_NH
    return (gradient_NH * gamma_N1).to(kind)


def t_pass(
    x_NH: Tensor,
    passed: Passed,
    found: Combined,
    shard: Shard,
    labels: Labels,
    rules: Rules,
    *,
    into: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Run T: this shard's dW_VH and, in Algorithm 1, its part of dX to be summed over ranks.

    dW is added to `into` where that is given. What S kept is overwritten.
    """
    weight_VH, kind = shard.weight, x_NH.dtype
    gradient_VH = into
    if gradient_VH is None:
        gradient_VH = torch.zeros_like(weight_VH, dtype=statistics_type(kind))
    begin = 0
    dx_NH = torch.empty_like(x_NH) if rules.algorithm == "vocab-1" else None
    for number, (x_BH, part) in enumerate(_blocks(x_NH, labels, rules.block)):
        end = begin + len(x_BH)
        softmax_BV, slope_BV = _softmax(
            x_BH, passed, number, found, slice(begin, end), shard, rules
        )
        _subtract_target(softmax_BV, part, shard, rules)
        if slope_BV is not None:
            softmax_BV.mul_(slope_BV)
        delta_BV = softmax_BV.mul_(part.gamma[:, None].to(softmax_BV.dtype)).to(kind)
        add_product(gradient_VH, delta_BV, x_BH)
        if dx_NH is not None:
            torch.mm(delta_BV, weight_VH, out=dx_NH[begin:end])
        begin = end
        del softmax_BV, slope_BV, delta_BV  # before the next block is made
    return gradient_VH, dx_NH


def statistics_type(kind: torch.dtype) -> torch.dtype:
    """Return the type of maxima, sums and losses for activations of a type."""
    return torch.float64 if kind == torch.float64 else torch.float32


def _s_block(
    logits_NV: Tensor, maximum_N: Tensor, shard: Shard, labels: Labels, rules: Rules
) -> Passed:
    """Return one block's statistics and what T and Algorithm 2 need of it."""
    label_N = logits_NV.gather(1, labels.row[:, None])[:, 0].where(labels.owned, 0)
    every_N = torch.zeros_like(label_N)
    if rules.smoothing:
        every_N = logits_NV[:, : shard.real].sum(1)
    # A shard that is all padding has the maximum -inf: shifted by 0 its exponentials are all 0.
    shift_N1 = maximum_N.where(maximum_N > -torch.inf, 0)[:, None]
    again = rules.softcap > 0 or rules.keep == "logits"  # whether logits are needed any more
    softmax_NV = (logits_NV - shift_N1 if again else logits_NV.sub_(shift_N1)).exp_()
    sum_N = softmax_NV.sum(1)
    softmax_NV /= sum_N.where(sum_N > 0, 1)[:, None]
    statistics_KN = torch.stack([maximum_N, sum_N, label_N, every_N])
    return _passed(statistics_KN, softmax_NV, logits_NV, shard, labels, rules)


def _s_block_triton(logits_NV: Tensor, shard: Shard, labels: Labels, rules: Rules) -> Passed:
    """Do the same by the kernel, from logits in their own type."""
    from vocab_parallel.run.softmax import local_softmax

    statistics_KN, softmax_NV = local_softmax(logits_NV, labels.row, labels.owned, shard.real)
    if rules.keep == "logits":
        logits_NV[:, shard.real :] = -torch.inf
    return _passed(statistics_KN, softmax_NV, logits_NV, shard, labels, rules)


def _passed(
    statistics_KN: Tensor,
    softmax_NV: Tensor,
    logits_NV: Tensor,
    shard: Shard,
    labels: Labels,
    rules: Rules,
) -> Passed:
    """Return what is sent, what T needs, and Algorithm 2's products."""
    kind = shard.weight.dtype
    product_NH = target_NH = None
    if rules.algorithm != "vocab-1":
        stable = rules.algorithm == "vocab-2"
        rounded_NV = _less_target(softmax_NV, labels, shard, rules) if stable else softmax_NV
        target_NH = _target_rows(labels, shard, rules)
        if rules.softcap:
            slope_NV = slope(logits_NV, shard, rules.softcap)
            rounded_NV = rounded_NV * slope_NV
            label_N1 = slope_NV.gather(1, labels.row[:, None])
            target_NH = (target_NH * label_N1).to(kind)
        product_NH = rounded_NV.to(kind) @ shard.weight
    softmax_NV = logits_NV if rules.softcap else softmax_NV
    kept = {"softmax": (softmax_NV,), "logits": (logits_NV.to(kind),), "nothing": ()}[rules.keep]
    return Passed(statistics_KN, kept, product_NH, target_NH)


def _softmax(
    x_BH: Tensor,
    passed: Passed,
    number: int,
    found: Combined,
    tokens: slice,
    shard: Shard,
    rules: Rules,
) -> tuple[Tensor, Tensor | None]:
    """Return the true softmax of a block from what S kept: rescaled, or computed again.

    With it the slope of capped logits; None where they are not capped.
    """
    if rules.keep == "softmax" and not rules.softcap:
        return passed.kept[number].mul_(found.share[tokens, None]), None
    if rules.keep == "nothing":
        again_BV = logits(x_BH, shard, rules.softcap)
    else:
        again_BV = passed.kept[number].to(found.maximum.dtype)
    capped = slope(again_BV, shard, rules.softcap) if rules.softcap else None
    own = rules.keep == "nothing"  # what S kept may be of another type, but is used up as well
    shifted_BV = (
        again_BV.sub_(found.maximum[tokens, None])
        if own
        else (again_BV - found.maximum[tokens, None])
    )
    return shifted_BV.exp_().div_(found.total[tokens, None]), capped


def _less_target(softmax_NV: Tensor, labels: Labels, shard: Shard, rules: Rules) -> Tensor:
    """Return the softmax less what it should be; in place where T does not need it."""
    less_NV = softmax_NV if rules.keep == "nothing" else softmax_NV.clone()
    _subtract_target(less_NV, labels, shard, rules)
    return less_NV


def _subtract_target(softmax_NV: Tensor, labels: Labels, shard: Shard, rules: Rules) -> None:
    """Subtract in place what the softmax should be: 1 at the label, smoothed over real rows."""
    if rules.smoothing:
        softmax_NV[:, : shard.real] -= rules.smoothing / shard.vocabulary
    sure_N = labels.owned.to(softmax_NV.dtype) * (rules.smoothing - 1)
    softmax_NV.scatter_add_(1, labels.row[:, None], sure_N[:, None])


def _target_rows(labels: Labels, shard: Shard, rules: Rules) -> Tensor:
    """Return target W: a gather of the labels' rows, not a product."""
    weight_VH = shard.weight
    rows_NH = weight_VH[labels.row] * labels.owned[:, None]
    if rules.smoothing:
        mean_H = weight_VH[: shard.real].sum(0) / shard.vocabulary
        rows_NH = (1 - rules.smoothing) * rows_NH + rules.smoothing * mean_H
    return rows_NH


def _maximum(logits_NV: Tensor) -> Tensor:
    return logits_NV.amax(1)


def _blocks(x_NH: Tensor, labels: Labels, block: int) -> list[tuple[Tensor, Labels]]:
    size = block or max(1, len(x_NH))
    columns = [column.split(size) for column in labels]
    parts = zip(x_NH.split(size), *columns, strict=True)
    return [(x_BH, Labels(*part)) for x_BH, *part in parts]


def _joined(parts: list[Passed]) -> Passed:
    products = [part.product for part in parts if part.product is not None]
    targets = [part.target for part in parts if part.target is not None]
    return Passed(
        torch.cat([part.local for part in parts], 1),
        tuple(kept for part in parts for kept in part.kept),
        torch.cat(products) if products else None,
        torch.cat(targets) if targets else None,
    )
