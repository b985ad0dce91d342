"""What is served takes no more memory than what was planned, or than there is."""

import asyncio

import pytest
from msgspec.structs import replace

from common.errors import InputError
from helix.inputs.experiment import KindSource, ProfileSource
from helix.inputs.model_source import ModelSource
from helix.run.deploy import Deployment, served_dtype
from helix.run.room import check_room
from tests.helix.local_fleet import SHAPE, answer, experiment, local, plan


def of(wanted: str = "", **model: object):
    asked = experiment(machines=1)
    return replace(asked, model=ModelSource(**model), serve=replace(asked.serve, dtype=wanted))


@pytest.mark.parametrize(
    ("wanted", "model", "served"),
    [
        ("", {"config": "Qwen3-32B"}, "bfloat16"),
        ("float16", {"config": "Qwen3-32B"}, "float16"),
        ("float32", {"config": "Qwen3-32B", "dtype": "fp32", "kv_dtype": "fp32"}, "float32"),
        ("", {"config": "Qwen3-32B", "dtype": "fp16", "kv_dtype": "fp16"}, "float16"),
        ("", {"name": "llama2_70b"}, "float16"),
        ("", {"layers": 6, "shape": SHAPE}, "float32"),
        ("bfloat16", {"layers": 6, "shape": SHAPE}, "bfloat16"),
        ("", {"layers": 6, "shape": replace(SHAPE, value_bytes=2)}, "bfloat16"),
    ],
)
def test_values_are_those_that_the_plan_counts(wanted, model, served):
    assert served_dtype(of(wanted, **model)) == served


@pytest.mark.parametrize(
    ("wanted", "model", "said"),
    [
        ("float32", {"config": "Qwen3-32B"}, "float32, of 4 bytes a value.*counts 2 for weights"),
        ("", {"config": "Qwen3-32B", "kv_dtype": "fp8"}, "bfloat16.*2 for weights and 1 for the"),
        ("", {"config": "Qwen3-32B", "quantization": "awq"}, "counts 0.5 for weights"),
        ("", {"layers": 6, "shape": replace(SHAPE, value_bytes=0.5)}, "counts 0.5 for weights"),
    ],
)
def test_what_would_take_more_is_refused(wanted, model, said):
    with pytest.raises(InputError, match=said):
        served_dtype(of(wanted, **model))


def test_sixteen_bits_pass_from_machine_to_machine():
    asked = experiment(machines=3)
    asked = replace(asked, model=replace(asked.model, shape=replace(SHAPE, value_bytes=2)))

    async def served(runs: tuple[tuple[int, int], ...]) -> list[int]:
        async with local(asked, plan(asked, runs)) as serving:
            assert serving.fleet.settings.dtype == "bfloat16"
            return await answer(serving, [5, 9, 200, 31, 7])

    whole = asyncio.run(served(((0, 6), (0, 6), (0, 6))))
    assert asyncio.run(served(((0, 2), (2, 4), (4, 6)))) == whole
    assert len(whole) == 12


def test_machines_of_this_computer_share_its_memory(monkeypatch):
    """23.5 GiB were asked for 60.3 without a word, until the system killed the workers."""
    asked = experiment(machines=2)
    deployment = Deployment(asked, plan(asked, ((0, 3), (3, 6))), 0)
    parts = deployment.parts(deployment.plan.services)
    check_room(deployment, parts)
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 0}
    entries = sum(part.limits.kv_entries for part in parts.values())
    # Two KV heads of 16 values, keys and values in 4 bytes; six layers; embedding and head.
    layer = 2 * 64 * 16 * (4 + 2) + 3 * 64 * 96
    need = 4 * (entries * 2 * 2 * 16 + 6 * layer + 2 * asked.serve.vocabulary * 64)
    monkeypatch.setattr("os.sysconf", lambda name: pages[name] or need)
    check_room(deployment, parts)
    monkeypatch.setattr("os.sysconf", lambda name: pages[name] or need - 1)
    with pytest.raises(InputError, match=r"2 machines are all on this computer.*memory_gb"):
        check_room(deployment, parts)


def test_a_kinds_own_memory_and_layers_hold_for_a_roofline_too():
    asked = replace(experiment(machines=1), model=ModelSource(config="Qwen3-32B"))

    def layers(**kind: float) -> int:
        kinds = {"fast": KindSource(gpu="H100", **kind)}
        profile = ProfileSource(source="roofline", kinds=kinds)
        return replace(asked, profile=profile)._analytic(["fast"])["fast"].max_layers

    assert layers() == 64
    assert 0 < layers(memory_gb=24) < 32
    assert layers(most_layers=7) == 7
    with pytest.raises(InputError, match=r"fast\.slower is for profile\.source 'here'"):
        layers(slower=2.0)
