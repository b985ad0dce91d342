"""PPO alignment on GPUs."""

import pytest

from tests.gpu.conftest import Ask, Told

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
RUNS = {
    2: ("tiny-cpu-2",),
    4: ("tiny-cpu-4", "tiny-cpu-4-in-turn", "tiny-cpu-4-fused", "tiny-cpu-4-replicas"),
}


@pytest.fixture(scope="module")
def backend(cuda: bool) -> str:
    return "nccl" if cuda else "gloo"


def run(ask: Ask, name: str, backend: str, *changes: str) -> dict[str, float]:
    sets = [word for change in changes for word in ("--set", change)]
    return ask("puzzle", "run", name, "--backend", backend, *sets)


def test_one_step_equals_the_cpu(ask: Ask, told: Told, backend: str):
    """One step only: afterwards a last digit may draw another token."""
    cpu = run(ask, "tiny-cpu-1", "gloo", "running.steps=1")
    here = run(ask, "tiny-cpu-1", backend, "running.steps=1")
    for name in ("loss.actor", "loss.critic", "norm.actor", "norm.critic"):
        told(name, here[name], cpu[name])
        assert here[name] == pytest.approx(cpu[name], rel=1e-3, abs=1e-5)
    told("decode and prefill, s", here["generation.time"], cpu["generation.time"])


@pytest.mark.parametrize(("ranks", "name"), [(n, name) for n in RUNS for name in RUNS[n]])
def test_layouts_over_ranks_train_alike(
    ask: Ask, told: Told, backend: str, devices: int, ranks: int, name: str
):
    if devices < ranks:
        pytest.skip(f"needs {ranks} GPUs, {devices} are here")
    one = run(ask, "tiny-cpu-1", backend, "running.steps=1")
    here = run(ask, name, backend, "running.steps=1")
    told("switch, s", here["switch.time"])
    told("norm.actor", here["norm.actor"], one["norm.actor"])
    assert here["norm.actor"] == pytest.approx(one["norm.actor"], rel=1e-3)
    assert here.get("moved.puzzle.received") == here.get("moved.puzzle.planned")


def test_a_captured_decode_step_draws_the_same_answers(ask: Ask, told: Told, cuda: bool):
    if not cuda:
        pytest.skip("CUDA graphs have no CPU form")
    plain = run(ask, "tiny-cpu-1", "nccl", "running.steps=1")
    graphs = run(ask, "tiny-cpu-1", "nccl", "running.steps=1", "running.cuda_graphs=true")
    told("generation with CUDA graphs, s", graphs["generation.time"], plain["generation.time"])
    assert graphs["sequences.digest"] == plain["sequences.digest"]


def test_short_types_train(ask: Ask, told: Told, backend: str):
    exact = run(ask, "tiny-cpu-1", "gloo", "running.steps=1")
    short = run(ask, "tiny-cpu-1", backend, "running.steps=1", "running.dtype=bfloat16")
    told("norm.critic in bfloat16", short["norm.critic"], exact["norm.critic"])
    assert short["updates.skipped"] == 0


def test_this_machine_is_profiled(ask: Ask):
    ask("puzzle", "profile", "tiny-cpu-1", limit_s=290)
