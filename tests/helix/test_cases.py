"""Small experiments as users write them, and what is right about each."""

from pathlib import Path

import pytest

import helix
from helix.inputs.profile import Profile
from helix.plan.plans import Plan

CASES = Path(__file__).with_name("cases")


def planned(name: str) -> Plan:
    return helix.plan(helix.load(CASES / f"{name}.toml"))


def weights_gb(plan: Plan) -> list[float]:
    return [one.weights / 1e9 for one in plan.held]


def profile_of(name: str, kind: str) -> Profile:
    experiment = helix.load(CASES / f"{name}.toml")
    return experiment.load_profiles(experiment.cluster.load())[kind]


def test_llama_3_8b_in_16_bit_fits_one_l4_of_24_gb() -> None:
    plan = planned("p_8b_l4")
    assert plan.services[0].intervals == ((0, 32),)
    assert weights_gb(plan) == [pytest.approx(13.96, abs=0.005)]
    # 24 GB x 0.9 less 32 layers of 436,207,616 bytes, by 32 x 4096 bytes a token, in blocks of 16.
    assert plan.kv_tokens == int((21.6e9 - 32 * 436_207_616) / (32 * 4096)) // 16 * 16 == 58_288
    assert plan.profile == "analytic profile"


@pytest.mark.slow
def test_llama_70b_fits_two_a100_of_80_gb() -> None:
    plan = planned("p_70b_2xa100")
    assert plan.services[0].intervals == ((0, 80),)
    assert weights_gb(plan) == [pytest.approx(136.9, abs=0.05)]
    assert plan.held[0].memory == 160e9
    assert plan.kv_tokens > 20_000


def test_a_14b_model_is_split_unevenly_over_9_and_22_gb() -> None:
    plan = planned("p_vllm6824")
    small, big = (end - first for first, end in plan.services[0].intervals)
    assert small + big == 40
    assert 10 <= small <= 12
    for one in plan.held:
        assert one.weights + one.kv_tokens * 2 * 5120 * 2 < 0.9 * one.memory
        assert one.kv_tokens >= 2048


def test_consumer_cards_are_on_the_device_sheet() -> None:
    plan = planned("p_consumer")
    assert plan.machines == ("RTX4090", "RTX3090")
    assert [one.memory for one in plan.held] == [24e9, 24e9]
    runs = plan.services[0].intervals
    assert runs[0][1] - runs[0][0] > runs[1][1] - runs[1][0]  # the faster card has more layers


def test_heads_of_qwen3_32b_are_128_values_though_64_of_them_are_not_its_width() -> None:
    experiment = helix.load(CASES / "p_qwen3_32b.toml")
    shape = experiment.model.shape
    assert shape is not None
    assert 2 * shape.kv_size == 2 * 8 * 128 == 2048
    assert shape.layer_bytes == pytest.approx(975e6, rel=1e-3)
    assert planned("p_qwen3_32b").kv_tokens > 0


def test_weights_of_4_bits_have_keys_and_values_of_16() -> None:
    shape = helix.load(CASES / "p_int4.toml").model.shape
    assert shape is not None
    assert shape.layer_bytes == shape.parameters / 2
    assert shape.kv_bytes == 2 * shape.kv_size * 2
    limits = profile_of("p_int4", "A100-80GB").limits
    assert len(limits) == 64
    left = 72e9 - 64 * shape.layer_bytes
    assert limits[-1].kv_entries == int(left / (64 * shape.kv_bytes)) // 16 * 16 * 64
