"""Profiles of this machine: the schema that plans are made from, exact memory, real ranks."""

import msgspec
import pytest
import torch
from torch import nn

from common.errors import InputError
from metis.inputs.model import Model
from metis.inputs.profile import ProfileKey, read_profiles
from metis.run.measure import measure
from metis.run.measure import memory as memory_of
from metis.run.measure.layers import Setting, measure_rank
from metis.run.measure.measure import JOURNAL, Entry
from metis.run.measure.memory import MB, layer_memory
from metis.run.model import Place, build
from metis.run.parallel import TensorGroup

pytestmark = pytest.mark.timeout(300)

H, T, V, A = 8, 6, 11, 2
MODEL = Model(layers=5, hidden_size=H, sequence_length=T, vocabulary=V, heads=A, global_batch=4)
ALONE = Place(TensorGroup(None, 0, 1), 0, torch.float32, torch.device("cpu"))


def setting(**changes):
    """What `measure` tells a rank on its own, for batch sizes 1, 2, 4."""
    base = Setting(MODEL, 1, (1, 2, 4), "float32", False, None, warmups=1, repeats=2)
    return base._replace(**changes)


def measured_here(**changes):
    found = []
    measure_rank(0, found.append, setting(**changes))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Profiles of tp 1 and 2 on real ranks."""
    out = tmp_path_factory.mktemp("profile")
    seen = []
    options = {"warmups": 1, "repeats": 3, "on_file": seen.append, "timeout_s": 60}
    paths = measure(MODEL, out, device_type="cpu", tps=(1, 2), batch_sizes=(1, 2), **options)
    assert seen == paths
    return out


def test_files_are_valid_profiles_of_every_degree_and_batch_size(folder):
    profiles = read_profiles(folder, layers=5)
    assert list(profiles) == [ProfileKey("CPU", tp, bs) for tp in (1, 2) for bs in (1, 2)]
    for key in profiles:
        entry = profiles[key]
        assert min(entry.layer_ms) > 0
        assert min(entry.optimizer_ms, entry.batch_generator_ms, entry.sync_ms) > 0
        assert len(set(entry.memory_mb[1:4])) == 1


def test_parameters_are_those_of_whole_layers_whatever_the_degree(folder):
    profiles = read_profiles(folder, layers=5)
    counts = [
        sum(parameter.numel() for parameter in build(MODEL, layer, ALONE).parameters())
        for layer in range(5)
    ]
    assert counts[1] == 12 * H * H + 13 * H
    for key in profiles:
        assert profiles[key].parameters_bytes == tuple(4.0 * count for count in counts)


def test_two_ranks_need_less_memory_each_than_one(folder):
    profiles = read_profiles(folder, layers=5)
    for bs in (1, 2):
        alone, shared = (profiles[ProfileKey("CPU", tp, bs)].memory_mb for tp in (1, 2))
        for one, half in zip(alone, shared, strict=True):
            assert one / 2 < half < one


def test_journal_keeps_how_each_file_was_measured(folder):
    lines = (folder / JOURNAL).read_bytes().splitlines()
    entries = [msgspec.json.decode(line, type=Entry) for line in lines]
    assert [entry.file for entry in entries] == sorted(path.name for path in folder.glob("*.json"))
    assert {(entry.blocks_measured, len(entry.step_ms)) for entry in entries} == {(3, 3)}


def test_memory_of_a_linear_layer_is_exact():
    x = torch.zeros(3, 5, requires_grad=True)
    memory = layer_memory(nn.Linear(5, 7), x, None)
    weights = 5 * 7 + 7
    # weight, gradient and two moments; a step count for each of the two tensors
    assert memory.fixed == 4 * (4 * weights + 2)
    assert memory.activations == x.nbytes


def test_memory_of_embedding_and_head_is_exact():
    first, _, _, _, last = measured_here(batch_sizes=(2,))[0].memory_mb
    tokens = 2 * T
    kept = 8 * tokens + tokens  # row numbers, and whether the row is this rank's
    assert first * MB == 4 * (4 * (V + T) * H + 2) + kept
    norm = 2 * 4 * tokens * H + 2 * 4 * tokens  # input and output, mean and deviation
    loss = 4 * tokens * V + 8 * tokens + tokens  # softmax, label's column, whether it is here
    assert last * MB == 4 * (4 * (V * H + 2 * H) + 3) + norm + loss


def test_activations_grow_with_the_batch_and_weights_do_not():
    one, two, four = (found.memory_mb[1] for found in measured_here())
    assert four - two == pytest.approx(2 * (two - one))
    assert one - (two - one) == pytest.approx(4 * (4 * (12 * H * H + 13 * H) + 12) / MB)


def test_blocks_that_are_not_built_repeat_the_others():
    found = measured_here(batch_sizes=(1,), blocks=1)[0]
    assert found.blocks == 1
    assert len(found.layer_ms) == 5
    assert len(set(found.layer_ms[1:4])) == 1
    assert found.optimizer_ms > 0


def test_measuring_ends_before_the_batch_that_does_not_fit(monkeypatch):
    whole = measured_here(batch_sizes=(2,))[0]
    room = sum(whole.memory_mb) * MB / 0.8
    monkeypatch.setattr("metis.run.measure.layers.available_memory", lambda *_: room)
    found = measured_here()
    assert [(entry.bs, entry.blocks) for entry in found] == [(1, 3), (2, 3), (4, 2)]
    monkeypatch.setattr("metis.run.measure.layers.available_memory", lambda *_: room / 4)
    assert measured_here() == []


def test_available_memory_is_shared_out_to_the_ranks():
    cpu = torch.device("cpu")
    whole, half = (memory_of.available_memory(cpu, ranks) for ranks in (1, 2))
    assert half == pytest.approx(whole / 2, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device_type": "my gpu"}, "device type 'my gpu': expected letters, digits and _"),
        ({"tps": (3,)}, "tensor degree 3 does not divide the model's 2 heads"),
        ({"tps": ()}, r"tensor degrees \[\]: expected at least one"),
        ({"batch_sizes": (0, 1)}, r"batch sizes \[0, 1\]: expected at least one, each 1 or more"),
        ({"backend": "nccl", "tps": (2,)}, "tensor degree 2 needs 2 GPUs, but this machine has 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(changes, says, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=says):
        measure(MODEL, tmp_path, **{"device_type": "CPU", **changes})
    assert not list(tmp_path.iterdir())
