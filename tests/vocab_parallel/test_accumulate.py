"""Weight gradients by apex's fused kernel and by the plain path are the same."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from vocab_parallel.run.accumulate import add_product, by_kernel, fused_kernel, is_for_kernel


def problem(dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((12, 8), (20, 12), (20, 8))
    gradient, grad, x = (torch.randn(size, generator=generator).to(device) for size in sizes)
    return gradient, grad.to(dtype), x.to(dtype)


def apex_on_cpu(x: Tensor, grad: Tensor, gradient: Tensor) -> None:
    """What apex's kernel computes: float32 products of 16-bit numbers, added in place."""
    assert x.is_contiguous()
    assert grad.is_contiguous()
    gradient += grad.float().T @ x.float()


def test_the_kernels_arguments_are_in_apexs_order() -> None:
    gradient, grad, x = problem(torch.bfloat16)
    plain = gradient.clone()
    add_product(plain, grad, x)
    by_kernel(apex_on_cpu, gradient, grad, x)
    exact = problem(torch.bfloat16)[0].double() + grad.double().T @ x.double()
    rounded = problem(torch.bfloat16)[0] + grad.T @ x
    for found in (gradient, plain):
        assert (found - exact).norm() < (rounded - exact).norm() / 100


def test_on_a_cpu_and_in_full_precision_the_path_is_plain() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        gradient, grad, _ = problem(dtype)
        assert not is_for_kernel(gradient, grad)


def test_the_kernel_is_found_where_apex_is(monkeypatch: pytest.MonkeyPatch) -> None:
    name, fused_kernel_ = "fused_weight_gradient_mlp_cuda", fused_kernel.__wrapped__
    monkeypatch.setitem(sys.modules, name, None)
    assert fused_kernel_() is None
    apex = SimpleNamespace(wgrad_gemm_accum_fp32=apex_on_cpu)
    monkeypatch.setitem(sys.modules, name, apex)
    assert fused_kernel_() is apex_on_cpu


@pytest.mark.skipif(
    not torch.cuda.is_available() or fused_kernel() is None,
    reason="apex's fused_weight_gradient_mlp_cuda and a GPU are not there",
)
def test_apex_and_the_plain_path_agree() -> None:
    gradient, grad, x = problem(torch.bfloat16, "cuda")
    assert is_for_kernel(gradient, grad)
    plain = gradient + grad.T @ x
    add_product(gradient, grad, x)
    torch.testing.assert_close(gradient, plain, rtol=2e-2, atol=5e-2)
