"""The same plans over NCCL on GPUs."""

import pytest

from metis.inputs.profile import ProfileKey, read_profiles
from metis.run import Training, launch
from metis.run.measure import measure
from tests.gpu.conftest import Told
from tests.metis.toy_plans import MODEL, make_plan

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]

PLANS = {
    "one rank": [(1, 1, 5, (4,))],
    "pp2": [(1, 1, 2, (4,)), (1, 1, 3, (4,))],
    "tp2": [(1, 2, 5, (4,))],
    "dp2 with 3+1 samples": [(2, 1, 5, (3, 1))],
    "dp2 then tp2": [(2, 1, 3, (2, 2)), (1, 2, 2, (4,))],
}


@pytest.fixture(scope="module")
def backend(cuda: bool) -> str:
    return "nccl" if cuda else "gloo"


@pytest.mark.parametrize("name", PLANS)
def test_losses_equal_one_cpu_process(name, told: Told, backend, devices: int):
    plan = make_plan(PLANS[name])
    if devices < plan.world_size:
        pytest.skip(f"needs {plan.world_size} GPUs, {devices} are here")
    training = Training(dtype="float64", timeout_s=90)
    cpu = launch(make_plan(PLANS["one rank"]), backend="gloo", steps=4, training=training)
    here = launch(plan, backend=backend, steps=4, training=training)
    told("loss after four steps", here.losses[-1], cpu.losses[-1])
    assert here.losses == pytest.approx(cpu.losses, rel=1e-9)
    assert here.gradient_norms == pytest.approx(cpu.gradient_norms, rel=1e-9)
    for number, stage in enumerate(here.stages):
        told(f"stage {number}, ms", stage.measured_ms)
        assert stage.measured_ms > 0
        assert stage.peak_memory_mb or backend == "gloo"


def test_this_device_is_measured_into_a_valid_profile(tmp_path, backend):
    measure(MODEL, tmp_path, device_type="GPU", batch_sizes=(1, 4), backend=backend)
    entry = read_profiles(tmp_path, layers=MODEL.layers)[ProfileKey("GPU", 1, 4)]
    assert min(entry.layer_ms) > 0
    assert min(entry.memory_mb) > 0
    assert entry.sync_ms > 0
