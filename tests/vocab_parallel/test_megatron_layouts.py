"""What stages hold by Megatron's layouts and counts, beside what megatron-core gives them."""

import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from vocab_parallel.inputs.arguments import Given
from vocab_parallel.inputs.experiment import Experiment
from vocab_parallel.inputs.layout import given_stages, stage_layers
from vocab_parallel.inputs.megatron import read_megatron
from vocab_parallel.plan.plans import make_plan

SCRIPTS = Path(__file__).parent / "scripts"
needs_megatron = pytest.mark.skipif(
    find_spec("megatron") is None, reason="megatron-core is not installed"
)


@pytest.mark.parametrize(
    ("layout", "layers"),
    [
        ("Ettt|ttL", (3, 2)),
        ("E|t*4|L", (0, 4, 0)),
        ("E|(tt|)*3L", (0, 2, 2, 2, 0)),
        ("Et|*3tL", (1, 0, 0, 1)),
    ],
)
def test_layouts(layout: str, layers: tuple[int, ...]) -> None:
    assert stage_layers(layout, sum(layers), len(layers)) == (1, layers)
    assert stage_layers(layout, sum(layers), 1) == (len(layers), layers)


def test_virtual_stages_are_planned() -> None:
    for name, layers in (("virtual.sh", (2,) * 8), ("virtual_layout.sh", (4,) * 4)):
        found = read_megatron(Experiment(name="mega"), SCRIPTS / name)
        assert found.pipeline.virtual_stages == 2
        assert make_plan(found, "interleaved-vocab-2").layers == layers


@pytest.mark.parametrize(
    "layout",
    ["t|tL", "Et|t", "Emt|tL", "Et|t|L", "E|t|t|t|L", "EEt|tL", "Et*9999999|tL", "(t*9|)*99999"],
)
def test_layouts_that_are_none_are_refused(layout: str) -> None:
    with pytest.raises(InputError, match="layout"):
        stage_layers(layout, 2, 2)


@needs_megatron
@pytest.mark.slow
@pytest.mark.timeout(400)
@settings(deadline=None)
@given(
    layers=st.integers(1, 40),
    stages=st.integers(2, 8),
    first=st.none() | st.integers(1, 9),
    last=st.none() | st.integers(1, 9),
    embedding=st.booleans(),
    loss=st.booleans(),
    virtual=st.integers(1, 3),
)
def test_stages_hold_what_megatron_core_gives_them(
    layers: int,
    stages: int,
    first: int | None,
    last: int | None,
    embedding: bool,
    loss: bool,
    virtual: int,
) -> None:
    used = {
        "--decoder-first-pipeline-num-layers": first,
        "--decoder-last-pipeline-num-layers": last,
        "--account-for-embedding-in-pipeline-split": "" if embedding else None,
        "--account-for-loss-in-pipeline-split": "" if loss else None,
        "--num-virtual-stages-per-pipeline-rank": virtual if virtual > 1 else None,
    }
    asked = Given({name: str(value) for name, value in used.items() if value is not None})
    theirs = megatron_stages(layers, stages, first, last, embedding, loss, virtual)
    try:
        each = layers // stages // virtual
        ours = given_stages(asked, layers, stages).layers or (each,) * (stages * virtual)
    except InputError:
        ours = None
    assert ours == theirs


def megatron_stages(
    layers: int,
    stages: int,
    first: int | None,
    last: int | None,
    embedding: bool,
    loss: bool,
    virtual: int,
) -> tuple[int, ...] | None:
    """Return what megatron-core builds on every stage; None where it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels that it would take on a GPU
        from megatron.core.transformer.transformer_block import get_num_layers_to_build
        from megatron.core.transformer.transformer_config import TransformerConfig

        try:
            config = TransformerConfig(
                num_layers=layers,
                hidden_size=8,
                num_attention_heads=2,
                pipeline_model_parallel_size=stages,
                pipeline_dtype=torch.float32,
                num_layers_in_first_pipeline_stage=first,
                num_layers_in_last_pipeline_stage=last,
                account_for_embedding_in_pipeline_split=embedding,
                account_for_loss_in_pipeline_split=loss,
                virtual_pipeline_model_parallel_size=virtual if virtual > 1 else None,
            )
            return tuple(
                get_num_layers_to_build(config, chunk if virtual > 1 else None, rank)
                for chunk in range(virtual)
                for rank in range(stages)
            )
        except (AssertionError, ValueError):
            return None
