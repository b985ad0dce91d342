"""Layouts, models and what each place holds."""

from collections.abc import Callable
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from puzzle.inputs.cluster import Cluster, Constants
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout, layers_per_stage, stage_layers
from puzzle.inputs.model import (
    Llama,
    check_layout,
    known_models,
    parameters,
    stage_of,
    tensors,
)
from puzzle.inputs.ppo import Optimizer, Ppo, Running
from puzzle.plan.plans import make_plan
from puzzle.plan.slices import held, held_elements

degrees = st.integers(1, 5)
layouts = st.builds(Layout, pipeline=degrees, tensor=degrees, data=degrees)


@given(layouts)
def test_rank_and_place_are_inverse_and_groups_share_out_all_ranks(layout: Layout):
    assert [layout.rank(place) for place in layout.places()] == list(range(layout.world))
    for groups, size in (
        (layout.tensor_groups(), layout.tensor),
        (layout.data_groups(), layout.data),
        (layout.pipeline_groups(), layout.pipeline),
        (layout.model_groups(), layout.pipeline * layout.tensor),
    ):
        assert {len(group) for group in groups} == {size}
        assert sorted(rank for group in groups for rank in group) == list(range(layout.world))


def test_tensor_is_fastest_then_data_then_pipeline():
    layout = Layout(pipeline=2, tensor=2, data=2)
    assert layout.tensor_groups() == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert layout.data_groups() == [(0, 2), (1, 3), (4, 6), (5, 7)]
    assert layout.pipeline_groups() == [(0, 4), (1, 5), (2, 6), (3, 7)]


@given(st.integers(1, 80), st.integers(1, 20))
def test_layers_are_shared_out_without_rest(layers: int, stages: int):
    if layers < stages:
        with pytest.raises(InputError, match="fewer stages"):
            layers_per_stage(layers, stages)
        return
    counts = layers_per_stage(layers, stages)
    assert sum(counts) == layers
    assert max(counts) - min(counts) <= 1
    assert [n for s in range(stages) for n in stage_layers(layers, stages, s)] == [*range(layers)]


def test_parameters_are_those_of_the_logs():
    models = known_models()
    sizes = {name: round(parameters(model) / 1e9, 3) for name, model in models.items()}
    assert sizes == {"7b": 6.738, "13b": 13.016, "33b": 34.669, "350m": 0.320}
    assert round(parameters(models["7b"], "critic") / 1e9, 3) == 6.607
    assert round(parameters(models["350m"], "critic") / 1e9, 3) == 0.304
    first = [t.size for t in tensors(models["7b"]) if stage_of(t, models["7b"], 16) == 0]
    assert sum(first) == 535_838_720


@given(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 4]))
def test_places_hold_every_weight_once_and_norms_in_every_slice(pipeline: int, tensor: int):
    model = Llama(layers=5, hidden=16, heads=4, ffn=8, vocabulary=12)
    layout = Layout(pipeline=pipeline, tensor=tensor)
    norms = sum(t.size for t in tensors(model) if t.axis is None)
    total = sum(
        held_elements(model, "actor", layout, stage, part)
        for stage in range(pipeline)
        for part in range(tensor)
    )
    assert total == parameters(model) + (tensor - 1) * norms
    names = [
        part.tensor.name
        for stage in range(pipeline)
        for part in held(model, "actor", layout, stage, 0)
    ]
    assert sorted(names) == sorted(t.name for t in tensors(model))


def test_a_layout_that_cannot_hold_the_model_is_refused_in_one_sentence():
    with pytest.raises(InputError, match="does not divide the model's heads"):
        check_layout(known_models()["7b"], Layout(tensor=3))
    grouped = Llama(layers=2, hidden=64, heads=8, kv_heads=2, ffn=64, vocabulary=64)
    with pytest.raises(InputError, match=r"does not divide the model's kv_heads \(2\)"):
        check_layout(grouped, Layout(tensor=4))


def test_grouped_keys_have_the_parameters_of_llama_3_8b_and_mistral_7b():
    """Published counts: 8 030 261 248 and 7 241 732 096."""
    llama = Llama(layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocabulary=128256)
    assert parameters(llama) == 8_030_261_248
    mistral = Llama(layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336)
    assert parameters(mistral) == 7_241_732_096
    for heads in (0, 3, 64):
        with pytest.raises(InputError, match="kv_heads is"):
            Llama(layers=1, hidden=64, heads=8, kv_heads=heads, ffn=8)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Constants(peak_tflops=0.0), "peak_tflops is 0.0, expected above 0"),
        (lambda: Constants(gather_gbps=-1.0), "gather_gbps is -1.0, expected above 0"),
        (lambda: Constants(loss_s=-0.1), "loss_s is -0.1, expected 0 or more"),
        (lambda: Constants(efficiency=nan), "efficiency is nan, expected above 0"),
        (lambda: Cluster(memory_gib=nan), "memory_gib is nan, expected above 0"),
        (lambda: Experiment(name="x", devices=33), "devices is 33, but the cluster has 32"),
        (lambda: Ppo(kl=nan), "kl is nan, expected 0 or more"),
        (lambda: Optimizer(rate=nan), "rate is nan, expected above 0"),
        (lambda: Optimizer(betas=(0.9, 1.0)), "betas are .*, expected 0 to below 1"),
        (lambda: Running(timeout_s=inf), "timeout_s is inf, expected above 0 and at most"),
        (lambda: Running(loss_scale=inf), "loss_scale and running.loss_scale_window"),
    ],
)
def test_numbers_that_nothing_can_be_computed_from_are_refused(
    made: Callable[[], object], message: str
):
    with pytest.raises(InputError, match=message):
        made()


def test_layouts_of_more_ranks_than_devices_are_refused():
    four = Choice(training=Layout(data=4), generation=Layout(data=4))
    with pytest.raises(InputError, match="p1t1d4 has 4 ranks, but devices is 2"):
        make_plan(Experiment(name="x", devices=2), "given", four)
