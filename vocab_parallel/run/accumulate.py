"""Weight gradients are added up in the store's type: by apex's fused kernel where it is there.

apex's `fused_weight_gradient_mlp_cuda` (Megatron calls it gradient accumulation fusion) multiplies
16-bit tensors and adds the float32 product, without rounding it or storing it in between. The plain
path needs nothing and does the same, but on a GPU without apex, where it rounds each product of
16-bit tensors to their type.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor], None]
"""(x_KI, grad_KO, gradient_OI): adds grad^T x."""


def add_product(gradient_OI: Tensor, grad_KO: Tensor, x_KI: Tensor) -> None:
    """Add grad^T x to a gradient, in place."""
    kernel = fused_kernel() if is_for_kernel(gradient_OI, grad_KO) else None
    if kernel is not None:
        by_kernel(kernel, gradient_OI, grad_KO, x_KI)
    elif gradient_OI.is_cuda and gradient_OI.dtype != grad_KO.dtype:
        gradient_OI += grad_KO.T @ x_KI  # float32 products would take many times as long there
    else:
        kind = gradient_OI.dtype
        gradient_OI.addmm_(grad_KO.T.to(kind), x_KI.to(kind))


def by_kernel(kernel: Kernel, gradient_OI: Tensor, grad_KO: Tensor, x_KI: Tensor) -> None:
    """Add grad^T x by a kernel that takes its arguments as apex's does."""
    kernel(x_KI.contiguous(), grad_KO.contiguous(), gradient_OI)


def is_for_kernel(gradient_OI: Tensor, grad_KO: Tensor) -> bool:
    """Say whether the kernel takes such tensors: 16 bit into float32, on a GPU."""
    kinds = gradient_OI.dtype == torch.float32 and grad_KO.dtype in (torch.bfloat16, torch.float16)
    return kinds and gradient_OI.is_cuda and gradient_OI.is_contiguous()


@cache
def fused_kernel() -> Kernel | None:
    """Return apex's kernel, None where apex is not built with it."""
    try:
        return import_module("fused_weight_gradient_mlp_cuda").wgrad_gemm_accum_fp32
    except ImportError:
        return None
