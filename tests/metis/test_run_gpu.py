"""The same plans over NCCL on CUDA devices."""

import pytest
import torch

from metis.inputs.profile import ProfileKey, read_profiles
from metis.measure import measure
from metis.run import Training, launch
from tests.metis.toy_plans import MODEL, make_plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

PLANS = {
    "one rank": [(1, 1, 5, (4,))],
    "pp2": [(1, 1, 2, (4,)), (1, 1, 3, (4,))],
    "tp2": [(1, 2, 5, (4,))],
    "dp2 with 3+1 samples": [(2, 1, 5, (3, 1))],
    "dp2 then tp2": [(2, 1, 3, (2, 2)), (1, 2, 2, (4,))],
}


@pytest.mark.parametrize("name", PLANS)
def test_losses_over_nccl_equal_one_cpu_process(name):
    plan = make_plan(PLANS[name])
    if torch.cuda.device_count() < plan.world_size:
        pytest.skip(f"{name} needs {plan.world_size} GPUs")
    training = Training(dtype="float64", timeout_s=90)
    cpu = launch(make_plan(PLANS["one rank"]), steps=4, training=training)
    gpu = launch(plan, backend="nccl", steps=4, training=training)
    assert gpu.losses == pytest.approx(cpu.losses, rel=1e-9)
    assert gpu.gradient_norms == pytest.approx(cpu.gradient_norms, rel=1e-9)
    for stage in gpu.stages:
        assert stage.measured_ms > 0
        assert stage.peak_memory_mb


def test_a_gpu_is_measured_into_a_valid_profile(tmp_path):
    measure(MODEL, tmp_path, device_type="GPU", batch_sizes=(1, 4), backend="nccl")
    entry = read_profiles(tmp_path, layers=MODEL.layers)[ProfileKey("GPU", 1, 4)]
    assert min(entry.layer_ms) > 0
    assert min(entry.memory_mb) > 0
    assert entry.sync_ms > 0
