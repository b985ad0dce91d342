"""Serving many models on GPUs."""

import pytest

from tests.gpu.conftest import Ask, Told

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


def test_models_are_served_and_equal_one_process(ask: Ask, told: Told, cuda: bool, devices: int):
    """Outputs are compared with one process before the service is ready; books are balanced."""
    here = min(devices, 2)
    sets = ("--set", "traffic.duration_s=20", "--set", f"cluster.devices={here}")
    found = ask("beta", "run", "serve", "--backend", "nccl" if cuda else "gloo", *sets,
                limit_s=290)  # fmt: skip
    told("largest difference of outputs", found["outputs.difference"])
    told("served in time, share", found["attainment"], found.get("simulated.fast", ""))
    assert found["books.balanced"] == 1
    assert found["outputs.difference"] < (5e-2 if cuda else 1e-4)
