"""Profiles from data sheets beside the measured ones they stand in for."""

import pytest

from common.devices import find
from common.errors import InputError
from helix.inputs.layer import Shape
from helix.inputs.model import known_models
from helix.inputs.profile import shipped_profiles
from helix.inputs.roofline import Gpu, gpu_of, roofline

LLAMA70B = Shape(hidden_size=8192, intermediate_size=28672, heads=64, kv_heads=8)
LLAMA30B = Shape(hidden_size=6656, intermediate_size=17920, heads=52, kv_heads=52)
GPUS = {
    kind: gpu_of(find(name), "bf16")
    for kind, name in (("A100", "A100-40GB"), ("L4", "L4"), ("T4", "T4"))
}


@pytest.mark.parametrize("kind", ["A100", "L4", "T4"])
@pytest.mark.parametrize(("shape", "model"), [(LLAMA70B, "llama2_70b"), (LLAMA30B, "llama1_30b")])
def test_roofline_is_within_a_factor_of_two_of_what_was_measured(
    kind: str, shape: Shape, model: str
) -> None:
    ours, measured = roofline(shape.layer(80), GPUS[kind]), shipped_profiles(model)[kind]
    for batch in (8, 50, 200):
        assert 0.5 < ours.decode(batch) / measured.decode(batch) < 2
    for prompt in (750, 1500, 2000):
        assert 0.5 < ours.prompt(prompt) / measured.prompt(prompt) < 2
    # Weights may take more than the half of the memory that the artifact gives them.
    assert measured.max_layers < ours.max_layers <= 2 * measured.max_layers
    for held in range(2, measured.max_layers + 1):
        ratio = ours.limits[held - 1].kv_entries / measured.limits[held - 1].kv_entries
        assert 0.6 < ratio < 1.7
        assert ours.limits[held - 1].prompt_requests == pytest.approx(
            measured.limits[held - 1].prompt_requests, abs=2
        )


def test_layer_sizes_are_those_of_the_models() -> None:
    for shape, name in ((LLAMA70B, "llama2_70b"), (LLAMA30B, "llama1_30b")):
        model = known_models()[name]
        assert shape.layer_bytes == pytest.approx(model.layer_bytes, rel=0.13)
        assert shape.hidden_size * shape.value_bytes == model.activation_bytes


def test_more_gpus_are_faster_but_not_as_many_times() -> None:
    one, four = (roofline(LLAMA70B.layer(80), GPUS["T4"], n) for n in (1, 4))
    assert 2 < one.decode(10) / four.decode(10) < 4
    assert four.max_layers >= 4 * one.max_layers


def test_a_layer_that_does_not_fit_is_one_sentence() -> None:
    tiny = Gpu(memory_gb=1.5, memory_gb_per_s=100, tflops=5)
    with pytest.raises(InputError, match=r"a layer takes 1\.71 GB"):
        roofline(LLAMA70B.layer(80), tiny)
